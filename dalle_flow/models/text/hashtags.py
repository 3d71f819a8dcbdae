"""The words inside a hashtag: "avocadoarmchair" -> "avocado armchair".

The split with the lowest cost wins, where the word on line n of a list (most frequent first) costs ln n and anything
that is not in the list costs infinitely much. From the first unknown piece on, all costs are equal and the rest falls
apart into single letters; digits are joined again. That is what the models were trained on.

Without a word list (`split_at_symbols`) a hashtag is only parted where it has other signs than letters, digits and
apostrophes: "avocadoarmchair" stays one word, which the tokenizer then cuts into the pieces that it knows.
"""

import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Self

from dalle_flow.errors import StorageError, WeightsError

MAX_WORD = 64  # letters; longer entries of a list are no words, and would make the search slow
_SYMBOLS = re.compile(r"[^A-Za-z0-9']+")


def split_at_symbols(tag: str) -> str:
    """The parts of a hashtag when no word list is at hand: "cat_dog" -> "cat dog"."""
    return " ".join(part for part in _SYMBOLS.split(tag) if part)


class HashtagSplitter:
    """Callable: "deeplearning" -> "deep learning". Time grows with length times the longest word of the list.

    Args:
        words: most frequent first; the place decides the cost. A later entry replaces an equal earlier one.
    """

    def __init__(self, words: Iterable[str]):
        costs = {word: math.log(rank) for rank, word in enumerate(words, start=1)}
        self._costs = {word: cost for word, cost in costs.items() if 0 < len(word) <= MAX_WORD}
        self._longest = max(map(len, self._costs), default=1)

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Read a list such as `enwiki-words-frequency.txt`: on each line a word, then whatever (a count)."""
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise StorageError(f"cannot read the word list {path}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise WeightsError(f"{path} is not a word list: its text is not UTF-8 (byte {error.start})") from error
        return cls((line.split() or [""])[0] for line in lines)

    def __call__(self, tag: str) -> str:
        return " ".join(word for part in _SYMBOLS.split(tag) for word in self._split(part))

    def _split(self, text: str) -> list[str]:
        lengths = self._last_word_lengths(text.lower())
        words: list[str] = []  # last word first
        end = len(text)
        while end > 0:
            piece = text[end - lengths[end] : end]
            joins = words and (words[-1] == "'s" or (piece[-1].isdigit() and words[-1][0].isdigit()))
            if joins and piece != "'":
                words[-1] = piece + words[-1]
            else:
                words.append(piece)
            end -= lengths[end]
        return words[::-1]

    def _last_word_lengths(self, text: str) -> list[int]:
        """For each end in the text: length of the last word of the cheapest split up to there, shortest on a tie."""
        best = [0.0] + [math.inf] * len(text)
        lengths = [1] * (len(text) + 1)
        for end in range(1, len(text) + 1):
            for start in range(end - 1, max(end - self._longest, 0) - 1, -1):
                if best[start] < math.inf:
                    cost = best[start] + self._costs.get(text[start:end], math.inf)
                    if cost < best[end]:
                        best[end], lengths[end] = cost, end - start
        return lengths
