"""Loads a model from a folder in any layout we know, recognised by its files.

| layout | DALL·E | VQGAN | CLIP |
| --- | --- | --- | --- |
| ours | config.json + model.safetensors | same | same |
| Flax | config.json + flax_model.msgpack, one file or with an index | same | |
| min-dalle | encoder.pt + decoder.pt | detoker.pt (decoder only) | |
| OpenAI | | | one .pt: TorchScript or state dict |
| transformers | | | config.json + model.safetensors or pytorch_model.bin |

Opening a checkpoint reads names and shapes only and holds them against a model built on the meta device, so what does
not fit is refused at once. Loading then reads tensor by tensor straight into the wanted type and device: beside the
finished model at most one more tensor is held.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from ..errors import WeightsError
from ..models.clip import CLIP, CLIPConfig
from ..models.dalle_bart import DalleBart, DalleBartConfig
from ..models.vqgan import VQGAN, VQGANConfig
from . import flax_layout, min_dalle
from .disk import read_json
from .flax import FLAX_FILE, FLAX_INDEX, read_flax
from .openai_clip import find_clip
from .ours import WEIGHTS_FILE, config_from, is_ours, read_ours
from .plan import Plan, Stored, check_floating, check_plan, read_pieces, shapes_of

M = TypeVar("M", bound=nn.Module)
Device = str | torch.device


@dataclass(frozen=True)
class Checkpoint(Generic[M]):
    """Weights that were found and fit, but are not read yet."""

    layout: str
    model: M  # on the meta device
    stored: Mapping[str, Stored]
    plan: Plan
    files: tuple[Path, ...]  # with the weights

    def load(self, dtype: torch.dtype | None = torch.float32, device: Device = "cpu") -> M:
        """The model with its weights: in inference mode, without gradients; dtype None keeps the stored types."""
        state = dict(read_pieces(self.plan, self.stored, dtype, device))
        self.model.load_state_dict(state, strict=True, assign=True)
        return self.model.requires_grad_(False).eval()


class DecoderOnly(nn.Module):
    """Stands where a VQGAN's encoder would be, when its file has none."""

    def forward(self, pixels: object) -> None:
        raise WeightsError(
            "this VQGAN is min-dalle's detoker.pt, which can turn codes into pictures but not pictures into codes; "
            "load dalle-mini/vqgan_imagenet_f16_16384 for both."
        )


def load_dalle_bart(
    path: str | Path,
    *,
    dtype: torch.dtype | None = torch.float32,
    device: Device = "cpu",
    overrides: Mapping[str, Any] | None = None,
) -> DalleBart:
    """A DALL·E Mini or Mega from a folder in any layout.

    Args:
        overrides: entries of the published config.json to replace or add, such as decoder_start_token_id.

    Raises:
        WeightsError: there are none, they do not fit their config, or are damaged.
    """
    return open_dalle_bart(path, overrides).load(dtype, device)


def load_vqgan(path: str | Path, *, dtype: torch.dtype | None = torch.float32, device: Device = "cpu") -> VQGAN:
    """A VQGAN from a folder in any layout. min-dalle's has no encoder: calling that one is a WeightsError.

    Raises:
        WeightsError: there are none, they do not fit their config, or are damaged.
    """
    return open_vqgan(path).load(dtype, device)


def load_clip(path: str | Path, *, dtype: torch.dtype | None = torch.float32, device: Device = "cpu") -> CLIP:
    """A CLIP with a ViT image tower from a file or folder in any layout.

    Raises:
        WeightsError: there are none, they do not fit their config, or are damaged.
    """
    return open_clip(path).load(dtype, device)


def load_ours(
    path: str | Path,
    model_class: type[M],
    config_class: type,
    *,
    dtype: torch.dtype | None = torch.float32,
    device: Device = "cpu",
) -> M:
    """Any model in our own layout.

    Raises:
        WeightsError: there are none, they are of another class, do not fit their config, or are damaged.
    """
    return open_ours(Path(path), model_class, config_class).load(dtype, device)


def open_ours(folder: Path, model_class: type[M], config_class: type) -> Checkpoint[M]:
    values, stored, plan = read_ours(folder, model_class)
    model = on_meta(model_class, config_from(folder, config_class, values))
    return checked(folder, Checkpoint("ours", model, stored, plan, (folder / WEIGHTS_FILE,)))


