"""Loading from folders: every layout gives the same model, and what does not fit is refused."""

import json
import shutil

import numpy as np
import pytest
import torch

from dalle_flow.errors import WeightsError
from dalle_flow.models.clip import CLIP, CLIPConfig
from dalle_flow.models.dalle_bart import DalleBart, DalleBartConfig
from dalle_flow.models.vqgan import VQGAN, VQGANConfig
from dalle_flow.weights.files import load_clip, load_dalle_bart, load_ours, load_vqgan
from dalle_flow.weights.flax import read_flax
from dalle_flow.weights.ours import read_metadata, save_ours


@pytest.fixture
def dalle(parity):
    return parity / "dalle"


def same(model, other, names=None):
    states = model.state_dict(), other.state_dict()
    return all(torch.equal(states[0][name], states[1][name]) for name in names or states[0] | states[1])


def flax_arrays(folder):
    return {key: array.read() for key, array in read_flax(folder).items()}


def unscanned(arrays):
    flat = {}
    for key, array in arrays.items():
        if "Layers/" in key:
            flat |= {key.replace("Layers/", f"Layer_{i}/"): layer for i, layer in enumerate(array)}
        else:
            flat[key] = array
    return flat


def test_un_scanned_and_half_precision_give_the_same_model(dalle):
    a, b = (load_dalle_bart(dalle / name) for name in ("tiny_dalle_bart_mini", "tiny_dalle_bart_mini_unscanned_fp16"))
    assert a.config == b.config
    assert same(a, b)
    assert {p.dtype for p in a.parameters()} == {torch.float32}
    assert not a.training
    assert not any(p.requires_grad or p.is_meta for p in a.parameters())


@pytest.mark.parametrize("name", ["tiny_dalle_bart", "tiny_dalle_bart_mini"])
@pytest.mark.parametrize("form", ["unscanned", "bfloat16", "chunked", "sharded", "params"])
def test_every_form_of_a_flax_file_gives_the_same_model(dalle, flax, tmp_path, name, form):
    arrays = flax_arrays(dalle / name)
    shutil.copy(dalle / name / "config.json", tmp_path)
    if form == "unscanned":
        flax.write(unscanned(arrays))
    elif form == "bfloat16":
        arrays = {key: array.bfloat16() for key, array in arrays.items()}
        flax.write(arrays)
    elif form == "chunked":
        flax.write({key: flax.chunked(array.numpy(), 999) for key, array in arrays.items()})
    elif form == "params":
        flax.write({f"params/{key}": array for key, array in arrays.items()})
    else:
        shards: list[dict] = [{}, {}, {}]
        for i, (key, array) in enumerate(arrays.items()):
            shards[i % 3][key] = array
        names = [f"flax_model-{i + 1:05}-of-00003.msgpack" for i in range(3)]
        for file, shard in zip(names, shards, strict=True):
            flax.write(shard, name=file)
        where = {key: file for file, shard in zip(names, shards, strict=True) for key in shard}
        (tmp_path / "flax_model.msgpack.index.json").write_text(json.dumps({"weight_map": where}))
    wanted = load_dalle_bart(dalle / name, dtype=torch.bfloat16 if form == "bfloat16" else torch.float32)
    assert same(load_dalle_bart(tmp_path, dtype=None), wanted)


def test_min_dalle_gives_the_same_models_as_flax(dalle):
    wanted = load_dalle_bart(dalle / "tiny_dalle_bart")
    heads = {"encoder_attention_heads": 5, "decoder_attention_heads": 5}
    for path in ("tiny_min_dalle", "tiny_min_dalle/dalle_bart_mega", "tiny_min_dalle/dalle_bart_mega/decoder.pt"):
        model = load_dalle_bart(dalle / path, overrides={**heads, "decoder_start_token_id": 96})
        assert model.config == wanted.config
        assert same(model, wanted)
    assert load_dalle_bart(dalle / "tiny_min_dalle", overrides=heads).config.decoder_start_token_id == 127
    with pytest.raises(WeightsError, match="how many attention heads a model of width 40 has") as error:
        load_dalle_bart(dalle / "tiny_min_dalle")
    assert error.value.field == "encoder_attention_heads"


