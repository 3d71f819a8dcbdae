"""The engine of one process: executors by name, loaded once, options checked before anything runs."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dalle_flow.engine.local import LocalEngine
from dalle_flow.errors import OptionError, UnknownNameError, UsageError, WeightsError
from dalle_flow.executors.base import Done, Task
from dalle_flow.types import ExecutorPlan, Kind, RoundKind


@pytest.fixture
def engine(plugin: ModuleType) -> LocalEngine:
    plans = [
        ExecutorPlan("rank", "bright"),
        ExecutorPlan("noise", "noise", options={"num_inference_steps": 2}),
        ExecutorPlan("grey", "noise", options={"palette": "grey"}),
        ExecutorPlan("clip", "clip"),
    ]
    return LocalEngine({plan.name: plan for plan in plans})


def test_names_by_kind_in_the_order_of_the_flow(engine: LocalEngine) -> None:
    assert engine.names(Kind.GENERATOR) == ["noise", "grey"]
    assert engine.names(Kind.RANKER) == ["rank", "clip"]
    assert engine.names(Kind.UPSCALER) == []


def test_an_executor_is_loaded_once(engine: LocalEngine) -> None:
    first, seconds = engine.load("noise")
    assert seconds > 0
    assert engine.load("noise") == (first, 0.0)
    assert engine.load("grey")[0] is not first


def test_options_are_the_flows_under_the_requests(engine: LocalEngine) -> None:
    assert engine.options("noise", {}).model_dump()["num_inference_steps"] == 2
    assert engine.options("noise", {"num_inference_steps": 5}).model_dump()["num_inference_steps"] == 5
    with pytest.raises(OptionError, match="got 2; it takes number >= 0 <= 1"):
        engine.options("noise", {"contrast": 2})


def test_options_of_a_kind_of_round() -> None:
    engine = LocalEngine({"noise": ExecutorPlan("noise", "noise", options={"strength": 0.5, "contrast": 0.25})})
    assert engine.options("noise", {}, RoundKind.REFINE).model_dump()["strength"] == 0.5
    drawn = engine.options("noise", {}, RoundKind.GENERATE).model_dump()
    assert "strength" not in drawn
    assert drawn["contrast"] == 0.25
    with pytest.raises(OptionError, match="no option 'strength'"):
        engine.options("noise", {"strength": 0.5}, RoundKind.GENERATE)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strenght": 0.5}, "noise: no option 'strenght', which the flow gives; options are: contrast, crash"),
        ({"strength": 1.5}, "'strength': got 1.5; it takes number > 0 <= 1"),
        ({"contrast": "much"}, "'contrast': got 'much'; it takes number"),
    ],
)
def test_wrong_options_of_the_flow_are_found_in_any_round(options: dict[str, Any], message: str) -> None:
    engine = LocalEngine({"noise": ExecutorPlan("noise", "noise", options=options)})
    for ask in (lambda: engine.check("noise"), lambda: engine.options("noise", {}, RoundKind.GENERATE)):
        with pytest.raises(OptionError, match=message):
            ask()


def test_able_are_those_that_can_do_a_round(engine: LocalEngine) -> None:
    assert engine.able(RoundKind.GENERATE) == engine.able(RoundKind.REFINE) == ["noise", "grey"]
    assert engine.able(RoundKind.UPSCALE) == []


def test_running(engine: LocalEngine) -> None:
    task = Task("a cat", engine.options("noise", {}), seeds=(1, 2, 3))
    assert len([output for output in engine.run("noise", task) if isinstance(output, Done)]) == 3


def test_an_unknown_executor(engine: LocalEngine) -> None:
    for ask in (engine.plan, engine.load, lambda name: engine.options(name, {})):
        with pytest.raises(UnknownNameError, match="did you mean 'noise'"):
            ask("noisy")


def test_weights_must_be_those_of_the_roles(engine: LocalEngine, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="clip: no weights given for clip; say where with clip=PATH"):
        engine.load("clip")
    with pytest.raises(OptionError, match="noise: no weights role 'unet'"):
        LocalEngine({"noise": ExecutorPlan("noise", "noise", {"unet": tmp_path})}).load("noise")


def test_some_roles_may_be_left_out(tmp_path: Path) -> None:
    weights = {"clipseg": tmp_path}
    LocalEngine({"find": ExecutorPlan("find", "segment", weights)}).check("find")
    LocalEngine({"find": ExecutorPlan("find", "segment", {**weights, "clip": tmp_path})}).check("find")
    with pytest.raises(OptionError, match="no weights role 'unet'; roles are: clipseg, clip"):
        LocalEngine({"find": ExecutorPlan("find", "segment", {**weights, "unet": tmp_path})}).check("find")


def test_missing_weights_are_found_without_loading(engine: LocalEngine, tmp_path: Path) -> None:
    engine.check("noise")
    with pytest.raises(WeightsError, match=r"clip: no weights at .*nowhere; say where with clip=PATH"):
        LocalEngine({"clip": ExecutorPlan("clip", "clip", {"clip": tmp_path / "nowhere"})}).check("clip")


@pytest.mark.parametrize("device", ["cuda:99", "gpu", "cuda:x", "CPU", ""])
def test_a_device_that_is_not_here(device: str) -> None:
    engine = LocalEngine({"noise": ExecutorPlan("noise", "noise", device=device)})
    for ask in (engine.check, engine.load):
        with pytest.raises(UsageError, match=rf"noise: no device '{device}' here; there is: cpu") as caught:
            ask("noise")
        assert caught.value.field == "device"


def test_an_executor_may_take_names_that_are_no_paths() -> None:
    """`hub:OWNER/NAME` is found when it is loaded; a path that is not there is refused before."""
    for uses, role in (("pipeline", "pipeline"), ("stable", "stable")):
        LocalEngine({"x": ExecutorPlan("x", uses, {role: Path("hub:somebody/something")})}).check("x")
        with pytest.raises(WeightsError, match="no weights at nowhere/at/all"):
            LocalEngine({"x": ExecutorPlan("x", uses, {role: Path("nowhere/at/all")})}).check("x")
