"""Names of the originals -> ours, held against every key of the real checkpoints, on the meta device."""

import json

import pytest
import torch

from dalle_flow.errors import WeightsError
from dalle_flow.models.clip import CLIP, CLIPConfig
from dalle_flow.models.dalle_bart import DalleBart, DalleBartConfig
from dalle_flow.models.vqgan import VQGAN, VQGANConfig
from dalle_flow.weights import flax_layout, min_dalle
from dalle_flow.weights.files import on_meta, without_encoder
from dalle_flow.weights.openai_clip import plan_transformers
from dalle_flow.weights.plan import Piece, check_plan, shapes_of

ALIKE = {"bos_token_id": 7, "eos_token_id": 7, "pad_token_id": 7, "max_text_length": 64, "image_length": 256}
MEGA = {
    **ALIKE, "d_model": 2048, "encoder_layers": 24, "decoder_layers": 24, "encoder_attention_heads": 32,
    "decoder_attention_heads": 32, "encoder_ffn_dim": 4096, "decoder_ffn_dim": 4096, "encoder_vocab_size": 50272,
    "image_vocab_size": 16415, "decoder_start_token_id": 16384,
}  # fmt: skip
MINI = {
    **ALIKE, "d_model": 1024, "encoder_layers": 12, "decoder_layers": 12, "encoder_attention_heads": 16,
    "decoder_attention_heads": 16, "encoder_ffn_dim": 2730, "decoder_ffn_dim": 2730, "encoder_vocab_size": 50264,
    "image_vocab_size": 16384, "decoder_start_token_id": 16384,
}  # fmt: skip


@pytest.fixture
def real_keys(parity):
    file = parity / "dalle" / "real_checkpoint_keys.json"
    if not file.is_file():
        pytest.skip(f"no {file}")
    entries = json.loads(file.read_text())
    return lambda name: {key: tuple(shape) for key, shape in entries[name]["keys"].items()}


def count(shapes):
    return sum(torch.Size(shape).numel() for shape in shapes.values())


def unscanned(shapes):
    """The same model as its un-scanned export names it."""
    flat = {}
    for key, shape in shapes.items():
        if "Layers/" in key:
            flat |= {key.replace("Layers/", f"Layer_{i}/"): shape[1:] for i in range(shape[0])}
        else:
            flat[key] = shape
    return flat


@pytest.mark.parametrize(("name", "config"), [("mega", MEGA), ("mini", MINI)])
@pytest.mark.parametrize("scanned", [True, False], ids=["scanned", "un-scanned"])
def test_every_key_of_the_real_dalle_is_used_and_none_is_missing(real_keys, name, config, scanned):
    stored = real_keys(f"dalle-{name} flax_model.msgpack")
    stored = stored if scanned else unscanned(stored)
    model = on_meta(DalleBart, DalleBartConfig.from_dict(config))
    check_plan(name, flax_layout.plan_dalle_bart(stored), stored, shapes_of(model))
    assert count(shapes_of(model)) == count(stored)


def test_every_key_of_the_real_vqgan_is_used_and_none_is_missing(real_keys):
    stored = real_keys("vqgan_imagenet_f16_16384 flax_model.msgpack")
    check_plan("vqgan", flax_layout.plan_vqgan(stored), stored, shapes_of(on_meta(VQGAN, VQGANConfig())))


@pytest.mark.parametrize(("suffix", "config"), [("", MEGA), ("_mini", MINI)])
def test_every_key_of_the_real_min_dalle_is_used_and_sizes_are_read_off_them(real_keys, suffix, config):
    stored = {}
    for side in ("encoder", "decoder"):
        stored |= {f"{side}.{key}": shape for key, shape in real_keys(f"min-dalle {side}{suffix}.pt (float16)").items()}
    read = min_dalle.bart_config("here", stored, {})
    sizes = [key for key in config if key not in ("decoder_start_token_id", *ALIKE)]
    assert {key: read[key] for key in sizes} == {key: config[key] for key in sizes}
    plan = {key.replace("decoder.lm_head", "lm_head"): Piece((key,), shape) for key, shape in stored.items()}
    check_plan("here", plan, stored, shapes_of(on_meta(DalleBart, DalleBartConfig.from_dict(config))))


def test_every_key_of_the_real_detokenizer_is_used_and_sizes_are_read_off_them(real_keys):
    stored = real_keys("min-dalle detoker.pt (float32)")
    config = VQGANConfig.from_dict(min_dalle.detoker_config("here", stored))
    assert config == VQGANConfig()
    plan = {key.replace("embedding.", "quantize.embedding.", 1): Piece((key,), shape) for key, shape in stored.items()}
    check_plan("here", plan, stored, shapes_of(without_encoder(on_meta(VQGAN, config))))


def some_keys():
    side = "model/decoder/layers/FlaxBartDecoderLayers/"
    return {f"{side}LayerNorm_1/scale": (2, 8), f"{side}GLU_0/Dense_1/kernel": (2, 8, 16), "lm_head/kernel": (8, 9)}


def test_kernels_are_turned_and_layers_counted_from_the_keys():
    plan = flax_layout.plan_dalle_bart(some_keys())
    assert plan["decoder.layers.1.glu.fc1.weight"].shape == (16, 8)
    assert plan["decoder.layers.1.glu.fc1.weight"].layer == 1
    assert plan["lm_head.weight"].shape == (9, 8)
    assert len(plan) == 5
    assert flax_layout.plan_vqgan({"encoder/conv_in/kernel": (3, 5, 7, 9)})["encoder.conv_in.weight"].shape == (
        9,
        7,
        3,
        5,
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lm_head/kernel": None}, r"missing: lm_head\.weight"),
        ({"lm_head/bias": (9,)}, r"not known: lm_head\.bias"),
        ({"model/decoder/layers/FlaxBartDecoderLayers/GLU_0/Dense_7/kernel": (2, 8, 8)}, "not known: .*Dense_7"),
        ({"opt_state/mu": (1,)}, "not known: opt_state/mu"),
        ({"lm_head/kernel": (9, 9)}, r"of another shape: lm_head\.weight is \[9, 9\], expected \[9, 8\]"),
        ({"model/decoder/layers/FlaxBartDecoderLayers/LayerNorm_1/scale": (3, 8)}, r"layers\.2\.self_attn_layer_norm"),
        ({"model/decoder/layers/FlaxBartDecoderLayers/LayerNorm_1/scale": (10**9, 0)}, "at most 1024 layers"),
        ({f"extra/{i}": (1,) for i in range(50)}, "and 46 more"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(change, message):
    wanted = {name: piece.shape for name, piece in flax_layout.plan_dalle_bart(some_keys()).items()}
    stored = {key: shape for key, shape in (some_keys() | change).items() if shape is not None}
    with pytest.raises(WeightsError, match=message):
        check_plan("here", flax_layout.plan_dalle_bart(stored), stored, wanted)


def test_transformers_clip_without_one_of_q_k_v_is_refused():
    config = CLIPConfig(32, 32, 16, 64, 1, 64, 1, 50, 20)
    wanted = shapes_of(on_meta(CLIP, config))
    layer = "text_model.encoder.layers.0.self_attn."
    stored = {f"{layer}{part}_proj.weight": (64, 64) for part in "qk"}
    with pytest.raises(WeightsError, match=r"missing: .* not known: text_model"):
        check_plan("here", plan_transformers(stored), stored, wanted)
