"""CLIP from OpenAI's archives, plain state dicts and transformers folders: the same tensors under the same names."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from dalle_flow.errors import WeightsError
from dalle_flow.models.clip import CLIP, CLIPConfig
from dalle_flow.weights.files import load_clip
from dalle_flow.weights.torch_file import TORCHSCRIPT, read_torch

CONFIG = CLIPConfig(24, 32, 8, 48, 2, 32, 2, 99, 20, head_width=8, vision_head_width=16)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return CLIP(CONFIG).eval().requires_grad_(False)


def to_transformers(state):
    """The other way round from the loader, written independently: our names -> transformers'."""
    out = {}
    for name, tensor in state.items():
        tower = "vision_model" if name.startswith("visual.") else "text_model"
        rest = name.removeprefix("visual.")
        if rest.startswith("transformer.resblocks."):
            _, _, number, part = rest.split(".", 3)
            place = f"{tower}.encoder.layers.{number}."
            if part.startswith("attn.in_proj_"):
                for third, rows in zip("qkv", tensor.chunk(3), strict=True):
                    out[f"{place}self_attn.{third}_proj.{part.removeprefix('attn.in_proj_')}"] = rows.clone()
                continue
            for ours, theirs in (("attn.", "self_attn."), ("ln_", "layer_norm"), ("c_fc", "fc1"), ("c_proj", "fc2")):
                part = part.replace(ours, theirs)
            out[place + part] = tensor
        else:
            theirs = {
                "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
                "ln_final.weight": "text_model.final_layer_norm.weight",
                "ln_final.bias": "text_model.final_layer_norm.bias",
                "class_embedding": "vision_model.embeddings.class_embedding",
                "conv1.weight": "vision_model.embeddings.patch_embedding.weight",
                "positional_embedding": f"{tower}.embeddings.position_embedding.weight",
                "ln_pre.weight": "vision_model.pre_layrnorm.weight",
                "ln_pre.bias": "vision_model.pre_layrnorm.bias",
                "ln_post.weight": "vision_model.post_layernorm.weight",
                "ln_post.bias": "vision_model.post_layernorm.bias",
                "text_projection": "text_projection.weight",
                "proj": "visual_projection.weight",
                "logit_scale": "logit_scale",
            }[rest]
            out[theirs] = tensor.T.contiguous() if theirs.endswith("_projection.weight") else tensor
    return out


def hf_config(**more):
    return {
        "model_type": "clip",
        "text_config": {"hidden_size": 32, "num_attention_heads": 4, "eos_token_id": 2, **more},
        "vision_config": {"hidden_size": 48, "num_attention_heads": 3},
    }


def same(a, b):
    return a.config == b.config and all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


def test_openais_archive_gives_the_references_features(parity):
    folder = parity / "clip"
    clip = load_clip(folder / "ViT-tiny.jit.pt")
    reference = load_file(folder / "reference.safetensors")
    assert torch.allclose(clip.encode_image(reference["pixel_values"]), reference["image_features"], atol=2e-5)
    assert torch.allclose(clip.encode_text(reference["input_ids"].long()), reference["text_features"], atol=2e-5)
    described = json.loads((folder / "meta.json").read_text())["state_dict"]
    stored = read_torch(folder / "ViT-tiny.jit.pt", TORCHSCRIPT)
    assert {name: [list(t.shape), str(t.dtype)] for name, t in stored.items() if name in described} == described


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_plain_state_dict_and_a_folder_with_one_file(tmp_path, wrapped):
    config = CLIPConfig(24, 32, 8, 64, 1, 64, 2, 99, 20)  # heads as OpenAI's: the file does not say
    model = CLIP(config)
    state = {**model.state_dict(), "input_resolution": torch.tensor(32)}
    torch.save({"state_dict": state, "epoch": 3} if wrapped else state, tmp_path / "clip.pt")
    for path in (tmp_path, tmp_path / "clip.pt"):
        loaded = load_clip(path)
        assert loaded.config.vision_layers == 1
        assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), model.parameters(), strict=True))


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_a_transformers_folder(tmp_path, model, file):
    state = {**to_transformers(model.state_dict()), "text_model.embeddings.position_ids": torch.arange(20)[None]}
    (save_file if file.endswith("safetensors") else torch.save)(state, tmp_path / file)
    (tmp_path / "config.json").write_text(json.dumps(hf_config()))
    loaded = load_clip(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), model.parameters(), strict=True))
    pixels, tokens = torch.rand(5, 3, 32, 32), torch.randint(99, (6, 17))
    assert torch.equal(loaded(pixels, tokens)[0], model(pixels, tokens)[0])

    (tmp_path / "config.json").write_text(json.dumps(hf_config(eos_token_id=98)))
    assert load_clip(tmp_path).config.eot_token_id == 98


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (hf_config(hidden_act="relu"), "hidden_act is .*relu"),
        (hf_config(num_attention_heads=5), "5 attention heads do not divide a width of 32"),
        ({"model_type": "clip", "text_config": "x"}, "do not divide|does not fit|multiple"),
    ],
)
def test_a_transformers_folder_of_another_network_is_refused(tmp_path, model, config, message):
    save_file(to_transformers(model.state_dict()), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match=message):
        load_clip(tmp_path)


def test_wrong_clip_files_are_refused(tmp_path, model):
    (tmp_path / "config.json").write_text(json.dumps(hf_config()))
    with pytest.raises(WeightsError, match=r"neither model\.safetensors nor pytorch_model\.bin"):
        load_clip(tmp_path)
    state = to_transformers(model.state_dict())
    save_file({**state, "text_model.extra": torch.ones(1)}, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match=r"not known: text_model\.extra"):
        load_clip(tmp_path)
    torch.save({"weight": torch.ones(3)}, tmp_path / "other.pt")
    with pytest.raises(WeightsError, match="not the weights of a CLIP"):
        load_clip(tmp_path / "other.pt")
    torch.save({"visual.layer1.0.conv1.weight": torch.ones(3)}, tmp_path / "resnet.pt")
    with pytest.raises(WeightsError, match="ResNet"):
        load_clip(tmp_path / "resnet.pt")
