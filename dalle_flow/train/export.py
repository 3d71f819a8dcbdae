"""Trained models in our own layout, as they ship: averaged weights, matrices in 8 bits, tokenizers beside."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..models.srvgg import SRVGG
from ..weights.ours import save_ours
from .clip import ClipLesson, Hints
from .loop import CHECKPOINT, averaged_state
from .segment import export_segment
from .upscale import upscale_config

if TYPE_CHECKING:
    from .chain import Workshop


def export_weights(shop: "Workshop") -> None:
    """Every model that is trained, each into its folder of `work`/export."""
    exports = {
        "codec": export_codec,
        "dalle": export_dalle,
        "diffusion": export_diffusion,
        "clip": export_clip,
        "segment": export_segment,
        "upscale": export_upscale,
    }
    for name, export in exports.items():
        if (shop.work / name / CHECKPOINT).exists():
            export(shop)


def export_codec(shop: "Workshop") -> None:
    save_ours(shop.codec(), shop.work / "export" / "codec", int8=True, dtype=torch.float16)


def export_dalle(shop: "Workshop") -> None:
    model = shop.dalle()
    model.load_state_dict(averaged_state(shop.work / "dalle"))
    save_ours(model, shop.work / "export" / "dalle", int8=True, dtype=torch.float16)
    _copy_tokenizer(shop, shop.work / "export" / "dalle")


def export_diffusion(shop: "Workshop") -> None:
    painter, target = shop.painter(), shop.work / "export" / "diffusion"
    painter.load_state_dict(averaged_state(shop.work / "diffusion"))
    save_ours(painter.unet, target / "unet", int8=True, dtype=torch.float16)
    save_ours(painter.text, target / "text", int8=True, dtype=torch.float16)
    _copy_tokenizer(shop, target / "text")


def export_clip(shop: "Workshop") -> None:
    hints = Hints(shop.clip(), *ClipLesson.answers(shop.world))
    hints.load_state_dict(averaged_state(shop.work / "clip"))
    save_ours(hints.clip, shop.work / "export" / "clip", int8=True, dtype=torch.float16)
    _copy_tokenizer(shop, shop.work / "export" / "clip")


def export_upscale(shop: "Workshop") -> None:
    model = SRVGG(upscale_config())
    model.load_state_dict(averaged_state(shop.work / "upscale"))
    save_ours(model, shop.work / "export" / "upscale", dtype=torch.float16)


def _copy_tokenizer(shop: "Workshop", folder: Path) -> None:
    for file in sorted((shop.work / "tokenizer").iterdir()):
        shutil.copyfile(file, folder / file.name)
