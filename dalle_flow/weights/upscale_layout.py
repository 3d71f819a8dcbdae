"""Which upscaler a checkpoint holds, and its sizes: read off the names and shapes of its tensors.

| network | recognised by | files |
| --- | --- | --- |
| SwinIR | `layers.0.residual_group...` | all of release v0.0 |
| RRDBNet | `body.0.rdb1...`; before: `RRDB_trunk.0.RDB1...`, `model.1.sub.0.RDB1...` | Real-ESRGAN, ESRGAN |
| SRVGG | `body.0.weight`, `body.1.weight` | realesr-animevideov3, realesr-general |

Every size follows from a shape, with one exception: SwinIR's range of values is 255 in the files whose window is 7
(JPEG repair), and 1 in all others.
"""

import re
from collections.abc import Callable, Mapping
from math import isqrt

from ..errors import WeightsError
from ..models.rrdb import RRDBConfig
from ..models.srvgg import SRVGGConfig
from ..models.swinir import BodyConv, SwinIRConfig, Tail
from .plan import MAX_LAYERS, Piece, Plan, Shape

Shapes = Mapping[str, Shape]
UpscaleConfig = SwinIRConfig | RRDBConfig | SRVGGConfig

WRAPPINGS = ("params_ema.", "params.", "state_dict.")  # the averaged weights first, where a file has both
# SwinIR's files store what follows from the window and from the size of the training pictures.
DERIVED = re.compile(r"layers\.\d+\.residual_group\.blocks\.\d+\.(attn_mask|attn\.relative_position_index)")
JPEG_WINDOW, JPEG_RANGE = 7, 255.0

ESRGAN_OUTSIDE = {
    "conv_first": "conv_first",
    "trunk_conv": "conv_body",
    "upconv1": "conv_up1",
    "upconv2": "conv_up2",
    "HRconv": "conv_hr",
    "conv_last": "conv_last",
}
OLD_ESRGAN_OUTSIDE = {
    "model.0": "conv_first",
    "model.3": "conv_up1",
    "model.6": "conv_up2",
    "model.8": "conv_hr",
    "model.10": "conv_last",
}
DENSE = re.compile(r"(?:RRDB_trunk|model\.1\.sub)\.(\d+)\.RDB([123])\.conv([1-5])(?:\.0)?\.(weight|bias)")
OLD_TRUNK = re.compile(r"model\.1\.sub\.(\d+)\.(weight|bias)")


def unwrap(names: Mapping[str, object]) -> str:
    """The key in front of the names of the weights, with its dot; empty where there is none."""
    return next((key for key in WRAPPINGS if any(name.startswith(key) for name in names)), "")


def plan_upscaler(shapes: Shapes) -> Plan:
    """Our names (those of the newest files) -> where the tensors are. Names that are not known are left as they are."""
    return {_renamed(name): Piece((name,), shape) for name, shape in shapes.items()}


def _renamed(name: str) -> str:
    if match := DENSE.fullmatch(name):
        block, dense, conv, leaf = match.groups()
        return f"body.{block}.rdb{dense}.conv{conv}.{leaf}"
    if match := OLD_TRUNK.fullmatch(name):
        return f"conv_body.{match.group(2)}"
    module, _, leaf = name.rpartition(".")
    if module in OLD_ESRGAN_OUTSIDE:
        return f"{OLD_ESRGAN_OUTSIDE[module]}.{leaf}"
    return f"{ESRGAN_OUTSIDE[module]}.{leaf}" if module in ESRGAN_OUTSIDE else name


def recognise(where: object, shapes: Shapes) -> UpscaleConfig:
    """The config of the network with tensors of these names (ours) and shapes.

    Raises:
        WeightsError: it is none that we know, or its shapes contradict each other.
    """
    read: Callable[[Shapes], UpscaleConfig]
    if "conv_first.weight" in shapes and any(name.startswith("layers.0.residual_group.") for name in shapes):
        name, read = "SwinIR", _swinir
    elif "conv_first.weight" in shapes and "body.0.rdb1.conv1.weight" in shapes:
        name, read = "RRDBNet", _rrdb
    elif "body.0.weight" in shapes:
        name, read = "SRVGGNetCompact", _srvgg
    else:
        raise WeightsError(f"{where}: {_what_else(shapes)}")
    try:
        return read(shapes)
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        raise WeightsError(f"{where}: looks like {name}, but its tensors do not fit together ({error}).") from None


