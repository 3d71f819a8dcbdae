"""Options of a pipeline, and how a task with them becomes the arguments of a diffusers pipeline's call.

`null` always means what the pipeline does when it is not told ("its own"). An option that a pipeline does not take, or
that would change nothing, is refused: diffusers ignores some of them silently.
"""

import inspect
import math
from collections.abc import Mapping
from typing import Any

import torch
from PIL import Image
from pydantic import Field

from ..errors import OptionError, PictureError
from ..types import Json, RoundKind
from .base import StrictOptions, Task

# What diffusers' lists of compatible schedulers leave out: the few-step ones take the same configuration as these.
FEW_STEP = ("LCMScheduler", "TCDScheduler")
FLOW_MATCHING = ("FlowMatchEulerDiscreteScheduler", "FlowMatchLCMScheduler")
MOST_PIXELS = 2048 * 2048  # where the size is a given picture's: a photograph's own is beyond any memory
SAME_SHAPE = 0.05  # shapes that differ less are the same: sizes come in steps
OURS = ("scheduler", "lora_scale")  # options that are not arguments of the call


class PipelineOptions(StrictOptions):
    num_inference_steps: int | None = Field(None, ge=1, le=1000, description="denoising steps; null: its own")
    guidance_scale: float | None = Field(
        None, ge=0, le=100, description="guidance towards the prompt; 0 or 1 switches it off; null: its own"
    )
    true_cfg_scale: float | None = Field(
        None, ge=0, le=100, description="guidance away from negative_prompt, for FLUX, Qwen-Image and their like"
    )
    negative_prompt: str | None = Field(None, max_length=2000, description="what the picture should not show")
    width: int | None = Field(None, ge=8, le=8192, description="of the picture, in pixels; null: its own")
    height: int | None = Field(None, ge=8, le=8192, description="of the picture, in pixels; null: its own")
    scheduler: str | None = Field(
        None, description="diffusers' name of a scheduler, such as EulerDiscreteScheduler; null: its own"
    )
    lora_scale: float | None = Field(None, ge=-10, le=10, description="strength of the LoRA; null: 1")


class PipelineRefineOptions(PipelineOptions):
    width: int | None = Field(None, ge=8, le=8192, description="in pixels; null: as the given picture")
    height: int | None = Field(None, ge=8, le=8192, description="in pixels; null: as the given picture")
    strength: float | None = Field(None, gt=0, le=1, description="how much is made new; 1: all of it; null: its own")


def parameters(pipeline: Any) -> Mapping[str, inspect.Parameter]:
    """What the pipeline's call takes."""
    return inspect.signature(type(pipeline).__call__).parameters


def arguments_of(pipeline: Any, task: Task, defaults: Mapping[str, Json]) -> dict[str, Any]:
    """The arguments of the pipeline's call for a task, but for the generator, which is each picture's own.

    Args:
        defaults: what stands in for options that are null, where the pipeline's own is not wanted.

    Raises:
        OptionError: an option that this pipeline does not take, or a value that it does not allow.
        PictureError: the picture or mask to start from is missing, or the picture too small or too large.
    """
    takes = parameters(pipeline)
    asked = {name: value for name, value in task.options.model_dump().items() if value is not None}
    values: dict[str, Any] = {**{k: v for k, v in defaults.items() if k in takes}, **asked}
    values = {name: value for name, value in values.items() if name not in OURS}
    if task.kind is not RoundKind.GENERATE:
        values |= _pictures(pipeline, task, values.pop("width", None), values.pop("height", None))
        values = {k: v for k, v in values.items() if k not in ("width", "height") or k in takes}
    _check_size(pipeline, values)
    for name in values:
        if name not in takes:
            able = ", ".join(name for name in type(task.options).model_fields if name in takes)
            raise OptionError(f"{type(pipeline).__name__} takes no {name}; it takes {able}", field=name)
    _check_guidance(pipeline, takes, values)
    _check_steps(takes, values)
    return {"prompt": task.prompt, **values}


def steps_of(pipeline: Any, arguments: Mapping[str, Any]) -> int:
    """How many steps are asked for; a scheduler may take a few more."""
    return int(_effective(parameters(pipeline), arguments, "num_inference_steps") or 1)


