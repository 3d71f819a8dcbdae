"""The text normaliser DALL·E Mini was trained with: any prompt -> plain lower-case ASCII with few kinds of punctuation.

Source: borisdayma/dalle-mini, `src/dalle_mini/model/text.py`; what it does is written down in docs/text.md.
Parity: tests/parity/test_text.py, stage by stage.
Differs: transliteration by anyascii (ISC) with the table below instead of Unidecode (GPL); `<person>` is drawn from a
    generator that is given, so that a prompt gives the same tokens each time; patterns are written so that the time
    grows with the length of the prompt, not with its square.

The oddities are kept, because the models have learnt from what they leave: "1.2.3" becomes "1.2, 3", an apostrophe
inside a hashtag breaks the tag into letters, four or more equal characters become one.
"""

import html
import random
import re
from collections.abc import Callable

import emoji
import ftfy
from anyascii import anyascii

from dalle_flow.models.text.hashtags import split_at_symbols

PEOPLE = {"a person": 282_265, "someone": 121_194, "somebody": 12_219}  # how often each is drawn for "<person>"

# Characters that Unidecode writes in another way than anyascii does, as the reference's vocabulary expects them.
TRANSLITERATIONS = str.maketrans(
    {
        "\u200b": " ",  # zero width space
        "—": "--",
        "―": "--",
        "·": "*",
        "¼": " 1/4",
        "½": " 1/2",
        "¾": " 3/4",
        "£": "PS",
        "¥": "Y=",
        "¢": "C/",
        "¤": "$?",
        "§": "SS",
        "Β": "B",
        "β": "b",
        "Η": "E",
        "η": "e",
        "Φ": "Ph",
        "φ": "ph",
    }
)
_IDEOGRAPH = re.compile("[\u3400-\u9fff\uf900-\ufaff]")  # each is read as a word of its own

# Stand-ins that carry a sign through the steps that would remove it.
_DOT, _QUOTE, _SLASH = (f"xtokx{sign}xtokx" for sign in ("dot", "quote", "slash"))

_PEOPLE = re.compile(r"<person>(?:[,\s]*+(?:(?:and)++[,\s]*+)?<person>)+")
_FIRST_REFERENCE = re.compile(r"\A\s*\[\d+\]")
_LAST_REFERENCE = re.compile(r"\[\d+\]\s*\Z")
_TAG = re.compile(r"<[^<][^<>]*>")
_URL = re.compile(r"http\S+")
_THOUSANDS = re.compile(r"(\d),(\d{3})")
_INNER_DOT = re.compile(r"(\w)\.(\w)")
_CONTRACTION = re.compile(r"'(?=(?:[stdm]|ll|re|ve)\b)")
_DATE = re.compile(r"(\d)/(\d)")
_HYPHEN = re.compile(r"(\w)-(\w)")
_SPACED = re.compile(r"([%&/$*])")
_HASHTAG = re.compile(r"#(\w+)")
_IGNORED = re.compile(r"[_#\\]")
_ANY_QUOTE = re.compile(r"['\"`]")
_PUNCTUATION = re.compile(r"[()\[\].,|:;?!=+~\-/{}]")
_REPEATED = re.compile(r"(\D)\1{3,}")  # three are allowed: "viii"
_QUOTES = re.compile(r"\s?\"[\s\"]*")
_COMMAS = re.compile(r"\s?,[\s,]*")
_SPACES = re.compile(r"\s+")


def fix_encoding(text: str) -> str:
    """Mend mojibake, curly quotes, ligatures, wide letters; HTML entities (also if escaped twice) to characters."""
    return html.unescape(html.unescape(ftfy.fix_text(text)))


def name_emoji(text: str) -> str:
    """A pizza slice becomes ":pizza:"."""
    return emoji.demojize(text)


def transliterate(text: str) -> str:
    """Any script to lower-case ASCII."""
    text = _IDEOGRAPH.sub(lambda match: f"{match[0]} ", text.translate(TRANSLITERATIONS))
    return anyascii(text).lower()


def tidy(text: str, split_hashtag: Callable[[str], str], rng: random.Random) -> str:
    """Everything after transliteration: lower-case ASCII -> words, commas, quotes; single spaces, one in front."""
    text = _remove_markup(_name_people(text, rng))
    for _ in range(2):  # twice, because neighbouring groups share a digit
        text = _THOUSANDS.sub(r"\1\2", text)
    text = _INNER_DOT.sub(rf"\1{_DOT}\2", text)
    text = _CONTRACTION.sub(_QUOTE, text)
    text = _DATE.sub(rf"\1{_SLASH}\2", text)
    text = _HYPHEN.sub(r"\1 \2", text)
    text = _SPACED.sub(r" \1 ", text)
    text = _HASHTAG.sub(lambda match: split_hashtag(match[1]), text)
    text = _IGNORED.sub(" ", text)
    text = _ANY_QUOTE.sub(' " ', text)
    text = _PUNCTUATION.sub(",", text)
    text = text.replace(_DOT, ".").replace(_QUOTE, "'").replace(_SLASH, "/")
    return " " + _merge(_REPEATED.sub(r"\1", text))


def _name_people(text: str, rng: random.Random) -> str:
    """Several "<person>" in a row are people; one alone is drawn."""
    text = _PEOPLE.sub(" people ", text)
    names, weights = list(PEOPLE), list(PEOPLE.values())
    return re.sub("<person>", lambda match: f" {rng.choices(names, weights)[0]} ", text)


def _remove_markup(text: str) -> str:
    text = _LAST_REFERENCE.sub("", _FIRST_REFERENCE.sub("", text))
    return _URL.sub("", _TAG.sub(" ", text))


def _merge(text: str) -> str:
    """Runs of spaces, quotes and commas to one; none of spaces and commas at the ends."""
    text = _SPACES.sub(" ", text)
    text = _QUOTES.sub(' " ', text)
    text = _COMMAS.sub(", ", text)
    text = _SPACES.sub(" ", text).strip()
    return text.removesuffix(",").removeprefix(",").strip()


class TextNormalizer:
    """Callable: a prompt as typed -> the text the tokenizer expects.

    Args:
        split_hashtag: the words of a hashtag without its "#"; by default a hashtag stays one word (see hashtags.py).
    """

    def __init__(self, split_hashtag: Callable[[str], str] = split_at_symbols):
        self.split_hashtag = split_hashtag

    def __call__(self, text: str, rng: random.Random | int = 0) -> str:
        """The normalised text, which begins with a space; `rng` (or its seed) draws the words for "<person>"."""
        rng = random.Random(rng) if isinstance(rng, int) else rng
        return tidy(transliterate(name_emoji(fix_encoding(text))), self.split_hashtag, rng)