def _what_else(shapes: Shapes) -> str:
    if any(name.startswith("stylegan_decoder.") for name in shapes):
        return "holds a GFPGAN, which restores faces and enlarges nothing; give it as face=PATH beside an upscaler."
    some = ", ".join(sorted(shapes)[:3]) or "none"
    return f"holds no upscaler that we know (SwinIR, RRDBNet, SRVGGNetCompact); its tensors: {some}, ..."


def _count(shapes: Shapes, pattern: str) -> int:
    """How many numbers 0, 1, 2, ... there are in the place of the group."""
    form = re.compile(pattern)
    numbers = {int(match.group(1)) for name in shapes if (match := form.match(name))}
    if numbers != set(range(len(numbers))) or not 0 < len(numbers) <= MAX_LAYERS:
        raise ValueError(f"they are not numbered 0, 1, 2, ... up to {MAX_LAYERS} in {pattern}")
    return len(numbers)


def _square_root(number: int, what: str) -> int:
    root = isqrt(number)
    if root * root != number:
        raise ValueError(f"{what} is {number}, which is no square")
    return root


def _swinir(shapes: Shapes) -> SwinIRConfig:
    layers = range(_count(shapes, r"layers\.(\d{1,4})\."))
    blocks = [f"layers.{i}.residual_group.blocks." for i in layers]
    tables = [shapes[f"{at}0.attn.relative_position_bias_table"] for at in blocks]
    width, channels = shapes["conv_first.weight"][:2]
    window = (_square_root(tables[0][0], "the number of relative positions") + 1) // 2
    tail, scale = _swinir_tail(shapes, channels)
    convolutions: BodyConv = "1conv" if "conv_after_body.weight" in shapes else "3conv"
    return SwinIRConfig(
        channels=channels,
        width=width,
        depths=tuple(_count(shapes, re.escape(at) + r"(\d{1,4})\.") for at in blocks),
        heads=tuple(table[1] for table in tables),
        window=window,
        mlp_width=shapes[f"{blocks[0]}0.mlp.fc1.weight"][0],
        scale=scale,
        tail=tail,
        body_conv=convolutions,
        value_range=JPEG_RANGE if window == JPEG_WINDOW else 1.0,
    )


def _swinir_tail(shapes: Shapes, channels: int) -> tuple[Tail, int]:
    if "conv_up1.weight" in shapes:
        return "nearest+conv", 4 if "conv_up2.weight" in shapes else 2
    if "upsample.0.weight" not in shapes:
        return "none", 1
    outside, inside = shapes["upsample.0.weight"][:2]
    if "conv_last.weight" not in shapes:
        return "pixelshuffledirect", _square_root(outside // channels, "outputs per channel")
    factor = _square_root(outside // inside, "outputs per input")
    steps = sum(re.fullmatch(r"upsample\.\d+\.weight", name) is not None for name in shapes)
    return "pixelshuffle", int(factor**steps)


def _rrdb(shapes: Shapes) -> RRDBConfig:
    features, inputs = shapes["conv_first.weight"][:2]
    channels = shapes["conv_last.weight"][0]
    fold = _square_root(inputs // channels, "inputs per channel")
    if fold not in (1, 2, 4):
        raise ValueError(f"{inputs} inputs for {channels} channels; 1, 4 or 16 each are known")
    return RRDBConfig(
        channels=channels,
        features=features,
        blocks=_count(shapes, r"body\.(\d{1,4})\."),
        growth=shapes["body.0.rdb1.conv1.weight"][0],
        scale=4 // fold,
    )


def _srvgg(shapes: Shapes) -> SRVGGConfig:
    if "body.1.weight" not in shapes:
        raise ValueError("body.1.weight is missing; only networks with PReLU are known")
    features, channels = shapes["body.0.weight"][:2]
    last = _count(shapes, r"body\.(\d{1,4})\.") - 1
    return SRVGGConfig(
        channels=channels,
        features=features,
        convolutions=last // 2 - 1,
        scale=_square_root(shapes[f"body.{last}.weight"][0] // channels, "outputs per channel"),
    )
