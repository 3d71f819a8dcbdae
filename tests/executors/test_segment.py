"""The segmenter: masks of any picture, every option, weights of every layout, prompts that are too long."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from dalle_flow.engine.device import run_slots
from dalle_flow.errors import OptionError, WeightsError
from dalle_flow.executors.base import Done, Task
from dalle_flow.executors.segment import SegmentExecutor
from dalle_flow.models.clipseg import CLIPSeg
from dalle_flow.models.text.bpe import DalleTokenizer
from dalle_flow.types import Kind, RoundKind
from dalle_flow.weights.ours import save_ours

ROOT = Path(__file__).parents[2]
FALLBACKS = (ROOT.parent / "shared" / "parity", ROOT / "tests" / "data" / "parity")
PARITY = Path(os.environ.get("DALLE_FLOW_PARITY") or next(folder for folder in FALLBACKS if folder.is_dir()))
PROMPT = "the red one"


@pytest.fixture
def segmenter() -> SegmentExecutor:
    return SegmentExecutor.tiny()


def pictures(number: int, size: tuple[int, int] = (23, 17)) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)) for _ in range(number)]


def masks(
    segmenter: SegmentExecutor, images: list[Image.Image], prompt: str = PROMPT, **options: Any
) -> list[np.ndarray]:
    """Of each picture in turn; as large as it."""
    task = Task(prompt, segmenter.Options.parse(options), images=tuple(images), kind=RoundKind.SEGMENT)
    found = {output.slot.index: output.result for output in run_slots(segmenter, task) if isinstance(output, Done)}
    assert sorted(found) == list(range(len(images)))
    for i, image in enumerate(images):
        assert isinstance(found[i], Image.Image)
        assert (found[i].mode, found[i].size) == ("L", image.size)
    return [np.asarray(found[i], np.int16) for i in range(len(images))]


def test_what_it_is(segmenter: SegmentExecutor) -> None:
    assert segmenter.kind is Kind.SEGMENTER
    assert segmenter.verbs == {RoundKind.SEGMENT: segmenter.Options}
    assert segmenter.Options() == segmenter.Options.parse({})


@pytest.mark.parametrize("number", [1, 5, 6, 9])
def test_one_mask_per_picture_the_same_alone_and_in_a_batch(segmenter: SegmentExecutor, number: int) -> None:
    images = pictures(number)
    together = masks(segmenter, images, thresholding_type="none")
    for image, mask in zip(images, together, strict=True):
        assert np.array_equal(masks(segmenter, [image], thresholding_type="none")[0], mask)
    assert len({mask.tobytes() for mask in together}) == number


@pytest.mark.parametrize("size", [(1, 1), (1, 37), (37, 1), (42, 42), (41, 43), (200, 3), (90, 120)])
def test_any_size_of_picture(segmenter: SegmentExecutor, size: tuple[int, int]) -> None:
    for kind in ("none", "binary", "adaptive_mean", "adaptive_gaussian"):
        masks(segmenter, pictures(1, size), thresholding_type=kind)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "CMYK", "1"])
def test_any_mode_of_picture(segmenter: SegmentExecutor, mode: str) -> None:
    image = pictures(1)[0].convert(mode)
    assert np.array_equal(masks(segmenter, [image])[0], masks(segmenter, [image.convert("RGB")])[0])


def test_a_palette_with_transparency(segmenter: SegmentExecutor) -> None:
    image = pictures(1)[0].quantize(8)
    image.info["transparency"] = bytes([0, 128, *[255] * 6])
    assert np.array_equal(masks(segmenter, [image])[0], masks(segmenter, [pictures(1)[0].quantize(8)])[0])


def test_what_is_transparent_is_looked_at(segmenter: SegmentExecutor) -> None:
    image = pictures(1)[0]
    clear = image.copy()
    clear.putalpha(0)
    assert np.array_equal(masks(segmenter, [clear])[0], masks(segmenter, [image])[0])


def test_the_prompt_decides(segmenter: SegmentExecutor) -> None:
    image = pictures(1)
    one, other = (masks(segmenter, image, prompt, thresholding_type="none")[0] for prompt in ("a cat", "wood"))
    assert not np.array_equal(one, other)
    assert np.array_equal(masks(segmenter, image, "a cat", thresholding_type="none")[0], one)


def test_each_option_does_something(segmenter: SegmentExecutor) -> None:
    image = pictures(1)
    grey = masks(segmenter, image, thresholding_type="none")[0]
    middle = int(np.median(grey))
    assert 0 < middle < 255
    binary = masks(segmenter, image, binary_thresh_strength=middle)[0]
    assert np.array_equal(binary, np.where(grey > middle, 255, 0))
    assert 0 < (binary == 255).mean() < 1
    assert np.array_equal(masks(segmenter, image, binary_thresh_strength=middle, invert=True)[0], 255 - binary)
    assert np.array_equal(masks(segmenter, image, thresholding_type="none", invert=True)[0], 255 - grey)
    base = {"thresholding_type": "adaptive_mean", "adaptive_thresh_c": 0.0}
    adaptive = [
        masks(segmenter, image, **{**base, **change})[0]
        for change in (
            {},
            {"thresholding_type": "adaptive_gaussian"},
            {"adaptive_thresh_block_size": 3},
            {"adaptive_thresh_c": 3.0},
        )
    ]
    assert len({mask.tobytes() for mask in adaptive}) == 4
    assert masks(segmenter, image, thresholding_type="none", relative=True)[0].max() > grey.max()
    finer = masks(segmenter, image, thresholding_type="none", size_px=84)[0]
    assert not np.array_equal(finer, grey)
    assert np.array_equal(masks(segmenter, image, thresholding_type="none", size_px=42)[0], grey)


def test_what_is_not_there_gives_a_black_mask_unless_it_is_relative(
    segmenter: SegmentExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits = torch.full((42, 42), -9.0)
    logits[20:, 20:] = -8
    monkeypatch.setattr(segmenter, "_logits", lambda image, task: logits)
    assert masks(segmenter, pictures(1))[0].max() == 0
    assert masks(segmenter, pictures(1), relative=True)[0].max() == 255


def test_growing_adds_a_rim(segmenter: SegmentExecutor) -> None:
    image = pictures(1)
    most = int(np.percentile(masks(segmenter, image, thresholding_type="none")[0], 90))
    found = masks(segmenter, image, binary_thresh_strength=most)[0] > 0
    grown = masks(segmenter, image, binary_thresh_strength=most, grow_px=2)[0] > 0
    around = np.zeros_like(found)
    for y, x in zip(*np.nonzero(found), strict=True):
        around[max(0, y - 2) : y + 3, max(0, x - 2) : x + 3] = True
    assert found.any()
    assert not found.all()
    assert np.array_equal(grown, around)


@pytest.mark.parametrize(
    ("options", "field", "message"),
    [
        ({"adaptive_thresh_block_size": 12}, "adaptive_thresh_block_size", "must be odd, such as 11 or 13, got 12"),
        ({"adaptive_thresh_block_size": 1}, "adaptive_thresh_block_size", "integer >= 3 <= 511"),
        ({"binary_thresh_strength": 256}, "binary_thresh_strength", "integer >= 0 <= 255"),
        ({"thresholding_type": "otsu"}, "thresholding_type", "none | binary | adaptive_mean | adaptive_gaussian"),
        ({"adaptive_thresh_c": float("nan")}, "adaptive_thresh_c", "number >= -255 <= 255"),
        ({"size_px": 0}, "size_px", "integer >= 1 <= 1024 or null"),
    ],
)
def test_refuses_options(options: dict[str, Any], field: str, message: str) -> None:
    with pytest.raises(OptionError) as caught:
        SegmentExecutor.Options.parse(options)
    assert caught.value.field == field
    assert message in caught.value.message


@pytest.mark.parametrize(("size", "near"), [(43, "42 or 49"), (3, "7;"), (1024, "1022 or 1029")])
def test_refuses_sizes_into_which_no_patches_fit(segmenter: SegmentExecutor, size: int, near: str) -> None:
    with pytest.raises(OptionError, match=f"multiple of 7, .*such as {near}.*got {size}") as caught:
        masks(segmenter, pictures(1), size_px=size)
    assert caught.value.field == "size_px"


def test_refuses_prompts_that_are_too_long_or_empty(segmenter: SegmentExecutor) -> None:
    masks(segmenter, pictures(1), "x" * 75)
    with pytest.raises(OptionError, match="has 78 tokens, CLIP reads 77") as caught:
        masks(segmenter, pictures(1), "x" * 76)
    assert caught.value.field == "prompt"
    with pytest.raises(OptionError, match="empty; say what to find") as caught:
        masks(segmenter, pictures(1), " ")
    assert caught.value.field == "prompt"


class TestLoading:
    """The tiny model's weights in every layout."""

    @pytest.fixture
    def whole(self, segmenter: SegmentExecutor, tmp_path: Path) -> Path:
        """A folder in our layout with the embedded family's kind of tokenizer."""
        tokenizer = DalleTokenizer.of_bytes()
        config = segmenter.model.config
        clip = replace(config.clip, vocab_size=tokenizer.vocab_size, context_length=12, eot_token_id=2)
        torch.manual_seed(0)
        save_ours(CLIPSeg(replace(config, clip=clip)), tmp_path / "whole")
        tokenizer._tokenizer.save(str(tmp_path / "whole" / "tokenizer.json"))
        vocab = tokenizer._tokenizer.get_vocab()
        (tmp_path / "whole" / "vocab.json").write_text(json.dumps(vocab))
        return tmp_path / "whole"

    def test_a_whole_model(self, whole: Path) -> None:
        loaded = SegmentExecutor.load({"clipseg": whole}, "cpu")
        masks(loaded, pictures(2), "the cat", thresholding_type="none")
        assert list(loaded.remarks("the wombat")) == []
        (whole / "known_words.txt").write_text("cat\n")
        again = SegmentExecutor.load({"clipseg": whole}, "cpu")
        assert again.weights_id != loaded.weights_id
        (remark,) = again.remarks("the cat and the wombat")
        assert "'wombat'" in remark
        with pytest.raises(OptionError, match="has 16 tokens, this model reads 12 with start and end: 'abcdefghijklm'"):
            masks(loaded, pictures(1), "abcdefghijklm")
        masks(loaded, pictures(1), "abcdefghi")

    def test_roles_that_do_not_belong_together(self, whole: Path, tmp_path: Path, segmenter: SegmentExecutor) -> None:
        save_ours(segmenter.model.clip, tmp_path / "clip")
        with pytest.raises(WeightsError, match="leave out the second one"):
            SegmentExecutor.load({"clipseg": whole, "clip": tmp_path / "clip"}, "cpu")
        with pytest.raises(WeightsError, match="holds a CLIP, expected a CLIPSeg"):
            SegmentExecutor.load({"clipseg": tmp_path / "clip"}, "cpu")
        torch.save({"weight": torch.ones(2)}, tmp_path / "other.pth")
        with pytest.raises(WeightsError, match="not a decoder of CLIPSeg"):
            SegmentExecutor.load({"clipseg": tmp_path / "other.pth", "clip": tmp_path / "clip"}, "cpu")

    def test_a_model_without_a_tokenizer(self, whole: Path) -> None:
        for name in ("tokenizer.json", "vocab.json"):
            (whole / name).unlink()
        with pytest.raises(WeightsError, match="no tokenizer"):
            SegmentExecutor.load({"clipseg": whole}, "cpu")

    def test_a_damaged_model(self, whole: Path) -> None:
        file = whole / "model.safetensors"
        file.write_bytes(file.read_bytes()[:-100])
        with pytest.raises(WeightsError):
            SegmentExecutor.load({"clipseg": whole}, "cpu")

    def test_a_published_decoder_gives_the_2022_masks(self, tmp_path: Path) -> None:
        """As the old protocol asks for them: alpha is white where the prompt is not."""
        source = PARITY / "clipseg"
        meta = json.loads((source / "meta.json").read_text())
        (tmp_path / "decoder").mkdir()
        (tmp_path / "decoder" / "rd64-uni.pth").write_bytes((source / "rd64-uni.pth").read_bytes())
        (tmp_path / "decoder" / "config.json").write_text(json.dumps({"extract_layers": meta["config"]["extract"]}))
        loaded = SegmentExecutor.load(
            {"clipseg": tmp_path / "decoder" / "rd64-uni.pth", "clip": source / "clip_backbone.pt"}, "cpu"
        )
        with Image.open(source / "image.png") as file:
            image = file.convert("RGB")
        asked = {"relative": True, "size_px": 512, "invert": True}
        wanted = dict(
            zip(meta["alpha_mask_order"], load_file(source / "reference.safetensors")["alpha_masks"], strict=True)
        )
        changes: dict[str, dict[str, Any]] = {
            "none": {"thresholding_type": "none"},
            "binary85": {},
            "adaptive_mean_11_2": {"thresholding_type": "adaptive_mean"},
            "adaptive_gaussian_11_2": {"thresholding_type": "adaptive_gaussian"},
        }
        for name, change in changes.items():
            mask = masks(loaded, [image], meta["config"]["prompts"][0], **asked, **change)[0]
            apart = np.abs(mask - wanted[name].numpy().astype(np.int16))
            assert (apart > 1).mean() <= 1e-3, name


def test_another_instance_gives_the_same_mask(segmenter: SegmentExecutor) -> None:
    image = pictures(1)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    other = masks(SegmentExecutor.tiny(), image, thresholding_type="none")[0]
    assert np.array_equal(other, masks(segmenter, image, thresholding_type="none")[0])
    assert torch.equal(torch.get_rng_state(), state)


def test_closing_in_the_middle_leaves_nothing_behind(segmenter: SegmentExecutor) -> None:
    task = Task(PROMPT, segmenter.Options(), images=tuple(pictures(9)), kind=RoundKind.SEGMENT)
    running = run_slots(segmenter, task)
    assert isinstance(next(iter(running)), Done)
    running.close()  # type: ignore[attr-defined]
    assert len(masks(segmenter, pictures(9))) == 9
