"""Make pictures larger: SwinIR, Real-ESRGAN's networks, or the embedded upscaler; one tile of one stage per step.

Weights: role `upscaler`, any file that `weights/upscale.py` knows; role `wdn`, the second network of a pair, which
keeps more noise (realesr-general-wdn-x4v3), for `denoise_strength`; role `face`, a GFPGAN, for `face_enhance`.
A tile gives what the whole picture would give (`models/tiling.py`), so its size decides memory and nothing else.
Grey stays grey, alpha stays, 16 bits stay: those in colour come and go as `DeepPicture`. See docs/upscaling.md.
"""

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, Literal, Self, cast

import torch
from PIL import Image
from pydantic import Field
from torch import Tensor

from ..deep_picture import from_pixels, to_pixels
from ..errors import FailureError, OptionError, PictureError
from ..images import MAX_PIXELS
from ..models.gfpgan import GFPGAN
from ..models.picture_planes import Planes, for_network, from_network, put_together, resize, take_apart
from ..models.resample import bilinear
from ..models.srvgg import SRVGG, SRVGGConfig
from ..models.tiling import Budget, Enlargement, Tiling, plan_tiles
from ..types import Kind, RoundKind
from ..weights.gfpgan import load_gfpgan
from ..weights.identity import weights_id
from ..weights.upscale import Upscaler, check_pair, interpolate, load_upscaler
from .base import Done, Executor, Output, Slot, StrictOptions, Task

MEMORY = Budget(tile=2**30, picture=4 * 2**30)  # on the CPU
GPU_SHARE = 3  # of free memory one part: convolutions need room that is not counted
NETWORKS_KEPT = 2  # of one set of weights: mixed with others, or in another type


@dataclass(eq=False)
class UpscaleSlot(Slot):
    model: Upscaler | None = None
    planes: Planes | None = None
    face: bool = False  # the colours are a face that is still to be restored
    todo: list[tuple[Tensor, Tiling]] = field(default_factory=list)  # planes that the network is to enlarge
    found: list[Tensor] = field(default_factory=list)  # those it has, as many channels as they had
    work: Enlargement | None = None


