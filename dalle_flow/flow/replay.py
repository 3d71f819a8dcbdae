"""A recipe -> the picture, made again; what it was made from must be given, and is known by its id."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from ..engine.local import LocalEngine
from ..errors import FailureError, OptionError, ReplayError, UsageError
from ..executors.base import Task
from ..types import (
    Candidate,
    Deep,
    Finished,
    GenerateRequest,
    InpaintRequest,
    InterpolateRequest,
    Recipe,
    RefineRequest,
    Request,
    RoundKind,
    SegmentRequest,
    UpscaleRequest,
    as_any_depth,
    as_mask,
    as_picture,
    picture_id,
)
from .run import pictures
from .tasks import task_of

if TYPE_CHECKING:
    from PIL import Image

P = TypeVar("P", bound="Image.Image | Deep")

FROM_A_PICTURE = (RoundKind.REFINE, RoundKind.INPAINT, RoundKind.UPSCALE, RoundKind.SEGMENT)


def replay(
    engine: LocalEngine,
    recipe: Recipe,
    parent: "Image.Image | Deep | None" = None,
    mask: "Image.Image | Deep | None" = None,
) -> Candidate:
    """Make the picture of a recipe again.

    Args:
        parent: the picture it was made from, where the recipe names one.
        mask: the mask that was given with it, where the recipe names one.

    Raises:
        UsageError: the parent or mask is missing, is another one, or is none of this recipe's.
        ReplayError: this flow has not that executor, or has it with other weights or options; or no request of ours
            can have had this recipe.
    """
    _check_executor(engine, recipe)
    _check_fields(recipe)
    if parent is not None:
        parent = as_any_depth(parent) if recipe.kind is RoundKind.UPSCALE else as_picture(parent, "parent")
    parent = _given("parent", recipe.parent, parent)
    mask = _given("mask", recipe.mask, None if mask is None else as_mask(mask))
    try:
        request = _request(recipe, parent, mask)
        options = engine.options(recipe.executor, dict(recipe.options), recipe.kind)
    except OptionError as error:
        raise ReplayError(f"the recipe does not fit this version: {error.message}", field=error.field) from None
    executor, _ = engine.load(recipe.executor)
    if executor.weights_id != recipe.weights:
        raise ReplayError(
            f"the picture was made with other weights of {recipe.executor!r}: {recipe.weights[:12]}, "
            f"here are {executor.weights_id[:12]}; give the original ones with --weights"
        )
    for _, event in pictures(engine, recipe.executor, request, _task(recipe, task_of(request, options))):
        if isinstance(event, Finished):
            return event.candidate
    raise FailureError(f"{recipe.executor} gave no picture")


def _check_executor(engine: LocalEngine, recipe: Recipe) -> None:
    """Whether the flow has it, and it can do what the recipe says."""
    if recipe.executor not in engine.executors:
        raise ReplayError(f"the picture was made by {recipe.executor!r}, which this flow does not have")
    rounds = [kind for kind in RoundKind if recipe.executor in engine.able(kind)]
    if not rounds:
        raise ReplayError(f"the picture says it was made by {recipe.executor!r}, which makes no pictures here")
    if recipe.kind not in rounds:
        able = f"{recipe.executor!r} can {', '.join(rounds)} here"
        raise ReplayError(f"the picture says it was made by {recipe.executor!r} to {recipe.kind}; {able}")


def _check_fields(recipe: Recipe) -> None:
    """Whether the recipe has what its kind of round needs, and nothing else."""
    has: Mapping[str, bool] = {
        "parent": recipe.parent is not None,
        "frame": recipe.frame is not None,
        "prompt_to": recipe.prompt_to is not None,
    }
    row = recipe.kind is RoundKind.INTERPOLATE
    wants = {"parent": recipe.kind in FROM_A_PICTURE, "frame": row, "prompt_to": row}
    for name in has:
        if has[name] != wants[name]:
            raise ReplayError(
                f"the recipe is of kind {recipe.kind} and has {'no' if wants[name] else 'a'} field {name!r}"
            )
    if recipe.mask is not None and recipe.kind is not RoundKind.INPAINT:
        raise ReplayError(f"the recipe is of kind {recipe.kind} and has a field 'mask'")


def _given(name: str, wanted: str | None, image: P | None) -> P | None:
    """The parent or mask, held against the id in the recipe."""
    if wanted is None:
        if image is not None:
            raise UsageError(f"the picture was made without a {name}; leave --{name} out", field=name)
        return None
    if image is None:
        needed = {"parent": "from another one", "mask": "with a mask"}[name]
        raise UsageError(f"the picture was made {needed}: give it with --{name}, its id is {wanted}", field=name)
    if (found := picture_id(image)) != wanted:
        raise UsageError(f"that is not the {name}: the recipe's has the id {wanted}, this one has {found}", field=name)
    return image


def _request(recipe: Recipe, parent: Any, mask: "Image.Image | None") -> Request:
    """The request that the recipe's picture is of, as far as it decides the picture; OptionError where none can be."""
    if parent is not None:
        match recipe.kind:
            case RoundKind.REFINE:
                return RefineRequest(parent, recipe.prompt)
            case RoundKind.INPAINT:
                return InpaintRequest(parent, recipe.prompt, mask)
            case RoundKind.UPSCALE:
                return UpscaleRequest(parent, recipe.prompt)
            case RoundKind.SEGMENT:
                return SegmentRequest(parent, recipe.prompt)
    if recipe.frame is not None and recipe.prompt_to is not None:
        return InterpolateRequest(recipe.prompt, recipe.prompt_to, recipe.frame[1])
    return GenerateRequest(recipe.prompt)


def _task(recipe: Recipe, task: Task) -> Task:
    """The one picture of the recipe out of the request's task."""
    if recipe.frame is not None:
        index = recipe.frame[0]
        task = task.part(index, index + 1)
    return replace(task, seeds=(recipe.seed,)) if task.seeds else task
