"""Rank pictures by how well they match the prompt: the cosine of CLIP's features, as CLIP-as-service gives it.

Weights: role `clip`, any CLIP with a ViT image tower: OpenAI's file, a transformers folder (OpenAI's, LAION's,
PickScore's), or the embedded family's. The tokenizer lies beside it. A picture is always encoded as a picture, whatever
text came with it.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, Self

import torch
from torch import Tensor

from ..errors import WeightsError
from ..models.clip import CLIP, CLIPConfig, similarity
from ..models.clip_preprocess import OPENAI_MEAN, OPENAI_STD, CLIPPreprocess
from ..models.text.bpe import DalleTokenizer
from ..models.text.clip_bpe import START, ClipTokenizer
from ..models.text.normalize import TextNormalizer
from ..types import Kind
from ..weights.files import load_clip
from ..weights.identity import TOKENIZER, beside, weights_id
from ..weights.transformers_folder import read_preprocessor
from .base import Done, Executor, Output, Slot, StrictOptions, Task

PROMPTS_KEPT = 64  # text features of the last prompts; one is a few kilobytes


class ClipRanker(Executor):
    kind: ClassVar[Kind] = Kind.RANKER
    roles: ClassVar[tuple[str, ...]] = ("clip",)
    capacity = 64

    class Options(StrictOptions):
        """None: a score is a score."""

    def __init__(
        self,
        model: CLIP,
        tokenizer: ClipTokenizer | DalleTokenizer,
        weights_id: str,
        preprocess: CLIPPreprocess | None = None,
    ):
        self.model, self.tokenizer, self.weights_id = model, tokenizer, weights_id
        self.preprocess = preprocess or CLIPPreprocess(model.config.image_size)
        self.normalize = TextNormalizer()
        self.text_features = lru_cache(maxsize=PROMPTS_KEPT)(self._text_features)

    @classmethod
    def load(cls, weights: Mapping[str, Path], device: str) -> Self:
        path = weights["clip"]
        model = load_clip(path, device=device)
        folder = path if path.is_dir() else path.parent
        tokenizer = clip_tokenizer(folder, model.config)
        files = {"clip": beside(path, *TOKENIZER)}
        return cls(model, tokenizer, weights_id(files), _preprocess(path, model.config.image_size))

    @classmethod
    def tiny(cls) -> Self:
        tokenizer = ClipTokenizer.of_bytes()
        config = CLIPConfig(
            embed_dim=24, image_size=28, patch_size=7, vision_width=32, vision_layers=2, text_width=32, text_layers=1,
            vocab_size=tokenizer.vocab_size, head_width=16,
        )  # fmt: skip
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = CLIP(config)
        return cls(model.eval().requires_grad_(False), tokenizer, "tiny")

    def admit(self, task: Task) -> Sequence[Slot]:
        return [Slot(task, task.first + i) for i in range(len(task))]

    @torch.inference_mode()
    def step(self, slots: Sequence[Slot]) -> Iterator[Output]:
        """Every slot finishes: its result is a cosine in [-1, 1]."""
        images = [slot.task.images[slot.index - slot.task.first] for slot in slots]
        pixels = self.preprocess(images).to(self._device)  # (N, 3, H, W)
        features = self.model.encode_image(pixels)  # (N, E)
        for row, slot in enumerate(slots):
            cosine = similarity(features[row : row + 1], self.text_features(slot.task.prompt))
            slot.step = slot.of
            yield Done(slot, float(cosine))

    def drop(self, slots: Sequence[Slot]) -> None:
        """Slots hold nothing here."""

    @property
    def _device(self) -> torch.device:
        return self.model.logit_scale.device

    def _text_features(self, prompt: str) -> Tensor:
        """(1, E) features of a prompt; what is longer than the model reads is cut off at its end."""
        if isinstance(self.tokenizer, DalleTokenizer):
            tokens = self.tokenizer([self.normalize(prompt)])[0]  # (1, T)
        else:
            tokens = self.tokenizer([prompt], truncate=True)  # (1, T)
        return self.model.encode_text(tokens.to(self._device))


def clip_tokenizer(folder: Path, config: CLIPConfig) -> ClipTokenizer | DalleTokenizer:
    """CLIP's own vocabulary, or that of the embedded family, which both of its text models share."""
    vocab = folder / "vocab.json"
    if vocab.exists() and START not in vocab.read_text(encoding="utf-8"):
        return DalleTokenizer.from_folder(folder, config.context_length)
    return ClipTokenizer.from_folder(folder, config.context_length)


def _preprocess(path: Path, size: int) -> CLIPPreprocess:
    """OpenAI's, with the mean and deviation that a transformers folder gives: not all of LAION's have OpenAI's."""
    found = read_preprocessor(path) if path.is_dir() else None
    if found is None:
        return CLIPPreprocess(size)
    if (found.shortest, found.crop, found.filter) != (size, size, "bicubic"):
        how = f"short side to {found.shortest}, both to {found.square}, {found.filter}, crop {found.crop}"
        raise WeightsError(
            f"{path}: preprocessor_config.json prepares pictures in another way ({how}) than is known here: the short "
            f"side to {size}, bicubic, crop {size}"
        )
    return CLIPPreprocess(size, found.mean or OPENAI_MEAN, found.std or OPENAI_STD)