def size_multiple(pipeline: Any) -> int:
    """Width and height must be multiples of this: of the autoencoder's factor times the transformer's patches."""
    factor = int(getattr(pipeline, "vae_scale_factor", None) or 1)
    transformer = getattr(pipeline, "transformer", None)
    patch = 1 if transformer is None else transformer.config.get("patch_size", 1)
    patch = patch if isinstance(patch, int) else 2
    if hasattr(pipeline, "_pack_latents"):
        patch = max(patch, 2)
    processor = getattr(pipeline, "image_processor", None)
    return math.lcm(factor * patch, int(processor.config.get("vae_scale_factor", 1)) if processor else 1)


def scheduler_for(pipeline: Any, name: str | None) -> Any:
    """A scheduler of this name, or of the pipeline's own class, with the pipeline's configuration and no memory.

    Raises:
        OptionError: there is none of this name that takes it.
    """
    own = pipeline.scheduler
    if name is None:
        return type(own).from_config(own.config)
    known = _schedulers(own)
    if name not in known or hasattr(pipeline, "decoder_pipe"):  # a pipeline of pipelines has several
        names = "only its own" if hasattr(pipeline, "decoder_pipe") else ", ".join(sorted(known))
        raise OptionError(
            f"option 'scheduler': {name!r:.60} does not go with {type(pipeline).__name__}; those that do: {names}",
            field="scheduler",
        )
    return known[name].from_config(own.config)


def _schedulers(own: Any) -> dict[str, Any]:
    """Name -> class of the schedulers that take this one's configuration and can be used here."""
    import diffusers
    from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers, SchedulerMixin

    own_name = type(own).__name__
    karras = {member.name for member in KarrasDiffusionSchedulers}
    names = {own_name}
    if own_name in FLOW_MATCHING:
        names |= set(FLOW_MATCHING)
    elif own_name in FEW_STEP or karras & set(own._compatibles):
        names |= karras | set(FEW_STEP)
    found = {name: getattr(diffusers, name, None) for name in names}
    # Without the library that it needs, diffusers has an empty class in its place. Some of diffusers' list do not
    # take the configuration of the others: they do not name them in return.
    return {
        name: cls
        for name, cls in found.items()
        if isinstance(cls, type)
        and issubclass(cls, SchedulerMixin)
        and (name == own_name or name in (*FEW_STEP, *FLOW_MATCHING) or karras & set(cls._compatibles))
    }


def _pictures(pipeline: Any, task: Task, width: int | None, height: int | None) -> dict[str, Any]:
    """The picture to start from, and the mask, as large as what is made."""
    if task.init is None:
        raise PictureError(f"{task.kind} needs a picture to start from", field="init")
    size = _size_like(task.init, width, height, size_multiple(pipeline))
    given = f"{task.init.width}x{task.init.height}"
    found: dict[str, Any] = {"image": _resized(task.init.convert("RGB"), size), "width": size[0], "height": size[1]}
    if task.kind is RoundKind.INPAINT:
        if task.mask is None or task.mask.size != task.init.size:
            size_of = "none" if task.mask is None else f"{task.mask.width}x{task.mask.height}"
            wanted = f"one as large as the picture, {given}"
            raise PictureError(f"inpaint needs a mask, {wanted}; got {size_of}", field="mask")
        mask = task.mask.convert("L")
        if max(mask.tobytes()) < 128:
            raise PictureError("the mask is black: nothing would be made new; make white what should be", field="mask")
        found["mask_image"] = _resized(mask, size)
    return found


def _size_like(image: Image.Image, width: int | None, height: int | None, multiple: int) -> tuple[int, int]:
    """The size of what is made of a picture: the picture's own or one of the same shape, in steps of `multiple`."""
    given = f"the picture is {image.width}x{image.height}"
    if width is None and height is None:
        size = image.width // multiple * multiple, image.height // multiple * multiple
        if 0 in size:
            raise PictureError(f"{given}; this pipeline makes sizes in steps of {multiple}", field="init")
        return _affordable(size, given)
    if width is None or height is None:
        scale = width / image.width if width else (height or 0) / image.height
        sides = (max(multiple, round(side * scale / multiple) * multiple) for side in image.size)
        like = tuple(sides)
        return _affordable((width or like[0], height or like[1]), given)
    if abs(width / height * image.height / image.width - 1) > SAME_SHAPE:
        raise OptionError(
            f"options 'width', 'height': {width}x{height} would distort it, {given}; make one of them null, or both",
            field="width",
        )
    return width, height


