"""Text to pictures by DALL·E Mini, Mega or the embedded DALL·E: one code per step and slot.

Weights: role `dalle` (transformer and tokenizer), role `codec` (the VQGAN that turns its codes into pixels).
Guidance ("super conditioning") and sampling as borisdayma/dalle-mini; `condition_scale` 10 and `top_k` 50 are what
DALL·E Flow used in 2022. Pixels are truncated to 8 bits, as there.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, Self

import torch
from einops import rearrange
from pydantic import Field
from torch import Tensor

from ..errors import WeightsError
from ..images import to_image
from ..models.dalle_bart import DalleBart, DalleBartConfig
from ..models.dalle_cache import Prompt
from ..models.dalle_decode import DecoderSlot, SlotDecoder
from ..models.sampling import Filters, NoiseStream, guide, mask_non_codes, next_noise, sample
from ..models.text.bpe import DalleTokenizer
from ..models.text.hashtags import HashtagSplitter, split_at_symbols
from ..models.text.known_words import read_known_words
from ..models.text.normalize import TextNormalizer
from ..models.vqgan import VQGAN, VQGANConfig
from ..types import Kind, RoundKind
from ..weights.files import open_dalle_bart, open_vqgan
from ..weights.identity import beside, weights_id
from .base import Done, Executor, Output, Preview, Slot, StrictOptions, Task
from .unread import unread

MOST_PICTURES = 32  # at once: more rows make a step of the small models no better used
CACHE_BYTES = 2 * 2**30  # for keys and values of codes: 10 pictures of Mega in float32
PROMPTS_KEPT = 32  # encoded prompts; Mega's take 12 MB each in float16
PICTURES_DECODED = 8  # at once: the codec's activations take 0.3 GB a picture at 256x256
WORD_RANKS = "enwiki-words-frequency.txt"  # beside DALL·E Mini's weights: how hashtags are cut into words


@dataclass(eq=False)
class DalleSlot(Slot):
    row: DecoderSlot | None = None  # its place in the decoder; none once it is done
    noise: Iterator[Tensor] = field(default_factory=lambda: iter(()))
    codes: list[Tensor] = field(default_factory=list)  # one () int64 per step


class DalleGenerator(Executor):
    kind: ClassVar[Kind] = Kind.GENERATOR
    roles: ClassVar[tuple[str, ...]] = ("dalle", "codec")

    class Options(StrictOptions):
        condition_scale: float = Field(10.0, ge=0, le=100, description="guidance towards the prompt; 1 switches it off")
        temperature: float = Field(1.0, ge=0.01, le=10, description="above 1: more variety, below: more of the likely")
        top_k: int = Field(50, ge=0, le=2**20, description="draw each code from the k likeliest; 0 takes all")
        top_p: float = Field(1.0, gt=0, le=1, description="draw from the likeliest codes that make up this share")

    verbs: ClassVar[Mapping[RoundKind, type[StrictOptions]]] = {RoundKind.GENERATE: Options}

    def __init__(self, model: DalleBart, codec: VQGAN, tokenizer: DalleTokenizer, weights_id: str):
        _check_fit(model.config, codec.config, tokenizer)
        self.model, self.codec, self.tokenizer, self.weights_id = model, codec, tokenizer, weights_id
        self.known_words: frozenset[str] | None = None
        self.normalize = TextNormalizer()
        config = model.config
        parameter = model.lm_head.weight
        self.device = parameter.device
        picture_bytes = 2 * 2 * config.decoder_layers * config.image_length * config.d_model * parameter.element_size()
        self.capacity = max(1, min(MOST_PICTURES, CACHE_BYTES // picture_bytes))
        self.decoder = SlotDecoder(model, 2 * self.capacity)
        self.prompt = lru_cache(maxsize=PROMPTS_KEPT)(self._prompt)
        self._filters: tuple[list[DalleSlot], Filters, Tensor] | None = None

    @classmethod
    def load(cls, weights: Mapping[str, Path], device: str) -> Self:
        bart, pixels = open_dalle_bart(weights["dalle"]), open_vqgan(weights["codec"])
        model, codec = bart.load(device=device), pixels.load(device=device)
        folder = weights["dalle"] if weights["dalle"].is_dir() else weights["dalle"].parent
        tokenizer = DalleTokenizer.from_folder(folder, model.config.max_text_length)
        files = {"dalle": [folder, *bart.files], "codec": [*beside(weights["codec"], "config.json"), *pixels.files]}
        made = cls(model, codec, tokenizer, weights_id(files))
        ranks, words = folder / WORD_RANKS, folder / "known_words.txt"
        made.normalize = TextNormalizer(HashtagSplitter.from_file(ranks) if ranks.exists() else split_at_symbols)
        made.known_words = read_known_words(words) if words.exists() else None
        return made

    @classmethod
    def tiny(cls) -> Self:
        tokenizer = DalleTokenizer.of_bytes(max_length=24)
        bart = DalleBartConfig(
            d_model=32, encoder_layers=1, decoder_layers=2, encoder_attention_heads=2, decoder_attention_heads=2,
            encoder_ffn_dim=40, decoder_ffn_dim=40, encoder_vocab_size=tokenizer.vocab_size, image_vocab_size=33,
            max_text_length=24, image_length=16, decoder_start_token_id=33,
        )  # fmt: skip
        codec = VQGANConfig(
            base_channels=8, channel_mults=(1, 2), num_res_blocks=1, attn_resolutions=(), resolution=8, z_channels=8,
            code_dim=4, num_codes=31, norm_groups=4,
        )  # fmt: skip
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            # Weights of a trained size, not of an untrained one: otherwise every prompt and seed looks alike.
            model, pixels = DalleBart(bart, init_std=0.3), VQGAN(codec)
        return cls(model.eval().requires_grad_(False), pixels.eval().requires_grad_(False), tokenizer, "tiny")

    def remarks(self, prompt: str) -> Sequence[str]:
        """The words this model has never read, and the words that do not fit into its text length."""
        tokens = len(self.tokenizer.encode(self.normalize(prompt)))
        return unread(prompt, tokens, self.tokenizer.max_length, self.known_words)

    def admit(self, task: Task) -> Sequence[DalleSlot]:
        options = task.options
        assert isinstance(options, self.Options)
        prompt = self.prompt(self.normalize(task.prompt))
        unconditional = None if options.condition_scale == 1 else self.prompt(None)
        config = self.model.config
        streams = [NoiseStream(seed, config.vocab_size) for seed in task.seeds]  # first: a bad seed must take no row
        return [
            DalleSlot(
                task, task.first + i, of=config.image_length, row=self.decoder.admit(prompt, unconditional), noise=noise
            )
            for i, noise in enumerate(streams)
        ]

    @torch.inference_mode()
    def step(self, slots: Sequence[DalleSlot]) -> Iterator[Output]:  # type: ignore[override]
        """Draw the next code of every slot; slots that have all theirs become pictures."""
        start = torch.tensor(self.model.config.decoder_start_token_id, device=self.device)
        fed = torch.stack([slot.codes[-1] if slot.codes else start for slot in slots])  # (N,)
        uncond, cond = self.decoder.step([slot.row for slot in slots if slot.row], fed)  # (N, V) each
        filters, scale = self._settings(slots)
        # Ids above the codes (start, padding, rows that fill up) are no picture; trained weights never draw them.
        logits = mask_non_codes(guide(uncond, cond, scale), self.codec.config.num_codes)  # (N, V)
        drawn = sample(filters(logits), next_noise((slot.noise for slot in slots), self.device))  # (N,)
        for slot, code in zip(slots, drawn.unbind(0), strict=True):
            slot.codes.append(code)
            slot.step += 1
        done = [slot for slot in slots if slot.step == slot.of]
        self.drop(done)
        due = [s for s in slots if s.task.preview_every and s.step % s.task.preview_every == 0 and s.step < s.of]
        for batch in _batches(due):
            for slot, pixels in zip(batch, self._preview(batch), strict=True):
                yield Preview(slot, to_image(pixels))
        for slot in done:  # one by one: a batch rounds its sums otherwise, and a replay would differ in a pixel or two
            codes = torch.stack(slot.codes)[None]  # (1, K)
            yield Done(slot, to_image(self.codec.decode_codes(codes)[0]))

    def drop(self, slots: Sequence[DalleSlot]) -> None:  # type: ignore[override]
        for slot in slots:
            if slot.row is not None:
                self.decoder.release(slot.row)
                slot.row = None

    @torch.inference_mode()
    def _prompt(self, text: str | None) -> Prompt:
        """What the decoder reads of a normalised text; None is the unconditional prompt, which is not normalised."""
        tokens, mask = self.tokenizer.unconditional() if text is None else self.tokenizer([text])  # (1, T)
        length = int(mask.sum())  # padding is never looked at, so it is not computed either
        tokens, mask = tokens[:, :length].to(self.device), mask[:, :length].to(self.device)
        return self.decoder.prompt(self.model.encode(tokens, mask)[0], mask[0])

    def _settings(self, slots: Sequence[DalleSlot]) -> tuple[Filters, Tensor]:
        """Filters of these slots and their condition_scale (N, 1); made when the set of slots changes."""
        if self._filters is None or self._filters[0] != list(slots):
            options = [slot.task.options for slot in slots]
            asked = [o for o in options if isinstance(o, self.Options)]
            filters = Filters.of(
                [o.temperature for o in asked], [o.top_k for o in asked], [o.top_p for o in asked], self.device
            )
            scale = torch.tensor([o.condition_scale for o in asked], device=self.device)[:, None]  # (N, 1)
            self._filters = list(slots), filters, scale
        return self._filters[1], self._filters[2]

    def _preview(self, slots: Sequence[DalleSlot]) -> Tensor:
        """(N, 3, H, W): the codes drawn so far; where there are none yet, the mean of those there are."""
        books = [self.codec.quantize.embedding(torch.stack(slot.codes)) for slot in slots]  # (drawn, code_dim) each
        length = self.model.config.image_length
        rows = torch.stack([torch.cat([b, b.mean(0).expand(length - len(b), -1)]) for b in books])  # (N, K, code_dim)
        side = round(length**0.5)
        return self.codec.decode(rearrange(rows, "n (h w) c -> n c h w", h=side)).clamp(0, 1)


def _batches(slots: Sequence[DalleSlot]) -> Iterator[Sequence[DalleSlot]]:
    for start in range(0, len(slots), PICTURES_DECODED):
        yield slots[start : start + PICTURES_DECODED]


def _check_fit(bart: DalleBartConfig, codec: VQGANConfig, tokenizer: DalleTokenizer) -> None:
    """Refuse parts of different models; each loads on its own."""
    side = round(bart.image_length**0.5)
    if side * side != bart.image_length:
        raise WeightsError(f"a picture of {bart.image_length} codes is no square; this transformer draws no pictures")
    if codec.num_codes > bart.vocab_size:
        raise WeightsError(f"the codec has {codec.num_codes} codes, the transformer only {bart.vocab_size}: not a pair")
    if tokenizer.vocab_size > bart.encoder_vocab_size:
        sizes = f"the tokenizer has {tokenizer.vocab_size} tokens, the transformer only {bart.encoder_vocab_size}"
        raise WeightsError(f"{sizes}: not a pair")
