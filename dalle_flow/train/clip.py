"""Training CLIP on scenes: which caption belongs to which picture, against captions that are almost right.

Loss: the symmetric cross-entropy of Radford et al. 2021 over the batch, where each picture also competes against
captions of itself with one fact changed (objects swapped, colour, relation, style, count): without those a plain
contrastive loss never learns who is on the left (a swap test stayed at chance, embedded-family.md). While training,
the image tower's patches also name the kind and colour below them: a dense hint that is thrown away afterwards.

Shapes: B batch, M hard negatives per picture, T text length, E shared width, G judge's grid (16), g patch grid.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..models.clip import CLIP, CLIPConfig, similarity
from ..models.clip_preprocess import OPENAI_MEAN, OPENAI_STD
from ..models.text.bpe import DalleTokenizer
from ..models.text.normalize import TextNormalizer
from .batches import Batch, draw
from .captions import caption_and_negatives
from .data import Dataset
from .loop import Lesson
from .targets import CELLS
from .world import World

HARD = 3  # hard negatives per picture and batch
HINT_WEIGHT = 0.5
MAX_SCALE = 100.0  # as the paper clips it


def clip_config(size_px: int, vocab_size: int, text_length: int, end_of_text: int) -> CLIPConfig:
    """The embedded CLIP: 8x8 patches of the whole picture."""
    return CLIPConfig(
        embed_dim=192,
        image_size=size_px,
        patch_size=size_px // 8,
        vision_width=192,
        vision_layers=5,
        text_width=192,
        text_layers=3,
        vocab_size=vocab_size,
        context_length=text_length,
        eot_token_id=end_of_text,
    )


@dataclass
class Matches:
    """Pictures with their captions, and the captions that are almost right."""

    scenes: Batch
    tokens: Tensor  # (B + B*M, T): right captions first, then M wrong ones per picture
    present: Tensor  # (B, M) bool: whether that wrong caption exists


class Hints(nn.Module):
    """CLIP with heads that read kind and colour off the patches, for training only."""

    def __init__(self, clip: CLIP, kinds: int, colours: int):
        super().__init__()
        self.clip = clip
        self.cells = CELLS // (clip.config.image_size // clip.config.patch_size)  # judge's cells per patch side
        self.answers = (kinds, colours)
        self.read = nn.Linear(clip.config.vision_width, self.cells**2 * (kinds + colours))
        self.states = torch.empty(0)
        clip.visual.transformer.register_forward_hook(self._keep)

    def _keep(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self.states = output

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features (B, E), kind logits (B, kinds, G, G), colour logits (B, colours, G, G)."""
        features = self.clip.encode_image(pixels)  # (B, E)
        grid = CELLS // self.cells
        read = self.read(self.states[:, 1:]).float()  # (B, g*g, cells^2 * answers)
        read = read.view(len(pixels), grid, grid, self.cells, self.cells, -1).permute(0, 5, 1, 3, 2, 4)
        kind, colour = read.reshape(len(pixels), -1, CELLS, CELLS).split(self.answers, 1)  # (B, answers, G, G)
        return features, kind, colour


class ClipLesson(Lesson):
    """`reconstructed` are the same pictures after the codec: half of each batch, since generated pictures look so."""

    def __init__(
        self,
        clip: CLIP,
        tokenizer: DalleTokenizer,
        scenes: Dataset,
        held_out: Dataset,
        reconstructed: np.ndarray | None = None,
    ):
        self.model: Hints = Hints(clip, *self.answers(scenes.world))
        self.tokenizer, self.normalize = tokenizer, TextNormalizer()
        self.scenes, self.held_out, self.reconstructed = scenes, held_out, reconstructed

    @staticmethod
    def answers(world: World) -> tuple[int, int]:
        """How many kinds and colours a patch can show, none included."""
        return 1 + len(world.kinds), 1 + len(world.colors)

    def batch(self, size: int, generator: torch.Generator) -> Matches:
        limit = len(self.scenes) if self.reconstructed is None else len(self.reconstructed)
        indices = torch.randint(limit, (size,), generator=generator)
        rng = np.random.default_rng(int(torch.randint(2**31, (1,), generator=generator)))
        batch = draw(self.scenes, indices)
        if self.reconstructed is not None:
            soft = self.reconstructed[indices[size // 2 :].numpy()]
            batch.pixels[size // 2 :] = torch.from_numpy(soft).permute(0, 3, 1, 2).float() / 255
        right, wrong, present = [], [], torch.zeros(size, HARD, dtype=torch.bool)
        for row, index in enumerate(indices):
            text, negatives = caption_and_negatives(self.scenes.scene(int(index)), self.scenes.world, rng)
            right.append(text)
            chosen = hard_negatives(negatives, rng)
            present[row, : len(chosen)] = True
            wrong.extend([*chosen, *[""] * (HARD - len(chosen))])
        tokens, mask = self.tokenizer([self.normalize(t) for t in [*right, *wrong]])
        return Matches(batch, tokens[:, : int(mask.sum(1).max())], present)

    def loss(self, batch: Matches, step: int) -> tuple[Tensor, dict[str, float]]:
        size = len(batch.present)
        clip = self.model.clip
        features, kind, colour = self.model(normalise(batch.scenes.pixels))
        texts = clip.encode_text(batch.tokens)  # (B + B*M, E)
        scale = clip.logit_scale.exp().clamp(max=MAX_SCALE)
        every = scale * similarity(features, texts[:size])  # (B, B)
        wrong = F.normalize(texts[size:].float(), dim=-1).view(size, HARD, -1)  # (B, M, E)
        hard = scale * torch.einsum("be,bme->bm", F.normalize(features.float(), dim=-1), wrong)
        hard = hard.masked_fill(~batch.present, -1e4)
        answers = torch.arange(size)
        by_picture = F.cross_entropy(torch.cat([every, hard], 1), answers)
        by_text = F.cross_entropy(every.t(), answers)
        shown = batch.scenes.kinds > 0
        hint = F.cross_entropy(kind, batch.scenes.kinds)
        hint = hint + 0.5 * F.cross_entropy(colour.permute(0, 2, 3, 1)[shown], batch.scenes.colours[shown])
        figures = {
            "by_picture": float(by_picture.detach()),
            "hint": float(hint.detach()),
            "scale": float(scale.detach()),
        }
        return (by_picture + by_text) / 2 + HINT_WEIGHT * hint, figures

    @torch.no_grad()
    def evaluate(self, model: nn.Module) -> dict[str, float]:
        assert isinstance(model, Hints)
        from .match import match_scores

        return match_scores(model.clip, self.tokenizer, self.held_out, number=640)


def hard_negatives(negatives: dict[str, str | None], rng: np.random.Generator) -> list[str]:
    """At most HARD of them at random; those about who is where come first, since they are learnt last."""
    order = sorted(rng.permutation(list(negatives)), key=lambda name: name not in ("objects", "relation"))
    there = [text for name in order if (text := negatives[str(name)]) is not None]
    return there[:HARD]


def normalise(pixels: Tensor) -> Tensor:
    """(B, 3, H, W) in [0, 1] -> what CLIP's image tower expects: OpenAI's mean and deviation."""
    mean, std = (torch.tensor(v, device=pixels.device).view(1, 3, 1, 1) for v in (OPENAI_MEAN, OPENAI_STD))
    return (pixels - mean) / std
