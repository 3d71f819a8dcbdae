"""Find in a picture what a text names: CLIPSeg, with the thresholds that DALL·E Flow used in 2022.

Weights: role `clipseg`, a whole model (the embedded family's, a transformers folder) or a decoder as its authors
publish it (`rd64-uni.pth`), which needs a CLIP in the role `clip` besides. The tokenizer lies beside the CLIP.

The 2022 program measured against the surest pixel of the picture, so that something was always selected, resized
pictures to 512 x 512, and gave the picture with what it had found made transparent. Its protocol asks for that with
`relative`, `size_px` and `invert`; by default what is not in a picture gives a black mask.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import torch
from PIL import Image, ImageFilter, ImageOps
from pydantic import Field, field_validator
from torch import Tensor

from ..errors import OptionError
from ..models.clip import CLIPConfig
from ..models.clipseg import CLIPSeg, CLIPSegConfig, to_pixels
from ..models.masks import Thresholding, as_large_as, grey, threshold
from ..models.text.bpe import DalleTokenizer
from ..models.text.clip_bpe import ClipTokenizer
from ..models.text.known_words import read_known_words
from ..models.text.normalize import TextNormalizer
from ..types import Kind, RoundKind
from ..weights.clipseg import load_clipseg
from ..weights.identity import TOKENIZER, beside, weights_id
from .base import Done, Executor, Output, Slot, StrictOptions, Task
from .clip import clip_tokenizer
from .unread import unread

PROMPTS_KEPT = 64  # text features of the last prompts; one is a few kilobytes


class SegmentExecutor(Executor):
    kind: ClassVar[Kind] = Kind.SEGMENTER
    roles: ClassVar[tuple[str, ...]] = ("clipseg",)
    optional_roles: ClassVar[tuple[str, ...]] = ("clip",)
    capacity = 8

    class Options(StrictOptions):
        thresholding_type: Thresholding = Field(
            "binary", description="how sureness becomes black and white; none keeps it as grey"
        )
        binary_thresh_strength: int = Field(
            85, ge=0, le=255, description="binary: a pixel is found when it is surer than this; lower finds more"
        )
        adaptive_thresh_block_size: int = Field(
            11, ge=3, le=511, description="adaptive: side of the window a pixel is compared with; odd"
        )
        adaptive_thresh_c: float = Field(
            2.0, ge=-255, le=255, description="adaptive: how much less sure than its window a found pixel may be"
        )
        grow_px: int = Field(
            0, ge=0, le=64, description="pixels by which what is found is made larger, so that inpainting leaves no rim"
        )
        invert: bool = Field(False, description="white where the prompt is not")
        relative: bool = Field(
            False, description="measure against the surest pixel of the picture, so that something is always found"
        )
        size_px: int | None = Field(
            None, ge=1, le=1024, description="side that pictures are resized to for the model; null: as it was trained"
        )

        @field_validator("adaptive_thresh_block_size")
        @classmethod
        def _odd(cls, value: int) -> int:
            if value % 2 == 0:
                raise ValueError(f"must be odd, such as {value - 1} or {value + 1}")
            return value

    verbs: ClassVar[Mapping[RoundKind, type[StrictOptions]]] = {RoundKind.SEGMENT: Options}

    def __init__(self, model: CLIPSeg, tokenizer: ClipTokenizer | DalleTokenizer, weights_id: str):
        self.model, self.tokenizer, self.weights_id = model, tokenizer, weights_id
        self.known_words: frozenset[str] | None = None
        self.normalize = TextNormalizer()
        self.condition = lru_cache(maxsize=PROMPTS_KEPT)(self._condition)

    @classmethod
    def load(cls, weights: Mapping[str, Path], device: str) -> Self:
        path, clip = weights["clipseg"], weights.get("clip")
        model = load_clipseg(path, clip, device=device)
        words_of = clip or path
        folder = words_of if words_of.is_dir() else words_of.parent
        files = {"clipseg": beside(path, "config.json")}
        if clip is not None:
            files["clip"] = beside(clip, *TOKENIZER)
        made = cls(model, clip_tokenizer(folder, model.config.clip), weights_id(files))
        words = folder / "known_words.txt"
        made.known_words = read_known_words(words) if words.exists() else None
        return made

    @classmethod
    def tiny(cls) -> Self:
        tokenizer = ClipTokenizer.of_bytes()
        clip = CLIPConfig(
            embed_dim=24, image_size=28, patch_size=7, vision_width=32, vision_layers=3, text_width=32, text_layers=1,
            vocab_size=tokenizer.vocab_size, head_width=16,
        )  # fmt: skip
        config = CLIPSegConfig(clip, 8, heads=2, mlp_width=12, extract_layers=(0, 1), kernels=(7,), input_size=42)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = CLIPSeg(config)
        return cls(model.eval().requires_grad_(False), tokenizer, "tiny")

    def remarks(self, prompt: str) -> Sequence[str]:
        """The words this model has never read. A prompt that is too long is refused, not cut: see `admit`."""
        return unread(prompt, 0, 0, self.known_words)

    def admit(self, task: Task) -> Sequence[Slot]:
        """One slot per picture.

        Raises:
            OptionError: an empty or too long prompt, or a `size_px` into which the model's patches do not fit.
        """
        self._side(task)
        self.condition(task.prompt)
        return [Slot(task, task.first + i) for i in range(len(task))]

    @torch.inference_mode()
    def step(self, slots: Sequence[Slot]) -> Iterator[Output]:
        """Every slot finishes: its result is a mask "L" as large as its picture."""
        for slot in slots:  # one by one: a batch rounds its sums otherwise, and a pixel on the edge would change sides
            options, image = slot.task.options, slot.task.images[slot.index - slot.task.first]
            assert isinstance(options, self.Options)
            logits = self._logits(image, slot.task)  # (H, W)
            mask = threshold(
                grey(logits, relative=options.relative),
                options.thresholding_type,
                strength=options.binary_thresh_strength,
                block_size=options.adaptive_thresh_block_size,
                c=options.adaptive_thresh_c,
            )
            found = as_large_as(mask, *image.size)
            if options.grow_px:
                found = found.filter(ImageFilter.MaxFilter(2 * options.grow_px + 1))
            slot.step = slot.of
            yield Done(slot, ImageOps.invert(found) if options.invert else found)

    def drop(self, slots: Sequence[Slot]) -> None:
        """Slots hold nothing here."""

    def _logits(self, image: Image.Image, task: Task) -> Tensor:
        """(H, W) of one picture, on the model's device. What is transparent in it is looked at all the same."""
        array = np.array(_as_rgb(image), dtype=np.uint8)
        picture = torch.from_numpy(array).permute(2, 0, 1)[None].float() / 255  # (1, 3, H, W)
        pixels = to_pixels(picture, self.model.config, self._side(task)).to(self._device)
        logits: Tensor = self.model.decode(self.model.activations(pixels), self.condition(task.prompt))
        return logits[0]

    def _side(self, task: Task) -> int:
        """Pixels per side that the model gets to see."""
        assert isinstance(task.options, self.Options)
        side, patch = task.options.size_px, self.model.config.clip.patch_size
        if side is None:
            return self.model.config.input_size
        if side % patch:
            near = " or ".join(str(n) for n in (side // patch * patch, (side // patch + 1) * patch) if n)
            raise OptionError(
                f"size_px must be a multiple of {patch}, the side of its patches, such as {near}; got {side}",
                field="size_px",
            )
        return side

    @property
    def _device(self) -> torch.device:
        return self.model.film_mul.weight.device

    @torch.inference_mode()
    def _condition(self, prompt: str) -> Tensor:
        """(1, E) features of a prompt."""
        if not prompt.strip():
            raise OptionError("the prompt is empty; say what to find in the picture", field="prompt")
        if isinstance(self.tokenizer, DalleTokenizer):
            text, room = self.normalize(prompt), self.tokenizer.max_length
            if (length := len(self.tokenizer.encode(text))) > room:
                raise OptionError(
                    f"the text has {length} tokens, this model reads {room} with start and end: {prompt[:40]!r}...; "
                    "shorten it",
                    field="prompt",
                )
            tokens = self.tokenizer([text])[0]  # (1, T)
        else:
            tokens = self.tokenizer([prompt])  # (1, T)
        return self.model.clip.encode_text(tokens.to(self._device))


def _as_rgb(image: Image.Image) -> Image.Image:
    """Without transparency, by leaving it out. A palette's goes by way of RGBA, or Pillow warns."""
    return (image.convert("RGBA") if image.mode == "P" else image).convert("RGB")
