"""kuprel/min-dalle's torch files: `encoder.pt`, `decoder.pt` (float16) and `detoker.pt`.

Source: kuprel/min-dalle `min_dalle.py`, `models/`. Layouts: `models_root/dalle_bart_mega|mini/{encoder,decoder}.pt` and
`models_root/vqgan/detoker.pt`, or flat as on the hub, where mini's files are `encoder_mini.pt` and so on.
The norms without scale have no `.weight` in the files, as in ours. There is no config: sizes are read off the shapes,
the rest is as in both published models, unless a config.json lies beside. The number of attention heads shows in no
shape; it is width / 64 in both.
`detoker.pt` is the decoding half of the VQGAN, with the codebook as `embedding.weight`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import WeightsError
from .plan import Piece, Plan, Shape, Stored
from .torch_file import read_torch

HEAD_WIDTH = 64
PICTURE_SIZE = 256  # pixels; the published VQGAN's resolution
VARIANTS = {"mega": "", "mini": "_mini"}  # name -> what the hub's file names end in


@dataclass(frozen=True)
class BartFiles:
    """The files of one DALL·E; `suffix` also ends its vocab and merges."""

    encoder: Path
    decoder: Path
    suffix: str


def find_bart(path: Path) -> BartFiles | None:
    """The one DALL·E in or under a folder, or the one an encoder or decoder file belongs to; None where there is none.

    Raises:
        WeightsError: there are several.
    """
    if path.is_file():
        match = re.fullmatch(r"(?:encoder|decoder)(_mini)?\.pt", path.name)
        pairs = [_pair(path.parent, match[1] or "")] if match else []
    else:
        pairs = [_pair(path, suffix) for suffix in VARIANTS.values()]
        pairs += [_pair(path / f"dalle_bart_{variant}", "") for variant in VARIANTS]
    found = [files for files in pairs if files.encoder.is_file() and files.decoder.is_file()]
    if len(found) > 1:
        names = " or ".join(str(files.encoder) for files in found)
        raise WeightsError(f"{path}: holds several DALL·E models; name one: {names}.")
    return found[0] if found else None


def _pair(folder: Path, suffix: str) -> BartFiles:
    return BartFiles(folder / f"encoder{suffix}.pt", folder / f"decoder{suffix}.pt", suffix)


def find_detoker(path: Path) -> Path | None:
    """The detokenizer that a path names or holds; None where there is none."""
    tries = [path] if path.name == "detoker.pt" else [path / "detoker.pt", path / "vqgan" / "detoker.pt"]
    return next((file for file in tries if file.is_file()), None)


def read_bart(files: BartFiles) -> tuple[dict[str, Stored], Plan]:
    """The tensors of both files, and where ours are in them."""
    stored: dict[str, Stored] = {}
    for side, file in (("encoder", files.encoder), ("decoder", files.decoder)):
        stored |= {f"{side}.{name}": tensor for name, tensor in read_torch(file).items()}
    plan = {}
    for key, tensor in stored.items():
        name = "lm_head.weight" if key == "decoder.lm_head.weight" else key
        plan[name] = Piece((key,), tensor.shape)
    return stored, plan


def read_detoker(path: Path) -> tuple[dict[str, Stored], Plan]:
    """The tensors of the file, and where ours are in it."""
    stored: dict[str, Stored] = {**read_torch(path)}
    plan = {}
    for key, tensor in stored.items():
        name = "quantize.embedding.weight" if key == "embedding.weight" else key
        plan[name] = Piece((key,), tensor.shape)
    return stored, plan


def bart_config(where: Path, shapes: Mapping[str, Shape], given: Mapping[str, Any]) -> dict[str, Any]:
    """The published form of the config, read off the shapes; `given` adds to it and overrides it."""

    def size(key: str, axis: int) -> int:
        return _size(where, shapes, key, axis)

    width = size("encoder.embed_tokens.weight", 1)
    heads = given.get("encoder_attention_heads", None if width % HEAD_WIDTH else width // HEAD_WIDTH)
    if heads is None:
        raise WeightsError(
            f"{where}: the files do not say how many attention heads a model of width {width} has; "
            "give encoder_attention_heads and decoder_attention_heads, or put its config.json beside them.",
            field="encoder_attention_heads",
        )
    last = size("decoder.embed_tokens.weight", 0) - 1  # id of the last row
    return {
        "d_model": width,
        "encoder_layers": _count(shapes, r"encoder\.layers\.(\d+)\."),
        "decoder_layers": _count(shapes, r"decoder\.layers\.(\d+)\."),
        "encoder_attention_heads": heads,
        "decoder_attention_heads": heads,
        "encoder_ffn_dim": size("encoder.layers.0.glu.fc0.weight", 0),
        "decoder_ffn_dim": size("decoder.layers.0.glu.fc0.weight", 0),
        "encoder_vocab_size": size("encoder.embed_tokens.weight", 0),
        "max_text_length": size("encoder.embed_positions.weight", 0),
        "image_length": size("decoder.embed_positions.weight", 0),
        "image_vocab_size": last,
        **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id"), last),
        **given,
    }


def detoker_config(where: Path, shapes: Mapping[str, Shape]) -> dict[str, Any]:
    """The published form of the VQGAN's config, read off the shapes."""
    levels = _count(shapes, r"decoder\.up\.(\d+)\.")
    widths = [_size(where, shapes, f"decoder.up.{level}.block.0.conv1.weight", 0) for level in range(levels)]
    base = _size(where, shapes, "decoder.conv_out.weight", 1)
    attended = [level for level in range(levels) if f"decoder.up.{level}.attn.0.q.weight" in shapes]
    return {
        "ch": base,
        "ch_mult": [width // base for width in widths],
        "num_res_blocks": _count(shapes, r"decoder\.up\.0\.block\.(\d+)\.") - 1,
        "attn_resolutions": [PICTURE_SIZE >> level for level in attended],
        "resolution": PICTURE_SIZE,
        "z_channels": _size(where, shapes, "post_quant_conv.weight", 0),
        "embed_dim": _size(where, shapes, "embedding.weight", 1),
        "n_embed": _size(where, shapes, "embedding.weight", 0),
    }


def _size(where: Path, shapes: Mapping[str, Shape], key: str, axis: int) -> int:
    shape = shapes.get(key, ())
    if axis >= len(shape):
        raise WeightsError(f"{where}: has no {key} of {axis + 1} axes or more, so it is no file of min-dalle's.")
    return shape[axis]


def _count(shapes: Mapping[str, Shape], pattern: str) -> int:
    return len({match[1] for key in shapes if (match := re.match(pattern, key))})
