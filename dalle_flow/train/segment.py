"""Training the segmenter: a decoder that reads off the trained CLIP where a thing is that a text names.

Loss: cross-entropy per pixel, Dice for queries of things that are there, and whether a thing is there, read off the
surest pixels: a pixel's share of a mean is too small to teach that nothing is to be found. CLIP is frozen; its copy is
kept and exported with the decoder, so that the two fit whatever becomes of the ranker's CLIP. Pictures are enlarged to
twice the side that CLIP was trained at: twice as many patches per side, each of half the size, and positions between
the learnt. (At 64 px the IoU was .73 after the 250 steps that gave .77 at 128.)

Shapes: B pictures, Q queries per picture, T text length, S side of a rendered picture, H W of the logits.
"""

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ..models.clip import CLIP, CLIPConfig
from ..models.clip_preprocess import OPENAI_MEAN, OPENAI_STD
from ..models.clipseg import CLIPSeg, CLIPSegConfig, to_pixels
from ..models.text.bpe import DalleTokenizer
from ..models.text.normalize import TextNormalizer
from ..weights.ours import save_ours
from . import queries
from .batches import as_pixels, draw_pixels
from .clip import ClipLesson, Hints
from .data import Dataset
from .dice import Dice
from .loop import CHECKPOINT, Lesson, averaged_state
from .queries import Query

if TYPE_CHECKING:
    from .chain import Workshop

QUERIES = 2  # per picture: decoding is cheap beside CLIP
ABSENT = 0.4  # share of queries for what is not there
ABSENT_HELD_OUT = 0.22
PRESENCE_WEIGHT = 0.3
SUREST = 1 / 256  # share of the pixels that say whether the thing is there
SMALLEST = 12  # pixels that must be seen of a thing that is asked for, in a picture of 64 x 64