def test_min_dalle_with_a_config_beside_it_or_flat_as_on_the_hub(dalle, tmp_path):
    source = dalle / "tiny_min_dalle"
    for file in ("encoder", "decoder"):
        shutil.copy(source / "dalle_bart_mega" / f"{file}.pt", tmp_path / f"{file}_mini.pt")
    shutil.copy(source / "vqgan" / "detoker.pt", tmp_path)
    shutil.copy(dalle / "tiny_dalle_bart" / "config.json", tmp_path)
    assert same(load_dalle_bart(tmp_path), load_dalle_bart(dalle / "tiny_dalle_bart"))
    assert load_vqgan(tmp_path).config == load_vqgan(dalle / "tiny_vqgan").config
    for file in ("encoder", "decoder"):
        shutil.copy(tmp_path / f"{file}_mini.pt", tmp_path / f"{file}.pt")
    with pytest.raises(WeightsError, match=r"several DALL·E models; name one: .*encoder\.pt or .*encoder_mini\.pt"):
        load_dalle_bart(tmp_path)
    assert load_dalle_bart(tmp_path / "encoder_mini.pt").config.d_model == 40


def test_a_detokenizer_decodes_and_says_that_it_cannot_encode(dalle):
    whole, half = load_vqgan(dalle / "tiny_vqgan"), load_vqgan(dalle / "tiny_min_dalle")
    assert same(whole, half, half.state_dict())
    codes = torch.arange(16).reshape(1, 16)
    assert torch.equal(whole.decode_codes(codes), half.decode_codes(codes))
    with pytest.raises(WeightsError, match="not pictures into codes"):
        half.encode(torch.zeros(1, 3, 32, 32))


def test_overrides_are_strict_and_reach_the_config(dalle):
    path = dalle / "tiny_dalle_bart"
    assert load_dalle_bart(path, overrides={"decoder_start_token_id": 3}).config.decoder_start_token_id == 3
    for wrong in ({"decoder_start_token_id": 9999}, {"use_alibi": True}, {"encoder_layers": 4}, {"d_model": "large"}):
        with pytest.raises(WeightsError):
            load_dalle_bart(path, overrides=wrong)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lm_head/kernel": None}, r"missing: lm_head\.weight"),
        ({"lm_head/bias": np.zeros(97, np.float32)}, r"not known: lm_head\.bias"),
        ({"lm_head/kernel": np.zeros((97, 32), np.float32)}, r"lm_head\.weight is \[32, 97\], expected \[97, 32\]"),
        ({"lm_head/kernel": np.zeros((32, 97), np.int32)}, "lm_head/kernel is of type torch.int32"),
    ],
)
def test_weights_that_do_not_fit_are_refused_before_they_are_read(dalle, flax, tmp_path, change, message):
    source = dalle / "tiny_dalle_bart_mini"
    arrays = {key: array for key, array in (flax_arrays(source) | change).items() if array is not None}
    flax.write(arrays)
    shutil.copy(source / "config.json", tmp_path)
    with pytest.raises(WeightsError, match=message):
        load_dalle_bart(tmp_path)


def test_folders_without_weights_say_what_was_looked_for(dalle, tmp_path):
    for load in (load_dalle_bart, load_vqgan, load_clip):
        with pytest.raises(WeightsError, match=r"looked for model\.safetensors"):
            load(tmp_path)
        with pytest.raises(WeightsError, match="no such file or folder"):
            load(tmp_path / "absent")
    shutil.copy(dalle / "tiny_vqgan" / "flax_model.msgpack", tmp_path)
    with pytest.raises(WeightsError, match=r"no config\.json"):
        load_vqgan(tmp_path)
    with pytest.raises(WeightsError, match=r"DalleBartConfig: .*lacks d_model"):
        load_dalle_bart(dalle / "tiny_vqgan")
    with pytest.raises(WeightsError, match=r"VQGANConfig: .*lacks"):
        load_vqgan(dalle / "tiny_dalle_bart")


