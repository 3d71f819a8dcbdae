"""Evaluation end to end on the shipped models: every score there, in its range, the sheet a picture."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dalle_flow.errors import OptionError, UsageError, WeightsError
from dalle_flow.train.data import Job, render_split
from dalle_flow.train.evaluate import BEST_OF, FACTS, evaluate, markdown
from dalle_flow.train.judge import JudgeLesson
from dalle_flow.train.loop import Course, train
from dalle_flow.train.sprites import Sprites


@pytest.fixture(scope="module")
def work(sprites: Sprites, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    np.savez(folder / "sprites.npz", **sprites)  # type: ignore[arg-type]
    scenes = render_split(Job(folder / "val", folder / "sprites.npz", "val", 64))
    torch.manual_seed(0)
    train(JudgeLesson(scenes, scenes), Course(2, 4, 1e-3), folder / "judge")
    return folder


def test_every_score_is_there(work: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    found = evaluate(work, samples=2, sheet=tmp_path / "sheet.png", progress=lambda i, n: seen.append((i, n)))
    assert seen == [(1, 2), (2, 2)]
    columns = list(found["columns"])
    assert columns[:4] == ["real (n = 64)", "codec (n = 64)", "dalle (n = 2)", f"dalle, best of {BEST_OF} (n = 2)"]
    for column in columns:
        for fact in FACTS:
            figure = found["columns"][column][fact]
            assert figure is None or 0 <= figure[1] <= figure[0] <= figure[2] <= 1
    assert 10 < found["codec_psnr_db"] < 40  # type: ignore[operator]
    assert 0 <= found["clip"]["r1_picture"] <= 1  # type: ignore[index]
    assert json.dumps(found, allow_nan=False)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 9 * 64
    table = markdown(found)
    assert "| fact | real (n = 64) | codec (n = 64) | dalle (n = 2) | dalle, best of 9 (n = 2) |" in table
    assert "seed 0" in table
    assert f"{found['codec_psnr_db']} dB" in table


def test_without_a_judge_says_how_to_train_one(work: Path) -> None:
    with pytest.raises(WeightsError, match="train one with"):
        evaluate(work, judge="another", samples=1)


def test_more_samples_than_scenes_are_refused(work: Path) -> None:
    with pytest.raises(OptionError, match="1 to 64"):
        evaluate(work, samples=65)


def test_another_kind_of_flow_is_refused_before_the_work(work: Path, noise_flow: Path) -> None:
    with pytest.raises(UsageError, match="embedded family"):
        evaluate(work, samples=1, flow=noise_flow)
