"""Weighted sub-prompts: what cannot be read is refused, and says how a plain colon is written."""

import pytest

from dalle_flow.errors import OptionError
from dalle_flow.models.subprompts import LARGEST_WEIGHT, MOST, parse_subprompts


@pytest.mark.parametrize(
    ("prompt", "parts"),
    [
        ("a cat", [("a cat", 1)]),
        ("", [("", 1)]),
        ("::", [("::", 1)]),
        (":2 a", [("2 a", 1)]),
        ("a cat:1.5 a dog:-0.5", [("a cat", 1.5), ("a dog", -0.5)]),
        ("a:0", [("a", 0)]),
        (r"at 12\:30:2", [("at 12:30", 2)]),
        ("a:.5", [("a", 1), (".5", 1)]),
        ("a:+2", [("a", 1), ("+2", 1)]),
        ("a\\", [("a\\", 1)]),
        ("a :3\nb", [("a ", 3), ("b", 1)]),
        ("猫:2 кот:3", [("猫", 2), ("кот", 3)]),
    ],
)
def test_parts_and_weights(prompt, parts):
    assert [tuple(part) for part in parse_subprompts(prompt)] == parts


@pytest.mark.parametrize("number", [1, 5, MOST])
def test_so_many_parts(number):
    assert len(parse_subprompts(" ".join(f"part {i}:1" for i in range(number)))) == number


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (":".join("abcdefghi"), r"9 weighted sub-prompts, at most 8 .* Write '\\:'"),
        ("a:1001", "has weight 1001; allowed are -1000 to 1000"),
        ("a:-" + "9" * 400, "has weight -inf"),
    ],
)
def test_refuses(prompt, message):
    with pytest.raises(OptionError, match=message) as caught:
        parse_subprompts(prompt)
    assert caught.value.field == "prompt"


def test_the_largest_weight_is_allowed():
    assert parse_subprompts(f"a:{LARGEST_WEIGHT:g}")[0].weight == LARGEST_WEIGHT


def test_many_colons_take_no_time():
    assert parse_subprompts(":" * 100_000 + "a") == [("a", 1.0)]
