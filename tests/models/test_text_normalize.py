"""The normaliser on its own: quirks the models have learnt, the table of characters, hostile prompts."""

import random
import time
from pathlib import Path

import pytest

from dalle_flow.errors import StorageError, WeightsError
from dalle_flow.models.text.hashtags import MAX_WORD, HashtagSplitter, split_at_symbols
from dalle_flow.models.text.normalize import PEOPLE, TextNormalizer, transliterate

WORDS = ("the", "a", "and", "dog", "cat", "avocado", "armchair")


@pytest.fixture
def normalize() -> TextNormalizer:
    return TextNormalizer()


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("", " "),
        (" \n\t ", " "),
        ("A Cat, on a Skateboard!!", " a cat, on a skateboard"),
        ("Version 1.2.3", " version 1.2, 3"),
        ("don't 'quote' it's", " don't \" quote \" it's"),
        ("1,234,567 m/s on 1/2/2022", " 1234567 m, s on 1/2, 2022"),
        ("soooo viii 0000", " so viii 0000"),
        ("<b>bold</b> http://x.y/z [1]", " bold"),
        ("<> and <<tag>> <>x>", " <> and < >"),
        ("小猫 at 20°, £5", " xiao mao at 20deg, ps5"),
        ("🐱 and 🍕", " cat face, and, pizza"),
        ("&amp;amp; caf&eacute;", " & cafe"),
    ],
)
def test_quirks(normalize: TextNormalizer, prompt: str, expected: str) -> None:
    assert normalize(prompt) == expected


@pytest.mark.parametrize("prompt", ["a cat. #two_dogs", "“x” — <person>, 50% (y)", "héllo wörld 東京", "''\"``"])
def test_normalised_text_stays_as_it_is(normalize: TextNormalizer, prompt: str) -> None:
    once = normalize(prompt)
    assert normalize(once) == once
    assert once.isascii()
    assert once.startswith(" ")


def test_persons_are_drawn_from_the_seed(normalize: TextNormalizer) -> None:
    drawn = [normalize("<person>", seed).strip() for seed in range(300)]
    assert set(drawn) == set(PEOPLE)
    assert drawn.count("a person") > drawn.count("someone") > drawn.count("somebody")
    assert normalize("<PERSON> x <person>", 5) == normalize("<PERSON> x <person>", random.Random(5))
    assert normalize("<person> and <person>,<person> dance") == " people dance"


def test_table_of_characters_is_the_one_in_the_docs() -> None:
    page = (Path(__file__).parents[2] / "docs" / "text.md").read_text(encoding="utf-8")
    rows = [line.split("|") for line in page.splitlines() if line.startswith("| `")]
    assert len(rows) >= 10
    for _, character, ours, *_ in rows:
        for one in character.strip().strip("`").split("` `"):
            typed = chr(int(one[2:], 16)) if one.startswith("U+") else one
            assert transliterate(typed) == ours.strip().strip("`"), one


def test_hashtags_with_and_without_a_word_list() -> None:
    assert TextNormalizer()("#avocadoarmchair #cat_dog") == " avocadoarmchair cat dog"
    assert TextNormalizer(HashtagSplitter(WORDS))("#avocadoarmchair #cat_dog") == " avocado armchair cat dog"
    assert split_at_symbols("a-b__c'd") == "a b c'd"


def test_hashtag_splitter() -> None:
    split = HashtagSplitter(WORDS)
    assert split("TheDogAndCat") == "The Dog And Cat"
    assert split("dog2022") == "dog 2022"
    assert split("dogs") == "dog s"
    assert split("sdog") == "s d o g"  # nothing is known behind an unknown piece
    assert HashtagSplitter([])("ab1") == "a b 1"
    assert HashtagSplitter(["x" * (MAX_WORD + 1), ""])("xx") == "x x"


def test_word_list_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("the 10\n\ndog 5\n", encoding="utf-8")
    assert HashtagSplitter.from_file(path)("thedog") == "the dog"
    with pytest.raises(StorageError, match=r"nowhere\.txt"):
        HashtagSplitter.from_file(tmp_path / "nowhere.txt")
    path.write_bytes(b"caf\xe9 3")
    with pytest.raises(WeightsError, match="UTF-8"):
        HashtagSplitter.from_file(path)


HOSTILE = {
    "persons": "<person>" * 1250,
    "person, commas": "<person>" + "," * 10_000,
    "person and and": "<person>" + "and " * 2_500,
    "one long hashtag": "#" + "ab" * 5_000,
    "hashtags": "#a" * 5_000,
    "open tags": "<" * 10_000,
    "open tags with text": "<a" * 5_000,
    "spaces": "x" + " " * 10_000 + "x",
    "quotes and spaces": "' " * 5_000,
    "commas and spaces": ", " * 5_000,
    "references": "[1]" * 3_333,
    "reference, then spaces": "[1]" + " " * 10_000 + "x",
    "numbers": "1,111" * 2_000,
    "entities": "&amp;" * 2_000,
    "emoji": "😀" * 10_000,
    "ideographs": "北" * 10_000,
    "mojibake": "Ã©" * 5_000,
    "combining": "e" + "\u0301" * 10_000,
    "lone surrogates": "\ud800" * 10_000,
    "null bytes": "\0" * 10_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_prompts_take_bounded_time(name: str) -> None:
    normalize = TextNormalizer(HashtagSplitter([*WORDS, "ab", *("ab" * n for n in range(20, 32))]))
    start = time.process_time()
    assert normalize(HOSTILE[name]).isascii()
    assert time.process_time() - start < 2
