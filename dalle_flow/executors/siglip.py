"""Rank pictures by how well they match the prompt: the cosine of SigLIP's or SigLIP 2's features.

Weights: role `siglip`, a transformers folder of a SiglipModel with a fixed picture size (google/siglip-*, and all of
google/siglip2-* but naflex): config.json, model.safetensors, preprocessor_config.json, tokenizer.json,
tokenizer_config.json.
The result is the cosine as CLIP's is, without the learnt scale and bias that turn it into the probability of a pair:
they do not change the order, and the flow ranks all candidates together. Cosines are lower than CLIP's; 0.1 is a match.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from ..errors import WeightsError
from ..models.clip import similarity
from ..models.siglip_preprocess import SiglipPreprocess
from ..models.text.siglip_tokens import SiglipTokenizer
from ..types import Kind
from ..weights.disk import read_json
from ..weights.files import on_meta
from ..weights.identity import weights_id
from ..weights.plan import check_floating, check_plan, plan_as_is, read_pieces, shapes_of
from ..weights.transformers_folder import read_preprocessor, read_weights
from .base import Done, Executor, Output, Slot, StrictOptions, Task

Model = Any  # transformers' SiglipModel: its own types leave open what its config holds

PROMPTS_KEPT = 64  # text features of the last prompts; one is a few kilobytes
TABLES = ("text_model.embeddings.position_ids", "vision_model.embeddings.position_ids")  # 0, 1, 2, ...: no weights


class SiglipRanker(Executor):
    kind: ClassVar[Kind] = Kind.RANKER
    roles: ClassVar[tuple[str, ...]] = ("siglip",)
    capacity = 64

    class Options(StrictOptions):
        """None: a score is a score."""

    def __init__(self, model: Model, tokenizer: SiglipTokenizer, preprocess: SiglipPreprocess, weights_id: str):
        self.model, self.tokenizer, self.preprocess, self.weights_id = model, tokenizer, preprocess, weights_id
        text = model.config.text_config
        if tokenizer.vocab_size > text.vocab_size:
            sizes = f"the tokenizer has {tokenizer.vocab_size} tokens, the model only {text.vocab_size}"
            raise WeightsError(f"{sizes}: not a pair")
        self.text_features = lru_cache(maxsize=PROMPTS_KEPT)(self._text_features)

    @classmethod
    def load(cls, weights: Mapping[str, Path], device: str) -> Self:
        folder = weights["siglip"]
        if not folder.is_dir():
            raise WeightsError(
                f"{folder}: there is no such folder; SigLIP's weights are a folder as transformers has it."
            )
        model = load_siglip(folder, device)
        tokenizer = SiglipTokenizer.from_folder(folder, model.config.text_config.max_position_embeddings)
        preprocess = _preprocess(folder, model.config.vision_config.image_size)
        return cls(model, tokenizer, preprocess, weights_id({"siglip": folder}))

    @classmethod
    def tiny(cls) -> Self:
        tokenizer = SiglipTokenizer.of_bytes(length=16)
        text = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
        vision = {**text, "num_hidden_layers": 2, "image_size": 28, "patch_size": 7}
        text |= {"vocab_size": tokenizer.vocab_size, "max_position_embeddings": 16}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = _build({"text_config": text, "vision_config": vision})
        return cls(model.eval().requires_grad_(False), tokenizer, SiglipPreprocess(28), "tiny")

    def admit(self, task: Task) -> Sequence[Slot]:
        return [Slot(task, task.first + i) for i in range(len(task))]

    @torch.inference_mode()
    def step(self, slots: Sequence[Slot]) -> Iterator[Output]:
        """Every slot finishes: its result is a cosine in [-1, 1]."""
        images = [slot.task.images[slot.index - slot.task.first] for slot in slots]
        pixels = self.preprocess(images).to(self._device)  # (N, 3, H, W)
        features = self.model.get_image_features(pixel_values=pixels).pooler_output  # (N, E)
        for row, slot in enumerate(slots):
            cosine = similarity(features[row : row + 1], self.text_features(slot.task.prompt))
            slot.step = slot.of
            yield Done(slot, float(cosine))

    def drop(self, slots: Sequence[Slot]) -> None:
        """Slots hold nothing here."""

    @property
    def _device(self) -> torch.device:
        device: torch.device = self.model.logit_scale.device
        return device

    def _text_features(self, prompt: str) -> Tensor:
        """(1, E) features of a prompt; what is longer than the model reads is cut off at its end."""
        tokens = self.tokenizer([prompt])  # (1, T)
        features: Tensor = self.model.get_text_features(input_ids=tokens.to(self._device)).pooler_output
        return features


def load_siglip(folder: Path, device: str = "cpu") -> Model:
    """The model of a transformers folder in float32, for inference.

    Raises:
        WeightsError: it is of another kind, its weights do not fit its config, or are damaged.
    """
    values = read_json(folder / "config.json")
    if values.get("model_type") != "siglip":
        kind = values.get("model_type")
        raise WeightsError(
            f"{folder}: is a {kind!r:.60}, not a 'siglip'; SigLIP 2 is one too, but for its naflex checkpoints "
            "('siglip2'), which are not known here"
        )
    stored, _ = read_weights(folder)
    stored = {name: tensor for name, tensor in stored.items() if name not in TABLES}
    _classes()  # imported now: what is made while a module is imported is no part of a model without memory
    model: Model = on_meta(_build, values)  # type: ignore[arg-type]
    plan = plan_as_is(stored)
    check_plan(folder, plan, shapes_of(stored), shapes_of(model))
    check_floating(folder, stored)
    state = dict(read_pieces(plan, stored, torch.float32, device))
    model.load_state_dict(state, strict=True, assign=True)
    for name in TABLES:
        part: Any = model.get_submodule(name.rpartition(".")[0])
        part.position_ids = torch.arange(part.position_embedding.num_embeddings, device=device)[None]  # (1, T)
    return model.requires_grad_(False).eval()


def _classes() -> tuple[Any, Any]:
    from transformers.models.siglip.configuration_siglip import SiglipConfig
    from transformers.models.siglip.modeling_siglip import SiglipModel

    return SiglipConfig, SiglipModel


def _build(values: Mapping[str, Any]) -> Model:
    """An untrained model of these sizes."""
    config_class, model_class = _classes()
    try:
        with _quiet():
            model = model_class(config_class.from_dict(dict(values)))
    except Exception as error:  # many kinds, some of them bare
        why = " ".join(str(error).split())
        raise WeightsError(f"config.json: no SigLIP can be built of it ({type(error).__name__}: {why:.200})") from None
    if not isinstance(getattr(model.vision_model, "head", None), nn.Module):
        raise WeightsError("config.json: a SigLIP without vision head gives no features to compare with a text")
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' remarks on ids of other tokenizers that every config of SigLIP has."""
    logger = logging.getLogger("transformers")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _preprocess(folder: Path, size: int) -> SiglipPreprocess:
    found = read_preprocessor(folder)
    if found is None or found.filter is None or found.mean is None or found.std is None:
        raise WeightsError(f"{folder}: has no preprocessor_config.json with size, mean and deviation; fetch it again.")
    if found.square != size or found.crop is not None:
        how = f"both sides to {found.square}, the short one to {found.shortest}, crop {found.crop}"
        raise WeightsError(f"{folder}: pictures are resized ({how}), the model wants both sides to be {size}.")
    return SiglipPreprocess(size, found.filter, found.mean, found.std)
