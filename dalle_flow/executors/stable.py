"""Text and pictures to pictures by Stable Diffusion 1, 2 and XL, stepped by our own slots.

Weights: role `stable`, CompVis' single file of version 1 (also the one for inpainting) or a diffusers folder of 1, 2 or
XL. Optional: `vae`, `text` for files that lack them, `tokenizer`, `config`; see docs/stable-diffusion.md. A folder of
any other diffusers pipeline is handed over to the executor `pipeline`.
Prompts may be weighted sub-prompts. Samplers, noise levels, starts and guidance are those of DALL·E Flow's executor of
2022 (tests/parity/test_sd1.py); what it did wrong is not kept, the document has the list.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Self, cast
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from ..errors import PictureError
from ..models.karras import SAMPLERS, evaluations
from ..models.samplers import Noise, Query, Sampler
from ..models.sigmas import SigmaTable, after_strength
from ..models.subprompts import parse_subprompts
from ..types import Kind, RoundKind
from ..weights.diffusers_folder import is_stepped_here
from ..weights.identity import weights_id
from ..weights.pipeline_hub import fetch_pipeline, hub_name
from ..weights.stable_diffusion import StableDiffusion, load_stable_diffusion
from .base import Done, Output, StrictOptions, Task
from .diffusion import DiffusionExecutor, checked_size, needs_picture
from .pasting import fitted, latent_mask, to_pixels
from .stable_frames import Condition, Row, RowKey, StableSlot, between, mixed_weights, turns
from .stable_options import (
    StableInpaintOptions,
    StableInterpolateOptions,
    StableOptions,
    StableRefineOptions,
    check_options,
)
from .stable_start import Given, Posterior, size_of_picture, with_mask
from .unread import unread

PROMPTS_KEPT = 64  # text states of the last prompts; one takes 0.2 to 0.6 MB


class StableGenerator(DiffusionExecutor):
    kind: ClassVar[Kind] = Kind.GENERATOR
    roles: ClassVar[tuple[str, ...]] = ("stable",)
    optional_roles: ClassVar[tuple[str, ...]] = ("vae", "text", "tokenizer", "config")
    Options: ClassVar[type[StrictOptions]] = StableOptions
    verbs: ClassVar[Mapping[RoundKind, type[StrictOptions]]] = {
        RoundKind.GENERATE: StableOptions,
        RoundKind.REFINE: StableRefineOptions,
        RoundKind.INPAINT: StableInpaintOptions,
        RoundKind.INTERPOLATE: StableInterpolateOptions,
    }

    def __init__(self, parts: StableDiffusion, weights_id: str):
        self.unet, self.codec, self.texts, self.weights_id = parts.unet, parts.codec, parts.texts, weights_id
        config: Any = parts.unet.config
        self.latent_scale, self.prediction, self.size_px = parts.latent_scale, parts.prediction, parts.size_px
        self.blank_is_zero = parts.blank_is_zero
        self.table = SigmaTable.of(parts.signal)
        self.guided_channels = self.codec.channels
        self.cells_per_row = config.block_out_channels[0]
        self.sees_picture = config.in_channels != self.codec.channels
        self.is_xl = config.addition_embed_type == "text_time"
        self.condition = lru_cache(maxsize=PROMPTS_KEPT)(self._condition)
        self._rows: WeakValueDictionary[RowKey, Row] = WeakValueDictionary()

    @classmethod
    def can_find(cls, path: Path) -> bool:
        """Also names of the hub: whether there is such a one, loading says."""
        return path.exists() or hub_name(path) is not None

    @classmethod
    def load(cls, weights: Mapping[str, Path], device: str) -> Self:
        if name := hub_name(weights["stable"]):
            weights = {**weights, "stable": fetch_pipeline(*name)}
        path = weights["stable"]
        if (path / "model_index.json").is_file() and not is_stepped_here(path):
            from .stable_pipeline import load_other

            return cast(Self, load_other(weights, device))
        parts = load_stable_diffusion(weights, device=device)
        return cls(parts, weights_id(parts.files))

    @classmethod
    def tiny(cls) -> Self:
        from .stable_tiny import TinyStable, tiny_parts

        return cast(Self, TinyStable(tiny_parts(), "tiny"))

    @property
    def device(self) -> torch.device:
        return self.texts[0].encoder.ln_final.weight.device

    def remarks(self, prompt: str) -> Sequence[str]:
        """Parts of the prompt that do not fit into what the text encoder reads."""
        tokenizer = self.texts[0].tokenizer
        found = [(part.text, len(tokenizer.encode(part.text)) + 2) for part in parse_subprompts(prompt)]
        return [text for part, tokens in found for text in unread(part, tokens, tokenizer.context_length, None)]

    def size(self, task: Task) -> tuple[int, int]:
        options, own = cast(StableOptions, task.options), (self.size_px, self.size_px)
        if task.init is not None:
            own = size_of_picture(task.init, self.size_px, self.codec.downscale)
        given = task.init is not None
        return checked_size(options.width, options.height, own, self.codec.downscale, like_picture=given)

    @torch.inference_mode()
    def admit(self, task: Task) -> Sequence[StableSlot]:
        assert isinstance(task.options, StableOptions)
        if needs_picture(task) and task.init is None:
            raise PictureError(f"{task.kind} needs a picture to start from", field="picture")
        check_options(task.options)
        task = with_mask(task)
        size = self.size(task)
        if isinstance(task.options, StableInterpolateOptions) and task.options.resample_prior:
            return self._row(task, size)
        given = self._given(task, size)
        return [self._new_slot(task, i, size, given) for i in range(len(task))]

    def conditions(self, task: Task, index: int) -> tuple[tuple[Condition, ...], tuple[float, ...]]:
        options = cast(StableOptions, task.options)
        parts = parse_subprompts(task.prompt)
        said, weights = [self.condition(part.text) for part in parts], [part.weight for part in parts]
        if task.prompt_to is not None:
            to, position = parse_subprompts(task.prompt_to), task.position(index)
            weights = mixed_weights(parts, to, position)
            said = [between(a, self.condition(b.text), position) for a, b in zip(said, to, strict=True)]
        if options.guidance_scale == 1 and weights == [1.0]:
            return tuple(said), ()
        blank = self.condition(options.negative_prompt or "")
        if options.negative_prompt is None and self.blank_is_zero:
            vector = None if blank.vector is None else torch.zeros_like(blank.vector)
            blank = Condition(torch.zeros_like(blank.context), vector)
        return (blank, *said), tuple(options.guidance_scale * weight for weight in weights)

    def sampler(self, task: Task, start: Tensor, clean: Tensor | None, noise: Noise) -> tuple[Sampler, int]:
        """From the noise level that `strength` says, where there is a picture to start from."""
        options = cast(StableOptions, task.options)
        sigmas = self.table.sigmas(options.num_inference_steps, options.noiser)
        strength = getattr(options, "strength", 1.0) if task.init is not None or clean is not None else 1.0
        if strength < 1:
            sigmas = after_strength(sigmas, strength)
        latents = sigmas[0] * start
        if clean is not None and strength < 1 and not getattr(options, "latentless", False):
            latents = latents + clean
        stepped = SAMPLERS[options.sampler](latents, sigmas, noise)
        return self.table.queries(stepped), evaluations(options.sampler, len(sigmas) - 1)

    def predict(
        self, latents: Tensor, queries: Sequence[Query], conditions: Sequence[Any], kept: Tensor | None
    ) -> Tensor:
        timesteps = torch.tensor([query.timestep for query in queries], device=latents.device)  # (R,)
        context = torch.stack([condition.context for condition in conditions])  # (R, T, D)
        seen = latents if kept is None else torch.cat([latents, kept], 1)  # (R, C or 2C + 1, h, w)
        added = None
        if self.is_xl:
            height, width = (side * self.codec.downscale for side in latents.shape[2:])
            sizes = torch.tensor([height, width, 0, 0, height, width], device=latents.device)  # asked, cut off, made
            vectors = torch.stack([condition.vector for condition in conditions])  # (R, E)
            added = {"text_embeds": vectors, "time_ids": sizes.to(vectors).expand(len(vectors), -1)}
        found = self.unet(seen, timesteps, context, added_cond_kwargs=added, return_dict=False)[0]  # (R, C, h, w)
        if self.prediction == "epsilon":
            return cast(Tensor, found)
        signal = torch.tensor([query.signal for query in queries], device=latents.device)[:, None, None, None]
        return cast(Tensor, signal.sqrt() * found + (1 - signal).sqrt() * latents)

    @torch.inference_mode()
    def step(self, slots: Sequence[StableSlot]) -> Iterator[Output]:  # type: ignore[override]
        """As of all diffusion executors; of a row of frames only the first unfinished one moves."""
        ready = []
        for slot in turns(slots):
            if slot.sampler is None:
                slot.sampler = self._frames(slot)
                try:
                    slot.query = next(slot.sampler)
                except StopIteration as end:  # another slot has made this frame
                    slot.result, slot.step = end.value, slot.of
                    yield Done(slot, self._picture(slot))
                    continue
            ready.append(slot)
        yield from super().step(ready)
        for slot in ready:  # dpm_adaptive may take more steps than was estimated
            if slot.query is not None:
                slot.of = max(slot.of, slot.step + 1)

    def _new_slot(self, task: Task, place: int, size: tuple[int, int], given: Given) -> StableSlot:
        """Draws in the order of 2022: what the UNet is shown, the picture, the start; without a picture that first."""
        noise = self._noise(task.seeds[place], size)
        slot = StableSlot(task, task.first + place)
        slot.conditions, slot.weights = self.conditions(task, slot.index)
        start = noise() if given.clean is None else None
        shown = None if given.shown is None else self._sampled(given.shown, noise)
        if given.clean is not None:
            slot.clean = self._sampled(given.clean, noise)
        if shown is not None:
            whole = torch.ones_like(shown[:1])  # (1, h, w)
            slot.kept = torch.cat([whole if given.new is None else given.new, shown])  # (1 + C, h, w)
        else:
            slot.new = given.new
        slot.sampler, slot.of = self.sampler(task, noise() if start is None else start, slot.clean, noise)
        slot.query = next(slot.sampler)
        return slot

    def _given(self, task: Task, size: tuple[int, int]) -> Given:
        grid = tuple(side // self.codec.downscale for side in size[::-1])
        pixels = None if task.init is None else to_pixels(fitted(task.init, size)).to(self.device)  # (1, 3, H, W)
        new = None if task.mask is None else latent_mask(task.mask, grid).to(self.device)
        shown = None
        if self.sees_picture:
            seen = torch.full((1, 3, size[1], size[0]), 0.5, device=self.device)
            if pixels is not None and task.mask is not None:
                white = to_pixels(fitted(task.mask, size)).to(self.device) > 0.5
                seen = torch.where(white, seen, pixels)
            shown = self._posterior(seen)
        unused = new is None and getattr(task.options, "latentless", False)
        return Given(None if pixels is None or unused else self._posterior(pixels), new, shown)

    def _posterior(self, pixels: Tensor) -> Posterior:
        mean, deviation = self.codec.encode(pixels)  # (1, C, h, w) each
        return mean[0], None if deviation is None else deviation[0]

    def _condition(self, prompt: str) -> Condition:
        """What the UNet is told of a text: of one encoder its last states, of XL's two those before the last layer."""
        found = [reader.read(prompt) for reader in self.texts]
        if len(found) == 1:
            return Condition(found[0].last[0], None)
        context = torch.cat([states.penultimate[0] for states in found], -1)  # (T, D)
        return Condition(context, None if found[1].vector is None else found[1].vector[0])

    def _sampled(self, posterior: Posterior, noise: Noise) -> Tensor:
        """(C, h, w) scaled latents; the posterior is sampled by each picture from its own stream."""
        mean, deviation = posterior
        return (mean if deviation is None else mean + deviation * noise()) * self.latent_scale

    def _noise(self, seed: int, size: tuple[int, int]) -> Noise:
        """Normal numbers (C, h, w) of a picture's own stream, drawn on the CPU."""
        stream = torch.Generator().manual_seed(seed)
        shape = (self.codec.channels, size[1] // self.codec.downscale, size[0] // self.codec.downscale)
        return lambda: torch.randn(shape, generator=stream).to(self.device)

    def _row(self, task: Task, size: tuple[int, int]) -> list[StableSlot]:
        """Frames of which each starts from the one before it."""
        row = self._rows.setdefault(RowKey.of_task(task), Row())
        slots = []
        for frame in range(task.first, task.first + len(task)):
            slot = StableSlot(task, frame, row=row)
            slot.conditions, slot.weights = self.conditions(task, frame)
            missing = range(min(row.planned, frame), frame + 1)  # frames that no slot is on its way to
            slot.of = sum(self._steps(task.options, frame) for frame in missing)
            row.planned = max(row.planned, frame + 1)
            slots.append(slot)
        return slots

    def _steps(self, options: StrictOptions, frame: int) -> int:
        assert isinstance(options, StableInterpolateOptions)
        sigmas = self.table.sigmas(options.num_inference_steps, options.noiser)
        if frame and options.strength < 1:
            sigmas = after_strength(sigmas, options.strength)
        return evaluations(options.sampler, len(sigmas) - 1)

    def _frames(self, slot: StableSlot) -> Sampler:
        """The queries of all frames up to the slot's that are not finished yet; returns the slot's latents."""
        task, row, size = slot.task, slot.row, self.size(slot.task)
        assert row is not None
        key, given = RowKey.of_task(task), self._given(task, size)
        while (frame := len(row.finished)) <= slot.index:
            noise = self._noise(key.seed_of(frame), size)
            start, before = noise(), row.finished[-1] if frame else None
            slot.conditions, slot.weights = self.conditions(task, frame)
            if given.shown is not None:
                shown = self._sampled(given.shown, noise)
                slot.kept = torch.cat([torch.ones_like(shown[:1]), shown])  # (1 + C, h, w)
            row.add(frame, (yield from self.sampler(task, start, before, noise)[0]))
        return row.finished[slot.index]
