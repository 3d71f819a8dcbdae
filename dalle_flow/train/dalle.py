"""Training DALL·E: captions in, codes out, with the published architecture at a small size.

Loss and switches as in borisdayma/dalle-mini's train.py: decoder input is the start token and the codes shifted by
one, mean cross-entropy over all positions, captions blanked at random so that guidance has an unconditional prompt.

Shapes: B batch, T text length, K codes.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ..models.dalle_bart import DalleBart, DalleBartConfig
from ..models.text.bpe import DalleTokenizer
from ..models.text.normalize import TextNormalizer
from .captions import caption
from .data import Dataset
from .loop import Lesson

BLANK = 0.12  # share of captions replaced by "", as in the study of embedded-family.md
STRANGE = 0.05  # share of captions with a word of no language, so that an unknown word does no harm
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def dalle_config(num_codes: int, codes_per_picture: int, vocab_size: int, text_length: int) -> DalleBartConfig:
    """The embedded DALL·E: every switch as mega's, ids as mini's (start = end = pad = the row after the last code)."""
    return DalleBartConfig.from_dict(
        {
            "d_model": 256,
            "encoder_layers": 2,
            "decoder_layers": 5,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 640,
            "decoder_ffn_dim": 640,
            "encoder_vocab_size": vocab_size,
            "image_vocab_size": num_codes,
            "max_text_length": text_length,
            "image_length": codes_per_picture,
            "decoder_start_token_id": num_codes,
            "bos_token_id": num_codes,
            "eos_token_id": num_codes,
            "pad_token_id": num_codes,
        }
    )


@dataclass
class Pairs:
    """A batch of captions and pictures."""

    tokens: Tensor  # (B, T) int64
    mask: Tensor  # (B, T) bool
    codes: Tensor  # (B, K) int64


def strange_word(rng: np.random.Generator) -> str:
    return "".join(rng.choice(list(LETTERS), size=int(rng.integers(3, 9))))


class DalleLesson(Lesson):
    """Predict each code of a picture from its caption and the codes before it."""

    def __init__(
        self,
        model: DalleBart,
        tokenizer: DalleTokenizer,
        scenes: Dataset,
        codes: NDArray[np.uint16],
        held_out: Dataset,
        held_out_codes: NDArray[np.uint16],
    ):
        self.model: DalleBart = model
        self.tokenizer = tokenizer
        self.normalize = TextNormalizer()
        self.scenes, self.codes = scenes, codes
        self.held_out, self.held_out_codes = held_out, held_out_codes

    def caption(self, scenes: Dataset, index: int, rng: np.random.Generator) -> str:
        """A fresh caption as the model reads it: normalised, sometimes blank, sometimes with a strange word."""
        chance = rng.random()
        if chance < BLANK:
            return ""
        text = caption(scenes.scene(index), scenes.world, rng)
        if chance > 1 - STRANGE:
            words = text.split()
            words.insert(int(rng.integers(len(words) + 1)), strange_word(rng))
            text = " ".join(words)
        return self.normalize(text)

    def pairs(self, scenes: Dataset, codes: NDArray[np.uint16], indices: Tensor, seed: int) -> Pairs:
        rng = np.random.default_rng(seed)
        tokens, mask = self.tokenizer([self.caption(scenes, int(i), rng) for i in indices])
        longest = int(mask.sum(1).max())  # nothing is computed for columns that are padding in every row
        return Pairs(tokens[:, :longest], mask[:, :longest], torch.from_numpy(codes[indices.numpy()].astype(np.int64)))

    def batch(self, size: int, generator: torch.Generator) -> Pairs:
        indices = torch.randint(len(self.scenes), (size,), generator=generator)
        seed = int(torch.randint(2**31, (1,), generator=generator))
        return self.pairs(self.scenes, self.codes, indices, seed)

    def loss(self, batch: Pairs, step: int) -> tuple[Tensor, dict[str, float]]:
        return self._cross_entropy(self.model, batch), {}

    @torch.no_grad()
    def evaluate(self, model: nn.Module) -> dict[str, float]:
        assert isinstance(model, DalleBart)
        losses = []
        for indices in torch.split(torch.arange(min(512, len(self.held_out))), 64):
            batch = self.pairs(self.held_out, self.held_out_codes, indices, seed=int(indices[0]))
            losses.append(float(self._cross_entropy(model, batch)))
        return {"loss": float(np.mean(losses))}

    def _cross_entropy(self, model: DalleBart, batch: Pairs) -> Tensor:
        start = batch.codes.new_full((len(batch.codes), 1), model.config.decoder_start_token_id)
        logits = model(batch.tokens, batch.mask, torch.cat([start, batch.codes[:, :-1]], 1))  # (B, K, V)
        return F.cross_entropy(logits.float().flatten(0, 1), batch.codes.flatten())


def encode_dataset(scenes: Dataset, codec: nn.Module, path: Path, batch_size: int = 128) -> None:
    """Write the codes of every picture, (N, K) uint16, to `path`; whole or not at all."""
    from ..models.vqgan import VQGAN
    from .batches import draw_pixels

    assert isinstance(codec, VQGAN)
    rows = []
    for indices in torch.split(torch.arange(len(scenes)), batch_size):
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            rows.append(codec.encode(draw_pixels(scenes, indices)).numpy().astype(np.uint16))
    save_array(path, np.concatenate(rows))


def save_array(path: Path, array: NDArray[Any]) -> None:
    """Write an array whole or not at all."""
    partial = path.with_suffix(".partial.npy")
    np.save(partial, array)
    partial.rename(path)
