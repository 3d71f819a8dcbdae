"""CLIPSeg without files: names and number of the published parameters, configs, shapes, refusals."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from dalle_flow.models.clip import CLIPConfig
from dalle_flow.models.clipseg import VIT_B_16, CLIPSeg, CLIPSegConfig, to_pixels
from dalle_flow.weights.files import load_ours
from dalle_flow.weights.ours import save_ours

CLIP = CLIPConfig(
    embed_dim=12, image_size=20, patch_size=4, vision_width=16, vision_layers=4, text_width=24, text_layers=1,
    vocab_size=50, context_length=9, head_width=8,
)  # fmt: skip
TINY = CLIPSegConfig(
    clip=CLIP, reduce_dim=6, heads=2, mlp_width=10, extract_layers=(-1, 1, 2), condition_layer=1, kernels=(4,),
    input_size=28,
)  # fmt: skip
TOKENS = torch.tensor([[48, 3, 7, 49, 0], [48, 5, 49, 0, 0], [48, 1, 1, 1, 49]])


@pytest.fixture
def tiny() -> CLIPSeg:
    torch.manual_seed(3)
    return CLIPSeg(TINY).eval().requires_grad_(False)


def shapes_of(model: torch.nn.Module) -> dict[str, Sequence[int]]:
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize(("kernels", "parameters"), [((16,), 1_073_153), ((4, 4), 1_127_009)])
def test_published_decoders_have_their_parameters(kernels: tuple[int, ...], parameters: int) -> None:
    """Without `reduce`, 49,216 of them, which is never called."""
    with torch.device("meta"):
        model = CLIPSeg(CLIPSegConfig(kernels=kernels))
    decoder = {name: shape for name, shape in shapes_of(model).items() if not name.startswith("clip.")}
    assert sum(torch.Size(shape).numel() for shape in decoder.values()) == parameters
    assert CLIPSegConfig.from_state_dict(decoder, VIT_B_16) == model.config


def test_names_are_the_references() -> None:
    with torch.device("meta"):
        plain, refined = set(CLIPSeg(TINY).state_dict()), set(CLIPSeg(replace(TINY, kernels=(2, 2))).state_dict())
    decoder = {name for name in plain if not name.startswith("clip.")}
    block = (
        *("self_attn.in_proj_weight", "self_attn.in_proj_bias", "self_attn.out_proj.weight", "self_attn.out_proj.bias"),
        *("linear1.weight", "linear1.bias", "linear2.weight", "linear2.bias"),
        *("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias"),
    )
    once = ("film_mul", "film_add", "trans_conv", *(f"reduces.{i}" for i in range(3)))
    assert decoder == {f"blocks.{i}.{name}" for i in range(3) for name in block} | {
        f"{name}.{leaf}" for name in once for leaf in ("weight", "bias")
    }
    assert {f"trans_conv.{i}.weight" for i in (0, 2, 4)} <= refined
    assert "clip.visual.conv1.weight" in plain


def test_a_block_is_torchs_with_its_defaults(tiny: CLIPSeg) -> None:
    torch.manual_seed(0)
    theirs = torch.nn.TransformerEncoderLayer(6, 2, 10).eval()
    theirs.load_state_dict(tiny.blocks[0].state_dict())
    x = torch.randn(3, 7, 6)  # (B, tokens, R); theirs wants (tokens, B, R)
    torch.testing.assert_close(tiny.blocks[0](x), theirs(x.transpose(0, 1)).transpose(0, 1), atol=1e-6, rtol=0)


@pytest.mark.parametrize("kernels", [(4,), (2, 2), (1, 4)])
@pytest.mark.parametrize("side", [4, 20, 28])
def test_logits_are_as_large_as_the_input(kernels: tuple[int, ...], side: int) -> None:
    torch.manual_seed(0)
    model = CLIPSeg(replace(TINY, kernels=kernels))
    assert model(torch.randn(3, 3, side, side), TOKENS).shape == (3, side, side)


def test_a_picture_is_the_same_alone_and_in_a_batch_and_with_one_text_for_all(tiny: CLIPSeg) -> None:
    torch.manual_seed(0)
    pixels = torch.randn(5, 3, 28, 28)
    together = tiny(pixels, TOKENS[:1])
    for i in range(5):
        torch.testing.assert_close(tiny(pixels[i : i + 1], TOKENS[:1])[0], together[i], atol=1e-5, rtol=0)
    torch.testing.assert_close(tiny(pixels, TOKENS[:1].expand(5, -1)), together, atol=1e-5, rtol=0)


def test_text_and_picture_both_matter(tiny: CLIPSeg) -> None:
    torch.manual_seed(0)
    pixels = torch.randn(1, 3, 20, 20)
    first = tiny(pixels, TOKENS[:1])
    assert (tiny(pixels, TOKENS[1:2]) - first).abs().max() > 1e-4
    assert (tiny(pixels.flip(3), TOKENS[:1]) - first).abs().max() > 1e-4


def test_minus_one_is_what_the_first_block_reads(tiny: CLIPSeg) -> None:
    pixels = torch.randn(2, 3, 20, 20)
    found = tiny.activations(pixels)
    assert [states.shape for states in found] == [(2, 26, 16)] * 3
    assert torch.equal(found[0], tiny.clip.visual.embed(pixels))
    again = tiny.clip.visual.transformer.resblocks[1](tiny.clip.visual.transformer.resblocks[0](found[0]))
    assert torch.equal(found[1], again)


def test_the_blocks_that_nothing_reads_do_not_matter(tiny: CLIPSeg) -> None:
    pixels = torch.randn(2, 3, 20, 20)
    before = tiny(pixels, TOKENS[:1])
    tiny.clip.visual.transformer.resblocks[3].mlp.c_fc.weight.fill_(9)
    assert torch.equal(tiny(pixels, TOKENS[:1]), before)


@pytest.mark.parametrize("shape", [(1, 3, 20, 24), (1, 3, 21, 21), (1, 1, 20, 20), (3, 20, 20), (1, 3, 0, 0)])
def test_refuses_pixels_of_other_shapes(tiny: CLIPSeg, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="pixels must be"):
        tiny(torch.zeros(shape), TOKENS[:1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"extract_layers": ()}, "extract_layers must rise"),
        ({"extract_layers": (1, 1)}, "extract_layers must rise"),
        ({"extract_layers": (2, 1)}, "extract_layers must rise"),
        ({"extract_layers": (-2, 1)}, "extract_layers must rise"),
        ({"extract_layers": (1, 4)}, "at most 3"),
        ({"extract_layers": (1, 2.0)}, r"extract_layers\[1\] must be a whole number"),
        ({"condition_layer": 3}, "condition_layer must be 0 to 2"),
        ({"heads": 4}, "4 heads do not divide a reduce_dim of 6"),
        ({"heads": "2"}, "heads must be a whole number, got '2'"),
        ({"heads": True}, "heads must be a whole number"),
        ({"kernels": (3,)}, "product is the patch, 4"),
        ({"kernels": (2, 2, 1)}, "product is the patch, 4"),
        ({"input_size": 30}, "input_size 30 is not a multiple"),
        ({"std": (1, 0, 1)}, "none of them 0"),
        ({"mean": (1, 0)}, "mean must be three numbers"),
    ],
)
def test_refuses_other_configs(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(TINY, **change)


def test_a_config_survives_json() -> None:
    assert CLIPSegConfig.from_dict(json.loads(json.dumps(TINY.to_dict()))) == TINY
    with pytest.raises(ValueError, match=r"unknown: clip\.width; allowed"):
        CLIPSegConfig.from_dict({"clip": {"width": 3}})
    with pytest.raises(ValueError, match="unknown: depth; allowed"):
        CLIPSegConfig.from_dict({"depth": 3})
    with pytest.raises(ValueError, match="must be a table"):
        CLIPSegConfig.from_dict({"clip": 3})


@pytest.mark.parametrize("int8", [False, True])
def test_saved_and_loaded_it_is_the_same(tiny: CLIPSeg, tmp_path: Path, int8: bool) -> None:
    save_ours(tiny, tmp_path, int8=int8)
    again = load_ours(tmp_path, CLIPSeg, CLIPSegConfig)
    assert again.config == tiny.config
    pixels = torch.randn(1, 3, 28, 28)
    torch.testing.assert_close(again(pixels, TOKENS[:1]), tiny(pixels, TOKENS[:1]), atol=0.1 if int8 else 1e-6, rtol=0)


def test_other_weights_are_not_a_decoder() -> None:
    with pytest.raises(ValueError, match=r"no key 'trans_conv\.2\.weight'|no key 'film_mul"):
        CLIPSegConfig.from_state_dict({"conv.weight": (3, 3)}, CLIP)


def test_pixels_are_normalised_and_any_size_fits() -> None:
    config = replace(TINY, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    for shape in ((1, 3, 28, 28), (2, 3, 1, 90), (1, 3, 33, 5), (1, 3, 1, 1)):
        pixels = to_pixels(torch.full(shape, 0.75), config)
        assert pixels.shape == (shape[0], 3, 28, 28)
        torch.testing.assert_close(pixels, torch.ones_like(pixels), atol=1e-6, rtol=0)
    assert to_pixels(torch.rand(1, 3, 7, 9), config, 8).shape == (1, 3, 8, 8)
    white = to_pixels(torch.ones(1, 3, 2, 2), CLIPSegConfig())
    torch.testing.assert_close(white[0, :, 0, 0], torch.tensor([2.2489, 2.4286, 2.64]), atol=1e-4, rtol=0)


def test_resizing_is_bilinear_and_never_antialiased() -> None:
    """As the original's: PIL's would mix more pixels."""
    picture = torch.zeros(1, 3, 12, 12)
    picture[..., ::3] = 1
    config = replace(TINY, mean=(0, 0, 0), std=(1, 1, 1))
    found = to_pixels(picture, config, 4)[0, 0, 0]  # reads columns 1, 4, 7, 10 of 0, 3, 6, 9
    assert torch.equal(found, torch.zeros(4))
    image = Image.fromarray((picture[0, 0].numpy() * 255).astype("uint8")).resize((4, 4), Image.Resampling.BILINEAR)
    assert image.getextrema()[0] > 0
