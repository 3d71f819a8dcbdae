"""Finding, fetching, checking and reading weights.

`files.py` loads a model from a folder in any layout; what each layout is stands in its file:

    ours.py            config.json + model.safetensors      safetensors_file.py   the container, and 8 bits
    flax_layout.py     DALL·E Mini, Mega and their VQGAN    flax.py, flax_file.py the container
    min_dalle.py       kuprel/min-dalle                     torch_file.py, safe_pickle.py, pickle_values.py
    openai_clip.py     OpenAI's CLIP, and transformers'     the container, read as data: nothing in it runs

`plan.py` says how our tensors are cut out of any of them, `convert.py` rewrites any as ours, `index.py` knows the
published ones by name, `fetch.py` (with `hub.py`) gets and verifies them, `lock.py` notes their hashes.
"""
