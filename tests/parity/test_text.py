"""The text side against the originals: normaliser stage by stage, hashtags, tokenizers. All cases come from files."""

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from dalle_flow.errors import OptionError
from dalle_flow.models.text.bpe import DalleTokenizer
from dalle_flow.models.text.clip_bpe import ClipTokenizer
from dalle_flow.models.text.hashtags import HashtagSplitter
from dalle_flow.models.text.normalize import TextNormalizer, fix_encoding, name_emoji, tidy, transliterate

ROOT = Path(__file__).parents[2]
FALLBACKS = (ROOT.parent / "shared" / "parity", ROOT / "tests" / "data" / "parity")
PARITY = Path(os.environ.get("DALLE_FLOW_PARITY") or next(folder for folder in FALLBACKS if folder.is_dir()))
DALLE, CLIP = PARITY / "dalle", PARITY / "clip"
FULL_CLIP_BPE = ROOT / "tests" / "data" / "clip" / "bpe_48894_merges.txt.gz"
OTHER_TRANSLITERATIONS = 5 / 77  # cases in which anyascii may differ from the original's Unidecode


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def name_of(case: dict[str, Any]) -> str:
    return ascii(case.get("input", case.get("text")))[:40]


NORMALIZER = read(DALLE / "text_normalizer_cases.json")
CASES, HASHTAGS = NORMALIZER["cases"], read(DALLE / "hashtag_cases.json")
TOKENS, CLIP_TOKENS = read(DALLE / "tokenizer_cases.json"), read(CLIP / "bpe_tokenizer_ids.json")
TOKENIZER_FOLDERS = [DALLE / "tiny_dalle_bart", *DALLE.glob("tiny_min_dalle/dalle_bart_*")]


@pytest.fixture(scope="module")
def split_hashtag() -> HashtagSplitter:
    return HashtagSplitter.from_file(DALLE / NORMALIZER["word_frequency_file"].split(" ")[0])


@pytest.mark.parametrize("case", HASHTAGS, ids=name_of)
def test_hashtags(case: dict[str, Any], split_hashtag: HashtagSplitter) -> None:
    assert split_hashtag(case["input"]) == case["output"]


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_normalizer_stages(case: dict[str, Any], split_hashtag: HashtagSplitter) -> None:
    assert fix_encoding(case["input"]) == case["after_ftfy_and_html"]
    assert name_emoji(case["after_ftfy_and_html"]) == case["after_demojize"]
    text = tidy(case["after_unidecode_lower"], split_hashtag, random.Random(0))
    assert text in case.get("output_any_of", [case.get("output")])


def test_normalizer_as_a_whole(split_hashtag: HashtagSplitter) -> None:
    normalize = TextNormalizer(split_hashtag)
    differ = [
        case["input"]
        for case in CASES
        if transliterate(case["after_demojize"]) != case["after_unidecode_lower"]
        or normalize(case["input"]) not in case.get("output_any_of", [case.get("output")])
    ]
    assert len(differ) <= OTHER_TRANSLITERATIONS * len(CASES), differ


@pytest.mark.parametrize("folder", TOKENIZER_FOLDERS, ids=lambda folder: folder.name)
@pytest.mark.parametrize("case", TOKENS, ids=name_of)
def test_dalle_tokens(case: dict[str, Any], folder: Path) -> None:
    length = len(case["hf_padded64_normalized"])
    tokenizer = DalleTokenizer.from_folder(folder, max_length=length)
    tokens, mask = tokenizer([case["normalized"]])
    assert tokens[0].tolist() == case["hf_padded64_normalized"]
    assert mask[0].int().tolist() == case["hf_attention_mask64"]
    assert tokenizer.encode(case["text"]) == case["hf_ids_raw"]
    assert tokenizer.encode(case["normalized"]) == case["hf_ids_normalized"]
    if case["same_normalized"]:
        assert tokenizer.encode(case["normalized"]) == case["min_dalle_ids_normalized"]


def test_unconditional_prompt_is_the_empty_text_not_normalised() -> None:
    with_ids = DalleTokenizer.from_folder(TOKENIZER_FOLDERS[0])
    tokens, mask = with_ids.unconditional()
    assert tokens[0].tolist() == [0, 2] + [1] * 62
    assert mask.sum() == 2
    assert not torch.equal(tokens, with_ids([TextNormalizer()("")])[0])


@pytest.mark.parametrize("folder", [CLIP, CLIP / "hf_tokenizer"], ids=["openai", "transformers"])
def test_clip_tokens_of_the_small_vocabulary(folder: Path) -> None:
    tokens = load_file(CLIP / "reference.safetensors")["input_ids"]
    meta = read(CLIP / "meta.json")
    tokenizer = ClipTokenizer.from_folder(folder, context_length=tokens.shape[1])
    assert tokenizer.vocab_size == meta["vocab_size"]
    assert torch.equal(tokenizer(meta["texts"], truncate=True), tokens)


@pytest.fixture(scope="module")
def full_clip() -> ClipTokenizer:
    return ClipTokenizer.from_file(FULL_CLIP_BPE)


@pytest.mark.parametrize("case", CLIP_TOKENS, ids=name_of)
def test_clip_tokens_of_the_full_vocabulary(case: dict[str, Any], full_clip: ClipTokenizer) -> None:
    assert full_clip.encode(case["text"]) == case["bpe_ids"]
    expected = case["tokenize_truncate_ids"]
    tokens = full_clip([case["text"]], truncate=True)[0].tolist()
    assert tokens == expected + [0] * (full_clip.context_length - len(expected))
    if case["raises_without_truncate"]:
        with pytest.raises(OptionError, match="tokens"):
            full_clip([case["text"]])
    else:
        assert full_clip([case["text"]])[0].tolist() == tokens
