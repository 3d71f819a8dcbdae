"""Training the upscaler: what it is shown, and that it learns."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dalle_flow.models.srvgg import SRVGG
from dalle_flow.models.vqgan import VQGAN
from dalle_flow.train.codec import codec_config
from dalle_flow.train.loop import Course, train
from dalle_flow.train.render import Atlas, render
from dalle_flow.train.scenes import scene_at
from dalle_flow.train.upscale import Bytes, Pairs, UpscaleLesson, shrink, through_codec, upscale_config
from dalle_flow.train.world import S0

NUMBER = 6


@pytest.fixture(scope="module")
def large(atlas: Atlas) -> Bytes:
    """(N, 128, 128, 3): scenes."""
    return np.stack([render(scene_at(S0, 0, "train", i), atlas, 128)[0] for i in range(NUMBER)])


@pytest.fixture(scope="module")
def pairs(large: Bytes) -> Pairs:
    small = shrink(large)
    return Pairs(large, small, 255 - small)  # what came through the codec must be told from what did not


def test_shrinking_is_pillows(large: Bytes) -> None:
    found = shrink(large)
    assert found.shape == (NUMBER, 32, 32, 3)
    for i in range(NUMBER):
        assert np.abs(found[i].astype(int) - np.asarray(Image.fromarray(large[i]).reduce(4))).max() <= 1


def test_through_the_codec() -> None:
    torch.manual_seed(0)
    codec = VQGAN(codec_config(64)).eval()
    small = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    found = through_codec(small, codec, batch_size=2)
    assert found.shape == small.shape
    assert found.dtype == np.uint8
    assert np.abs(found[2:].astype(int) - through_codec(small[2:], codec)).max() <= 1


def test_a_batch_shows_the_same_place_small_and_large(pairs: Pairs) -> None:
    """Every other small picture is a decoded one."""
    lesson = UpscaleLesson(pairs, pairs)
    small, large = lesson.batch(8, torch.Generator().manual_seed(0))
    assert small.shape[1:] == (3, 32, 32)
    assert large.shape[1:] == (3, 128, 128)
    shrunk = torch.nn.functional.avg_pool2d(large, 4)
    assert (small[0::2] - shrunk[0::2]).abs().max() < 0.6 / 255
    assert (1 - small[1::4] - shrunk[1::4]).abs().max() < 0.6 / 255
    assert (small[3::4] - shrunk[3::4]).abs().mean() < 0.02  # the decoded picture itself, enlarged smoothly
    again, _ = lesson.batch(8, torch.Generator().manual_seed(0))
    assert torch.equal(small, again)


def test_it_learns_and_is_measured(large: Bytes, tmp_path: Path) -> None:
    torch.manual_seed(0)
    small = shrink(large)
    lesson = UpscaleLesson(Pairs(large, small, small), Pairs(large, small, small))
    before = lesson.evaluate(lesson.model.eval())
    rows: list[float] = []
    course = Course(30, 4, 2e-3, warmup_steps=5, log_every=10, weight_decay=0)
    train(lesson, course, tmp_path, report=lambda _, row: rows.append(row["loss"]))
    after = lesson.evaluate(lesson.model.eval())
    assert rows[-1] < rows[0]
    assert set(after) == {"clean_psnr", "clean_bicubic_psnr", "decoded_psnr", "decoded_bicubic_psnr"}
    assert after["clean_psnr"] > before["clean_psnr"]
    assert after["clean_bicubic_psnr"] == before["clean_bicubic_psnr"] == pytest.approx(after["decoded_bicubic_psnr"])


def test_refuses_pairs_that_are_none(large: Bytes) -> None:
    with pytest.raises(ValueError, match="small pictures are"):
        Pairs(large, shrink(large)[:3], shrink(large))


def test_the_embedded_size() -> None:
    assert sum(p.numel() for p in SRVGG(upscale_config()).parameters()) == 188_832
