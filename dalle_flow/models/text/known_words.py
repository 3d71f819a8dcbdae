"""Which words of a prompt a model has never read in training, so that it can be said and is not silently dropped."""

import re
from collections.abc import Collection, Iterator
from pathlib import Path

import emoji

from dalle_flow.errors import WeightsError
from dalle_flow.models.text.normalize import fix_encoding, transliterate

# Words that a picture does not show: nobody needs to be told that they are not known.
_STOP_WORDS = """
a an and any are as at be been being but by can could do does draw for from had has have he her here his i if in into is
it its just like made make me more my no not of on or our out please quite really shall she should show so some such
than that the their them then there these they this those to too up us very was we were what when where which while who
will with would you your
"""
STOP_WORDS = frozenset(_STOP_WORDS.split())
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


def read_known_words(path: Path) -> frozenset[str]:
    """The words of a `known_words.txt`: one a line, lower case."""
    try:
        return frozenset(path.read_text(encoding="utf-8").split())
    except FileNotFoundError:
        raise WeightsError(f"no list of known words at {path}") from None


def unknown_words(prompt: str, known: Collection[str]) -> list[str]:
    """Words and emoji of the prompt that are not among the known ones, each once, in order, spelt as in the prompt.

    Upper and lower case, accents and a plural's ending make no difference; words without a picture are passed over.
    """
    missing: dict[str, str] = {}  # in the order of the prompt
    for spelling, is_known in _words(fix_encoding(prompt), known):
        if not is_known:
            missing.setdefault(spelling.lower(), spelling)
    return list(missing.values())


def _words(text: str, known: Collection[str]) -> Iterator[tuple[str, bool]]:
    """Each word or emoji as it is spelt, and whether it is known; of an emoji's name one word is enough."""
    end = 0
    for found in emoji.emoji_list(text):
        yield from _plain_words(text[end : found["match_start"]], known)
        name = transliterate(emoji.demojize(found["emoji"]))
        yield found["emoji"], any(_is_known(part, known) for part in re.findall(r"[a-z0-9]+", name))
        end = found["match_end"]
    yield from _plain_words(text[end:], known)


def _plain_words(text: str, known: Collection[str]) -> Iterator[tuple[str, bool]]:
    for match in _WORD.finditer(text):
        parts = re.findall(r"[a-z0-9]+", re.sub(r"'s\b", "", transliterate(match[0])))
        # A word of another script may come out as nothing, or as "a" by chance: neither says what it meant.
        stops_pass = match[0].replace("’", "'").isascii()
        known_parts = [stops_pass if part in STOP_WORDS else _is_known(part, known) for part in parts]
        yield match[0], bool(parts) and all(known_parts)


def _is_known(word: str, known: Collection[str]) -> bool:
    return any(form in known for form in _forms(word))


def _forms(word: str) -> Iterator[str]:
    """The word, its plural, and what it may be the plural of."""
    yield word
    yield word + "s"
    if word.endswith("s"):
        yield word[:-1]
    if word.endswith("es"):
        yield word[:-2]
    if word.endswith("ies"):
        yield word[:-3] + "y"
