"""Pictures by any text-to-image, image-to-image or inpainting pipeline that diffusers can load.

Weights: role `pipeline`, a folder (`save_pretrained`), a single file, or `hub:OWNER/NAME`; `lora`, where one is wanted;
`config`, for a single file whose configuration is not beside it. See docs/pipelines.md.

A pipeline draws a picture in one call, which a slot steps (`pipeline_call.py`). One picture is one call, and there is
one call at a time: drawn in one batch, pictures differ in a value or two of 255 from those drawn alone, so a replay
would not find its picture, and taking turns would only make the first picture come as late as the last.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from PIL import Image

from ..errors import FailureError, OptionError
from ..types import Json, Kind, RoundKind
from ..weights.identity import weights_id
from ..weights.pipeline_files import read_pipeline
from ..weights.pipeline_hub import fetch_pipeline, hub_name
from .base import Done, Executor, Output, Preview, Slot, StrictOptions, Task
from .pasting import pasted
from .pipeline_call import PipelineCall, Stepped
from .pipeline_load import add_lora, load_pipeline
from .pipeline_options import (
    PipelineOptions,
    PipelineRefineOptions,
    arguments_of,
    generator_of,
    parameters,
    prompt_length,
    scheduler_for,
    steps_of,
)
from .pipeline_preview import preview
from .pipeline_rounds import pipeline_for
from .pipeline_tiny import tiny_stable_diffusion
from .quiet import quiet


@dataclass(eq=False)
class PipelineSlot(Slot):
    call: PipelineCall | None = None  # none once it is done or dropped
    pipeline: Any = None  # the call's own: its scheduler and state around the networks of all
    size: tuple[int | None, int | None] = (None, None)  # width and height that were asked for, where they were
    lora_scale: float = 1.0


class PipelineGenerator(Executor):
    kind: ClassVar[Kind] = Kind.GENERATOR
    Options: ClassVar[type[StrictOptions]] = PipelineOptions
    verbs: ClassVar[Mapping[RoundKind, type[StrictOptions]]] = {
        RoundKind.GENERATE: PipelineOptions,
        RoundKind.REFINE: PipelineRefineOptions,
        RoundKind.INPAINT: PipelineRefineOptions,
    }
    roles: ClassVar[tuple[str, ...]] = ("pipeline",)
    optional_roles: ClassVar[tuple[str, ...]] = ("config", "lora")
    libraries: ClassVar[tuple[str, ...]] = ("torch", "diffusers")
    capacity = 1

    def __init__(self, pipeline: Any, weights_id: str, *, defaults: Mapping[str, Json] | None = None):
        """`defaults`: what holds for options that are null, instead of the pipeline's own."""
        self.pipeline, self.weights_id, self.defaults = pipeline, weights_id, dict(defaults or {})
        self.has_lora = bool(getattr(pipeline, "get_list_adapters", dict)())
        self._lora_scale = 1.0
        self._by_kind: dict[RoundKind, Any] = {}

    @classmethod
    def can_find(cls, path: Path) -> bool:
        """Also names of the hub: whether there is such a one, loading says."""
        return path.exists() or hub_name(path) is not None

    @classmethod
    def load(cls, weights: Mapping[str, Path], device: str) -> Self:
        path = weights["pipeline"]
        if name := hub_name(path):
            path = fetch_pipeline(*name)
        files = read_pipeline(path, weights.get("config"))
        pipeline = load_pipeline(files, device)
        lora = {"lora": [add_lora(pipeline, weights["lora"])]} if "lora" in weights else {}
        return cls(pipeline, weights_id({**files.by_part, **lora}))

    @classmethod
    def tiny(cls) -> Self:
        with quiet(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return cls(tiny_stable_diffusion(), "tiny", defaults={"num_inference_steps": 3})

    def remarks(self, prompt: str) -> Sequence[str]:
        """Whether the model reads the prompt to its end."""
        with quiet():
            length, room = prompt_length(self.pipeline, prompt)
        if length <= room:
            return ()
        return (f"the prompt has {length} tokens and this model reads {room}; its end is not read",)

    def admit(self, task: Task) -> Sequence[PipelineSlot]:
        """One call per picture, run to where its prompt is encoded and its noise drawn."""
        options = task.options
        assert isinstance(options, PipelineOptions)
        if options.lora_scale is not None and not self.has_lora:
            raise OptionError("there is no LoRA to scale; one is given as the weights role 'lora'", field="lora_scale")
        with quiet():
            pipeline, asked = self._for(task)
            arguments = arguments_of(pipeline, asked, self.defaults)
        slots: list[PipelineSlot] = []
        try:
            for index, seed in enumerate(task.seeds):
                slots.append(self._start(pipeline, task, index, {**arguments, "generator": generator_of(seed)}))
        except BaseException:
            self.drop(slots)
            raise
        return slots

    def _for(self, task: Task) -> tuple[Any, Task]:
        """The pipeline for a task, and the task as it is put to it."""
        pipeline = self._pipeline(task.kind)
        strength = getattr(task.options, "strength", None)
        if task.kind is RoundKind.REFINE and strength is not None and "strength" not in parameters(pipeline):
            # One that edits has no strength; its sister that inpaints has, and makes all new where all is white.
            with suppress(OptionError):
                inpaint, init = self._pipeline(RoundKind.INPAINT), task.init
                white = Image.new("L", init.size, 255) if init else None
                return inpaint, replace(task, kind=RoundKind.INPAINT, mask=white)
        return pipeline, task

    def _pipeline(self, kind: RoundKind) -> Any:
        if kind not in self._by_kind:
            self._by_kind[kind] = pipeline_for(self.pipeline, kind)
        return self._by_kind[kind]

    def _start(self, pipeline: Any, task: Task, index: int, arguments: Mapping[str, Any]) -> PipelineSlot:
        options = task.options
        assert isinstance(options, PipelineOptions)
        own = copy.copy(pipeline)
        if hasattr(own, "scheduler"):
            with quiet():
                own.scheduler = scheduler_for(pipeline, options.scheduler)
        init = arguments.get("image")
        slot = PipelineSlot(
            task,
            task.first + index,
            pipeline=own,
            size=init.size if init else (arguments.get("width"), arguments.get("height")),
            lora_scale=1.0 if options.lora_scale is None else options.lora_scale,
        )
        self._use_lora_of(slot)
        slot.call = PipelineCall(own, arguments, task.seeds[index], steps_of(own, arguments))
        slot.of = slot.call.of
        return slot

    def step(self, slots: Sequence[PipelineSlot]) -> Iterator[Output]:  # type: ignore[override]
        """The next denoising step of every slot; the last one also decodes the picture. What fails is dropped."""
        for slot in slots:
            try:
                output = self._advance(slot)
            except BaseException:
                self.drop([slot])
                raise
            if output is not None:
                yield output

    def _advance(self, slot: PipelineSlot) -> Output | None:
        assert slot.call is not None
        self._use_lora_of(slot)
        came = slot.call.step()
        slot.step += 1
        if isinstance(came, Stepped) and slot.step >= slot.of:
            _check_finite(slot, came)
            came = slot.call.finish()
        if isinstance(came, Image.Image):
            slot.step, slot.call = slot.of, None
            return Done(slot, _finished(slot, came))
        every = slot.task.preview_every
        if came.latents is None or not every or slot.step % every:
            return None
        with quiet():
            image = preview(slot.pipeline, came.latents, *slot.size)
        return None if image is None else Preview(slot, image)

    def drop(self, slots: Sequence[PipelineSlot]) -> None:  # type: ignore[override]
        for slot in slots:
            if slot.call is not None:
                slot.call.close()
                slot.call = None

    def _use_lora_of(self, slot: PipelineSlot) -> None:
        """The LoRA's strength is the networks', which all calls share."""
        if self.has_lora and slot.lora_scale != self._lora_scale:
            with quiet():
                self.pipeline.set_adapters(["lora"], [slot.lora_scale])
            self._lora_scale = slot.lora_scale


def _check_finite(slot: PipelineSlot, last: Stepped) -> None:
    if last.latents is not None and not bool(torch.isfinite(last.latents).all()):
        name, dtype = type(slot.pipeline).__name__, str(last.latents.dtype).removeprefix("torch.")
        raise FailureError(f"{name}: the numbers became infinite in {dtype}; weights in bfloat16 or float32 may do")


def _finished(slot: PipelineSlot, image: Image.Image) -> Image.Image:
    """The picture as RGB; an inpainted one as large as the given picture, and that to the pixel where it is kept."""
    image = image.convert("RGB")
    if any(asked not in (None, made) for asked, made in zip(slot.size, image.size, strict=True)):
        name, (width, height) = type(slot.pipeline).__name__, slot.size
        raise FailureError(f"{name} made {image.width}x{image.height} where {width}x{height} was asked for")
    if slot.task.init is not None and slot.task.mask is not None:
        # With what was given and not with what was put to the pipeline, which may have been resized.
        return pasted(image, slot.task.init, slot.task.mask)
    return image
