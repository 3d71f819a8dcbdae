"""What all latent diffusion executors share: slots that ask a UNet which noise they hold, until none is left.

Every slot has a sampler of its own (models/samplers.py), so pictures of any schedule, prompt, size and request share
the UNet's batches. An executor adds its options, its text encoders, its samplers and the UNet itself.

- refine: the picture's latents are noised as far as `strength` says, and the sampler goes on from there;
- inpaint: outside the mask every estimate of the finished latents is replaced by the picture's own, and a UNet that
  sees the picture is shown what is kept. The result is put into the picture as it was, pixel for pixel outside the
  mask, at the picture's own size;
- interpolate: the conditions of two prompts, mixed on the arc between them; every frame has the same noise.

Shapes: N slots, R rows (a slot has one for each condition), C latent channels, h w latent grid.
"""

from abc import abstractmethod
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor

from ..errors import OptionError, PictureError
from ..images import to_image
from ..models.latent_codec import LatentCodec
from ..models.samplers import Noise, Query, Sampler
from ..types import RoundKind
from .base import Done, Executor, Output, Preview, Slot, Task
from .pasting import fitted, latent_mask, pasted, to_pixels

MOST_PICTURES = 32  # at once: a slot holds little more than its latents
CELLS_AT_ONCE = 2**24  # latent cells times rows times the finest level's channels that go through the UNet at a time
MOST_PX = 2048  # a side: more is a typo, or a strip of a picture
MOST_BENT = 1.5  # times by which a picture's shape may be changed to fit the model's grid
PREVIEW_PX = 128  # previews are at most about so large


@dataclass(eq=False)
class DiffusionSlot(Slot):
    """One picture on its way. `conditions[0]` is the unconditional one, `weights` are the guidance of the others."""

    conditions: tuple[Any, ...] = ()
    weights: tuple[float, ...] = ()
    sampler: Sampler | None = None
    query: Query | None = None  # what the sampler wants to know next
    clean: Tensor | None = None  # (C, h, w) scaled latents of the given picture
    new: Tensor | None = None  # (1, h, w): 1 where the picture is made new
    kept: Tensor | None = None  # (C, h, w): what the UNet is shown of the given picture
    result: Tensor | None = field(default=None, repr=False)  # (C, h, w) finished latents


