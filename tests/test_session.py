"""The library in this process: `generate` and `replay`, models loaded once, nothing held when a caller breaks off."""

from pathlib import Path
from typing import Any

import pytest

import dalle_flow as df
from dalle_flow.engine.local import LocalEngine
from dalle_flow.errors import OptionError, PictureError, ReplayError, UsageError
from dalle_flow.images import decode, encode_png
from dalle_flow.session import engine_of
from dalle_flow.types import Event, Progressed, Ranked


@pytest.fixture
def best(noise_flow: Path) -> df.Candidate:
    return df.generate("a cat", num_images=5, seed=3, flow=noise_flow).candidates[0]


def noise_of(engine: LocalEngine) -> Any:
    return engine.load("noise")[0]


def test_public_names() -> None:
    assert set(df.__all__) <= set(dir(df))
    for name in df.__all__:
        assert getattr(df, name).__module__.startswith("dalle_flow.")
    with pytest.raises(AttributeError, match="no attribute 'generat'"):
        df.generat  # noqa: B018


def test_generate(noise_flow: Path) -> None:
    seen: list[Event] = []
    found = df.generate("a cat", num_images=5, seed=3, flow=noise_flow, on_event=seen.append)
    assert isinstance(found, df.Round)
    assert len(found.candidates) == 5
    assert isinstance(seen[-1], Ranked)
    assert seen[-1].round is found
    assert found._repr_png_().startswith(b"\x89PNG")


def test_without_a_seed_each_round_has_its_own(noise_flow: Path) -> None:
    seeds = {df.generate("a cat", flow=noise_flow).candidates[0].recipe.seed for _ in range(3)}
    assert len(seeds) > 1


def test_options_and_executors(noise_flow: Path) -> None:
    found = df.generate("a cat", executors=["noise"], options={"noise": {"contrast": 0.5}}, flow=str(noise_flow))
    assert found.candidates[0].recipe.options["contrast"] == 0.5
    with pytest.raises(OptionError, match="no option 'contrats'"):
        df.generate("a cat", options={"noise": {"contrats": 0.5}}, flow=noise_flow)
    with pytest.raises(UsageError, match="the prompt is empty"):
        df.generate("", flow=noise_flow)


def test_replay_takes_whatever_carries_a_recipe(best: df.Candidate, noise_flow: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(encode_png(best.image, best.recipe))
    for source in (best, best.recipe, path, str(path), decode(path.read_bytes())):
        assert df.replay(source, flow=noise_flow).id == best.id


def test_replay_refuses_what_carries_none(best: df.Candidate, noise_flow: Path, tmp_path: Path) -> None:
    with pytest.raises(ReplayError, match="no recipe"):
        df.replay(best.image, flow=noise_flow)
    with pytest.raises(PictureError, match="No such file"):
        df.replay(tmp_path / "none.png", flow=noise_flow)


def test_models_are_loaded_once_until_the_flow_changes(noise_flow: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_of(noise_flow)
    assert engine_of(str(noise_flow)) is engine
    monkeypatch.chdir(noise_flow.parent)
    assert engine_of(noise_flow.name) is engine
    noise_flow.write_text("executors: {noise: {uses: noise, options: {contrast: 0.5}}}")
    assert df.generate("a cat", flow=noise_flow).candidates[0].recipe.options["contrast"] == 0.5


def test_a_flow_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        df.generate("a cat", flow=tmp_path / "none.yml")


def test_nothing_is_held_when_the_caller_breaks_off(noise_flow: Path) -> None:
    """Also while the error, and with it every frame, is still being looked at, as in a notebook."""

    def stop(event: Event) -> None:
        if isinstance(event, Progressed):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        df.generate("a cat", num_images=9, flow=noise_flow, on_event=stop)
    assert caught.tb is not None
    assert not noise_of(engine_of(noise_flow)).held