class UpscaleExecutor(Executor):
    kind: ClassVar[Kind] = Kind.UPSCALER
    roles: ClassVar[tuple[str, ...]] = ("upscaler",)
    optional_roles: ClassVar[tuple[str, ...]] = ("wdn", "face")
    capacity = 1  # a picture may take all the memory there is

    class Options(StrictOptions):
        scale: float | None = Field(
            None, gt=0, le=8, description="how many times as wide and high; null: as the network was made for"
        )
        tile: int = Field(0, ge=0, le=2**14, description="side of a tile in pixels; 0: as large as fits into memory")
        tile_overlap: int | None = Field(
            None, ge=0, le=2**10,
            description="pixels that a tile sees around it; null: as many as make no difference to the whole picture; "
            "fewer are faster on large pictures and may show where tiles meet",
        )  # fmt: skip
        denoise_strength: float = Field(
            1.0, ge=0, le=1, description="below 1: mixes in the second weights (wdn), which keep more noise and texture"
        )
        alpha: Literal["network", "bilinear"] = Field("network", description="how transparency is enlarged")
        face_enhance: bool = Field(
            False, description="restore the face before enlarging it; the picture must be one aligned face, 512 x 512"
        )
        dtype: Literal["auto", "float32", "bfloat16"] = Field(
            "auto", description="numbers to compute with; auto: float32 on a CPU, bfloat16 on a GPU that has it"
        )

    verbs: ClassVar[Mapping[RoundKind, type[StrictOptions]]] = {RoundKind.UPSCALE: Options}

    def __init__(self, model: Upscaler, weights_id: str, wdn: Upscaler | None = None, face: GFPGAN | None = None):
        self.model, self.weights_id, self.wdn, self.face = model, weights_id, wdn, face
        if wdn is not None:
            check_pair(model, wdn)
        self.device = next(model.parameters()).device
        self.network = lru_cache(maxsize=NETWORKS_KEPT)(self._network)

    @classmethod
    def load(cls, weights: Mapping[str, Path], device: str) -> Self:
        model = load_upscaler(weights["upscaler"], device=device)
        wdn = load_upscaler(weights["wdn"], device=device) if "wdn" in weights else None
        face = load_gfpgan(weights["face"], device=device) if "face" in weights else None
        return cls(model, weights_id(weights), wdn, face)

    @classmethod
    def tiny(cls) -> Self:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            pair = [SRVGG(SRVGGConfig(features=6, convolutions=2, scale=4)) for _ in range(2)]
        model, wdn = (model.eval().requires_grad_(False) for model in pair)
        return cls(model, "tiny", wdn)

    def admit(self, task: Task) -> Sequence[UpscaleSlot]:
        """One slot per picture; its steps are tiles.

        Raises:
            OptionError: an option that these weights cannot do, or a scale that leaves no pixel.
            PictureError: a picture that is too large, or of a kind that the network does not take.
        """
        return [self._slot(task, i) for i in range(len(task))]

    def step(self, slots: Sequence[UpscaleSlot]) -> Iterator[Output]:  # type: ignore[override]
        """Compute the next tile of every slot; slots that have all theirs become pictures."""
        for slot in slots:
            if slot.face:
                self._restore(slot)
            else:
                self._one_tile(slot)
            slot.step += 1
            if slot.step == slot.of:
                result = self._finish(slot)
                self.drop([slot])
                yield Done(slot, result)

    def drop(self, slots: Sequence[UpscaleSlot]) -> None:  # type: ignore[override]
        for slot in slots:
            slot.todo, slot.found, slot.work, slot.planes = [], [], None, None

    def _slot(self, task: Task, i: int) -> UpscaleSlot:
        options, picture = task.options, task.images[i]
        assert isinstance(options, self.Options)
        if options.denoise_strength < 1 and self.wdn is None:
            raise OptionError(
                f"denoise_strength {options.denoise_strength} mixes in the second network of a pair, such as "
                "realesr-general-wdn-x4v3; give its weights with wdn=PATH",
                field="denoise_strength",
            )
        if options.face_enhance:
            _check_face(self.face, *picture.size)
        _check_size(*picture.size, self.model.scale, options.scale)
        planes = take_apart(to_pixels(picture))
        channels = planes.colour.shape[0]
        if channels not in (1, self.model.channels):
            raise PictureError("these weights are for grey pictures, and the picture is in colour", field="picture")
        dtype = self._dtype(options.dtype)
        model = self.network(options.denoise_strength, dtype)
        by_network = [planes.colour]
        if planes.alpha is not None and options.alpha == "network" and not _is_even(planes.alpha):
            by_network.append(planes.alpha)
        height, width = planes.colour.shape[1:]
        least = model.fold * max(stage.align for stage in model.stages())
        if options.tile_overlap is not None and 0 < options.tile < least:  # without an overlap it changes no pixel
            raise OptionError(f"tile must be at least {least} for this network, or 0; got {options.tile}", field="tile")
        tiling = plan_tiles(
            model,
            height,
            width,
            self._memory(),
            tile=options.tile or None,
            overlap=options.tile_overlap,
            bytes_per_number=dtype.itemsize,
        )
        todo, face = [(plane, tiling) for plane in by_network], options.face_enhance
        steps = tiling.steps * len(todo) + face
        return UpscaleSlot(task, task.first + i, of=steps, model=model, planes=planes, face=face, todo=todo)

    @torch.inference_mode()
    def _restore(self, slot: UpscaleSlot) -> None:
        """The face in place of the colours."""
        assert self.face is not None
        plane, tiling = slot.todo[0]
        found = self.face.restore(for_network(plane, 3).to(self.device)).cpu()
        slot.todo[0] = from_network(found, plane), tiling
        slot.face = False

    def _one_tile(self, slot: UpscaleSlot) -> None:
        assert slot.model is not None
        plane, tiling = slot.todo[0]
        if slot.work is None:
            whole, dtype = for_network(plane, slot.model.channels), next(slot.model.parameters()).dtype
            slot.work = Enlargement(slot.model, whole, tiling, self.device, dtype)
        try:
            done = slot.work.step()
        except torch.OutOfMemoryError:
            raise FailureError(
                f"{self.device} has not enough memory for a tile; make tiles smaller, such as with the option tile=128"
            ) from None
        if done:
            slot.found.append(from_network(slot.work.result, plane))
            slot.work = None
            slot.todo.pop(0)

    def _finish(self, slot: UpscaleSlot) -> Image.Image:
        """The enlarged picture, of the kind that was given; a `DeepPicture` where Pillow has none of that kind."""
        assert slot.planes is not None
        assert isinstance(slot.task.options, self.Options)
        colour, alpha = slot.found[0], slot.planes.alpha
        if alpha is not None:
            alpha = slot.found[1] if len(slot.found) > 1 else bilinear(alpha, colour.shape[1], colour.shape[2])
        pixels = put_together(Planes(colour, alpha, slot.planes.white))
        height, width = slot.planes.colour.shape[1:]
        height, width = _size(height, width, slot.task.options.scale or self.model.scale)
        if pixels.shape[:2] != (height, width):
            pixels = resize(pixels, height, width, antialias=True)
        return cast(Image.Image, from_pixels(pixels))

    def _network(self, denoise_strength: float, dtype: torch.dtype) -> Upscaler:
        """The network as these options want it."""
        model = self.model
        if denoise_strength < 1 and self.wdn is not None:
            model = interpolate(deepcopy(model), self.wdn, denoise_strength)
        model = model if dtype == torch.float32 else deepcopy(model).to(dtype)
        return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    def _dtype(self, name: str) -> torch.dtype:
        half = self.device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        if name == "auto":
            return torch.bfloat16 if half else torch.float32
        return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]

    def _memory(self) -> Budget:
        if self.device.type != "cuda":
            return MEMORY
        free, _ = torch.cuda.mem_get_info(self.device)
        return Budget(tile=max(MEMORY.tile, free // GPU_SHARE), picture=MEMORY.picture)


def _check_face(face: GFPGAN | None, width: int, height: int) -> None:
    if face is None:
        raise OptionError(
            "face_enhance needs the weights of GFPGAN (GFPGANv1.4.pth); give them with face=PATH", field="face_enhance"
        )
    size = face.config.size_px
    if (width, height) != (size, size):
        raise OptionError(
            f"face_enhance restores one face that fills a picture of {size} x {size}, aligned as GFPGAN was trained; "
            f"this picture is {width} x {height}. To find faces in a picture, a detector "
            "(detection_Resnet50_Final.pth) and a face parser (parsing_parsenet.pth) are missing: neither can be "
            "loaded here yet",
            field="face_enhance",
        )


def _is_even(plane: Tensor) -> bool:
    """Whether it has one value everywhere, as the alpha of most pictures: that stays exactly as it is."""
    return bool((plane == plane[0, 0, 0]).all())


def _size(height: int, width: int, scale: float) -> tuple[int, int]:
    return int(height * scale), int(width * scale)


def _check_size(width: int, height: int, network_scale: int, scale: float | None) -> None:
    for by in (network_scale, scale or network_scale):
        rows, columns = _size(height, width, by)
        if not rows or not columns:
            raise OptionError(f"scale {scale} leaves no pixel of a picture of {width} x {height}", field="scale")
        if rows * columns > MAX_PIXELS:
            how = "these weights make" if by == network_scale else f"scale {scale} makes"
            side = int(MAX_PIXELS**0.5 / by)
            raise PictureError(
                f"the picture is {width} x {height}, and {how} it {columns} x {rows}; at most {MAX_PIXELS} pixels "
                f"are allowed, such as those of a picture of {side} x {side}",
                field="picture",
            )
