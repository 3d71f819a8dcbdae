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


class TestOtherRounds:
    """The same from Python: every kind, from whatever holds a picture."""

    @pytest.fixture
    def flow(self, tmp_path: Path) -> Path:
        path = tmp_path / "all.yml"
        path.write_text(
            "executors: {noise: {uses: noise}, rank: {uses: bright}, repeat: {uses: repeat}, find: {uses: find-bright}}"
        )
        return path

    @pytest.fixture
    def picked(self, flow: Path) -> df.Candidate:
        return df.generate("a cat", num_images=3, seed=3, flow=flow).candidates[1]

    def test_refine_goes_on_from_the_prompt_in_the_recipe(self, picked: df.Candidate, flow: Path) -> None:
        seen: list[Event] = []
        found = df.refine(picked, num_images=5, strength=0.5, seed=7, flow=flow, on_event=seen.append)
        assert isinstance(seen[-1], Ranked)
        assert {c.recipe.prompt for c in found.candidates} == {"a cat"}
        assert {c.recipe.options["strength"] for c in found.candidates} == {0.5}
        assert {c.recipe.parent for c in found.candidates} == {picked.id}
        assert len(found.candidates) == 5

    def test_refine_takes_files_and_pictures(self, picked: df.Candidate, flow: Path, tmp_path: Path) -> None:
        path = tmp_path / "x.png"
        path.write_bytes(encode_png(picked.image, picked.recipe))
        ids = {df.refine(source, seed=7, flow=flow).candidates[0].id for source in (picked, path, str(path))}
        assert ids == {df.refine(picked.image, "a cat", seed=7, flow=flow).candidates[0].id}
        with pytest.raises(OptionError, match="carries no prompt") as caught:
            df.refine(picked.image, flow=flow)
        assert caught.value.field == "prompt"

    def test_options_go_before_strength(self, picked: df.Candidate, flow: Path) -> None:
        found = df.refine(picked, strength=0.5, options={"noise": {"strength": 0.25, "contrast": 0.5}}, flow=flow)
        options = found.candidates[0].recipe.options
        assert (options["strength"], options["contrast"]) == (0.25, 0.5)
        with pytest.raises(OptionError, match="'strength'"):
            df.refine(picked, strength=1.5, flow=flow)

    def test_interpolate(self, flow: Path) -> None:
        found = df.interpolate("a heart", "a moon", 5, seed=7, flow=flow, options={"contrast": 0.5})
        assert [c.recipe.frame for c in found.candidates] == [(i, 5) for i in range(5)]
        assert {c.recipe.options["contrast"] for c in found.candidates} == {0.5}

    def test_upscale_segment_and_inpaint(self, picked: df.Candidate, flow: Path) -> None:
        (large,) = df.upscale(picked, scale=2, flow=flow).candidates
        assert large.image.size == (2 * picked.image.width, 2 * picked.image.height)
        assert (large.recipe.prompt, large.recipe.parent) == ("a cat", picked.id)
        (mask,) = df.segment(large, "the sun", flow=flow, options={"invert": True}).candidates
        assert mask.image.mode == "L"
        made = df.inpaint(large, "a hat", mask, 2, strength=1, flow=flow)
        assert {(c.recipe.parent, c.recipe.mask) for c in made.candidates} == {(large.id, mask.id)}
        candidate = made.candidates[0]
        assert df.replay(candidate, large, mask, flow=flow).id == candidate.id
        assert df.replay(large, parent=picked, flow=flow).id == large.id
        with pytest.raises(UsageError, match="give it with --parent"):
            df.replay(candidate, flow=flow)

    def test_what_the_flow_cannot(self, picked: df.Candidate, noise_flow: Path) -> None:
        with pytest.raises(UsageError, match="the flow has no upscaler"):
            df.upscale(picked, flow=noise_flow)
        with pytest.raises(UsageError, match="the flow has no upscaler"):
            df.upscale(picked, scale=2, flow=noise_flow)

    def test_a_flow_by_name(self) -> None:
        assert engine_of("embedded") is engine_of()
        with pytest.raises(UsageError, match="no flow named 'embeded'; did you mean 'embedded'"):
            engine_of("embeded")


def test_requests_are_public() -> None:
    assert df.RefineRequest.__name__ in df.__all__
    assert df.InterpolateRequest("a", "b").num_images == 16