class DiffusionExecutor(Executor):
    """Base of the executors; what is abstract below is what they differ in."""

    codec: LatentCodec
    latent_scale: float
    guided_channels: int
    cells_per_row: int  # channels of the UNet's finest level
    libraries: ClassVar[tuple[str, ...]] = ("torch", "diffusers")
    sees_picture = False
    capacity = MOST_PICTURES

    @property
    @abstractmethod
    def device(self) -> torch.device: ...

    @abstractmethod
    def conditions(self, task: Task, index: int) -> tuple[tuple[Any, ...], tuple[float, ...]]:
        """Unconditional condition and the others, and the guidance of each of the others, for a picture of the task."""

    @abstractmethod
    def sampler(self, task: Task, start: Tensor, clean: Tensor | None, noise: Noise) -> tuple[Sampler, int]:
        """The sampler of a picture and how many queries it will make.

        Args:
            start: (C, h, w) normal noise, the first of the picture's stream.
            clean: (C, h, w) scaled latents of the given picture; None: from noise.
            noise: what the stream gives next.
        """

    @abstractmethod
    def size(self, task: Task) -> tuple[int, int]:
        """Width and height in pixels at which the task is computed."""

    @abstractmethod
    def predict(
        self, latents: Tensor, queries: Sequence[Query], conditions: Sequence[Any], kept: Tensor | None
    ) -> Tensor:
        """What the UNet finds in each row, as noise: (R, C, h, w) -> (R, C, h, w).

        `kept` is what each row is shown of its picture; None: these rows are shown none.
        """

    def admit(self, task: Task) -> Sequence[DiffusionSlot]:
        size = self.size(task)
        with torch.inference_mode():
            found = None if task.init is None else self._encoded(task.init, size)
            return [self._slot(task, task.first + i, seed, size, found) for i, seed in enumerate(task.seeds)]

    def _slot(
        self, task: Task, index: int, seed: int, size: tuple[int, int], found: tuple[Tensor, Tensor | None] | None
    ) -> DiffusionSlot:
        stream = torch.Generator().manual_seed(seed)
        shape = (self.codec.channels, size[1] // self.codec.downscale, size[0] // self.codec.downscale)

        def noise() -> Tensor:
            return torch.randn(shape, generator=stream).to(self.device)

        conditions, weights = self.conditions(task, index)
        slot = DiffusionSlot(task, index, conditions=conditions, weights=weights)
        if found is not None:  # the posterior is sampled, by each picture from its own stream
            mean, deviation = found
            slot.clean = (mean if deviation is None else mean + deviation * noise()) * self.latent_scale
        if task.mask is not None:
            assert slot.clean is not None
            slot.new = latent_mask(task.mask, shape[1:]).to(self.device)
            slot.kept = slot.clean * (1 - slot.new) if self.sees_picture else None
        slot.sampler, slot.of = self.sampler(task, noise(), slot.clean, noise)
        slot.query = next(slot.sampler)
        return slot

    @torch.inference_mode()
    def step(self, slots: Sequence[DiffusionSlot]) -> Iterator[Output]:  # type: ignore[override]
        """Answer one query of every slot; slots whose sampler has ended become pictures."""
        for batch in self._batches(slots):
            for slot, eps in zip(batch, self._estimates(batch), strict=True):
                yield from self._answered(slot, eps)

    def drop(self, slots: Sequence[DiffusionSlot]) -> None:  # type: ignore[override]
        for slot in slots:
            if slot.sampler is not None:
                slot.sampler.close()
            slot.sampler = slot.query = None

    def _answered(self, slot: DiffusionSlot, eps: Tensor) -> Iterator[Output]:
        assert slot.query is not None
        assert slot.sampler is not None
        query = slot.query
        clean = query.clean(eps)
        if slot.new is not None and slot.clean is not None:
            clean = slot.new * clean + (1 - slot.new) * slot.clean
            eps = (query.latents - query.signal**0.5 * clean) / (1 - query.signal) ** 0.5
        slot.step += 1
        try:
            slot.query = slot.sampler.send(eps)
        except StopIteration as end:
            slot.result, slot.query, slot.step = end.value, None, slot.of
            yield Done(slot, self._picture(slot))
            return
        every = slot.task.preview_every
        if every and slot.step % every == 0:
            yield Preview(slot, self._preview(clean))

    def _batches(self, slots: Sequence[DiffusionSlot]) -> Iterator[list[DiffusionSlot]]:
        """Slots with latents of one shape, all shown a picture or none, as many as the UNet may have at a time."""
        kinds: dict[tuple[torch.Size, bool], list[DiffusionSlot]] = defaultdict(list)
        for slot in slots:
            assert slot.query is not None
            kinds[slot.query.latents.shape, slot.kept is None].append(slot)
        for ((_, height, width), _), alike in kinds.items():
            rows = max(len(slot.conditions) for slot in alike)
            at_once = max(1, CELLS_AT_ONCE // (height * width * self.cells_per_row * rows))
            for start in range(0, len(alike), at_once):
                yield alike[start : start + at_once]

    def _estimates(self, slots: Sequence[DiffusionSlot]) -> list[Tensor]:
        """The guided noise estimate (C, h, w) of each slot's query."""
        rows = [(slot, slot.query, condition) for slot in slots for condition in slot.conditions if slot.query]
        latents = torch.stack([query.latents for _, query, _ in rows])  # (R, C, h, w)
        shown = [slot.kept for slot, _, _ in rows if slot.kept is not None]  # of all rows, or of none
        kept = torch.stack(shown) if shown else None  # (R, C, h, w), or as many channels as the UNet is shown
        found = self.predict(latents, [query for _, query, _ in rows], [c for _, _, c in rows], kept)
        parts = torch.split(found, [len(slot.conditions) for slot in slots])
        return [self._guided(part, slot.weights) for part, slot in zip(parts, slots, strict=True)]

    def _guided(self, found: Tensor, weights: tuple[float, ...]) -> Tensor:
        """Away from the unconditional estimate (row 0), towards the others: (1 + conditions, C, h, w) -> (C, h, w).

        Channels that guidance leaves out are those of the first condition.
        """
        if not weights:
            return found[0]
        away = sum(weight * (one - found[0]) for weight, one in zip(weights, found[1:], strict=True))
        guided = found[0] + away  # (C, h, w)
        return torch.cat([guided[: self.guided_channels], found[1, self.guided_channels :]])

    def _encoded(self, image: Image.Image, size: tuple[int, int]) -> tuple[Tensor, Tensor | None]:
        """Mean and deviation (C, h, w) of a picture's latents, unscaled."""
        mean, deviation = self.codec.encode(to_pixels(fitted(image, size)).to(self.device))  # (1, C, h, w)
        return mean[0], None if deviation is None else deviation[0]

    def _picture(self, slot: DiffusionSlot) -> Image.Image:
        assert slot.result is not None
        made = to_image(self.codec.decode(slot.result[None] / self.latent_scale)[0])
        if slot.task.init is not None and slot.task.mask is not None:
            return pasted(made, slot.task.init, slot.task.mask)
        return made

    def _preview(self, clean: Tensor) -> Image.Image:
        """A small picture of latents that are not finished: decoded from fewer of them."""
        side = max(clean.shape[1:]) * self.codec.downscale
        factor = max(1, side // PREVIEW_PX)
        if factor > 1:
            clean = torch.nn.functional.avg_pool2d(clean, factor)  # (C, h/factor, w/factor)
        return to_image(self.codec.decode(clean[None] / self.latent_scale)[0])


def start_index(steps: int, strength: float) -> int:
    """The schedule's index from which a picture is refined; `strength` 1 is the last. At least one step is made.

    DALL·E Flow's `skip_rate` is 1 - strength, and it skipped int(steps * skip_rate) steps.
    """
    skipped = int(steps * (1 - strength) + 1e-9)  # .7 of 10 skips 3, whatever the last bits of 1 - .7 are
    return max(0, steps - skipped - 1)


def slerp(one: Tensor, other: Tensor, position: float) -> Tensor:
    """On the arc from one to the other, both seen as one long vector; straight where they point the same way."""
    if position == 0:
        return one
    cosine = torch.sum(one * other) / (one.norm() * other.norm())
    if abs(float(cosine)) > 0.9995:  # as DALL·E Flow's Stable Diffusion did
        return torch.lerp(one, other, position)
    angle = torch.acos(cosine)
    return (torch.sin((1 - position) * angle) * one + torch.sin(position * angle) * other) / torch.sin(angle)


def checked_size(
    width: int | None, height: int | None, own: tuple[int, int], multiple: int, *, like_picture: bool = False
) -> tuple[int, int]:
    """The size asked for, `own` where nothing is said.

    Args:
        like_picture: `own` has the shape of a given picture; where one side is said, the other keeps that shape.

    Raises:
        OptionError: a side that is no multiple of `multiple`, which the UNet cannot have, or longer than MOST_PX.
    """
    if like_picture and width and not height:
        height = max(multiple, round(width * own[1] / own[0] / multiple) * multiple)
    elif like_picture and height and not width:
        width = max(multiple, round(height * own[0] / own[1] / multiple) * multiple)
    found = (width or own[0], height or own[1])
    for name, value in zip(("width", "height"), found, strict=True):
        if value % multiple:
            near = sorted({max(multiple, value // multiple * multiple), -(-value // multiple) * multiple})
            raise OptionError(
                f"{name} must be a multiple of {multiple} for these weights, got {value}; "
                f"near are {' and '.join(map(str, near))}",
                field=name,
            )
        if value > MOST_PX:
            raise OptionError(
                f"{name} would be {value}; at most {MOST_PX} is allowed. Say width and height, or give a picture of "
                "another shape",
                field=name,
            )
    return found


def size_like(image: Image.Image, own: tuple[int, int], multiple: int) -> tuple[int, int]:
    """The size of a picture's shape with as many pixels as the model is used to, in multiples of `multiple`.

    Raises:
        PictureError: the picture is so thin that the model cannot have its shape.
    """
    scale = (own[0] * own[1] / (image.width * image.height)) ** 0.5
    width, height = (max(multiple, round(side * scale / multiple) * multiple) for side in image.size)
    bent = (width / height) / (image.width / image.height)
    if not 1 / MOST_BENT <= bent <= MOST_BENT:
        raise PictureError(
            f"the picture is {image.width} x {image.height}: too thin for these weights, which could only have "
            f"{width} x {height}; cut it, or give width and height"
        )
    return width, height


def needs_picture(task: Task) -> bool:
    return task.kind in (RoundKind.REFINE, RoundKind.INPAINT)
