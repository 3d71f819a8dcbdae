"""Names of the Flax originals -> ours, for DALL·E Mini/Mega and its VQGAN.

Source: borisdayma/dalle-mini `modeling.py`, patil-suraj/vqgan-jax `modeling_flax_vqgan.py`.
Dense kernels are stored [in, out], ours are [out, in]; convolution kernels [kh, kw, in, out], ours [out, in, kh, kw].
Published DALL·E files are *scanned*: one array per tensor for all layers, with a leading layer axis. Un-scanned files
number the layers in their keys instead. Which it is shows in the keys; `use_scan` in the config is not asked.
"""

import re
from collections.abc import Mapping

from ..errors import WeightsError
from .plan import MAX_LAYERS, Piece, Plan, Shape

DENSE, CONV = (1, 0), (3, 2, 0, 1)  # order of axes that makes theirs ours

# Within one layer, for encoder and decoder alike; without the last part, which is kernel, scale or bias.
LAYER_NAMES = {
    "LayerNorm_0": "pre_self_attn_layer_norm",
    "FlaxBartAttention_0/q_proj": "self_attn.q_proj",
    "FlaxBartAttention_0/k_proj": "self_attn.k_proj",
    "FlaxBartAttention_0/v_proj": "self_attn.v_proj",
    "FlaxBartAttention_0/out_proj": "self_attn.out_proj",
    "LayerNorm_1": "self_attn_layer_norm",
    "LayerNorm_2": "pre_encoder_attn_layer_norm",
    "FlaxBartAttention_1/q_proj": "encoder_attn.q_proj",
    "FlaxBartAttention_1/k_proj": "encoder_attn.k_proj",
    "FlaxBartAttention_1/v_proj": "encoder_attn.v_proj",
    "FlaxBartAttention_1/out_proj": "encoder_attn.out_proj",
    "LayerNorm_3": "encoder_attn_layer_norm",
    "GLU_0/LayerNorm_0": "glu.ln0",
    "GLU_0/Dense_0": "glu.fc0",
    "GLU_0/Dense_1": "glu.fc1",
    "GLU_0/LayerNorm_1": "glu.ln1",
    "GLU_0/Dense_2": "glu.fc2",
}
LEAVES = {"kernel": "weight", "scale": "weight", "embedding": "weight", "bias": "bias"}
LAYER = re.compile(r"model/(encoder|decoder)/layers/FlaxBart(?:Encoder|Decoder)Layer(?:s|_(\d{1,4}))/(.+)/(\w+)")
OUTSIDE = re.compile(r"(?:model/)?(lm_head|(?:encoder|decoder)/\w+)/(\w+)")


def plan_dalle_bart(shapes: Mapping[str, Shape]) -> Plan:
    """Where each of our tensors is in a Flax DALL·E Mini/Mega. Keys that are not known are left out of the plan."""
    plan: Plan = {}
    for key, shape in shapes.items():
        if match := LAYER.fullmatch(key):
            side, number, module, leaf = match.groups()
            if module not in LAYER_NAMES or leaf not in LEAVES:
                continue
            name = f"{LAYER_NAMES[module]}.{LEAVES[leaf]}"
            if number is None:
                for layer in range(_layers(key, shape)):
                    plan[f"{side}.layers.{layer}.{name}"] = _piece(key, shape[1:], leaf, layer)
            else:
                plan[f"{side}.layers.{int(number)}.{name}"] = _piece(key, shape, leaf)
        elif (match := OUTSIDE.fullmatch(key)) and match[2] in LEAVES:
            plan[f"{match[1].replace('/', '.')}.{LEAVES[match[2]]}"] = _piece(key, shape, match[2])
    return plan


def _layers(key: str, shape: Shape) -> int:
    if not shape or shape[0] > MAX_LAYERS:
        raise WeightsError(
            f"{key} has the shape {list(shape)}; its first axis should count at most {MAX_LAYERS} layers."
        )
    return shape[0]


def plan_vqgan(shapes: Mapping[str, Shape]) -> Plan:
    """Where each of our tensors is in a Flax VQGAN: `down_0/block_1/conv1/kernel` is `down.0.block.1.conv1.weight`."""
    plan: Plan = {}
    for key, shape in shapes.items():
        *modules, leaf = key.split("/")
        if leaf not in LEAVES:
            continue
        path = "/".join(modules)
        path = re.sub(r"^(encoder|decoder)/(down|up)_(\d{1,4})/(?:(block|attn)_(\d{1,4})/)?", _numbered, path)
        plan[f"{path.replace('/', '.')}.{LEAVES[leaf]}"] = _piece(key, shape, leaf)
    return plan


def _numbered(match: re.Match[str]) -> str:
    half, level, i, part, j = match.groups()
    return f"{half}/{level}/{int(i)}/" + (f"{part}/{int(j)}/" if part else "")


def _piece(key: str, shape: Shape, leaf: str, layer: int | None = None) -> Piece:
    axes = {2: DENSE, 4: CONV}.get(len(shape)) if leaf == "kernel" else None
    return Piece((key,), shape, layer, axes)
