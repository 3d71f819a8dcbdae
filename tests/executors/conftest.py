"""One tiny instance of each registered executor, by kind, for the contract."""

import pytest

from dalle_flow.executors.base import Executor
from dalle_flow.registry import executor_class, executor_names
from dalle_flow.types import Kind

KINDS = {"executor": tuple(Kind), "generator": (Kind.GENERATOR,), "ranker": (Kind.RANKER,)}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for fixture, kinds in KINDS.items():
        if fixture in metafunc.fixturenames:
            names = [name for name in executor_names() if executor_class(name).kind in kinds]
            metafunc.parametrize(fixture, names, indirect=True)


@pytest.fixture
def executor(request: pytest.FixtureRequest) -> Executor:
    return executor_class(request.param).tiny()


generator = ranker = executor
