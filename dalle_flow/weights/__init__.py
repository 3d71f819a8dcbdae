"""Finding, fetching, checking and reading weights.

`files.py` loads a model from a folder in any layout; what each layout is stands in its file:

    ours.py            config.json + model.safetensors      safetensors_file.py   the container, and 8 bits
    flax_layout.py     DALL·E Mini, Mega and their VQGAN    flax.py, flax_file.py the container
    min_dalle.py       kuprel/min-dalle                     torch_file.py, safe_pickle.py, pickle_values.py
    openai_clip.py     OpenAI's CLIP, and transformers'     the container, read as data: nothing in it runs
    ldm_layout.py      latent diffusion's names: glid3.py, stable_diffusion.py; diffusers_folder.py
    upscale.py         SwinIR, RRDB, SRVGG                  clipseg.py            CLIPSeg
    transformers_folder.py                                  folders with config.json, of SigLIP and others

`plan.py` says how our tensors are cut out of any of them, `convert.py` rewrites any as ours, `index.py` knows the
published ones by name, `fetch.py` gets and verifies them (`sources.py`: from the hub with `hub.py`, from anywhere else
with `https.py`, out of archives with `archive.py`), `lock.py` notes their hashes.
"""
