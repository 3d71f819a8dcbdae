"""The engine of one process: executors by name, loaded once, options checked before anything runs."""

from pathlib import Path
from types import ModuleType

import pytest

from dalle_flow.engine.local import LocalEngine
from dalle_flow.errors import OptionError, UnknownNameError, UsageError, WeightsError
from dalle_flow.executors.base import Done, Task
from dalle_flow.types import ExecutorPlan, Kind


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
    with pytest.raises(OptionError, match="less than or equal to 1, got 2"):
        engine.options("noise", {"contrast": 2})


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