def clipseg_config(clip: CLIPConfig) -> CLIPSegConfig:
    """The embedded one: a small decoder, logits as large as its input."""
    return CLIPSegConfig(
        clip=clip,
        reduce_dim=64,
        heads=2,  # of 32: attention over 257 tokens is most of a step, and costs by the head
        mlp_width=256,
        extract_layers=(-1, 0, 2, 4),  # the last knows kinds and colours, what the first block reads knows outlines
        kernels=(clip.patch_size // 2, 2),
        input_size=2 * clip.image_size,
        mean=OPENAI_MEAN,
        std=OPENAI_STD,
    )


@dataclass
class Searches:
    """Pictures and what to find in each."""

    pictures: Tensor  # (B, 3, S, S) in [0, 1]
    tokens: Tensor  # (B*Q, T) int64
    masks: Tensor  # (B*Q, S, S) float: 1 where the picture shows what is asked for
    asked: list[Query]  # B*Q


class SegmentLesson(Lesson):
    """`reconstructed` are the first pictures after the codec: half of each batch, since generated pictures look so."""

    model: CLIPSeg

    def __init__(
        self,
        model: CLIPSeg,
        tokenizer: DalleTokenizer,
        scenes: Dataset,
        held_out: Dataset,
        reconstructed: NDArray[np.uint8] | None = None,
    ):
        self.model = model
        model.clip.requires_grad_(False)
        self.tokenizer, self.normalize = tokenizer, TextNormalizer()
        self.scenes, self.held_out, self.reconstructed = scenes, held_out, reconstructed

    def batch(self, size: int, generator: torch.Generator) -> Searches:
        limit = len(self.scenes) if self.reconstructed is None else len(self.reconstructed)
        indices = torch.randint(limit, (size,), generator=generator)
        rng = np.random.default_rng(int(torch.randint(2**31, (1,), generator=generator)))
        found = self.searches(self.scenes, indices, Dice(rng), ABSENT)
        if self.reconstructed is not None:
            found.pictures[size // 2 :] = as_pixels(self.reconstructed[indices[size // 2 :].numpy()])
        return found

    def searches(self, scenes: Dataset, indices: Tensor, dice: Dice, share_absent: float) -> Searches:
        """QUERIES for each of these pictures."""
        labels = np.asarray(scenes.labels[indices.numpy()])  # (B, S, S)
        least = SMALLEST * labels[0].size / 64**2
        asked: list[Query] = []
        masks = np.zeros((len(labels) * QUERIES, *labels.shape[1:]), np.float32)
        for row, index in enumerate(indices):
            scene = scenes.scene(int(index))
            seen = np.bincount(labels[row].ravel(), minlength=len(scene.things) + 1)[1:]
            visible = [i for i, pixels in enumerate(seen) if pixels >= least]
            for _ in range(QUERIES):
                if dice.chance(share_absent) or not visible:
                    query = queries.absent(scene, scenes.world, dice)
                else:
                    query = queries.present(scene, scenes.world, dice, visible)
                masks[len(asked)] = np.isin(labels[row], [1 + i for i in query.things])
                asked.append(query)
        tokens, mask = self.tokenizer([self.normalize(query.text) for query in asked])
        tokens = tokens[:, : int(mask.sum(1).max())]
        return Searches(draw_pixels(scenes, indices), tokens, torch.from_numpy(masks), asked)

    def loss(self, batch: Searches, step: int) -> tuple[Tensor, dict[str, float]]:
        logits = self.logits(self.model, batch).float()  # (B*Q, H, W)
        wanted = F.interpolate(batch.masks[:, None], logits.shape[-2:], mode="bilinear")[:, 0]
        cross = F.binary_cross_entropy_with_logits(logits, wanted)
        there = batch.masks.sum((1, 2)) > 0  # (B*Q,)
        dice = 1 - overlap(logits.sigmoid(), wanted)[there].mean() if there.any() else logits.new_zeros(())
        surest = logits.flatten(1).topk(max(1, round(SUREST * logits[0].numel()))).values.mean(1)  # (B*Q,)
        presence = F.binary_cross_entropy_with_logits(surest, there.float())
        parts = {"cross": cross, "dice": dice, "presence": presence}
        return cross + dice + PRESENCE_WEIGHT * presence, {name: float(part.detach()) for name, part in parts.items()}

    def logits(self, model: CLIPSeg, batch: Searches) -> Tensor:
        """(B*Q, H, W)."""
        with torch.no_grad():
            found = model.activations(to_pixels(batch.pictures, model.config))  # (B, 1 + h*w, D) each
            texts = model.clip.encode_text(batch.tokens)  # (B*Q, E)
        per_picture = len(batch.asked) // len(batch.pictures)
        return model.decode([states.repeat_interleave(per_picture, 0) for states in found], texts)

    @torch.no_grad()
    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Mean IoU of what is there, in all and by form of query, and share of empty masks where nothing is."""
        assert isinstance(model, CLIPSeg)
        overlaps: dict[str, list[float]] = {"iou": []}
        empty: list[bool] = []
        dice = Dice(np.random.default_rng(0))
        for indices in torch.split(torch.arange(min(384, len(self.held_out))), 64):
            batch = self.searches(self.held_out, indices, dice, ABSENT_HELD_OUT)
            logits = F.interpolate(self.logits(model, batch)[:, None], batch.masks.shape[-2:], mode="nearest-exact")
            found, wanted = logits[:, 0] > 0, batch.masks > 0  # (B*Q, S, S)
            both, either = (found & wanted).sum((1, 2)), (found | wanted).sum((1, 2))
            for row, query in enumerate(batch.asked):
                if query.things:
                    for name in ("iou", f"iou_{query.form.replace(' ', '_')}"):
                        overlaps.setdefault(name, []).append(float(both[row] / either[row]))
                else:
                    empty.append(not found[row].any())
        return {name: float(np.mean(values)) for name, values in overlaps.items() if values} | {
            "empty": float(np.mean(empty)) if empty else 0.0
        }


def overlap(found: Tensor, wanted: Tensor) -> Tensor:
    """(N, H, W) in [0, 1] both -> (N,) Dice's coefficient, 1 where they are the same."""
    both, sizes = (found * wanted).sum((1, 2)), found.sum((1, 2)) + wanted.sum((1, 2))
    return (2 * both + 1) / (sizes + 1)


def trained_clip(shop: "Workshop") -> CLIP:
    """The averaged CLIP of the run, without its hints."""
    hints = Hints(shop.clip(), *ClipLesson.answers(shop.world))
    hints.load_state_dict(averaged_state(shop.work / "clip"))
    return hints.clip


def train_segment(shop: "Workshop") -> None:
    torch.manual_seed(shop.seed)
    clip = trained_clip(shop)
    models = [CLIPSeg(clipseg_config(clip.config)) for _ in range(2)]
    models[0].clip.load_state_dict(clip.state_dict())
    lesson = SegmentLesson(
        models[0], shop.tokenizer(), shop.dataset("train"), shop.dataset("val"), shop.reconstructed()
    )
    shop.learn("segment", lesson, models[1])


def export_segment(shop: "Workshop") -> None:
    """The averaged decoder with the CLIP it was trained on, in 8 bits; nothing where it is not trained."""
    if not (shop.work / "segment" / CHECKPOINT).exists():
        return
    model, target = CLIPSeg(clipseg_config(shop.clip().config)), shop.work / "export" / "segment"
    model.load_state_dict(averaged_state(shop.work / "segment"))
    save_ours(model, target, int8=True, dtype=torch.float16)
    for file in sorted((shop.work / "tokenizer").iterdir()):
        shutil.copyfile(file, target / file.name)
    words = target / "known_words.txt"
    known = {*words.read_text(encoding="utf-8").split(), *queries.ONES}
    words.write_text("\n".join(sorted(known)) + "\n", encoding="utf-8")
