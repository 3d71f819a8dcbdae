"""The tokenizer of DALL·E Mini, DALL·E Mega and of the embedded family: byte-level BPE in the manner of BART.

Source: `boris/dalle-mini-tokenizer` (class DalleBartTokenizer), run by the `tokenizers` library.
Weights: beside each checkpoint, as `tokenizer.json`, or as `vocab.json` and `merges.txt` (all that min-dalle has).
Parity: tests/parity/test_text.py; every token equal.
Differs: a special token that somebody types, such as "<pad>", is text like any other; a character for which the
    vocabulary has no piece becomes <unk> and is not dropped (published vocabularies have a piece for every byte).

Shapes: B texts, T text length.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from tokenizers import Tokenizer
from torch import Tensor

from dalle_flow.errors import WeightsError

MAX_LENGTH = 64  # max_text_length of both published models
SPECIAL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")  # ids 0 to 4


class DalleTokenizer:
    """Callable: texts, already normalised -> tokens and mask, each `<s> ... </s>` and padded to `max_length`."""

    def __init__(self, tokenizer: Tokenizer, max_length: int = MAX_LENGTH):
        """Args:
        tokenizer: vocabulary and merges alone, which adds nothing around a text; see `from_folder`.
        max_length: T, with <s> and </s>.
        """
        if max_length < 2:
            raise ValueError(f"max_length must leave room for <s> and </s>, got {max_length}")
        vocab: dict[str, int] = tokenizer.get_vocab()
        missing = [token for token in SPECIAL_TOKENS[:4] if token not in vocab]
        if missing:
            raise WeightsError(f"this tokenizer has no {', '.join(missing)}; it is not DALL·E's")
        self.bos_token_id, self.pad_token_id = vocab["<s>"], vocab["<pad>"]
        self.eos_token_id, self.unk_token_id = vocab["</s>"], vocab["<unk>"]
        self.max_length = max_length
        self._tokenizer = tokenizer

    @classmethod
    def from_folder(cls, folder: Path, max_length: int = MAX_LENGTH) -> Self:
        """Load `tokenizer.json`, or else `vocab.json` and `merges.txt`.

        Raises:
            WeightsError: no such files in the folder, or they do not hold a byte-level BPE.
        """
        whole = folder / "tokenizer.json"
        try:
            if whole.exists():
                spec = _from_tokenizer_file(json.loads(whole.read_text(encoding="utf-8")))
            else:
                spec = _bpe_spec(read_vocab(folder / "vocab.json"), read_merges(folder / "merges.txt"))
            tokenizer = Tokenizer.from_str(json.dumps(spec))
        except FileNotFoundError as error:
            names = "neither tokenizer.json nor vocab.json with merges.txt"
            raise WeightsError(f"no tokenizer in {folder}: {names} ({error.filename} is missing)") from None
        except WeightsError:
            raise
        except Exception as error:  # the library raises bare Exception for what it cannot parse
            raise WeightsError(f"the tokenizer files in {folder} are damaged: {error}") from error
        return cls(tokenizer, max_length)

    @classmethod
    def of_bytes(cls, max_length: int = MAX_LENGTH) -> Self:
        """One without merges, which needs no file: every byte is a token."""
        pieces = (*SPECIAL_TOKENS, *byte_characters())
        spec = _bpe_spec({piece: i for i, piece in enumerate(pieces)}, ())
        return cls(Tokenizer.from_str(json.dumps(spec)), max_length)

    @property
    def vocab_size(self) -> int:
        return int(self._tokenizer.get_vocab_size())

    def encode(self, text: str) -> list[int]:
        """`<s> ... </s>` in full, neither cut nor padded."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return [self.bos_token_id, *ids, self.eos_token_id]

    def __call__(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """(B, T) int64 tokens and (B, T) bool mask, false on padding. What is too long loses its end, keeps </s>."""
        tokens = torch.full((len(texts), self.max_length), self.pad_token_id)
        mask = torch.zeros(tokens.shape, dtype=torch.bool)
        for row, text in enumerate(texts):
            ids = self.encode(text)
            if len(ids) > self.max_length:
                ids = [*ids[: self.max_length - 1], self.eos_token_id]
            tokens[row, : len(ids)] = torch.tensor(ids)
            mask[row, : len(ids)] = True
        return tokens, mask

    def unconditional(self) -> tuple[Tensor, Tensor]:
        """(1, T) tokens and mask that guidance compares with: `<s></s>`, the empty text *without* normalising it."""
        return self([""])

    def pieces(self, text: str) -> list[str]:
        """The text as the model reads it, piece by piece; a space is "Ġ", what the vocabulary lacks is "<unk>"."""
        tokens: list[str] = self._tokenizer.encode(text, add_special_tokens=False).tokens
        return tokens

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens, without special ones."""
        special = {self._tokenizer.token_to_id(token) for token in SPECIAL_TOKENS}
        text: str = self._tokenizer.decode([token for token in tokens if token not in special])
        return text


def read_vocab(path: Path) -> dict[str, int]:
    vocab: dict[str, int] = json.loads(path.read_text(encoding="utf-8"))
    return vocab


def read_merges(path: Path) -> list[tuple[str, str]]:
    """Pairs of a `merges.txt`, the first to be merged first; a first line "#version" is no pair."""
    lines = path.read_text(encoding="utf-8").split("\n")
    return parse_merges(line for line in lines[lines[0].startswith("#version") :] if line.strip())


def parse_merges(lines: Iterable[str]) -> list[tuple[str, str]]:
    """ "t h" -> ("t", "h"), for each line."""
    merges = []
    for line in lines:
        left, _, right = line.partition(" ")
        if not left or not right or " " in right:
            raise WeightsError(f"a merge is two pieces with a space between, got {line!r}")
        merges.append((left, right))
    return merges


def _from_tokenizer_file(spec: dict[str, Any]) -> dict[str, Any]:
    """Vocabulary and merges of a `tokenizer.json`; special tokens registered there keep their ids, not their magic."""
    model, splits = spec.get("model", {}), spec.get("pre_tokenizer") or {}
    if model.get("type", "BPE") != "BPE" or splits.get("type") != "ByteLevel" or spec.get("normalizer"):
        raise WeightsError("tokenizer.json does not hold a byte-level BPE without a normalizer, as DALL·E's is")
    added = {token["content"]: token["id"] for token in spec.get("added_tokens", ())}
    pairs = [tuple(pair.split(" ")) if isinstance(pair, str) else tuple(pair) for pair in model["merges"]]
    return _bpe_spec(added | model["vocab"], pairs, add_prefix_space=splits.get("add_prefix_space", False))


def _bpe_spec(
    vocab: dict[str, int], merges: Sequence[tuple[str, ...]], *, add_prefix_space: bool = False
) -> dict[str, Any]:
    """What the `tokenizers` library calls a tokenizer.json, with nothing that adds or recognises special tokens."""
    byte_level = {"type": "ByteLevel", "add_prefix_space": add_prefix_space, "trim_offsets": True, "use_regex": True}
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": "<unk>",
        "continuing_subword_prefix": "",
        "end_of_word_suffix": "",
        "fuse_unk": False,
        "byte_fallback": False,
        "vocab": vocab,
        "merges": [list(pair) for pair in merges],
    }
    parts = dict.fromkeys(("truncation", "padding", "normalizer", "post_processor"))
    return {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": byte_level,
        "decoder": byte_level,
        "model": model,
    } | parts


def byte_characters() -> list[str]:
    """The 256 characters that stand for bytes: printable ones for themselves and first, the others moved to 256 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return [chr(byte) for byte in printable] + [chr(256 + n) for n in range(256 - len(printable))]
