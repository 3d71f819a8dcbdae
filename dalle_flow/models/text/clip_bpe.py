"""CLIP's tokenizer: lower-cased words, each cut into byte-level pieces of which the last carries "</w>".

Source: openai/CLIP, `clip/simple_tokenizer.py` and `tokenize` in `clip/clip.py`; run by the `tokenizers` library.
Weights: `bpe_simple_vocab_16e6.txt.gz` (OpenAI), or `vocab.json` and `merges.txt` (transformers): the same vocabulary.
Parity: tests/parity/test_text.py; every token equal.
Differs: only on characters that one Unicode version calls letters and another does not know. transformers'
    CLIPTokenizer differs on mojibake, HTML entities, wide letters and ligatures, because it does not clean the text,
    and it pads with the end of text instead of 0.

As in the reference, somebody who types "<|endoftext|>" as a word of its own ends the text there.

Shapes: B texts, T text length.
"""

import gzip
import html
import json
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import ftfy
import torch
from tokenizers import Regex, models, pre_tokenizers
from torch import Tensor

from dalle_flow.errors import OptionError, WeightsError
from dalle_flow.models.text.bpe import byte_characters, parse_merges, read_merges, read_vocab

MAX_MERGES = 48_894  # that many of the file's 262,143 are used: 49,408 less 2 * 256 bytes less 2 special tokens
START, END = "<|startoftext|>", "<|endoftext|>"
WORD_END = "</w>"
# The long s is there because the reference ignores case in its pattern.
_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'[sſ]|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"


class ClipTokenizer:
    """Callable: texts as typed -> (B, context_length) tokens, `<|startoftext|> ... <|endoftext|>`, then zeros.

    Args:
        vocab: piece -> id, with both special tokens.
        merges: pairs of pieces, the first to be merged first.
    """

    def __init__(self, vocab: dict[str, int], merges: Sequence[tuple[str, str]], context_length: int = 77):
        for token in (START, END):
            if token not in vocab:
                raise WeightsError(f"this vocabulary has no {token} token; it is not CLIP's")
        self.context_length = context_length
        self.sot_token_id, self.eot_token_id = vocab[START], vocab[END]
        self.vocab_size = len(vocab)
        self._special = {START: self.sot_token_id, END: self.eot_token_id}
        try:
            self._model = models.BPE(vocab, list(merges), end_of_word_suffix=WORD_END, unk_token=END)
        except Exception as error:  # the library raises bare Exception
            raise WeightsError(f"CLIP's vocabulary and merges do not belong together: {error}") from error
        self._split = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )

    @classmethod
    def from_file(cls, path: Path, context_length: int = 77) -> Self:
        """Load OpenAI's merges, such as `bpe_simple_vocab_16e6.txt.gz`; the vocabulary follows from them."""
        try:
            data = path.read_bytes()
            text = (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode("utf-8")
        except FileNotFoundError:
            raise WeightsError(f"no vocabulary for CLIP at {path}") from None
        except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
            raise WeightsError(f"{path} is not a list of merges: {error}") from error
        merges = parse_merges(line for line in text.split("\n")[1 : MAX_MERGES + 1] if line.strip())
        return cls(_vocab_of(merges), merges, context_length)

    @classmethod
    def from_folder(cls, folder: Path, context_length: int = 77) -> Self:
        """Load transformers' `vocab.json` and `merges.txt`, or OpenAI's `bpe_*.txt.gz`, whichever the folder has."""
        try:
            if (folder / "vocab.json").exists():
                return cls(read_vocab(folder / "vocab.json"), read_merges(folder / "merges.txt"), context_length)
        except FileNotFoundError:
            raise WeightsError(f"{folder} has vocab.json but no merges.txt") from None
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise WeightsError(f"the tokenizer files in {folder} are damaged: {error}") from error
        files = sorted(folder.glob("bpe_*.txt.gz"))
        if len(files) != 1:
            raise WeightsError(f"no tokenizer in {folder}: it needs vocab.json with merges.txt, or one bpe_*.txt.gz")
        return cls.from_file(files[0], context_length)

    @classmethod
    def of_bytes(cls, context_length: int = 77) -> Self:
        """One without merges, which needs no file: every byte is a token."""
        return cls(_vocab_of([]), [], context_length)

    def encode(self, text: str) -> list[int]:
        """Tokens of a text as typed, without start, end and padding."""
        ids: list[int] = []
        for word, _ in self._split.pre_tokenize_str(clean(text)):
            if word in self._special:
                ids.append(self._special[word])
            else:
                ids += (piece.id for piece in self._model.tokenize(word))
        return ids

    def __call__(self, texts: Sequence[str], *, truncate: bool = False) -> Tensor:
        """(B, T) int64 tokens, T = context_length.

        Args:
            truncate: cut what is too long (the end of text stays last) instead of refusing it.

        Raises:
            OptionError: a text is too long and `truncate` is off.
        """
        tokens = torch.zeros(len(texts), self.context_length, dtype=torch.int64)
        for row, text in enumerate(texts):
            ids = [self.sot_token_id, *self.encode(text), self.eot_token_id]
            if len(ids) > self.context_length:
                if not truncate:
                    raise OptionError(
                        f"the text has {len(ids)} tokens, CLIP reads {self.context_length} with start and end: "
                        f"{text[:40]!r}...; shorten it",
                        field="prompt",
                    )
                ids = [*ids[: self.context_length - 1], self.eot_token_id]
            tokens[row, : len(ids)] = torch.tensor(ids)
        return tokens


def clean(text: str) -> str:
    """Encoding mended, HTML entities to characters, single spaces, lower case."""
    text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return re.sub(r"\s+", " ", text).strip().lower()


def _vocab_of(merges: Sequence[tuple[str, str]]) -> dict[str, int]:
    """Bytes, bytes at the end of a word, merges, start, end: in this order, numbered from 0."""
    single = byte_characters()
    pieces = [*single, *(character + WORD_END for character in single), *("".join(pair) for pair in merges), START, END]
    return {piece: index for index, piece in enumerate(pieces)}
