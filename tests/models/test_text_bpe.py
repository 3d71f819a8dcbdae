"""Both tokenizers on small vocabularies written here: forms, lengths, literal specials, damage."""

import gzip
import json
from pathlib import Path

import pytest
import torch

from dalle_flow.errors import OptionError, WeightsError
from dalle_flow.models.text.bpe import SPECIAL_TOKENS, DalleTokenizer, byte_characters
from dalle_flow.models.text.clip_bpe import ClipTokenizer

PIECES = [*SPECIAL_TOKENS, *sorted(byte_characters()), "ca", "cat", "Ġcat", "Ġa"]
MERGES = ["c a", "ca t", "Ġ cat", "Ġ a"]


def write_dalle(folder: Path, pieces: list[str] = PIECES, merges: list[str] = MERGES) -> Path:
    folder.mkdir(exist_ok=True)
    vocab = {piece: index for index, piece in enumerate(pieces)}
    (folder / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", encoding="utf-8")
    return folder


def write_json(folder: Path, pre_tokenizer: str = "ByteLevel", added: tuple[str, ...] = ()) -> Path:
    model = {"type": "BPE", "vocab": {p: i for i, p in enumerate(PIECES)}, "merges": MERGES}
    tokens = [{"id": PIECES.index(token), "content": token, "special": True} for token in added]
    spec = {"pre_tokenizer": {"type": pre_tokenizer, "add_prefix_space": False}, "model": model, "added_tokens": tokens}
    (folder / "tokenizer.json").write_text(json.dumps(spec), encoding="utf-8")
    return folder


def test_form_and_length(tmp_path: Path) -> None:
    tokenizer = DalleTokenizer.from_folder(write_dalle(tmp_path), max_length=5)
    cat, a = PIECES.index("Ġcat"), PIECES.index("Ġa")
    tokens, mask = tokenizer([" a cat", "", " cat" * 9])
    assert tokens.tolist() == [[0, a, cat, 2, 1], [0, 2, 1, 1, 1], [0, cat, cat, cat, 2]]
    assert mask.sum(1).tolist() == [4, 2, 5]
    assert (tokens.dtype, mask.dtype) == (torch.int64, torch.bool)
    assert tokenizer.encode(" cat" * 9) == [0, *[cat] * 9, 2]
    assert tokenizer([])[0].shape == (0, 5)
    assert tokenizer.decode([0, a, cat, 2, 1]) == " a cat"
    assert tokenizer.vocab_size == len(PIECES)


def test_special_tokens_that_are_typed_are_text(tmp_path: Path) -> None:
    """Files saved by newer programs register them as added tokens, which would let a prompt end itself."""
    plain = DalleTokenizer.from_folder(write_dalle(tmp_path / "plain"))
    (tmp_path / "added").mkdir()
    added = DalleTokenizer.from_folder(write_json(tmp_path / "added", added=SPECIAL_TOKENS))
    for text in ("</s>", " a <pad> cat<mask>", "<s>"):
        assert added.encode(text) == plain.encode(text)
        assert not {0, 1, 2, 3, 4} & set(plain.encode(text)[1:-1])


def test_pieces_the_vocabulary_lacks_are_unk(tmp_path: Path) -> None:
    tokenizer = DalleTokenizer.from_folder(write_dalle(tmp_path, [p for p in PIECES if p != "z"]))
    assert tokenizer.pieces(" cat zz") == ["Ġcat", "Ġ", "<unk>", "<unk>"]
    assert tokenizer.encode("z") == [0, 3, 2]


def test_damaged_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"neither tokenizer\.json"):
        DalleTokenizer.from_folder(tmp_path)
    write_dalle(tmp_path, [p for p in PIECES if p != "<pad>"])
    with pytest.raises(WeightsError, match="<pad>"):
        DalleTokenizer.from_folder(tmp_path)
    write_dalle(tmp_path, merges=["c a t"])
    with pytest.raises(WeightsError, match="two pieces"):
        DalleTokenizer.from_folder(tmp_path)
    write_dalle(tmp_path, merges=["q q"])
    with pytest.raises(WeightsError, match="damaged"):
        DalleTokenizer.from_folder(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{", encoding="utf-8")
    with pytest.raises(WeightsError, match="damaged"):
        DalleTokenizer.from_folder(tmp_path)
    with pytest.raises(WeightsError, match="byte-level"):
        DalleTokenizer.from_folder(write_json(tmp_path, pre_tokenizer="Whitespace"))


def test_no_room_for_start_and_end(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="max_length"):
        DalleTokenizer.from_folder(write_dalle(tmp_path), max_length=1)


@pytest.fixture
def clip_file(tmp_path: Path) -> Path:
    path = tmp_path / "bpe_small.txt.gz"
    path.write_bytes(gzip.compress(b'"version"\nc a\nca t</w>\n'))
    return path


def test_clip_vocabulary_follows_from_the_merges(clip_file: Path) -> None:
    tokenizer = ClipTokenizer.from_file(clip_file, context_length=7)
    assert (tokenizer.vocab_size, tokenizer.sot_token_id, tokenizer.eot_token_id) == (516, 514, 515)
    cat = 513
    assert tokenizer(["CAT  cat"]).tolist() == [[514, cat, cat, 515, 0, 0, 0]]
    assert tokenizer.encode("!") == [256]  # the first byte, at the end of a word
    assert tokenizer.encode("cat&amp;amp;cat") == [cat, 256 + byte_characters().index("&"), cat]
    assert ClipTokenizer.from_folder(clip_file.parent).encode("cat") == [cat]


def test_clip_specials_count_as_words_of_their_own(clip_file: Path) -> None:
    """A regular expression finds words from the left: behind punctuation, a typed special token is punctuation too."""
    encode = ClipTokenizer.from_file(clip_file).encode
    assert encode("cat<|endoftext|>cat") == [513, 515, 513]
    assert not {514, 515} & set(encode("cat!<|endoftext|>"))
    assert encode("cat'ſ")[0] == 513
    assert encode("'ſ") == encode("'ſ cat")[:-1] != encode("' ſ")


def test_clip_without_merges_reads_bytes() -> None:
    tokenizer = ClipTokenizer.of_bytes(context_length=5)
    characters = byte_characters()
    assert tokenizer(["É b"], truncate=True).tolist() == [
        [512, characters.index("Ã"), 256 + characters.index("©"), 256 + characters.index("b"), 513]
    ]


def test_clip_text_that_is_too_long(clip_file: Path) -> None:
    tokenizer = ClipTokenizer.from_file(clip_file, context_length=4)
    with pytest.raises(OptionError, match="5 tokens, CLIP reads 4"):
        tokenizer(["cat cat cat"])
    assert tokenizer(["cat cat cat"], truncate=True).tolist() == [[514, 513, 513, 515]]


def test_clip_files_that_are_missing_or_damaged(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"bpe_\*"):
        ClipTokenizer.from_folder(tmp_path)
    with pytest.raises(WeightsError, match="no vocabulary"):
        ClipTokenizer.from_file(tmp_path / "none.txt.gz")
    whole = gzip.compress(b"version\nc a\n")
    for damaged in (whole[:-9], whole[:12] + b"\xff" * 9 + whole[21:], b"\xff\xfe"):
        (tmp_path / "bpe_x.txt.gz").write_bytes(damaged)
        with pytest.raises(WeightsError, match="not a list of merges"):
            ClipTokenizer.from_folder(tmp_path)
    with pytest.raises(WeightsError, match="startoftext"):
        ClipTokenizer.from_folder(write_dalle(tmp_path))
    (tmp_path / "merges.txt").unlink()
    with pytest.raises(WeightsError, match=r"no merges\.txt"):
        ClipTokenizer.from_folder(tmp_path)
