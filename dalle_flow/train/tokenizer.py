"""Train the embedded family's tokenizer on captions: byte-level BPE in the files that DALL·E Mini's tokenizer has.

The captions are normalised first, as every prompt is. Words count by the square root of how often they occur: with
about a thousand entries and a small world, rare words then become whole pieces as well as common ones.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from dalle_flow.models.text.bpe import SPECIAL_TOKENS, DalleTokenizer
from dalle_flow.models.text.normalize import TextNormalizer

VOCAB_SIZE = 1024
MAX_LENGTH = 32  # tokens in a caption, with <s> and </s>


def train_tokenizer(
    captions: Iterable[str],
    folder: Path,
    *,
    vocab_size: int = VOCAB_SIZE,
    max_length: int = MAX_LENGTH,
    normalize: Callable[[str], str] | None = None,
) -> DalleTokenizer:
    """Learn the merges and write `tokenizer.json`, `vocab.json`, `merges.txt` and `known_words.txt` to the folder.

    Args:
        captions: as a person would type them; each different one is normalised once. Their order does not matter.
        vocab_size: special tokens (5), bytes (256) and merges together.
        normalize: DALL·E's text normaliser by default.

    Returns:
        The tokenizer as `DalleTokenizer.from_folder(folder, max_length)` loads it.

    Raises:
        ValueError: no captions, or a vocabulary without room for special tokens and bytes.
    """
    if vocab_size < len(SPECIAL_TOKENS) + 256:
        raise ValueError(f"vocab_size must be at least {len(SPECIAL_TOKENS) + 256} for special tokens and bytes")
    counts = count_pieces(captions, normalize or TextNormalizer())
    if not counts:
        raise ValueError("no captions to train a tokenizer on")
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _learn(counts, vocab_size)
    tokenizer.save(str(folder / "tokenizer.json"))
    tokenizer.model.save(str(folder))
    words = sorted({piece.strip() for piece in counts if piece.strip().isalnum()})
    (folder / "known_words.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    return DalleTokenizer.from_folder(folder, max_length)


def count_pieces(captions: Iterable[str], normalize: Callable[[str], str]) -> Counter[str]:
    """How often each piece that no merge crosses (" cat", ",") occurs in the normalised captions."""
    split = pre_tokenizers.ByteLevel(add_prefix_space=False)
    counts: Counter[str] = Counter()
    for caption, times in Counter(captions).items():
        text = normalize(caption)
        for _, (start, end) in split.pre_tokenize_str(text):
            counts[text[start:end]] += times
    return counts


def _learn(counts: Counter[str], vocab_size: int) -> Any:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    pieces = (piece for piece in sorted(counts) for _ in range(round(counts[piece] ** 0.5)))
    tokenizer.train_from_iterator(pieces, trainer=trainer)
    return _as_published(tokenizer)


def _as_published(tokenizer: Any) -> Any:
    """The trained one with the parts that DALL·E's own file has, so that other programs read it alike."""
    spec = json.loads(tokenizer.to_str())
    spec["added_tokens"] = []
    spec["decoder"] = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    spec["post_processor"] = {
        "type": "RobertaProcessing",
        "sep": ["</s>", 2],
        "cls": ["<s>", 0],
        "trim_offsets": True,
        "add_prefix_space": False,
    }
    spec["model"] |= {"continuing_subword_prefix": "", "end_of_word_suffix": ""}
    return Tokenizer.from_str(json.dumps(spec))
