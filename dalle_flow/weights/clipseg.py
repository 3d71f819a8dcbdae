"""CLIPSeg weights: decoders as they were published, which need a CLIP beside them, or whole models.

| layout | files | CLIP |
| --- | --- | --- |
| ours | config.json + model.safetensors | in it |
| timojl/clipseg | `rd64-uni.pth` or another .pth | of a second path, ViT-B/16 for the published ones |
| transformers | config.json + model.safetensors or pytorch_model.bin | in it |

Source: timojl/clipseg `models/clipseg.py`; transformers `convert_clipseg_original_pytorch_to_hf.py`.
Heads, extracted layers and the size of pictures show in no shape: they come from config.json, beside a .pth with our
names for them, and are those of the published models where there is none.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..errors import WeightsError
from ..models.clip import CLIPConfig
from ..models.clipseg import CLIPSeg, CLIPSegConfig
from .disk import read_json
from .files import Checkpoint, Device, on_meta, open_clip
from .openai_clip import NOT_WEIGHTS, _facts, plan_transformers
from .ours import CONFIG_FILE, WEIGHTS_FILE, config_from, is_ours, read_ours
from .plan import Piece, Plan, Shape, Stored, check_floating, check_plan, plan_as_is, shapes_of
from .safetensors_file import read_safetensors
from .torch_file import read_torch

UNUSED = "reduce."  # in every published decoder; the network makes it and never calls it
NOT_IN_SHAPES = ("heads", "extract_layers", "condition_layer", "input_size", "mean", "std")

# transformers' name of a part of the decoder -> ours
OUTSIDE = {"film_mul": "film_mul", "film_add": "film_add", "transposed_convolution": "trans_conv"}
LAYER_NAMES = {
    "self_attn.out_proj": "self_attn.out_proj",
    "mlp.fc1": "linear1",
    "mlp.fc2": "linear2",
    "layer_norm1": "norm1",
    "layer_norm2": "norm2",
}
PART = re.compile(r"decoder\.(film_mul|film_add|transposed_convolution)(\.\d)?\.(weight|bias)")
REDUCE = re.compile(r"decoder\.(reduces\.\d{1,3}\.(?:weight|bias))")
LAYER = re.compile(r"decoder\.layers\.(\d{1,3})\.(.+)\.(weight|bias)")
# config.json of transformers -> ours; what is absent there has the published models' value
FACTS = {
    "decoder_num_attention_heads": "heads",
    "extract_layers": "extract_layers",
    "conditional_layer": "condition_layer",
}


class _Found(NamedTuple):
    """Tensors not read yet and where ours are in them, and entries of our config."""

    layout: str
    stored: Mapping[str, Stored]
    plan: Plan
    clip: CLIPConfig
    facts: dict[str, Any]
    files: tuple[Path, ...]


def load_clipseg(
    path: str | Path,
    clip: str | Path | None = None,
    *,
    dtype: torch.dtype | None = torch.float32,
    device: Device = "cpu",
    overrides: Mapping[str, Any] | None = None,
) -> CLIPSeg:
    """A CLIPSeg from a file or folder in any layout.

    Args:
        clip: file or folder of the CLIP that a decoder-only file goes with; None for whole models.
        overrides: entries of the config to replace, of those that no shape tells: heads, extract_layers,
            condition_layer, input_size, mean, std.

    Raises:
        WeightsError: there are none, they do not fit each other or their config, or are damaged.
    """
    return open_clipseg(path, clip, overrides).load(dtype, device)


def open_clipseg(
    path: str | Path, clip: str | Path | None = None, overrides: Mapping[str, Any] | None = None
) -> Checkpoint[CLIPSeg]:
    """As `load_clipseg`, without reading the weights."""
    path, given = Path(path), dict(overrides or {})
    if unknown := sorted(given.keys() - set(NOT_IN_SHAPES)):
        raise WeightsError(f"no entry {unknown[0]!r} can be overridden; allowed: {', '.join(NOT_IN_SHAPES)}.")
    if path.is_dir() and is_ours(path):
        values, stored, plan = read_ours(path, CLIPSeg)
        model = on_meta(CLIPSeg, config_from(path, CLIPSegConfig, {**values, **given}))
        found = _Found("ours", stored, plan, model.config.clip, {}, (path / WEIGHTS_FILE,))
    elif (config := path / CONFIG_FILE).is_file() and read_json(config).get("model_type") == "clipseg":
        found = _read_transformers(path)
        model = _on_meta(path, found, given)
    else:
        found = _read_decoder(path, None if clip is None else Path(clip))
        model = _on_meta(path, found, given)
    if clip is not None and found.layout != "clipseg":
        raise WeightsError(f"{path}: holds its own CLIP; leave out the second one, {clip}.")
    check_plan(path, found.plan, shapes_of(found.stored), shapes_of(model))
    check_floating(path, found.stored)
    return Checkpoint(found.layout, model, found.stored, found.plan, found.files)


def _on_meta(path: Path, found: _Found, given: Mapping[str, Any]) -> CLIPSeg:
    """The network of what was found, without memory for its weights."""
    shapes = {name: piece.shape for name, piece in found.plan.items()}
    facts = {key: tuple(v) if isinstance(v, list) else v for key, v in {**found.facts, **given}.items()}
    try:
        return on_meta(CLIPSeg, CLIPSegConfig.from_state_dict(shapes, found.clip, **facts))
    except (ValueError, TypeError) as error:
        cure = f". A {CONFIG_FILE} beside the decoder may say what its shapes do not." * (found.layout == "clipseg")
        raise WeightsError(f"{path}: {error}{cure}") from None


def _read_decoder(path: Path, clip_path: Path | None) -> _Found:
    """A decoder as its authors publish it, and CLIP."""
    file = _decoder_file(path)
    decoder = {name: tensor for name, tensor in read_torch(file).items() if not name.startswith(UNUSED)}
    if "film_mul.weight" not in decoder:
        raise WeightsError(f"{file}: not a decoder of CLIPSeg, it has no film_mul.weight; rd64-uni.pth is one.")
    if clip_path is None:
        raise WeightsError(
            f"{file}: is a decoder alone; give the CLIP it goes with besides, for the published ones OpenAI's ViT-B/16."
        )
    clip = open_clip(clip_path)
    _check_pair(file, shapes_of(decoder), clip_path, clip.model.config)
    stored = {**decoder, **{f"clip.{name}": tensor for name, tensor in clip.stored.items()}}
    plan = plan_as_is(decoder) | _under_clip(clip.plan)
    beside = file.with_name(CONFIG_FILE)
    facts = read_json(beside) if beside.is_file() else {}
    if "model_type" in facts:  # of a model of transformers in the same folder, not of this file
        facts = {}
    if unknown := sorted(facts.keys() - set(NOT_IN_SHAPES)):
        raise WeightsError(f"{beside}: no entry {unknown[0]!r} is known; allowed: {', '.join(NOT_IN_SHAPES)}.")
    return _Found("clipseg", stored, plan, clip.model.config, facts, (file, *clip.files))


def _decoder_file(path: Path) -> Path:
    if path.is_file():
        return path
    files = sorted(path.glob("*.pth"))
    if len(files) > 1:
        names = ", ".join(file.name for file in files)
        raise WeightsError(f"{path}: holds several decoders ({names}); name the file of one.")
    if not path.exists():
        raise WeightsError(f"{path}: there is no such file or folder; 'dalle-flow weights fetch' gets weights.")
    if not files:
        looked_for = f"{WEIGHTS_FILE} of ours, rd64-uni.pth, or a transformers folder with model_type clipseg"
        raise WeightsError(f"{path}: holds no CLIPSeg weights in a layout we know; looked for {looked_for}.")
    return files[0]


def _check_pair(file: Path, decoder: Mapping[str, Shape], clip_path: Path, clip: CLIPConfig) -> None:
    """Whether this decoder was made for a CLIP of such sizes. ViT-B/32 differs from ViT-B/16 in the patches alone."""
    facts = (
        ("film_mul.weight", "features", clip.embed_dim),
        ("reduces.0.weight", "image tokens", clip.vision_width),
        ("trans_conv.weight", "patches", clip.patch_size),
    )
    for name, what, has in facts:
        wants = decoder.get(name, ())[-1:]
        if wants and wants[0] != has:
            raise WeightsError(
                f"{file}: goes with a CLIP whose {what} have a size of {wants[0]}, those of {clip_path} have {has}; "
                "the published decoders go with OpenAI's ViT-B/16."
            )


def _under_clip(plan: Plan) -> Plan:
    """A plan for CLIP alone as a part of one for CLIPSeg."""
    return {
        f"clip.{name}": Piece(
            tuple(f"clip.{source}" for source in piece.sources), piece.stored_shape, piece.layer, piece.axes
        )
        for name, piece in plan.items()
    }


def _read_transformers(folder: Path) -> _Found:
    safe, torch_file = folder / WEIGHTS_FILE, folder / "pytorch_model.bin"
    file = safe if safe.is_file() else torch_file
    if not file.is_file():
        raise WeightsError(f"{folder}: has neither {safe.name} nor {torch_file.name}; fetch the weights again.")
    read: Mapping[str, Stored] = read_safetensors(file) if file == safe else read_torch(file)
    stored = {name: tensor for name, tensor in read.items() if not NOT_WEIGHTS.fullmatch(name)}
    shapes = shapes_of(stored)
    seen = {name.removeprefix("clip."): shape for name, shape in shapes.items() if name.startswith("clip.")}
    clip_plan = plan_transformers(seen)
    try:
        clip = CLIPConfig.from_state_dict({n: piece.shape for n, piece in clip_plan.items()}, **_facts(folder))
    except ValueError as error:
        raise WeightsError(f"{folder}: {error}") from None
    config = read_json(folder / CONFIG_FILE)
    facts = {ours: config[theirs] for theirs, ours in FACTS.items() if config.get(theirs) is not None}
    facts |= _preprocessing(folder / "preprocessor_config.json")
    return _Found("transformers", stored, _under_clip(clip_plan) | plan_decoder(shapes), clip, facts, (file,))


def plan_decoder(shapes: Mapping[str, Shape]) -> Plan:
    """Where each tensor of the decoder is in transformers' CLIPSeg. Keys that are not known are left out."""
    plan: Plan = {}
    for key, shape in shapes.items():
        if match := PART.fullmatch(key):
            part, number, leaf = match.groups()
            plan[f"{OUTSIDE[part]}{number or ''}.{leaf}"] = Piece((key,), shape)
        elif match := REDUCE.fullmatch(key):
            plan[match[1]] = Piece((key,), shape)
        elif match := LAYER.fullmatch(key):
            layer, module, leaf = match.groups()
            block = f"blocks.{int(layer)}."
            if module in LAYER_NAMES:
                plan[f"{block}{LAYER_NAMES[module]}.{leaf}"] = Piece((key,), shape)
            elif module == "self_attn.q_proj":  # q, k and v are one matrix in the original
                thirds = tuple(key.replace("q_proj", third) for third in ("q_proj", "k_proj", "v_proj"))
                if all(shapes.get(third) == shape for third in thirds):
                    plan[f"{block}self_attn.in_proj_{leaf}"] = Piece(thirds, shape)
    return plan


def _preprocessing(path: Path) -> dict[str, Any]:
    """What a preprocessor_config.json says of the pictures' size and normalisation; nothing where there is none."""
    if not path.is_file():
        return {}
    values = read_json(path)
    facts = {
        ours: values[theirs] for theirs, ours in (("image_mean", "mean"), ("image_std", "std")) if theirs in values
    }
    size = values.get("size")
    if isinstance(size, dict):
        sides = [size.get("height"), size.get("width")]
        if sides[0] != sides[1]:
            raise WeightsError(f"{path}: pictures of {sides[1]} x {sides[0]}; only square ones work with CLIPSeg.")
        size = sides[0]
    return facts if size is None else {**facts, "input_size": size}
