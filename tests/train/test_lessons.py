"""Each lesson on a handful of pictures: the loss falls, the same code path as a full run."""

from pathlib import Path

import numpy as np
import pytest
import torch

from dalle_flow.models.clip import CLIP
from dalle_flow.models.dalle_bart import DalleBart
from dalle_flow.models.text.bpe import DalleTokenizer
from dalle_flow.models.vqgan import VQGAN
from dalle_flow.train.clip import ClipLesson, clip_config
from dalle_flow.train.codec import CodecLesson, DecoderLesson, codec_config
from dalle_flow.train.dalle import DalleLesson, dalle_config, encode_dataset
from dalle_flow.train.data import Dataset, Job, render_split
from dalle_flow.train.judge import Judge, JudgeConfig, JudgeLesson
from dalle_flow.train.loop import Course, Lesson, train
from dalle_flow.train.match import match_scores
from dalle_flow.train.sprites import Sprites
from dalle_flow.train.world import S0

NUMBER = 64


@pytest.fixture(scope="module")
def scenes(sprites: Sprites, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("scenes")
    np.savez(folder / "sprites.npz", **sprites)
    return render_split(Job(folder / "train", folder / "sprites.npz", "train", NUMBER))


@pytest.fixture(scope="module")
def tokenizer() -> DalleTokenizer:
    return DalleTokenizer.of_bytes(max_length=48)


def losses(lesson: Lesson, tmp_path: Path, steps: int, rate: float, batch_size: int = 8) -> list[float]:
    """The loss of every ten steps."""
    rows: list[float] = []
    course = Course(steps, batch_size, rate, warmup_steps=5, log_every=10, weight_decay=0)
    train(lesson, course, tmp_path, report=lambda _, row: rows.append(row["loss"]))
    return rows


def test_judge(scenes: Dataset, tmp_path: Path) -> None:
    torch.manual_seed(0)
    lesson = JudgeLesson(scenes, scenes)
    found = losses(lesson, tmp_path, 30, 2e-3)
    assert found[-1] < 0.7 * found[0]
    assert set(lesson.evaluate(lesson.model.eval())) >= {"object", "colour", "all"}


def test_codec(scenes: Dataset, tmp_path: Path) -> None:
    torch.manual_seed(0)
    judge = Judge(JudgeConfig.of(S0))
    found = losses(CodecLesson(scenes, scenes, 64, judge), tmp_path, 30, 2e-3)
    assert found[-1] < 0.8 * found[0]


def test_a_better_decoder_keeps_the_codes(scenes: Dataset, tmp_path: Path) -> None:
    torch.manual_seed(0)
    codec = VQGAN(codec_config(64))
    pixels = torch.rand(2, 3, 64, 64)
    before = codec.eval().encode(pixels)
    decoded = codec.decode_codes(before)
    codes = np.random.default_rng(0).integers(0, 1920, (NUMBER, 64)).astype(np.uint16)
    lesson = DecoderLesson(codec, scenes, codes, scenes, codes, Judge(JudgeConfig.of(S0)))
    train(lesson, Course(3, 4, 1e-3, weight_decay=0.1), tmp_path)
    assert torch.equal(codec.eval().encode(pixels), before)
    assert not torch.equal(codec.decode_codes(before), decoded)
    assert lesson.evaluate(codec)["psnr"] > 0


def test_dalle_learns_eight_pictures_by_heart(scenes: Dataset, tokenizer: DalleTokenizer, tmp_path: Path) -> None:
    torch.manual_seed(0)
    codes = np.random.default_rng(0).integers(0, 50, (8, 16)).astype(np.uint16)
    model = DalleBart(dalle_config(50, 16, tokenizer.vocab_size, tokenizer.max_length))
    lesson = DalleLesson(model, tokenizer, scenes, codes, scenes, codes)
    lesson.scenes = _First(scenes, 8)  # type: ignore[assignment]
    found = losses(lesson, tmp_path, 100, 2e-3)
    assert found[0] > 2
    assert found[-1] < 0.6


def test_clip_and_its_scores(scenes: Dataset, tokenizer: DalleTokenizer, tmp_path: Path) -> None:
    torch.manual_seed(0)
    clip = CLIP(clip_config(64, tokenizer.vocab_size, tokenizer.max_length, tokenizer.eos_token_id))
    lesson = ClipLesson(clip, tokenizer, scenes, scenes, reconstructed=np.asarray(scenes.images[:32]))
    found = losses(lesson, tmp_path, 20, 1e-3)
    assert found[-1] < found[0]
    measured = match_scores(clip.eval(), tokenizer, scenes, number=NUMBER)
    assert {"r1_picture", "r1_text", "swap_color"} <= set(measured)
    assert all(0 <= value <= 1 for value in measured.values())


def test_codes_of_a_data_set_are_the_codecs(scenes: Dataset, tmp_path: Path) -> None:
    torch.manual_seed(0)
    codec = VQGAN(codec_config(64)).eval()
    encode_dataset(scenes, codec, tmp_path / "codes.npy", batch_size=7)
    codes = np.load(tmp_path / "codes.npy")
    assert codes.shape == (NUMBER, 64)
    assert codes.dtype == np.uint16


class _First:
    """The first scenes of a data set."""

    def __init__(self, scenes: Dataset, number: int):
        self.number, self.world, self.scene = number, scenes.world, scenes.scene

    def __len__(self) -> int:
        return self.number
