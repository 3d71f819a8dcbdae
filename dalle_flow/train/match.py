"""How well a CLIP tells which caption belongs to which picture.

R@1 in 64: of 64 captions the right one scores best (and of 64 pictures). A swap test asks for less and is harder: of
two captions that differ in one fact (colour, relation, objects, style, count), the right one scores better.
"""

import numpy as np
import torch
import torch.nn.functional as F

from ..models.clip import CLIP
from ..models.text.bpe import DalleTokenizer
from ..models.text.normalize import TextNormalizer
from .batches import draw_pixels
from .captions import NEGATIVES, canonical, caption_and_negatives
from .clip import normalise
from .data import Dataset

AMONG = 64


@torch.no_grad()
def match_scores(
    clip: CLIP, tokenizer: DalleTokenizer, scenes: Dataset, number: int, seed: int = 0, batch_size: int = 128
) -> dict[str, float]:
    """Scores over the first `number` pictures of a split: `r1_picture`, `r1_text`, and `swap_<fact>` per fact."""
    number = min(number, len(scenes)) // AMONG * AMONG
    normalize = TextNormalizer()

    def embed(texts: list[str]) -> torch.Tensor:
        tokens = tokenizer([normalize(t) for t in texts])[0]
        return F.normalize(torch.cat([clip.encode_text(t) for t in torch.split(tokens, 256)]), dim=-1)

    indices = torch.arange(number)
    parts = [clip.encode_image(normalise(draw_pixels(scenes, i))) for i in torch.split(indices, batch_size)]
    pictures = F.normalize(torch.cat(parts), dim=-1)  # (N, E)
    texts = [canonical(scenes.scene(i), scenes.world) for i in range(number)]
    captions = embed(texts)  # (N, E)
    found = _recall(pictures, captions, texts)
    rng = np.random.default_rng(seed)
    wrong: dict[str, list[tuple[int, str, str]]] = {name: [] for name in NEGATIVES}
    for i in range(number):
        text, negatives = caption_and_negatives(scenes.scene(i), scenes.world, rng)
        for name, other in negatives.items():
            if other is not None:
                wrong[name].append((i, text, other))
    for name, triples in wrong.items():
        if triples:
            rows = pictures[[i for i, _, _ in triples]]
            right = (rows * embed([t for _, t, _ in triples])).sum(1)
            other_scores = (rows * embed([t for _, _, t in triples])).sum(1)
            found[f"swap_{name}"] = float((right > other_scores).float().mean())
    return found


def _recall(pictures: torch.Tensor, captions: torch.Tensor, texts: list[str]) -> dict[str, float]:
    """R@1 within groups of 64, both ways; a caption that two pictures of a group share is right for both."""
    by_picture, by_text = [], []
    for start in range(0, len(texts), AMONG):
        stop = start + AMONG
        similarity = pictures[start:stop] @ captions[start:stop].t()  # (64, 64)
        group = texts[start:stop]
        by_picture += [group[int(j)] == group[i] for i, j in enumerate(similarity.argmax(1))]
        by_text += [group[int(i)] == group[j] for j, i in enumerate(similarity.argmax(0))]
    return {"r1_picture": float(np.mean(by_picture)), "r1_text": float(np.mean(by_text))}
