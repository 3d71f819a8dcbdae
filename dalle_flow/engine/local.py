"""The engine of one process: executors live here, are loaded at first use and stay loaded."""

import time
from collections.abc import Iterator, Mapping

from ..errors import OptionError, UnknownNameError, UsageError, WeightsError
from ..executors.base import Executor, Output, StrictOptions, Task
from ..registry import executor_class
from ..types import ExecutorPlan, Json, Kind, RoundKind
from .device import run_slots


class LocalEngine:
    """Runs the executors of one flow."""

    def __init__(self, executors: Mapping[str, ExecutorPlan]):
        self.executors = executors
        self._loaded: dict[str, Executor] = {}

    def plan(self, name: str) -> ExecutorPlan:
        """The plan of that executor; UnknownNameError naming those there are."""
        if name not in self.executors:
            raise UnknownNameError.of("executor", name, self.executors)
        return self.executors[name]

    def names(self, kind: Kind) -> list[str]:
        """Executors of that kind, in the flow's order; imports their classes, loads no weights."""
        return [name for name, entry in self.executors.items() if executor_class(entry.uses).kind is kind]

    def able(self, kind: RoundKind) -> list[str]:
        """Executors that can do such rounds, in the flow's order; imports their classes, loads no weights."""
        return [name for name, entry in self.executors.items() if kind in executor_class(entry.uses).verbs]

    def options(self, name: str, values: Mapping[str, Json], kind: RoundKind | None = None) -> StrictOptions:
        """The flow's options with a request's over them, for a kind of round; None: the executor has one set of them.

        Of the flow's, those count that this kind of round knows.

        Raises:
            OptionError: which is wrong and what is allowed. Also of the flow's options that other rounds use.
        """
        entry = self.plan(name)
        cls = executor_class(entry.uses)
        _check_options(name, cls, entry.options)
        wanted = cls.Options if kind is None else cls.verbs[kind]
        return wanted.parse({**_known(wanted, entry.options), **values})

    def check(self, name: str) -> None:
        """Whether the executor has its weights, without reading them, so that what is missing is said before any work.

        Raises:
            OptionError: weights for a role that it does not have, or an option of the flow that it does not take.
            WeightsError: a role without weights, or no such file.
            UsageError: a device that this machine does not have.
        """
        entry = self.plan(name)
        _check_device(name, entry.device)
        _check_roles(name, executor_class(entry.uses), entry.weights)
        _check_options(name, executor_class(entry.uses), entry.options)
        for role, path in entry.weights.items():
            if not executor_class(entry.uses).can_find(path):
                raise WeightsError(
                    f"{name}: no weights at {path}; say where with {role}=PATH, or see 'dalle-flow weights --help'"
                )

    def load(self, name: str) -> tuple[Executor, float]:
        """The executor of that name and the seconds that loading took, 0 when it was loaded before."""
        if name in self._loaded:
            return self._loaded[name], 0.0
        entry = self.plan(name)
        self.check(name)
        cls = executor_class(entry.uses)
        started = time.monotonic()
        self._loaded[name] = cls.load(entry.weights, entry.device)
        return self._loaded[name], time.monotonic() - started

    def run(self, name: str, task: Task) -> Iterator[Output]:
        """Outputs of a task as they come; closing the iterator cancels it."""
        return run_slots(self.load(name)[0], task)


def _known(options: type[StrictOptions], values: Mapping[str, Json]) -> dict[str, Json]:
    return {option: value for option, value in values.items() if option in options.model_fields}


def _check_options(name: str, cls: type[Executor], values: Mapping[str, Json]) -> None:
    """The flow's options of an executor: each must be known to one of its rounds, and taken by all that know it."""
    classes = dict.fromkeys([cls.Options, *cls.verbs.values()])
    known = sorted({option for options in classes for option in options.model_fields})
    for option in values:
        if option not in known:
            raise OptionError(
                f"{name}: no option {option!r}, which the flow gives; options are: {', '.join(known)}", field=option
            )
    for options in classes:
        options.parse(_known(options, values))


def _check_device(name: str, device: str) -> None:
    if device == "cpu":
        return
    import torch

    here = ["cpu"]
    if number := torch.cuda.device_count():
        here += ["cuda", *(f"cuda:{i}" for i in range(number))]
    if torch.backends.mps.is_available():
        here.append("mps")
    if device not in here:
        raise UsageError(f"{name}: no device {device!r} here; there is: {', '.join(here)}", field="device")


def _check_roles(name: str, cls: type[Executor], weights: Mapping[str, object]) -> None:
    missing = [role for role in cls.roles if role not in weights]
    roles = (*cls.roles, *cls.optional_roles)
    unknown = [role for role in weights if role not in roles]
    if unknown:
        raise OptionError(f"{name}: no weights role {unknown[0]!r}; roles are: {', '.join(roles)}", field="weights")
    if missing:
        raise WeightsError(f"{name}: no weights given for {', '.join(missing)}; say where with {missing[0]}=PATH")
