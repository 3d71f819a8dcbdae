"""The embedded tokenizer's training: files, whole words, the same whatever the order."""

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from dalle_flow.models.text.bpe import DalleTokenizer
from dalle_flow.models.text.known_words import read_known_words, unknown_words
from dalle_flow.models.text.normalize import TextNormalizer
from dalle_flow.train.tokenizer import train_tokenizer

CAPTIONS = [
    f"{number} {color} {thing} {place}, {style}"
    for number in ("a", "two", "three")
    for color in ("Red", "blue", "yellow")
    for thing in ("elephant", "Skateboards", "sunflower")
    for place in ("at sunset", "under a starry sky", "in space")
    for style in ("watercolor", "pixel art")
]
FILES = {"tokenizer.json", "vocab.json", "merges.txt", "known_words.txt"}


def test_words_become_whole(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(CAPTIONS, tmp_path, vocab_size=400, max_length=20)
    words = read_known_words(tmp_path / "known_words.txt")
    assert words == {w.strip(",").lower() for caption in CAPTIONS for w in caption.split()}
    assert {word for word in words if len(tokenizer.pieces(f" {word}")) == 1} == words
    assert len(tokenizer.encode(TextNormalizer()("A red elephant, watercolor"))) == 2 + 5
    assert unknown_words("a red giraffe in space", words) == ["giraffe"]
    assert {path.name for path in tmp_path.iterdir()} == FILES


def test_files_are_those_of_the_published_tokenizer(tmp_path: Path) -> None:
    trained = train_tokenizer(CAPTIONS, tmp_path, vocab_size=300)
    assert trained.vocab_size == 300
    vocab = json.loads((tmp_path / "vocab.json").read_text(encoding="utf-8"))
    assert sorted(vocab, key=vocab.__getitem__)[:6] == ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "!"]
    text = " a red elephant, ünknown ☺ <pad>"
    assert trained.decode(trained.encode(text)) == text
    elsewhere = Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode(text).ids
    assert elsewhere == trained.encode(text)
    (tmp_path / "tokenizer.json").unlink()
    assert DalleTokenizer.from_folder(tmp_path).encode(text) == trained.encode(text)


def test_order_of_captions_does_not_matter(tmp_path: Path) -> None:
    train_tokenizer(CAPTIONS, tmp_path / "one", vocab_size=350)
    train_tokenizer(reversed(CAPTIONS), tmp_path / "two", vocab_size=350)
    for name in FILES:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_nothing_to_learn_from(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no captions"):
        train_tokenizer([], tmp_path)
    with pytest.raises(ValueError, match="at least 261"):
        train_tokenizer(CAPTIONS, tmp_path, vocab_size=100)
