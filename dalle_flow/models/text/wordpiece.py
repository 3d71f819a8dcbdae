"""The tokenizer of GLID-3 XL's text encoder: BERT's WordPiece, lower case, run by the `tokenizers` library.

Source: google-research/bert, `bert-base-uncased`. Weights: its vocab.txt, one piece a line.
Parity: tests/parity/test_glid3.py; every token equal.

Shapes: B texts, T text length.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import torch
from tokenizers import BertWordPieceTokenizer
from torch import Tensor

from dalle_flow.errors import WeightsError

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


class WordPieceTokenizer:
    """Callable: texts -> tokens (B, T), each `[CLS] ... [SEP]`, cut to `max_length` and padded to it."""

    def __init__(self, pieces: Sequence[str], max_length: int):
        vocab = {piece: row for row, piece in enumerate(pieces)}
        if missing := [piece for piece in SPECIAL if piece not in vocab]:
            raise WeightsError(f"this vocabulary has no {', '.join(missing)}; it is not BERT's vocab.txt")
        self.max_length, self.vocab_size = max_length, len(pieces)
        self._tokenizer = BertWordPieceTokenizer(vocab, lowercase=True)

    @classmethod
    def from_file(cls, path: Path, max_length: int) -> Self:
        """Read a vocab.txt. WeightsError when there is none or it is not text."""
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise WeightsError(f"{path}: no WordPiece vocabulary: {reason}") from None
        return cls(text.rstrip("\n").split("\n"), max_length)

    def encode(self, text: str) -> list[int]:
        """Tokens of one text with [CLS] and [SEP], not cut."""
        ids: list[int] = self._tokenizer.encode(text).ids
        return ids

    def __call__(self, texts: Sequence[str]) -> Tensor:
        rows = torch.zeros(len(texts), self.max_length, dtype=torch.int64)  # (B, T); [PAD] is 0
        for row, text in zip(rows, texts, strict=True):
            ids = self.encode(text)
            if len(ids) > self.max_length:
                ids = [*ids[: self.max_length - 1], ids[-1]]  # [SEP] stays the last
            row[: len(ids)] = torch.tensor(ids)
        return rows