def tiny_models():
    torch.manual_seed(1)
    sizes = VQGANConfig(8, (1, 2), 1, (8,), resolution=16, z_channels=8, code_dim=6, num_codes=10, norm_groups=4)
    yield VQGAN(sizes), VQGANConfig
    yield DalleBart(DalleBartConfig(16, 1, 2, 2, 2, 24, 24, 50, 20, 8, 16, 20)), DalleBartConfig
    yield CLIP(CLIPConfig(16, 16, 8, 16, 1, 16, 2, 30, 9, head_width=8)), CLIPConfig


@pytest.mark.parametrize(("model", "config_class"), list(tiny_models()), ids=lambda value: type(value).__name__)
def test_our_own_layout_gives_back_what_was_saved(tmp_path, model, config_class):
    save_ours(model, tmp_path, source="sha256:1")
    again = load_ours(tmp_path, type(model), config_class)
    assert again.config == model.config
    assert same(again, model)
    assert read_metadata(tmp_path)["source"] == "sha256:1"
    save_ours(model, tmp_path, dtype=torch.bfloat16)  # over the first
    again = load_ours(tmp_path, type(model), config_class, dtype=None)
    assert all(torch.equal(b, a.bfloat16()) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


@pytest.mark.parametrize(("model", "config_class"), list(tiny_models()), ids=lambda value: type(value).__name__)
def test_8_bits_are_off_by_half_a_step_at_most(tmp_path, model, config_class):
    save_ours(model, tmp_path, int8=True, dtype=torch.float16)
    again = load_ours(tmp_path, type(model), config_class)
    for (name, a), b in zip(model.named_parameters(), again.parameters(), strict=True):
        assert b.dtype == torch.float32
        if a.ndim < 2:
            assert torch.equal(b, a.half().float()), name
        else:
            step = a.flatten(1).abs().amax(1) / 127
            off = (a - b).flatten(1).abs().amax(1)
            assert (off <= step * 0.5001).all(), name


def test_our_layout_refuses_another_model_format_or_config(tmp_path):
    (vqgan, _), (dalle, _), _ = tiny_models()
    save_ours(vqgan, tmp_path)
    with pytest.raises(WeightsError, match="holds a VQGAN, expected a DalleBart"):
        load_dalle_bart(tmp_path)
    config = tmp_path / "config.json"
    values = json.loads(config.read_text())
    config.write_text(json.dumps({**values, "n_embed": 11}))
    with pytest.raises(WeightsError, match=r"quantize\.embedding\.weight is \[10, 6\], expected \[11, 6\]"):
        load_vqgan(tmp_path)
    config.write_text("{")
    with pytest.raises(WeightsError, match="not JSON"):
        load_vqgan(tmp_path)
    save_ours(dalle, tmp_path)
    with pytest.raises(WeightsError, match=r"does not fit CLIPConfig: unknown: .*d_model"):
        load_ours(tmp_path, DalleBart, CLIPConfig)


def test_a_cut_safetensors_file_is_refused(tmp_path):
    (vqgan, _), *_ = tiny_models()
    save_ours(vqgan, tmp_path, int8=True)
    file = tmp_path / "model.safetensors"
    data = file.read_bytes()
    for size in (0, 5, 100, len(data) - 1):
        file.write_bytes(data[:size])
        with pytest.raises(WeightsError):
            load_vqgan(tmp_path)
    file.write_bytes(data.replace(b"quant_conv.weight.scale", b"quant_conv.weight.scalE"))
    with pytest.raises(WeightsError, match=r"quant_conv\.weight\.int8 has no"):
        load_vqgan(tmp_path)


def test_numbers_that_the_type_cannot_hold_are_refused(tmp_path):
    (vqgan, _), *_ = tiny_models()
    with torch.no_grad():
        vqgan.quant_conv.bias[0] = 1e6
    with pytest.raises(WeightsError, match=r"quant_conv\.bias holds 1e\+06, too large for float16; use bfloat16"):
        save_ours(vqgan, tmp_path, dtype=torch.float16)
    with torch.no_grad():
        vqgan.quant_conv.weight[0] = torch.nan
    with pytest.raises(WeightsError, match="NaN"):
        save_ours(vqgan, tmp_path, int8=True)
    assert list(tmp_path.iterdir()) == []
