"""CompVis' latent diffusion layout: names of the UNet and of the KL autoencoder there -> diffusers' names.

Source: CompVis/latent-diffusion and CompVis/stable-diffusion, `ldm/modules/diffusionmodules/`; GLID-3 XL has the same
names in files of their own. Both networks compute what diffusers' UNet2DConditionModel and AutoencoderKL compute, so
loading is renaming; the one change of shape is that the autoencoder's attention has 1x1 convolutions for matrices.

Sizes are read off the shapes. The number of heads and of norm groups shows in none: the caller says them.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import WeightsError
from .plan import Piece, Plan, Shape, Stored

UNET_OUTSIDE = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "clip_proj": "class_embedding",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}
UNET_MIDDLE = {"0": "resnets.0", "1": "attentions.0", "2": "resnets.1"}
UNET_RES_BLOCK = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
KL_OUTSIDE = {"quant_conv": "quant_conv", "post_quant_conv": "post_quant_conv"} | {
    f"{half}.{name}": f"{half}.{ours}"
    for half in ("encoder", "decoder")
    for name, ours in {"conv_in": "conv_in", "norm_out": "conv_norm_out", "conv_out": "conv_out"}.items()
}
KL_RES_BLOCK = {name: name for name in ("norm1", "conv1", "norm2", "conv2")} | {"nin_shortcut": "conv_shortcut"}
KL_ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
KL_MIDDLE = {"block_1": "resnets.0", "attn_1": "attentions.0", "block_2": "resnets.1"}

NUMBER = r"(\d{1,3})"
UNET_BLOCK = re.compile(rf"(input|output)_blocks\.{NUMBER}\.([0-2])\.(.+)")
KL_LEVEL = re.compile(rf"(encoder\.down|decoder\.up)\.{NUMBER}\.(?:block\.{NUMBER}\.(.+)|(down|up)sample\.conv\.\w+)")


@dataclass(frozen=True)
class UNetSizes:
    """What the shapes of a UNet tell."""

    channels: tuple[int, ...]  # of each level, finest first
    attention: tuple[bool, ...]  # which levels look at the text
    res_blocks: int  # per level going down; one more going up
    in_channels: int
    out_channels: int
    context_width: int  # of the text states
    clip_width: int | None  # of the CLIP vector; None: none is taken
    linear_projection: bool  # into and out of attention: matrices, or 1x1 convolutions as in version 1

    def config(self, heads: int, norm_groups: int) -> dict[str, Any]:
        """Arguments of diffusers' UNet2DConditionModel."""
        return {
            "in_channels": self.in_channels,
            "out_channels": self.out_channels,
            "block_out_channels": self.channels,
            "layers_per_block": self.res_blocks,
            "down_block_types": tuple("CrossAttnDownBlock2D" if a else "DownBlock2D" for a in self.attention),
            "up_block_types": tuple("CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(self.attention)),
            "cross_attention_dim": self.context_width,
            "attention_head_dim": heads,  # diffusers' name; it means the number of heads here
            "norm_num_groups": norm_groups,
            "use_linear_projection": self.linear_projection,
            "class_embed_type": None if self.clip_width is None else "simple_projection",
            "projection_class_embeddings_input_dim": self.clip_width,
        }


@dataclass(frozen=True)
class KLSizes:
    """What the shapes of a KL autoencoder tell."""

    channels: tuple[int, ...]  # of each level, finest first
    res_blocks: int  # per level of the encoder; one more in the decoder
    latent_channels: int
    in_channels: int
    out_channels: int

    def config(self, norm_groups: int) -> dict[str, Any]:
        """Arguments of diffusers' AutoencoderKL."""
        levels = len(self.channels)
        return {
            "in_channels": self.in_channels,
            "out_channels": self.out_channels,
            "down_block_types": ("DownEncoderBlock2D",) * levels,
            "up_block_types": ("UpDecoderBlock2D",) * levels,
            "block_out_channels": self.channels,
            "layers_per_block": self.res_blocks,
            "latent_channels": self.latent_channels,
            "norm_num_groups": norm_groups,
        }


def unet_names(keys: Iterable[str]) -> dict[str, str]:
    """Original key -> diffusers' key. Keys that are not known are left out; holding both sets together names them."""
    keys = list(keys)
    per_level = _blocks_per_level(keys)
    found = ((key, _unet_name(key, per_level)) for key in keys)
    return {key: name for key, name in found if name is not None}


def kl_names(keys: Iterable[str]) -> dict[str, str]:
    """Original key -> diffusers' key. Keys that are not known are left out."""
    keys = list(keys)
    levels = _highest(keys, rf"decoder\.up\.{NUMBER}\.") + 1
    found = ((key, _kl_name(key, levels)) for key in keys)
    return {key: name for key, name in found if name is not None}


def plan_unet(stored: Mapping[str, Stored]) -> Plan:
    """Where each of diffusers' UNet tensors is."""
    return {name: Piece((key,), stored[key].shape) for key, name in unet_names(stored).items()}


def plan_kl(stored: Mapping[str, Stored]) -> tuple[dict[str, Stored], Plan]:
    """The autoencoder's tensors with matrices where they are used as such, and where diffusers' are in them."""
    names = kl_names(stored)
    taken = {key: Matrix(item) if _is_1x1_matrix(names.get(key, ""), item) else item for key, item in stored.items()}
    return taken, {name: Piece((key,), taken[key].shape) for key, name in names.items()}


def unet_sizes(where: object, shapes: Mapping[str, Shape]) -> UNetSizes:
    """The sizes of a UNet by the original keys; WeightsError when a key is missing that every one has."""
    per_level = _blocks_per_level(shapes)
    levels = (_highest(shapes, rf"input_blocks\.{NUMBER}\.") + 1) // per_level
    first = [1 + level * per_level for level in range(levels)]  # the first res block of each level

    def size(key: str, axis: int) -> int:
        return _size(where, "UNet", shapes, key, axis)

    return UNetSizes(
        channels=tuple(size(f"input_blocks.{i}.0.out_layers.3.weight", 0) for i in first),
        attention=tuple(f"input_blocks.{i}.1.proj_in.weight" in shapes for i in first),
        res_blocks=per_level - 1,
        in_channels=size("input_blocks.0.0.weight", 1),
        out_channels=size("out.2.weight", 0),
        context_width=size("middle_block.1.transformer_blocks.0.attn2.to_k.weight", 1),
        clip_width=size("clip_proj.weight", 1) if "clip_proj.weight" in shapes else None,
        linear_projection=len(shapes.get("middle_block.1.proj_in.weight", ())) == 2,
    )


def kl_sizes(where: object, shapes: Mapping[str, Shape]) -> KLSizes:
    """The sizes of a KL autoencoder by the original keys; WeightsError when a key is missing that every one has."""

    def size(key: str, axis: int) -> int:
        return _size(where, "KL autoencoder", shapes, key, axis)

    levels = _highest(shapes, rf"encoder\.down\.{NUMBER}\.") + 1
    return KLSizes(
        channels=tuple(size(f"encoder.down.{level}.block.0.conv1.weight", 0) for level in range(levels)),
        res_blocks=_highest(shapes, rf"encoder\.down\.0\.block\.{NUMBER}\.") + 1,
        latent_channels=size("decoder.conv_in.weight", 1),
        in_channels=size("encoder.conv_in.weight", 1),
        out_channels=size("decoder.conv_out.weight", 0),
    )


@dataclass(frozen=True)
class Matrix:
    """A stored 1x1 convolution (D, D, 1, 1), read as the matrix (D, D) that it is."""

    stored: Stored

    @property
    def shape(self) -> Shape:
        return self.stored.shape[:2]

    @property
    def dtype(self) -> torch.dtype:
        return self.stored.dtype

    def read(self, layer: int | None = None) -> Tensor:
        tensor = self.stored.read().flatten(1)
        return tensor if layer is None else tensor[layer]


def _is_1x1_matrix(name: str, item: Stored) -> bool:
    return ".attentions." in name and name.endswith(".weight") and item.shape[2:] == (1, 1)


def _unet_name(key: str, per_level: int) -> str | None:
    module, _, leaf = key.rpartition(".")
    if module in UNET_OUTSIDE:
        return f"{UNET_OUTSIDE[module]}.{leaf}"
    if match := re.fullmatch(r"middle_block\.([0-2])\.(.+)", key):
        inside = match[2] if match[1] == "1" else _renamed(match[2], UNET_RES_BLOCK)
        return inside and f"mid_block.{UNET_MIDDLE[match[1]]}.{inside}"
    if not (match := UNET_BLOCK.fullmatch(key)):
        return None
    side, number, part, inside = match[1], int(match[2]), match[3], match[4]
    level, place = divmod(number - (side == "input"), per_level)
    block = f"{'down' if side == 'input' else 'up'}_blocks.{level}"
    if side == "input" and place == per_level - 1:
        return f"{block}.downsamplers.0.conv.{leaf}" if (part, inside) == ("0", f"op.{leaf}") else None
    if side == "output" and part != "0" and inside == f"conv.{leaf}":  # its place depends on whether there is attention
        return f"{block}.upsamplers.0.conv.{leaf}"
    if part == "0":
        renamed = _renamed(inside, UNET_RES_BLOCK)
        return renamed and f"{block}.resnets.{place}.{renamed}"
    return f"{block}.attentions.{place}.{inside}" if part == "1" else None


def _kl_name(key: str, levels: int) -> str | None:
    module, _, leaf = key.rpartition(".")
    if module in KL_OUTSIDE:
        return f"{KL_OUTSIDE[module]}.{leaf}"
    if match := re.fullmatch(r"(encoder|decoder)\.mid\.(block_1|attn_1|block_2)\.(.+)", key):
        inside = _renamed(match[3], KL_ATTENTION if match[2] == "attn_1" else KL_RES_BLOCK)
        return inside and f"{match[1]}.mid_block.{KL_MIDDLE[match[2]]}.{inside}"
    if not (match := KL_LEVEL.fullmatch(key)) or match[5] not in (None, match[1].rpartition(".")[2]):
        return None
    down, level = match[1] == "encoder.down", int(match[2])
    block = f"encoder.down_blocks.{level}" if down else f"decoder.up_blocks.{levels - 1 - level}"  # coarsest first
    if match[3] is None:
        return f"{block}.{'downsamplers' if down else 'upsamplers'}.0.conv.{leaf}"
    inside = _renamed(match[4], KL_RES_BLOCK)
    return inside and f"{block}.resnets.{match[3]}.{inside}"


def _renamed(inside: str, names: Mapping[str, str]) -> str | None:
    """`in_layers.0.weight` -> `norm1.weight`."""
    module, _, leaf = inside.rpartition(".")
    return f"{names[module]}.{leaf}" if module in names else None


def _blocks_per_level(keys: Iterable[str]) -> int:
    """Entries of `input_blocks` in a level: its res blocks and what makes the grid smaller."""
    keys = list(keys)
    shrinking = [int(m[1]) for key in keys if (m := re.fullmatch(rf"input_blocks\.{NUMBER}\.0\.op\.weight", key))]
    return max(1, min(shrinking, default=_highest(keys, rf"input_blocks\.{NUMBER}\.") + 1))


def _highest(keys: Iterable[str], pattern: str) -> int:
    """The largest number that a pattern finds at the beginning of a key; -1 where it finds none."""
    return max((int(match[1]) for key in keys if (match := re.match(pattern, key))), default=-1)


def _size(where: object, what: str, shapes: Mapping[str, Shape], key: str, axis: int) -> int:
    shape = shapes.get(key, ())
    if axis >= len(shape):
        raise WeightsError(f"{where}: has no {key} of {axis + 1} axes or more, so it is no {what} of latent diffusion.")
    return shape[axis]
