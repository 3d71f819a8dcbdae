"""SigLIP's text: written as in training, cut into tokens by the checkpoint's own tokenizer.json, padded to full length.

Source: google-research/big_vision, `evaluators/proj/image_text/prompt_engineering.py` (canonicalize_text) and its
configs: SigLIP reads lower case without punctuation, SigLIP 2 lower case. The end-of-text token stays when a text is
cut, and the padding is read like any other token, so a text is always of full length.
Parity: tests/executors/test_siglip.py; equal to transformers' Siglip2Tokenizer.
Differs: tokenizer.json only; SigLIP's first checkpoints had a spiece.model alone, transformers has since added it.
"""

import json
import re
import string
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor

from ...errors import WeightsError
from .bpe import byte_characters

WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


def without_punctuation(text: str) -> str:
    """As SigLIP's captions were written: lower case, no ASCII punctuation, single spaces."""
    return re.sub(r"\s+", " ", text.lower().translate(WITHOUT_PUNCTUATION)).strip()


# What was done to texts before the tokenizer saw them, by the class that tokenizer_config.json names.
WRITTEN: dict[str, Callable[[str], str]] = {
    "SiglipTokenizer": without_punctuation,
    **dict.fromkeys(("Siglip2Tokenizer", "GemmaTokenizer", "GemmaTokenizerFast"), str.lower),
}


class SiglipTokenizer:
    """Callable: texts -> (B, length) int64 tokens; what is longer is cut before its end-of-text token.

    Args:
        write: what is done to a text before the tokenizer sees it.
        pad: the token that fills up what is shorter, at that side.
    """

    def __init__(self, tokenizer: Tokenizer, write: Callable[[str], str], length: int, pad: str, side: str = "right"):
        pad_id = tokenizer.token_to_id(pad)
        if pad_id is None:
            raise WeightsError(f"the tokenizer has no padding token {pad!r}, which its config names: not a pair")
        tokenizer.enable_truncation(length)
        tokenizer.enable_padding(length=length, pad_id=pad_id, pad_token=pad, direction=side)
        self._tokenizer, self.write = tokenizer, write
        self.vocab_size = max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1

    @classmethod
    def from_folder(cls, folder: Path, length: int) -> Self:
        """The tokenizer of a checkpoint.

        Raises:
            WeightsError: no tokenizer.json or tokenizer_config.json, damaged, or of a class that is not known.
        """
        for name in ("tokenizer.json", "tokenizer_config.json"):
            if not (folder / name).is_file():
                raise WeightsError(f"{folder}: has no {name}, which SigLIP needs; fetch the weights again.")
        try:
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            config = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
            kind, pad, side = config["tokenizer_class"], config["pad_token"], config.get("padding_side", "right")
        except Exception as error:  # the library raises bare Exception
            raise WeightsError(f"{folder}: its tokenizer cannot be read ({type(error).__name__}).") from None
        pad = pad.get("content") if isinstance(pad, dict) else pad
        if kind not in WRITTEN or side not in ("left", "right") or not isinstance(pad, str):
            raise WeightsError(
                f"{folder}: the tokenizer is of class {kind!r:.60}, which pads with {pad!r:.60} on the {side!r:.20}; "
                f"known classes are {', '.join(WRITTEN)}"
            )
        return cls(tokenizer, WRITTEN[kind], length, pad, side)

    @classmethod
    def of_bytes(cls, length: int) -> Self:
        """One without merges, which needs no file: every byte is a token."""
        vocab = {piece: i for i, piece in enumerate(("<pad>", "<eos>", *byte_characters()))}
        tokenizer = Tokenizer(models.BPE(vocab, []))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.post_processor = processors.TemplateProcessing("$A <eos>", special_tokens=[("<eos>", 1)])
        return cls(tokenizer, str.lower, length, "<pad>")

    def __call__(self, texts: Sequence[str]) -> Tensor:
        written = [self.write(text) for text in texts]
        return torch.tensor([encoded.ids for encoded in self._tokenizer.encode_batch(written)])  # (B, length)
