"""Which words a model does not know: order, spelling, endings, emoji."""

from pathlib import Path

import pytest

from dalle_flow.errors import WeightsError
from dalle_flow.models.text.known_words import read_known_words, unknown_words

KNOWN = {"cat", "cats", "dog", "bus", "puppy", "fox", "red", "on", "skateboard", "cafe", "pizza", "3", "face"}


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("", []),
        ("A red CAT on the Skateboard, please", []),
        ("a cat painted by Matisse, and Matisse again", ["painted", "Matisse", "again"]),
        ("matisse and MATISSE", ["matisse"]),
        ("dogs, buses, puppies, foxes; a dog's skateboards", []),
        ("3 red cats, 17 dogs", ["17"]),
        ("café, red-dog #cat_dog", []),
        ("well-read", ["well", "read"]),
        ("🍕 and 🚀 on 🐱", ["🚀"]),
        ("猫 caf&eacute; \ud800", ["猫"]),
        ("don't 'quote' it’s", ["don't", "quote"]),
        ("...!?", []),
        ("އއ cat", ["އއ"]),  # transliterated to nothing
        ("ꠀ cat ওন", ["ꠀ", "ওন"]),  # to "a" and "on", which are stop words and not what was meant
    ],
)
def test_unknown_words(prompt: str, expected: list[str]) -> None:
    assert unknown_words(prompt, KNOWN) == expected


def test_list_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "known_words.txt"
    path.write_text("cat\ndog\n", encoding="utf-8")
    assert read_known_words(path) == {"cat", "dog"}
    with pytest.raises(WeightsError, match=r"known_words\.txt"):
        read_known_words(tmp_path / "nowhere" / "known_words.txt")
