"""One round: exactly what was asked for, ranked together; checked before it runs; nothing held when it ends early."""

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dalle_flow.engine.local import LocalEngine
from dalle_flow.errors import FailureError, OptionError, UnknownNameError, UsageError, WeightsError
from dalle_flow.flow.plan import read_plan
from dalle_flow.flow.run import run_round
from dalle_flow.images import picture_id
from dalle_flow.types import (
    Event,
    ExecutorPlan,
    Finished,
    GenerateRequest,
    Previewed,
    Progressed,
    Ranked,
    Round,
    Started,
    Warned,
)

Engine = LocalEngine


def engine_of(*plans: ExecutorPlan) -> Engine:
    return LocalEngine({plan.name: plan for plan in plans})


def events_of(engine: Engine, *arguments: Any, **more: Any) -> list[Event]:
    return list(run_round(engine, GenerateRequest("a cat", *arguments, **more)))


def round_of(engine: Engine, *arguments: Any, **more: Any) -> Round:
    last = events_of(engine, *arguments, **more)[-1]
    assert isinstance(last, Ranked)
    return last.round


class TestGenerate:
    @pytest.mark.parametrize("number", [1, 5, 6, 40])
    def test_exact_counts(self, engine: Engine, number: int) -> None:
        events = events_of(engine, number, 7)
        finished = [event.candidate for event in events if isinstance(event, Finished)]
        assert isinstance(events[-1], Ranked)
        candidates = events[-1].round.candidates
        assert len(finished) == len(candidates) == number
        assert {c.recipe.seed for c in candidates} == set(range(7, 7 + number))
        assert len({c.id for c in candidates}) == number

    def test_best_first(self, engine: Engine) -> None:
        candidates = round_of(engine, 9).candidates
        cosines = [c.score.cosine for c in candidates if c.score]
        assert len(cosines) == 9
        assert cosines == sorted(cosines, reverse=True)
        assert sum(c.score.probability for c in candidates if c.score) == pytest.approx(1)

    def test_candidates_of_several_generators_are_ranked_together(self, plugin: ModuleType) -> None:
        noise, rank = ExecutorPlan("noise", "noise"), ExecutorPlan("rank", "bright")
        grey = ExecutorPlan("grey", "noise", options={"palette": "grey"})
        candidates = round_of(engine_of(noise, grey, rank), 5).candidates
        assert [c.recipe.executor for c in candidates].count("grey") == 5
        cosines = [c.score.cosine for c in candidates if c.score]
        assert cosines == sorted(cosines, reverse=True)
        assert {c.recipe.executor for c in candidates[:9]} == {"noise", "grey"}

    def test_without_a_ranker_in_the_order_of_seeds(self, plugin: ModuleType) -> None:
        found = round_of(engine_of(ExecutorPlan("noise", "noise")), 6, 3)
        assert [c.recipe.seed for c in found.candidates] == [3, 4, 5, 6, 7, 8]
        assert found.ranker is None
        assert all(c.score is None for c in found.candidates)

    def test_a_picture_is_the_same_alone_and_in_a_round(self, engine: Engine) -> None:
        many = {c.recipe.seed: c.id for c in round_of(engine, 9, 0).candidates}
        for seed in (0, 4, 8):
            assert round_of(engine, 1, seed).candidates[0].id == many[seed]

    def test_events_tell_the_story_in_order(self, engine: Engine) -> None:
        events = events_of(engine, 5)
        assert isinstance(events[0], Started)
        assert events[0].loading_s > 0
        progress = [event for event in events if isinstance(event, Progressed)]
        assert progress[-1] == Progressed("noise", 15, 15)
        assert isinstance(events_of(engine, 1)[0], Started)
        assert events_of(engine, 1)[0].loading_s == 0  # type: ignore[union-attr]

    def test_a_recipe_says_everything(self, engine: Engine) -> None:
        (candidate,) = round_of(engine, 1, 7, options={"noise": {"contrast": 0.5}}).candidates
        recipe = candidate.recipe
        assert (recipe.executor, recipe.weights, recipe.prompt, recipe.seed) == ("noise", "none", "a cat", 7)
        assert recipe.options["contrast"] == 0.5
        assert recipe.options["num_inference_steps"] == 3, "defaults too: they may change in another version"
        assert set(recipe.versions) == {"dalle_flow", "torch"}
        assert candidate.id == picture_id(candidate.image)
        json.loads(recipe.to_json())

    def test_remarks_are_warnings(self, engine: Engine) -> None:
        events = list(run_round(engine, GenerateRequest("an unseen cat")))
        assert Warned("I do not know 'unseen'") in events
        assert isinstance(events[-1], Ranked)
        assert events[-1].round.warnings == ("I do not know 'unseen'",)

    def test_rounds_have_ids_of_their_own(self, engine: Engine) -> None:
        assert round_of(engine).id != round_of(engine).id


