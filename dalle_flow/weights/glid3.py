"""GLID-3 XL's four files, and the embedded family's folders of the same models: UNet, text encoder, autoencoder.

| role | published file | ours |
| --- | --- | --- |
| UNet | finetune.pt, inpaint.pt, diffusion.pt: a flat state dict | folder of a LatentUNet |
| text encoder | bert.pt: a flat state dict | folder of a LatentTextEncoder |
| autoencoder | kl-f8.pt: a pickled module, read as data and never run; or its state dict | folder of a VQGAN |

A .safetensors file with the same names will do for each. The number of heads and of norm groups shows in no shape:
where the file stands beside a `NAME.json` (finetune.json beside finetune.pt) they are read from there, otherwise they
are the published ones.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..errors import WeightsError
from ..models.latent_codec import KLCodec, LatentCodec, VQCodec
from ..models.latent_text import LatentTextConfig, LatentTextEncoder
from ..models.latent_unet import LatentUNet, LatentUNetConfig
from .disk import read_json
from .files import Checkpoint, Device, NoInit, checked, load_vqgan, on_meta, open_ours
from .ldm_layout import kl_sizes, plan_kl, plan_unet, unet_sizes
from .ours import is_ours
from .plan import Piece, Stored, shapes_of
from .safetensors_file import read_safetensors
from .torch_file import read_torch

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

PICKLED_MODULE = (
    "ldm.",
    "torch.nn.modules.",
    "taming.",
    "pytorch_lightning.",
)  # classes whose tensors are read as data
KL_NORM_GROUPS = 32
TRAINING_ONLY = ("loss.",)  # of the autoencoder: discriminator and perceptual loss
UNUSED_TEXT = ("transformer.to_logits.weight", "transformer.to_logits.bias")  # the masked-word head
SUPER_RESOLUTION = "external_block.0.0.weight"  # a GLID-3 XL variant that enlarges; not this model

TEXT_OUTSIDE = {
    "transformer.token_emb.weight": "token_embedding.weight",
    "transformer.pos_emb.emb.weight": "position_embedding.weight",
    "transformer.norm.weight": "final_norm.weight",
    "transformer.norm.bias": "final_norm.bias",
}
TEXT_ATTENTION = {"0": "attn_norm", "1.to_q": "attn.q_proj", "1.to_k": "attn.k_proj", "1.to_v": "attn.v_proj"} | {
    "1.to_out": "attn.out_proj"
}
TEXT_MLP = {"0": "mlp_norm", "1.net.0.0": "fc1", "1.net.2": "fc2"}
TEXT_LAYER = re.compile(r"transformer\.attn_layers\.layers\.(\d{1,3})\.(.+)\.(weight|bias)")


def load_latent_unet(
    path: Path, *, dtype: torch.dtype | None = torch.float32, device: Device = "cpu", **sizes: int
) -> LatentUNet:
    """A UNet in either layout; `sizes` are `heads` and `norm_groups`, which no shape tells.

    Raises:
        WeightsError: there is none, it is another model, or it is damaged.
    """
    return open_latent_unet(path, **sizes).load(dtype, device)


def load_latent_text(
    path: Path, *, dtype: torch.dtype | None = torch.float32, device: Device = "cpu"
) -> LatentTextEncoder:
    """A text encoder in either layout. WeightsError: there is none, it is another model, or it is damaged."""
    return open_latent_text(path).load(dtype, device)


def load_latent_codec(
    path: Path, *, dtype: torch.dtype | None = torch.float32, device: Device = "cpu", norm_groups: int | None = None
) -> LatentCodec:
    """An autoencoder: kl-f8.pt, its state dict, or a folder with a VQGAN of ours.

    Raises:
        WeightsError: there is none, it is another model, or it is damaged.
    """
    if path.is_dir():
        return VQCodec(load_vqgan(path, dtype=dtype, device=device)).eval()
    return KLCodec(open_kl(path, norm_groups=norm_groups).load(dtype, device))


def open_latent_unet(path: Path, **sizes: int) -> Checkpoint[LatentUNet]:
    """As `load_latent_unet`, without reading the weights."""
    if path.is_dir() and is_ours(path):
        return open_ours(path, LatentUNet, LatentUNetConfig)
    stored = _stored(path, "UNet")
    shapes = shapes_of(stored)
    if SUPER_RESOLUTION in shapes:
        raise WeightsError(f"{path}: this is GLID-3 XL's super-resolution UNet; give finetune.pt or inpaint.pt.")
    found = unet_sizes(path, shapes)
    if found.in_channels not in (found.out_channels, 2 * found.out_channels):
        raise WeightsError(
            f"{path}: its first layer takes {found.in_channels} channels, a UNet of GLID-3 XL {found.out_channels} or "
            f"{2 * found.out_channels}; weights of Stable Diffusion are for the executor 'stable'"
        )
    config = LatentUNetConfig(
        channels=found.channels,
        attention=found.attention,
        res_blocks=found.res_blocks,
        context_width=found.context_width,
        clip_width=found.clip_width,
        sees_picture=found.in_channels != found.out_channels,
        latent_channels=found.out_channels,
    )
    config = replace(config, **_beside(path, ("heads", "norm_groups"), sizes))  # type: ignore[arg-type]
    _check_divides(path, config.norm_groups, config.channels, "norm_groups")
    _check_divides(path, config.heads, config.channels, "heads")
    plan = {f"unet.{name}": piece for name, piece in plan_unet(stored).items()}
    return checked(path, Checkpoint("glid3", on_meta(LatentUNet, config), stored, plan, (path,)))


def open_latent_text(path: Path) -> Checkpoint[LatentTextEncoder]:
    """As `load_latent_text`, without reading the weights."""
    if path.is_dir() and is_ours(path):
        return open_ours(path, LatentTextEncoder, LatentTextConfig)
    stored = {key: item for key, item in _stored(path, "text encoder").items() if key not in UNUSED_TEXT}
    shapes = shapes_of(stored)
    names = {key: name for key in stored if (name := _text_name(key)) is not None}
    if "transformer.token_emb.weight" not in shapes or "transformer.pos_emb.emb.weight" not in shapes:
        raise WeightsError(f"{path}: has no transformer.token_emb.weight; it is not GLID-3 XL's bert.pt.")
    inner = shapes.get("transformer.attn_layers.layers.0.1.to_q.weight", (LatentTextConfig.heads,))[0]
    heads = _beside(path, ("heads",), {}).get("heads", LatentTextConfig.heads)
    config = LatentTextConfig(
        vocab_size=shapes["transformer.token_emb.weight"][0],
        max_length=shapes["transformer.pos_emb.emb.weight"][0],
        width=shapes["transformer.token_emb.weight"][1],
        layers=sum(name.endswith("attn_norm.weight") for name in names.values()),
        heads=heads,
        head_width=inner // heads,
    )
    plan = {name: Piece((key,), stored[key].shape) for key, name in names.items()}
    return checked(path, Checkpoint("glid3", on_meta(LatentTextEncoder, config), stored, plan, (path,)))


def open_kl(path: Path, *, norm_groups: int | None = None) -> "Checkpoint[AutoencoderKL]":
    """An autoencoder from a file, without reading the weights."""
    stored = {k: v for k, v in _stored(path, "autoencoder").items() if not k.startswith(TRAINING_ONLY)}
    given = {} if norm_groups is None else {"norm_groups": norm_groups}
    groups = _beside(path, ("norm_groups",), given).get("norm_groups", KL_NORM_GROUPS)
    sizes = kl_sizes(path, shapes_of(stored))
    _check_divides(path, groups, sizes.channels, "norm_groups")
    arguments = sizes.config(groups)
    taken, plan = plan_kl(stored)
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL  # heavy: see models/latent_unet.py

    with torch.device("meta"), NoInit():
        model = AutoencoderKL(**arguments)
    return checked(path, Checkpoint("glid3", model, taken, plan, (path,)))


def _stored(path: Path, what: str) -> Mapping[str, Stored]:
    if not path.is_file():
        kind = "is a folder of another model" if path.is_dir() else "there is no such file"
        raise WeightsError(f"{path}: {kind}; a {what} of GLID-3 XL is one .pt or .safetensors file.")
    if path.suffix == ".safetensors":
        return dict(read_safetensors(path))
    return dict(read_torch(path, shells=PICKLED_MODULE))


def _beside(path: Path, allowed: tuple[str, ...], given: Mapping[str, int]) -> dict[str, int]:
    """Sizes that no shape tells: given, or from NAME.json beside NAME.pt."""
    file = path.with_suffix(".json")
    found: dict[str, Any] = {**(read_json(file) if file.is_file() else {}), **given}
    if unknown := sorted(found.keys() - set(allowed)):
        raise WeightsError(f"{file}: unknown {unknown[0]!r}; it may say {', '.join(allowed)}")
    if wrong := [name for name, value in found.items() if type(value) is not int or value < 1]:
        raise WeightsError(f"{file}: {wrong[0]} must be a whole number of at least 1, got {found[wrong[0]]!r}")
    return found


def _check_divides(path: Path, number: int, channels: Sequence[int], name: str) -> None:
    """What shows in no shape must at least go into the layers' channels."""
    if wrong := [width for width in channels if width % number]:
        file = path.with_suffix(".json").name
        raise WeightsError(
            f"{path}: {name}={number} does not divide a level's {wrong[0]} channels. It shows in no tensor's shape, so "
            f'the published number was taken; say the right one in {file} beside it, such as {{"{name}": 4}}.'
        )


def _text_name(key: str) -> str | None:
    if key in TEXT_OUTSIDE:
        return TEXT_OUTSIDE[key]
    if not (match := TEXT_LAYER.fullmatch(key)):
        return None
    layer, odd = divmod(int(match[1]), 2)  # attention and MLP are layers of their own there
    inside = (TEXT_MLP if odd else TEXT_ATTENTION).get(match[2])
    return inside and f"layers.{layer}.{inside}.{match[3]}"
