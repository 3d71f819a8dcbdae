"""CompVis' names -> diffusers': every key of the real sizes is named once, and sizes are read off the shapes."""

import math

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from dalle_flow.errors import WeightsError
from dalle_flow.weights.files import on_meta
from dalle_flow.weights.ldm_layout import (
    KL_ATTENTION,
    KL_OUTSIDE,
    KL_RES_BLOCK,
    UNET_OUTSIDE,
    UNET_RES_BLOCK,
    KLSizes,
    UNetSizes,
    kl_names,
    kl_sizes,
    plan_kl,
    plan_unet,
    unet_names,
    unet_sizes,
)
from dalle_flow.weights.plan import check_plan, shapes_of

SD1 = UNetSizes((320, 640, 1280, 1280), (True, True, True, False), 2, 4, 4, 768, None, False)
SD1_INPAINT = UNetSizes((320, 640, 1280, 1280), (True, True, True, False), 2, 9, 4, 768, None, False)
GLID3 = UNetSizes((320, 640, 1280, 1280), (True, True, True, False), 2, 4, 4, 1280, 768, False)
SMALL = UNetSizes((8, 24), (False, True), 1, 5, 3, 7, 11, True)
ONE_LEVEL = UNetSizes((8,), (True,), 3, 4, 4, 6, None, False)
KL_F8 = KLSizes((128, 256, 512, 512), 2, 4, 3, 3)
KL_SMALL = KLSizes((8, 16, 24), 1, 6, 2, 5)


def unet_like(sizes, heads=8, groups=32):
    """Stored shapes by the original names: those of the real network, renamed by rules written here once more."""
    model = on_meta(lambda config: UNet2DConditionModel(**config), sizes.config(heads, groups))
    per_level = sizes.res_blocks + 1
    last = len(sizes.channels) - 1
    back = {name: key for key, name in UNET_RES_BLOCK.items()}
    outside = {name: key for key, name in UNET_OUTSIDE.items()}

    def original(name):
        module, _, leaf = name.rpartition(".")
        if module in outside:
            return f"{outside[module]}.{leaf}"
        block, *parts = name.split(".")
        if block == "mid_block":
            place = {"attentions": 1, "resnets": 2 * int(parts[1])}[parts[0]]
            prefix, kind, rest = f"middle_block.{place}", parts[0], parts[2:]
        else:
            level, kind, number, *rest = int(parts[0]), parts[1], int(parts[2]), *parts[3:]
            if kind == "downsamplers":
                return f"input_blocks.{(level + 1) * per_level}.0.op.{leaf}"
            if kind == "upsamplers":
                place = 1 + sizes.attention[last - level]
                return f"output_blocks.{level * per_level + sizes.res_blocks}.{place}.conv.{leaf}"
            side, at = ("input", 1) if block == "down_blocks" else ("output", 0)
            prefix = f"{side}_blocks.{at + level * per_level + number}.{int(kind == 'attentions')}"
        if kind == "resnets":
            rest = [back[".".join(rest[:-1])], leaf]
        return ".".join([prefix, *rest])

    shapes = shapes_of(model)
    return {original(name): shape for name, shape in shapes.items()}, shapes


def kl_like(sizes, groups=32):
    model = on_meta(lambda config: AutoencoderKL(**config), sizes.config(groups))
    levels = len(sizes.channels)
    outside = {name: key for key, name in KL_OUTSIDE.items()}
    res = {name: key for key, name in KL_RES_BLOCK.items()}
    attention = {name: key for key, name in KL_ATTENTION.items()}

    def original(name):
        module, _, leaf = name.rpartition(".")
        if module in outside:
            return f"{outside[module]}.{leaf}"
        half, block, *parts = name.split(".")
        if block == "mid_block":
            if parts[0] == "attentions":
                return f"{half}.mid.attn_1.{attention['.'.join(parts[2:-1])]}.{leaf}"
            return f"{half}.mid.block_{int(parts[1]) + 1}.{res[parts[2]]}.{leaf}"
        level = int(parts[0]) if half == "encoder" else levels - 1 - int(parts[0])
        level_name = f"{half}.{'down' if half == 'encoder' else 'up'}.{level}"
        if parts[1] == "resnets":
            return f"{level_name}.block.{parts[2]}.{res[parts[3]]}.{leaf}"
        return f"{level_name}.{parts[1].removesuffix('rs')}.conv.{leaf}"

    shapes = shapes_of(model)
    stored = {}
    for name, shape in shapes.items():
        key = original(name)
        stored[key] = (*shape, 1, 1) if ".attn_1." in key and len(shape) == 2 else shape
    return stored, shapes


class Kept:
    """A stored array of which only the shape is asked."""

    dtype = torch.float16

    def __init__(self, shape):
        self.shape = shape

    def read(self, layer=None):
        return torch.arange(math.prod(self.shape), dtype=torch.float32).view(self.shape)


def kept(shapes):
    return {key: Kept(shape) for key, shape in shapes.items()}


def count(shapes):
    return sum(math.prod(shape) for shape in shapes.values())


