"""How our tensors are cut out of a checkpoint: decided on names and shapes alone, then carried out tensor by tensor.

A plan says for each of our names which stored array it comes from. Because making and checking a plan needs no numbers,
the real models are checked on the meta device, and a file that does not fit is refused before anything large is read.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from ..errors import WeightsError

Shape = tuple[int, ...]

NAMED_AT_MOST = 4  # names listed of each kind of problem
MAX_LAYERS = 1024


class Stored(Protocol):
    """An array of a checkpoint, on the disk until it is read."""

    @property
    def shape(self) -> Shape: ...
    @property
    def dtype(self) -> torch.dtype: ...
    def read(self, layer: int | None = None) -> Tensor: ...


@dataclass(frozen=True)
class Piece:
    """One tensor of ours: a stored array, or one layer of it, with its axes in another order; or several, stacked."""

    sources: tuple[str, ...]  # all of the same shape; more than one are put below each other
    stored_shape: Shape  # of each array, or of its one layer
    layer: int | None = None
    axes: tuple[int, ...] | None = None

    @property
    def shape(self) -> Shape:
        shape = tuple(self.stored_shape[axis] for axis in self.axes) if self.axes else self.stored_shape
        return shape if len(self.sources) == 1 else (shape[0] * len(self.sources), *shape[1:])

    def read(self, stored: Mapping[str, Stored], dtype: torch.dtype | None = None) -> Tensor:
        """The tensor, contiguous, in `dtype` (None: as stored)."""
        first = stored[self.sources[0]]
        dtype = dtype or first.dtype
        if not self.axes and len(self.sources) == 1 and dtype == first.dtype:
            return first.read(self.layer).contiguous()
        # Made before what is read into it and thrown away, so that the allocator is left without holes.
        tensor = torch.empty(self.shape, dtype=dtype)
        parts = tensor.chunk(len(self.sources)) if len(self.sources) > 1 else (tensor,)
        for rows, source in zip(parts, self.sources, strict=True):
            part = stored[source].read(self.layer)
            rows.copy_(part.permute(self.axes) if self.axes else part)
        return tensor


Plan = dict[str, Piece]


def shapes_of(items: Mapping[str, Stored] | nn.Module) -> dict[str, Shape]:
    """Key -> shape, of what is stored or of what a model wants."""
    values = items.state_dict() if isinstance(items, nn.Module) else items
    return {key: tuple(value.shape) for key, value in values.items()}


def check_plan(where: object, plan: Plan, stored: Mapping[str, Shape], wanted: Mapping[str, Shape]) -> None:
    """Hold a plan against what is stored and what the model wants: all used, all there, all of the right shape.

    Raises:
        WeightsError: naming the first few of each kind of problem.
    """
    used = {source for piece in plan.values() for source in piece.sources}
    wrong = [
        f"{name} is {list(plan[name].shape)}, expected {list(wanted[name])}"
        for name in wanted.keys() & plan.keys()
        if plan[name].shape != wanted[name]
    ]
    problems = {
        "missing": wanted.keys() - plan.keys(),
        "not known": (stored.keys() - used) | (plan.keys() - wanted.keys()),
        "of another shape": wrong,
    }
    if found := [f"{what}: {_some(names)}" for what, names in problems.items() if names]:
        raise WeightsError(
            f"{where}: these weights do not fit the model its config describes ({'; '.join(found)}). "
            "Are the config and the weights of the same checkpoint?"
        )


def _some(names: Iterable[str]) -> str:
    """The first few of many names."""
    ordered = sorted(names)
    more = len(ordered) - NAMED_AT_MOST
    return ", ".join(ordered[:NAMED_AT_MOST]) + (f" and {more} more" if more > 0 else "")


def check_floating(where: object, stored: Mapping[str, Stored]) -> None:
    """Refuse weights that are not numbers with a fraction."""
    for key, array in stored.items():
        if not array.dtype.is_floating_point:
            raise WeightsError(f"{where}: {key} is of type {array.dtype}, expected a floating-point type.")


def plan_as_is(stored: Mapping[str, Stored]) -> Plan:
    """The plan for arrays that carry our names already."""
    return {name: Piece((name,), array.shape) for name, array in stored.items()}


def read_pieces(
    plan: Plan, stored: Mapping[str, Stored], dtype: torch.dtype | None = None, device: str | torch.device = "cpu"
) -> Iterator[tuple[str, Tensor]]:
    """Each tensor of the plan in turn; no more than one is held here at a time."""
    for name, piece in plan.items():
        yield name, piece.read(stored, dtype).to(device)
