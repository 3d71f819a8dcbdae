"""A rendered folder: the same however it was made, goes on where it stopped, refuses another's pictures."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dalle_flow.errors import StorageError
from dalle_flow.train import data
from dalle_flow.train.data import Dataset, Job, render_split
from dalle_flow.train.render import Atlas, render
from dalle_flow.train.scenes import scene_at
from dalle_flow.train.sprites import Sprites
from dalle_flow.train.targets import targets
from dalle_flow.train.world import S0


@pytest.fixture
def job(tmp_path: Path, sprites: Sprites, monkeypatch: pytest.MonkeyPatch) -> Job:
    monkeypatch.setattr(data, "CHUNK", 8)
    np.savez(tmp_path / "sprites.npz", **sprites)  # type: ignore[arg-type]
    return Job(tmp_path / "train", tmp_path / "sprites.npz", "train", number=20, size=32)


def test_rows_are_the_scenes_of_the_split(job: Job, atlas: Atlas) -> None:
    rendered = render_split(job)
    assert len(rendered) == 20
    for i in (0, 7, 8, 19):
        scene = scene_at(S0, 0, "train", i)
        picture, masks = render(scene, atlas, 32)
        found = targets(scene, masks, S0)
        assert rendered.scene(i) == scene
        assert np.array_equal(rendered.images[i], picture)
        assert np.array_equal(rendered.labels[i], found.labels)
        assert np.array_equal(rendered.kinds[i], found.kinds)
        assert np.array_equal(rendered.colors[i], found.colors)
        assert np.array_equal(rendered.facts[i], found.facts)


def test_a_longer_run_begins_with_the_same_pictures(job: Job) -> None:
    short = render_split(job)
    long = render_split(replace(job, folder=job.folder.with_name("long"), number=30))
    assert np.array_equal(short.images, long.images[:20])


def test_an_interrupted_run_goes_on(job: Job) -> None:
    class Stop(Exception):
        pass

    def stop(done: int, of: int) -> None:
        raise Stop

    with pytest.raises(Stop):
        render_split(job, progress=stop)
    with pytest.raises(StorageError, match="not a complete rendering"):
        Dataset(job.folder)
    steps: list[tuple[int, int]] = []
    whole = render_split(job, progress=lambda done, of: steps.append((done, of)))
    assert steps == [(16, 20), (20, 20)]  # the first chunk of 8 was there
    fresh = render_split(replace(job, folder=job.folder.with_name("fresh")))
    assert np.array_equal(whole.images, fresh.images)
    render_split(job, progress=lambda done, of: pytest.fail("nothing was left to do"))


def test_another_job_s_folder_is_refused(job: Job) -> None:
    render_split(job)
    with pytest.raises(StorageError, match="seed is 0"):
        render_split(replace(job, seed=1))


def test_a_folder_without_pictures_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no rendered pictures"):
        Dataset(tmp_path)


def test_processes_give_the_same_pictures(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = render_split(job)
    monkeypatch.setattr(data, "CHUNK", 500)  # other processes start from the module's own
    together = render_split(replace(job, folder=job.folder.with_name("two")), processes=2)
    assert np.array_equal(alone.images, together.images)
    assert np.array_equal(alone.facts, together.facts)
