"""CLIP weights as OpenAI publishes them, and as transformers keeps them: both under OpenAI's parameter names.

Source: openai/CLIP `clip/model.py`, `clip/clip.py`; transformers `convert_clip_original_pytorch_to_hf.py`.
OpenAI's files (`ViT-L-14.pt`) are TorchScript archives, which carry code. They are read as data (`torch_file.py`):
nothing of it runs. A plain state dict in a `.pt` is read as well. A transformers folder (OpenAI's, LAION's, PickScore)
has config.json and `model.safetensors` or `pytorch_model.bin`, in one file or several.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import WeightsError
from .disk import read_json
from .plan import Piece, Plan, Shape, Stored, plan_as_is
from .torch_file import TORCHSCRIPT, read_torch
from .transformers_folder import read_weights

# Entries that are no weights: OpenAI's three sizes, and transformers' tables of 0, 1, 2, ...
NOT_WEIGHTS = re.compile(r"input_resolution|context_length|vocab_size|.*\.position_ids")
TRANSPOSE = (1, 0)
NORM_EPS = 1e-5  # of every LayerNorm of models/clip.py

TOWERS = {"text_model": "", "vision_model": "visual."}
OUTSIDE = {
    "logit_scale": "logit_scale",
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm.weight": "ln_final.weight",
    "text_model.final_layer_norm.bias": "ln_final.bias",
    "text_projection.weight": "text_projection",
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "vision_model.pre_layrnorm.weight": "visual.ln_pre.weight",  # their spelling
    "vision_model.pre_layrnorm.bias": "visual.ln_pre.bias",
    "vision_model.post_layernorm.weight": "visual.ln_post.weight",
    "vision_model.post_layernorm.bias": "visual.ln_post.bias",
    "visual_projection.weight": "visual.proj",
}
LAYER_NAMES = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
LAYER = re.compile(r"(text_model|vision_model)\.encoder\.layers\.(\d{1,4})\.(.+)\.(weight|bias)")


class ClipWeights(NamedTuple):
    """Tensors not read yet, and what the shapes do not tell: keyword arguments of `CLIPConfig.from_state_dict`."""

    stored: dict[str, Stored]
    plan: Plan
    facts: dict[str, Any]
    files: tuple[Path, ...]


def find_clip(path: Path) -> ClipWeights | None:
    """The CLIP in a folder or file; None where there is none."""
    if path.is_file():
        return _read_openai(path) if path.suffix in (".pt", ".pth", ".bin") else None
    if (path / "config.json").is_file() and read_json(path / "config.json").get("model_type") == "clip":
        return _read_transformers(path)
    files = sorted(path.glob("*.pt"))
    return _read_openai(files[0]) if len(files) == 1 else None


def _read_openai(path: Path) -> ClipWeights:
    found = read_torch(path, TORCHSCRIPT)
    if found and all(name.startswith("state_dict.") for name in found):
        found = {name.removeprefix("state_dict."): tensor for name, tensor in found.items()}
    stored: dict[str, Stored] = {name: tensor for name, tensor in found.items() if not NOT_WEIGHTS.fullmatch(name)}
    return ClipWeights(stored, plan_as_is(stored), {}, (path,))


def _read_transformers(folder: Path) -> ClipWeights:
    found, files = read_weights(folder)
    stored = {name: tensor for name, tensor in found.items() if not NOT_WEIGHTS.fullmatch(name)}
    plan = plan_transformers({name: tensor.shape for name, tensor in stored.items()})
    return ClipWeights(stored, plan, _facts(folder), files)


def plan_transformers(shapes: Mapping[str, Shape]) -> Plan:
    """Where each of OpenAI's tensors is in transformers' CLIPModel. Keys that are not known are left out."""
    plan: Plan = {}
    for key, shape in shapes.items():
        if key in OUTSIDE:
            axes = TRANSPOSE if key.endswith("_projection.weight") and len(shape) == 2 else None
            plan[OUTSIDE[key]] = Piece((key,), shape, axes=axes)
        elif match := LAYER.fullmatch(key):
            tower, number, module, leaf = match.groups()
            block = f"{TOWERS[tower]}transformer.resblocks.{int(number)}."
            if module in LAYER_NAMES:
                plan[f"{block}{LAYER_NAMES[module]}.{leaf}"] = Piece((key,), shape)
            elif module == "self_attn.q_proj":  # q, k and v are one matrix in OpenAI's
                thirds = tuple(key.replace("q_proj", third) for third in ("q_proj", "k_proj", "v_proj"))
                if all(shapes.get(third) == shape for third in thirds):
                    plan[f"{block}attn.in_proj_{leaf}"] = Piece(thirds, shape)
    return plan


def _facts(folder: Path) -> dict[str, Any]:
    """What a transformers config says that no shape tells."""
    config = read_json(folder / "config.json")
    # What is absent has transformers' default, which is the size of OpenAI's smallest model.
    text = {"hidden_size": 512, "num_attention_heads": 8} | _part(config, "text_config")
    vision = {"hidden_size": 768, "num_attention_heads": 12} | _part(config, "vision_config")
    activations = {part.get("hidden_act", "quick_gelu") for part in (text, vision)}
    if len(activations) != 1 or not activations <= {"quick_gelu", "gelu"}:
        raise WeightsError(f"{folder}: hidden_act is {sorted(map(str, activations))}; allowed: quick_gelu, or gelu.")
    widths = []
    for part in (text, vision):
        if (eps := part.get("layer_norm_eps", NORM_EPS)) != NORM_EPS:
            raise WeightsError(f"{folder}: layer_norm_eps is {eps!r:.60}; a CLIP has {NORM_EPS}.")
        width, heads = part["hidden_size"], part["num_attention_heads"]
        if type(width) is not int or type(heads) is not int or heads < 1 or width % heads:
            raise WeightsError(f"{folder}: {heads} attention heads do not divide a width of {width}.")
        widths.append(width // heads)
    eot = text.get("eos_token_id", 2)
    if type(eot) is not int:
        raise WeightsError(f"{folder}: eos_token_id is {eot!r:.60}; a CLIP has one token that ends the text.")
    facts = {"head_width": widths[0], "vision_head_width": widths[1], "activation": activations.pop()}
    # In the published configs it is 2, by mistake; transformers then takes the largest id, as OpenAI does.
    return {**facts, "eot_token_id": None if eot == 2 else eot}


def _part(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The config of one tower. Older files, such as LAION's, have `text_config_dict` too: then that one counts."""
    part = config.get(f"{name}_dict")
    part = config.get(name) if part is None else part
    return {key: value for key, value in part.items() if value is not None} if isinstance(part, dict) else {}
