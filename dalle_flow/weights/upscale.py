"""Loads an upscaler from any of its published files, or from our own layout; which one it is, the tensors tell.

Files: `.pth` with the weights under `params_ema` or `params` or bare, `.safetensors`, or a folder with one of these.
Tensors that can be computed (SwinIR's masks and position indices) are passed over by name; all others are used.
"""

from pathlib import Path

import torch

from ..errors import WeightsError
from ..models.rrdb import RRDBConfig, RRDBNet
from ..models.srvgg import SRVGG, SRVGGConfig
from ..models.swinir import SwinIR, SwinIRConfig
from .files import Checkpoint, Device, on_meta, open_ours
from .ours import is_ours, read_metadata
from .plan import Stored, check_floating, check_plan, shapes_of
from .safetensors_file import read_safetensors
from .torch_file import read_torch
from .upscale_layout import DERIVED, plan_upscaler, recognise, unwrap

Upscaler = SwinIR | RRDBNet | SRVGG

CLASSES: dict[type, type[Upscaler]] = {SwinIRConfig: SwinIR, RRDBConfig: RRDBNet, SRVGGConfig: SRVGG}
OURS = {model.__name__: (model, config) for config, model in CLASSES.items()}
TORCH_FILES = (".pth", ".pt", ".bin", ".ckpt")
FILES = (".safetensors", *TORCH_FILES)


def load_upscaler(path: str | Path, *, dtype: torch.dtype | None = torch.float32, device: Device = "cpu") -> Upscaler:
    """A SwinIR, RRDBNet or SRVGG from a file or folder.

    Raises:
        WeightsError: there is none, it is of another model, its tensors do not fit together, or it is damaged.
    """
    return open_upscaler(path).load(dtype, device)


def open_upscaler(path: str | Path) -> Checkpoint[Upscaler]:
    """As `load_upscaler`, without reading the weights."""
    path = Path(path)
    if path.is_dir() and is_ours(path):
        found = read_metadata(path).get("model", "")
        if found not in OURS:
            raise WeightsError(f"{path}: holds a {found}, expected one of {', '.join(OURS)}.")
        return open_ours(path, *OURS[found])
    file = weights_file(path, "upscaler")
    stored = {name: tensor for name, tensor in read_unwrapped(file).items() if not DERIVED.fullmatch(name)}
    plan = plan_upscaler(shapes_of(stored))
    config = recognise(file, {name: piece.shape for name, piece in plan.items()})
    model: Upscaler = on_meta(CLASSES[type(config)], config)
    check_plan(file, plan, shapes_of(stored), shapes_of(model))
    check_floating(file, stored)
    return Checkpoint("published", model, stored, plan, (file,))


def weights_file(path: Path, what: str) -> Path:
    """The one file with weights that a path names or holds."""
    if path.is_file():
        if path.suffix not in FILES:
            raise WeightsError(f"{path}: {what} weights are in files of these kinds: {', '.join(FILES)}.")
        return path
    if not path.is_dir():
        raise WeightsError(f"{path}: there is no such file or folder; 'dalle-flow weights fetch' gets weights.")
    files = sorted(file for file in path.iterdir() if file.suffix in FILES)
    if len(files) != 1:
        found = f"holds {len(files)} such files" if files else f"holds no {what} weights"
        raise WeightsError(f"{path}: {found}; give one file ({', '.join(FILES)}) or a folder in our layout.")
    return files[0]


def read_unwrapped(file: Path) -> dict[str, Stored]:
    """The tensors of a file, without the key in front of their names."""
    stored: dict[str, Stored] = dict(read_torch(file) if file.suffix in TORCH_FILES else read_safetensors(file))
    key = unwrap(stored)
    return {name.removeprefix(key): tensor for name, tensor in stored.items() if name.startswith(key)}


def check_pair(model: Upscaler, other: Upscaler) -> None:
    """WeightsError unless both are the same network, so that their weights can be mixed."""
    if model.config != other.config:
        raise WeightsError(
            f"the second weights (wdn) are a {type(other).__name__}, {other.config}, the first a "
            f"{type(model).__name__}, {model.config}; both must be of one pair, such as realesr-general-x4v3 and "
            "realesr-general-wdn-x4v3"
        )


def interpolate(model: Upscaler, other: Upscaler, share: float) -> Upscaler:
    """`model` with every weight made `share` of its own and 1 - `share` of the other's.

    Raises:
        WeightsError: they are not the same network.
    """
    check_pair(model, other)
    theirs = other.state_dict()
    mixed = {name: torch.lerp(theirs[name], mine, share) for name, mine in model.state_dict().items()}
    model.load_state_dict(mixed)
    return model