def _affordable(size: tuple[int, int], given: str) -> tuple[int, int]:
    """A size that was found from a picture and not asked for; one that is asked for may be larger."""
    pixels = size[0] * size[1]
    if pixels > MOST_PIXELS:
        made = f"{size[0]}x{size[1]} would be made of it, {pixels:,} pixels"
        limit = f"a picture's own size is taken up to {MOST_PIXELS:,} (as 2048x2048)"
        raise PictureError(f"{given}; {made}, and {limit}; give width and height", field="init")
    return size


def _resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)


def _check_size(pipeline: Any, values: Mapping[str, Any]) -> None:
    multiple = size_multiple(pipeline)
    for name in ("width", "height"):
        value = values.get(name)
        if value is not None and value % multiple:
            near = max(multiple, round(value / multiple) * multiple)
            made = f"{type(pipeline).__name__} makes multiples of {multiple}"
            raise OptionError(f"option {name!r}: {made}, got {value}; {near} is near", field=name)


def _effective(takes: Mapping[str, inspect.Parameter], values: Mapping[str, Any], name: str) -> Any:
    """What holds for an argument: what is given, else the call's own default; None where it has none."""
    if name in values:
        return values[name]
    default = takes[name].default if name in takes else None
    return None if default is inspect.Parameter.empty else default


def _check_guidance(pipeline: Any, takes: Mapping[str, inspect.Parameter], values: Mapping[str, Any]) -> None:
    """Refuse guidance that would be ignored."""
    name = type(pipeline).__name__
    scale = "true_cfg_scale" if "true_cfg_scale" in takes else "guidance_scale"
    strength = _effective(takes, values, scale)
    if values.get("negative_prompt") is not None and strength is not None and strength <= 1:
        raise OptionError(
            f"negative_prompt does nothing where {scale} is {strength:g}; above 1 it does", field="negative_prompt"
        )
    if values.get("guidance_scale", 0) > 1 and pipeline.config.get("is_distilled", False):
        raise OptionError(
            f"these weights of {name} are distilled and do not read guidance_scale; 1 is what they do",
            field="guidance_scale",
        )
    if scale == "guidance_scale":
        return
    if values.get(scale, 0) > 1 and values.get("negative_prompt") is None:
        raise OptionError(f"{scale} does nothing without a negative_prompt; ' ' is enough for {name}", field=scale)
    transformer = getattr(pipeline, "transformer", None)
    embeds = transformer is not None and transformer.config.get("guidance_embeds", False)
    if values.get("guidance_scale", 0) > 1 and not embeds:
        raise OptionError(
            f"these weights of {name} do not read guidance_scale; leave it null, or use {scale}", field="guidance_scale"
        )


def _check_steps(takes: Mapping[str, inspect.Parameter], values: Mapping[str, Any]) -> None:
    """A strength that leaves no step to take is refused by some pipelines and breaks others."""
    steps, strength = (_effective(takes, values, name) for name in ("num_inference_steps", "strength"))
    if isinstance(steps, int) and isinstance(strength, int | float) and int(steps * strength) < 1:
        raise OptionError(
            f"a strength of {strength:g} leaves none of {steps} steps; raise one of them to at least "
            f"{1 / steps:.2g} or {math.ceil(1 / strength)}",
            field="strength",
        )


def generator_of(seed: int) -> torch.Generator:
    """A picture's own random numbers, drawn on the CPU whatever the device."""
    return torch.Generator("cpu").manual_seed(seed)


def prompt_length(pipeline: Any, prompt: str) -> tuple[int, int]:
    """Tokens of a prompt, and how many are read: of the tokenizer that reads furthest."""
    longest = parameters(pipeline).get("max_sequence_length")
    found = []
    for name, tokenizer in pipeline.components.items():
        if not name.startswith("tokenizer") or not hasattr(tokenizer, "model_max_length"):
            continue
        room = int(tokenizer.model_max_length)
        if longest is not None and "CLIP" not in type(tokenizer).__name__:  # CLIP's have a length of their own
            room = min(room, int(longest.default))
        found.append((len(tokenizer(prompt).input_ids), room))
    return max(found, key=lambda pair: pair[1] / max(1, pair[0]), default=(0, 0))
