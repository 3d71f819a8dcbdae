"""Text and pictures to pictures by latent diffusion: GLID-3 XL, and the embedded family's small one.

Weights: roles `unet`, `text`, `codec` (finetune.pt, bert.pt, kl-f8.pt, or ours). Optional: `clip`, the CLIP whose
text vector the UNet wants besides, where it wants one; `vocab`, BERT's vocab.txt, when it does not lie beside bert.pt;
`inpaint`, another UNet for inpainting (inpaint.pt).
Guidance acts on as many channels as the UNet's config says: three of four for the published weights, as they were
always run. The original's faults are not kept: quotes around the prompt, a seed that was ignored, pictures divided
twice, NaN near the end of the schedule; docs/diffusion.md has the list.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from glob import escape
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Self, cast

import torch
from pydantic import Field
from torch import Tensor

from ..errors import OptionError, WeightsError
from ..models.clip import CLIP
from ..models.diffusion_schedule import Schedule, ddim_timesteps, spread_timesteps
from ..models.latent_codec import LatentCodec
from ..models.latent_text import LatentTextConfig, LatentTextEncoder
from ..models.latent_unet import LatentUNet, LatentUNetConfig
from ..models.samplers import Noise, Query, Sampler, add_noise, ddim, ddpm, plms, plms_queries
from ..models.text.bpe import DalleTokenizer
from ..models.text.clip_bpe import ClipTokenizer
from ..models.text.known_words import read_known_words
from ..models.text.normalize import TextNormalizer
from ..models.text.wordpiece import WordPieceTokenizer
from ..types import Kind, RoundKind
from ..weights.files import load_clip
from ..weights.glid3 import load_latent_codec, load_latent_text, load_latent_unet
from ..weights.identity import TOKENIZER, beside, files_in, weights_id
from .base import StrictOptions, Task
from .clip import clip_tokenizer
from .diffusion import DiffusionExecutor, DiffusionSlot, checked_size, size_like, slerp, start_index
from .unread import unread

PROMPTS_KEPT = 64  # text states of the last prompts; a published one takes 0.4 MB
VOCABULARY = "vocab.txt"


class Condition(NamedTuple):
    """What the UNet is told."""

    context: Tensor  # (T, D)
    vector: Tensor | None  # (E,) of CLIP, not normalised


class Clip(NamedTuple):
    """The CLIP whose text vector a UNet wants."""

    model: CLIP
    tokenizer: ClipTokenizer | DalleTokenizer


class Glid3Generator(DiffusionExecutor):
    kind: ClassVar[Kind] = Kind.GENERATOR
    roles: ClassVar[tuple[str, ...]] = ("unet", "text", "codec")
    optional_roles: ClassVar[tuple[str, ...]] = ("clip", "vocab", "inpaint")

    class Options(StrictOptions):
        num_inference_steps: int = Field(
            50, ge=1, le=1000, description="steps from noise to picture; plms makes 9 more"
        )
        guidance_scale: float = Field(5.0, ge=0, le=100, description="how much the prompt counts; 1 switches it off")
        sampler: Literal["plms", "ddim", "ddpm"] = Field("plms", description="how the noise is taken away")
        eta: float = Field(0.0, ge=0, le=1, description="ddim: share of the noise that is put back at each step")
        negative_prompt: str | None = Field(
            None, description="what to lead away from; null: what the weights are used to"
        )
        width: int | None = Field(None, ge=8, le=2048, description="in pixels; null: what the weights are used to")
        height: int | None = Field(None, ge=8, le=2048, description="in pixels; null: what the weights are used to")

    class RefineOptions(Options):
        strength: float = Field(0.5, gt=0, le=1, description="how far from the picture; 1 ignores it")

    class InpaintOptions(Options):
        strength: float = Field(1.0, gt=0, le=1, description="how far the new part may be from what was there")

    verbs: ClassVar[Mapping[RoundKind, type[StrictOptions]]] = {
        RoundKind.GENERATE: Options,
        RoundKind.REFINE: RefineOptions,
        RoundKind.INPAINT: InpaintOptions,
        RoundKind.INTERPOLATE: Options,
    }

    def __init__(
        self,
        unet: LatentUNet,
        text: LatentTextEncoder,
        codec: LatentCodec,
        tokenizer: DalleTokenizer | WordPieceTokenizer,
        weights_id: str,
        *,
        clip: Clip | None = None,
        inpaint: LatentUNet | None = None,
    ):
        if inpaint is not None and not inpaint.config.sees_picture:
            raise WeightsError("the weights for 'inpaint' take no picture beside the latents; give inpaint.pt")
        for one in (unet, *([inpaint] if inpaint else [])):
            _check_fit(one.config, text.config, codec, tokenizer, clip)
        self.unet, self.text, self.codec, self.tokenizer, self.clip = unet, text, codec, tokenizer, clip
        self.inpaint = inpaint or unet
        self.weights_id = weights_id
        self.known_words: frozenset[str] | None = None
        self.normalize = TextNormalizer()
        config = unet.config
        self.latent_scale, self.guided_channels = config.latent_scale, config.guided_channels
        self.cells_per_row = config.channels[0]
        self.sees_picture = self.inpaint.config.sees_picture
        self.condition = lru_cache(maxsize=PROMPTS_KEPT)(self._condition)

    @classmethod
    def load(cls, weights: Mapping[str, Path], device: str) -> Self:
        unet = load_latent_unet(weights["unet"], device=device)
        text = load_latent_text(weights["text"], device=device)
        folder = weights["text"] if weights["text"].is_dir() else weights["text"].parent
        if weights["text"].is_dir():
            tokenizer: Any = DalleTokenizer.from_folder(folder, text.config.max_length)
        else:
            tokenizer = WordPieceTokenizer.from_file(weights.get("vocab", folder / VOCABULARY), text.config.max_length)
        clip = None
        if "clip" in weights:
            model, place = load_clip(weights["clip"], device=device), weights["clip"]
            clip = Clip(model, clip_tokenizer(place if place.is_dir() else place.parent, model.config))
        inpaint = load_latent_unet(weights["inpaint"], device=device) if "inpaint" in weights else None
        codec = load_latent_codec(weights["codec"], device=device)
        made = cls(unet, text, codec, tokenizer, weights_id(_files(weights)), clip=clip, inpaint=inpaint)
        words = folder / "known_words.txt"
        made.known_words = read_known_words(words) if weights["text"].is_dir() and words.exists() else None
        return made

    @classmethod
    def tiny(cls) -> Self:
        from .glid3_tiny import TinyGlid3, tiny_parts

        return cast(Self, TinyGlid3(*tiny_parts(), "tiny"))

    @property
    def device(self) -> torch.device:
        return self.text.final_norm.weight.device

    def remarks(self, prompt: str) -> Sequence[str]:
        """The words this model has never read, and the words that do not fit into its text length."""
        return unread(prompt, len(self._encode(prompt)), self.tokenizer.max_length, self.known_words)

    def size(self, task: Task) -> tuple[int, int]:
        options = task.options
        assert isinstance(options, Glid3Generator.Options)
        config = self.unet.config
        multiple = self.codec.downscale * 2 ** (len(config.channels) - 1)
        own, given = (config.size_px, config.size_px), task.init is not None
        if task.init is not None and not (options.width and options.height):
            own = size_like(task.init, own, multiple)
        return checked_size(options.width, options.height, own, multiple, like_picture=given)

    def admit(self, task: Task) -> Sequence[DiffusionSlot]:
        options = task.options
        assert isinstance(options, Glid3Generator.Options)
        if options.eta and options.sampler != "ddim":
            raise OptionError(f"eta says nothing to the sampler {options.sampler!r}; only ddim reads it", field="eta")
        if options.negative_prompt is not None and options.guidance_scale == 1:
            raise OptionError("negative_prompt says nothing where guidance_scale is 1", field="negative_prompt")
        return super().admit(task)

    def conditions(self, task: Task, index: int) -> tuple[tuple[Condition, ...], tuple[float, ...]]:
        options = task.options
        assert isinstance(options, Glid3Generator.Options)
        said = self.condition(task.prompt)
        if task.prompt_to is not None:
            said = _between(said, self.condition(task.prompt_to), task.position(index))
        if options.guidance_scale == 1:
            return (said,), ()
        blank = self.unet.config.blank if options.negative_prompt is None else options.negative_prompt
        return (self.condition(blank), said), (options.guidance_scale,)

    def sampler(self, task: Task, start: Tensor, clean: Tensor | None, noise: Noise) -> tuple[Sampler, int]:
        options = task.options
        assert isinstance(options, Glid3Generator.Options)
        steps = options.num_inference_steps
        schedule = Schedule.of(ddim_timesteps(steps) if options.sampler == "ddim" else spread_timesteps(steps))
        index = steps - 1
        if clean is not None and (strength := getattr(options, "strength", 1.0)) < 1:
            index = start_index(steps, strength)
            start = add_noise(clean, start, schedule.signal[index])
        if options.sampler == "ddim":
            return ddim(start, schedule, index, noise, options.eta), index + 1
        if options.sampler == "ddpm":
            return ddpm(start, schedule, index, noise), index + 1
        return plms(start, schedule, index), plms_queries(index)

    def predict(
        self, latents: Tensor, queries: Sequence[Query], conditions: Sequence[Any], kept: Tensor | None
    ) -> Tensor:
        unet = self.unet if kept is None else self.inpaint
        timesteps = torch.tensor([query.timestep for query in queries], device=latents.device)  # (R,)
        context = torch.stack([c.context for c in conditions])  # (R, T, D)
        vector = torch.stack([c.vector for c in conditions]) if unet.config.clip_width else None  # (R, E)
        found = unet(latents, timesteps, context, vector, kept)  # (R, C, h, w)
        if unet.config.prediction == "epsilon":
            return cast(Tensor, found)
        signal = torch.tensor([query.signal for query in queries], device=latents.device)[:, None, None, None]
        return cast(Tensor, signal.sqrt() * found + (1 - signal).sqrt() * latents)

    @torch.inference_mode()
    def _condition(self, prompt: str) -> Condition:
        if isinstance(self.tokenizer, DalleTokenizer):
            tokens = self.tokenizer([self.normalize(prompt)])[0]  # (1, T)
        else:
            tokens = self.tokenizer([prompt])
        context = self.text(tokens.to(self.device))[0]  # (T, D)
        return Condition(context, None if self.clip is None else self._vector(self.clip, prompt))

    def _vector(self, clip: Clip, prompt: str) -> Tensor:
        if isinstance(clip.tokenizer, DalleTokenizer):
            tokens = clip.tokenizer([self.normalize(prompt)])[0]  # (1, T)
        else:
            tokens = clip.tokenizer([prompt], truncate=True)
        return clip.model.encode_text(tokens.to(self.device))[0]  # (E,)

    def _encode(self, prompt: str) -> list[int]:
        text = self.normalize(prompt) if isinstance(self.tokenizer, DalleTokenizer) else prompt
        return self.tokenizer.encode(text)


def _between(one: Condition, other: Condition, position: float) -> Condition:
    vector = None
    if one.vector is not None and other.vector is not None:
        vector = slerp(one.vector, other.vector, position)
    return Condition(slerp(one.context, other.context, position), vector)


def _files(weights: Mapping[str, Path]) -> dict[str, list[Path]]:
    """By role the files that decide a picture: weights, what is said of their sizes beside them, and vocabularies."""
    files = {role: beside(path, f"{escape(path.stem)}.json") for role, path in weights.items() if role != "clip"}
    if "clip" in weights:
        files["clip"] = beside(weights["clip"], *TOKENIZER)
    if "vocab" in weights:
        files["vocab"] = [weights["vocab"]]
    elif weights["text"].is_file():
        files["vocab"] = files_in(weights["text"].parent, VOCABULARY)
    return files


def _check_fit(
    unet: LatentUNetConfig,
    text: LatentTextConfig,
    codec: LatentCodec,
    tokenizer: DalleTokenizer | WordPieceTokenizer,
    clip: Clip | None,
) -> None:
    """Refuse parts of different models; each loads on its own."""
    if unet.context_width != text.width:
        raise WeightsError(f"the UNet reads text states of {unet.context_width}, the text encoder gives {text.width}")
    if unet.latent_channels != codec.channels:
        raise WeightsError(f"the UNet has latents of {unet.latent_channels} channels, the codec of {codec.channels}")
    if tokenizer.vocab_size > text.vocab_size:
        sizes = f"the vocabulary has {tokenizer.vocab_size} tokens, the text encoder only {text.vocab_size}"
        raise WeightsError(f"{sizes}: not a pair")
    if unet.clip_width is not None and clip is None:
        raise WeightsError(f"this UNet wants a CLIP text vector of {unet.clip_width}; say where with clip=PATH")
    if unet.clip_width is not None and clip is not None and clip.model.config.embed_dim != unet.clip_width:
        raise WeightsError(
            f"the UNet wants a CLIP vector of {unet.clip_width}, this CLIP gives {clip.model.config.embed_dim}"
        )