@pytest.mark.parametrize(
    ("sizes", "heads", "groups", "tensors", "parameters"),
    [
        (SD1, 8, 32, 686, 859_520_964),
        (SD1_INPAINT, 8, 32, 686, 859_535_364),
        (GLID3, 8, 32, 688, 873_284_804),
        (SMALL, 4, 4, 210, 126_915),
        (ONE_LEVEL, 2, 8, 316, 30_388),
    ],
    ids=["sd1", "sd1-inpainting", "glid3", "small", "one-level"],
)
def test_every_key_of_a_unet_is_used_and_sizes_are_read_off_them(sizes, heads, groups, tensors, parameters):
    stored, wanted = unet_like(sizes, heads, groups)
    assert (len(stored), count(stored)) == (tensors, parameters)
    assert unet_sizes("here", stored) == sizes
    check_plan("here", plan_unet(kept(stored)), stored, wanted)


@pytest.mark.parametrize(
    ("sizes", "groups", "tensors", "parameters"),
    [(KL_F8, 32, 248, 83_653_863), (KL_SMALL, 4, None, None)],
    ids=["kl-f8", "small"],
)
def test_every_key_of_an_autoencoder_is_used_and_sizes_are_read_off_them(sizes, groups, tensors, parameters):
    stored, wanted = kl_like(sizes, groups)
    if tensors:
        assert (len(stored), count(stored)) == (tensors, parameters)
    assert kl_sizes("here", stored) == sizes
    taken, plan = plan_kl(kept(stored))
    check_plan("here", plan, shapes_of(taken), wanted)


def test_attention_of_an_autoencoder_is_read_as_matrices():
    stored, _ = kl_like(KL_SMALL, 4)
    taken, plan = plan_kl(kept(stored))
    piece = plan["encoder.mid_block.attentions.0.to_q.weight"]
    assert piece.shape == (24, 24)
    assert torch.equal(piece.read(taken), torch.arange(24.0 * 24).view(24, 24).half())
    assert torch.equal(taken[piece.sources[0]].read(layer=1), torch.arange(24.0) + 24)
    assert plan["encoder.conv_in.weight"].shape == (8, 2, 3, 3)


def test_matrices_that_are_stored_as_such_stay_so():
    stored, wanted = kl_like(KL_SMALL, 4)
    stored = {key: shape[:2] if ".attn_1." in key else shape for key, shape in stored.items()}
    taken, plan = plan_kl(kept(stored))
    check_plan("here", plan, shapes_of(taken), wanted)


@pytest.mark.parametrize(
    "key",
    [
        "input_blocks.1.0.in_layers.1.weight",
        "input_blocks.3.0.op.weight",  # no place for it before the end of a level
        "input_blocks.1.2.norm.weight",
        "input_blocks.1000.0.op.weight",
        "input_blocks.x.0.op.weight",
        "middle_block.3.norm.weight",
        "output_blocks.1.1",
        "label_emb.0.0.weight",
        "time_embed.1.weight",
        "weight",
        "",
    ],
)
def test_names_of_other_unets_are_left_out(key):
    known, _ = unet_like(SMALL, 4, 4)
    assert unet_names([*known, key]).keys() == known.keys()


@pytest.mark.parametrize(
    "key",
    [
        "encoder.down.0.attn.0.q.weight",
        "encoder.down.0.block.0.temb_proj.weight",
        "encoder.mid.attn_2.q.weight",
        "encoder.mid.block_1.q.weight",
        "quantize.embedding.weight",
        "encoder.down.0.downsample.conv2.weight",
        "encoder.down.0.upsample.conv.weight",
        "",
    ],
)
def test_names_of_other_autoencoders_are_left_out(key):
    known, _ = kl_like(KL_SMALL, 4)
    assert kl_names([*known, key]).keys() == known.keys()


def test_the_decoder_counts_its_levels_from_the_other_end():
    names = kl_names(["decoder.up.0.block.0.conv1.weight", "decoder.up.3.upsample.conv.bias", "encoder.conv_in.bias"])
    assert names["decoder.up.0.block.0.conv1.weight"] == "decoder.up_blocks.3.resnets.0.conv1.weight"
    assert names["decoder.up.3.upsample.conv.bias"] == "decoder.up_blocks.0.upsamplers.0.conv.bias"


@pytest.mark.parametrize("gone", ["input_blocks.0.0.weight", "out.2.weight", "input_blocks.1.0.out_layers.3.weight"])
def test_a_unet_without_what_all_have_is_refused_by_name(gone):
    stored, _ = unet_like(SMALL, 4, 4)
    del stored[gone]
    with pytest.raises(WeightsError, match=f"has no {gone} .* no UNet"):
        unet_sizes("here", stored)


def test_what_is_no_network_of_this_kind_is_refused():
    with pytest.raises(WeightsError, match="no UNet of latent diffusion"):
        unet_sizes("here", {})
    with pytest.raises(WeightsError, match="no KL autoencoder of latent diffusion"):
        kl_sizes("here", {"encoder.down.0.block.0.conv1.weight": ()})