def open_dalle_bart(path: str | Path, overrides: Mapping[str, Any] | None = None) -> Checkpoint[DalleBart]:
    """As `load_dalle_bart`, without reading the weights."""
    path, given = Path(path), dict(overrides or {})
    folder = path.parent if path.is_file() else path
    files: tuple[Path, ...]
    if is_ours(folder):
        layout, (values, stored, plan), files = "ours", read_ours(folder, DalleBart), (folder / WEIGHTS_FILE,)
    elif flax := find_flax(path):
        layout, values, (stored, files) = "flax", _flax_config(folder), _read_flax(flax)
        plan = flax_layout.plan_dalle_bart(shapes_of(stored))
    elif bart := min_dalle.find_bart(path):
        layout, (stored, plan), files = "min-dalle", min_dalle.read_bart(bart), (bart.encoder, bart.decoder)
        beside = bart.encoder.with_name("config.json")
        known = read_json(beside) if beside.is_file() else {}
        values = min_dalle.bart_config(folder, shapes_of(stored), {**known, **given})
    else:
        raise _nothing(path, "DALL·E", f"{WEIGHTS_FILE} of ours, {FLAX_FILE}, or encoder.pt with decoder.pt")
    model = on_meta(DalleBart, config_from(folder, DalleBartConfig, {**values, **given}))
    return checked(path, Checkpoint(layout, model, stored, plan, files))


def open_vqgan(path: str | Path) -> Checkpoint[VQGAN]:
    """As `load_vqgan`, without reading the weights."""
    path = Path(path)
    folder = path.parent if path.is_file() else path
    if is_ours(folder):
        return open_ours(folder, VQGAN, VQGANConfig)
    if flax := find_flax(path):
        stored, files = _read_flax(flax)
        model = on_meta(VQGAN, config_from(folder, VQGANConfig, _flax_config(folder)))
        return checked(path, Checkpoint("flax", model, stored, flax_layout.plan_vqgan(shapes_of(stored)), files))
    if detoker := min_dalle.find_detoker(path):
        stored, plan = min_dalle.read_detoker(detoker)
        values = min_dalle.detoker_config(detoker, shapes_of(stored))
        model = without_encoder(on_meta(VQGAN, config_from(detoker, VQGANConfig, values)))
        return checked(path, Checkpoint("min-dalle", model, stored, plan, (detoker,)))
    raise _nothing(path, "VQGAN", f"{WEIGHTS_FILE} of ours, {FLAX_FILE}, or detoker.pt")


def open_clip(path: str | Path) -> Checkpoint[CLIP]:
    """As `load_clip`, without reading the weights."""
    path = Path(path)
    if path.is_dir() and is_ours(path):
        return open_ours(path, CLIP, CLIPConfig)
    if found := find_clip(path):
        shapes = {name: piece.shape for name, piece in found.plan.items()}
        try:
            config = CLIPConfig.from_state_dict(shapes, **found.facts)
        except ValueError as error:
            raise WeightsError(f"{path}: {error}") from None
        model = on_meta(CLIP, config)
        return checked(path, Checkpoint("clip", model, found.stored, found.plan, found.files))
    raise _nothing(path, "CLIP", f"{WEIGHTS_FILE} of ours, one .pt of OpenAI's, or a transformers folder")


def find_flax(path: Path) -> Path | None:
    """The Flax file or index that a path names or holds; None where there is none."""
    tries = [path / FLAX_FILE, path / FLAX_INDEX] if path.is_dir() else [path]
    return next((file for file in tries if file.is_file() and ".msgpack" in file.name), None)


def _read_flax(path: Path) -> tuple[dict[str, Stored], tuple[Path, ...]]:
    """The arrays, and the files they are in."""
    arrays = read_flax(path)
    return dict(arrays), tuple(sorted({array.path for array in arrays.values()}))


class NoInit(TorchFunctionMode):
    """Leaves out the initial values of tensors without memory: torch imports 1 s of packages to draw none."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name, module = getattr(func, "__name__", ""), getattr(func, "__module__", "")
        if module == "torch.nn.init" or name in ("fill_", "normal_", "uniform_", "zero_"):
            tensor = args[0] if args else kwargs["tensor"]
            if tensor.is_meta:
                return tensor
        return func(*args, **kwargs)


def on_meta(model_class: type[M], config: object) -> M:
    """The model without any memory for its weights."""
    with torch.device("meta"), NoInit():
        return model_class(config)


def without_encoder(model: VQGAN) -> VQGAN:
    model.add_module("encoder", DecoderOnly())
    model.add_module("quant_conv", nn.Identity())
    return model


def _flax_config(folder: Path) -> dict[str, Any]:
    config = folder / "config.json"
    if not config.is_file():
        raise WeightsError(f"{folder}: has Flax weights but no config.json; fetch that file too, it has the sizes.")
    return read_json(config)


def checked(where: Path, checkpoint: Checkpoint[M]) -> Checkpoint[M]:
    """The checkpoint, once its plan holds against what is stored and what the model wants; WeightsError otherwise."""
    check_plan(where, checkpoint.plan, shapes_of(checkpoint.stored), shapes_of(checkpoint.model))
    check_floating(where, checkpoint.stored)
    return checkpoint


def _nothing(path: Path, what: str, looked_for: str) -> WeightsError:
    if not path.exists():
        return WeightsError(f"{path}: there is no such file or folder; 'dalle-flow weights fetch' gets weights.")
    return WeightsError(f"{path}: holds no {what} weights in a layout we know; looked for {looked_for}.")