class TestRefusals:
    @pytest.mark.parametrize(
        ("more", "error", "message"),
        [
            ({"executors": ("noisy",)}, UnknownNameError, "did you mean 'noise'"),
            ({"executors": ("rank",)}, OptionError, "'rank' is not a generator; generators are: noise"),
            ({"options": {"noise": {"nope": 1}}}, OptionError, "no option 'nope'"),
            ({"options": {"noise": {"contrast": "x"}}}, OptionError, "'contrast': got 'x'; it takes number"),
            ({"options": {"noise": {"contrast": 1.5}}}, OptionError, "got 1.5; it takes number >= 0 <= 1"),
            ({"options": {"noise": {"num_inference_steps": 2.5}}}, OptionError, "got 2.5; it takes integer"),
            ({"options": {"noise": {"num_inference_steps": True}}}, OptionError, "got True; it takes integer"),
            ({"options": {"rank": {}}}, OptionError, "'rank', which is not asked to generate"),
            ({"options": {"noisy": {}}}, OptionError, "'noisy', which is not asked"),
        ],
    )
    def test_before_anything_is_loaded(
        self,
        engine: Engine,
        monkeypatch: pytest.MonkeyPatch,
        more: dict[str, Any],
        error: type[Exception],
        message: str,
    ) -> None:
        monkeypatch.setattr(engine, "load", lambda name: pytest.fail("loaded"))
        with pytest.raises(error, match=message):
            events_of(engine, **more)

    def test_missing_weights_of_the_ranker_before_any_picture(self, plugin: ModuleType) -> None:
        rank = ExecutorPlan("rank", "clip", {"clip": Path("/nowhere")})
        events = run_round(engine_of(ExecutorPlan("noise", "noise"), rank), GenerateRequest("a cat"))
        with pytest.raises(WeightsError, match="rank: no weights at /nowhere"):
            next(events)

    def test_a_flow_without_a_generator(self, plugin: ModuleType) -> None:
        with pytest.raises(UsageError, match="no generator"):
            events_of(engine_of(ExecutorPlan("rank", "bright")))


class TestEnding:
    def test_closing_drops_the_slots(self, engine: Engine) -> None:
        events = run_round(engine, GenerateRequest("a cat", 9))
        next(event for event in events if isinstance(event, Progressed))
        noise: Any = engine.load("noise")[0]
        assert len(noise.held) == 4
        events.close()
        assert not noise.held

    @pytest.mark.parametrize(("crash", "error"), [(False, FailureError), (True, RuntimeError)])
    def test_a_failure_drops_the_slots(self, engine: Engine, crash: bool, error: type[Exception]) -> None:
        with pytest.raises(error):
            events_of(engine, 9, options={"noise": {"fail_at": 2, "crash": crash}})
        noise: Any = engine.load("noise")[0]
        assert not noise.held
        assert len(round_of(engine, 9).candidates) == 9


def test_equal_scores_keep_their_order(engine: Engine) -> None:
    candidates = round_of(engine, 5, options={"noise": {"contrast": 0.0}}).candidates
    assert [c.recipe.seed for c in candidates] == [0, 1, 2, 3, 4]


def test_previews_come_when_asked_for(noise_flow: Path) -> None:
    engine = LocalEngine(read_plan(noise_flow).executors)
    request = GenerateRequest("a cat", 2)
    assert not [e for e in run_round(engine, request) if isinstance(e, Previewed)]
    assert [e for e in run_round(engine, request, preview_every=1) if isinstance(e, Previewed)]
