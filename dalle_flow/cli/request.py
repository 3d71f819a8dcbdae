"""Text of the command line -> the flow and the options that it means."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import OptionError, UnknownNameError
from ..flow.engine import FlowEngine
from ..flow.plan import EMBEDDED, Plan, parse_weights, read_plan
from ..registry import executor_class, executor_names
from ..types import ExecutorPlan, Json, RoundKind


def engine_for(
    flow: Path | None,
    weights: Iterable[str],
    executors: Sequence[str] = (),
    kind: RoundKind = RoundKind.GENERATE,
) -> FlowEngine:
    """The engine of a flow file (the embedded one when None) with `[[EXECUTOR.]ROLE=]PATH` weights in it.

    Of `executors`, those named on the command line, what the flow has not and the registry has is added to the flow.
    A path without a role is for the first role of the one executor that is named, or else of the only one that can do
    a round of that kind.
    """
    plan = _with_executors(read_plan(flow or EMBEDDED), executors)
    given: dict[tuple[str, str], str] = {}
    for value in weights:
        for key, path in parse_weights([_with_role(plan, value, executors, kind)]).items():
            executor, role = place = _owner(plan, key)
            if place in given:
                both = f"{given[place]!r} and {value!r}"
                raise OptionError(f"--weights: {executor}.{role} is said twice: {both}; say it once", field="weights")
            given[place] = value
            plan = plan.with_weights(executor, {role: path})
    return FlowEngine(plan)


def _with_executors(plan: Plan, executors: Sequence[str]) -> Plan:
    """The flow with these executors in it: where it has none of a name, the class of that name, as it is."""
    added = {name: ExecutorPlan(name, name) for name in executors if name not in plan.executors}
    for name in added:
        if name not in executor_names():
            raise UnknownNameError.of("executor", name, {*plan.executors, *executor_names()})
    return replace(plan, executors={**plan.executors, **added})


def _with_role(plan: Plan, value: str, executors: Sequence[str], kind: RoundKind) -> str:
    """A value of --weights with its role; OptionError where it has none and it is unclear whose it is."""
    before, equals, _ = value.partition("=")
    if (equals and "/" not in before) or not value:
        return value
    classes = {name: executor_class(entry.uses) for name, entry in plan.executors.items()}
    names = executors or [name for name, cls in classes.items() if kind in cls.verbs]
    if not names:
        cure = "name one that can with --executor"
        raise OptionError(f"--weights: no executor of the flow can {kind}; {cure}, got {value!r}", field="weights")
    roles = {name: classes[name].roles[0] for name in names if classes[name].roles}
    if not roles:
        need = f"{', '.join(names)} need{'s' * (len(names) == 1)}"
        raise OptionError(f"--weights: {need} no weights, got {value!r}", field="weights")
    if len(names) > 1:
        fuller = " or ".join(f"{name}.{role}=PATH" for name, role in roles.items())
        raise OptionError(
            f"--weights: {', '.join(names)} are to {kind}, and {value!r} does not say whose it is; "
            f"choose one with --executor, or write {fuller}",
            field="weights",
        )
    return f"{names[0]}.{roles[names[0]]}={value}"


def _owner(plan: Plan, role: str) -> tuple[str, str]:
    """`[EXECUTOR.]ROLE` -> the one executor of the flow that has this role, and the role."""
    executor, dot, last = role.rpartition(".")
    if dot:
        plan.executor(executor)
        return executor, last
    classes = {name: executor_class(entry.uses) for name, entry in plan.executors.items()}
    needed = [name for name, cls in classes.items() if role in cls.roles]
    owners = needed or [name for name, cls in classes.items() if role in cls.optional_roles]
    if len(owners) > 1:
        fuller = " or ".join(f"{name}.{role}=PATH" for name in owners)
        raise OptionError(f"--weights: several executors have a role {role!r}; write {fuller}", field="weights")
    if not owners:
        known = {role for cls in classes.values() for role in (*cls.roles, *cls.optional_roles)}
        raise UnknownNameError.of("weights role", role, known)
    return owners[0], role


def parse_settings(
    values: Iterable[str],
    schemas: Mapping[str, Mapping[str, Any]],
    others: Sequence[str] = (),
    kind: RoundKind = RoundKind.GENERATE,
) -> dict[str, dict[str, Json]]:
    """`[EXECUTOR.]OPTION=VALUE` arguments -> options by executor.

    Without an executor, the option goes to each that has one of that name and is not given its own. `schemas` are
    the JSON schemas of the options of the executors asked to do a round of that kind; `others` are the names of the
    flow's further executors. What is said twice is refused.
    """
    fields = {name: schema.get("properties", {}) for name, schema in schemas.items()}
    found: dict[str, dict[str, Json]] = {}
    for (executor, option), text in _once(values).items():
        key = f"{executor}.{option}" if executor else option
        if executor and executor not in fields:
            if executor in others:
                raise OptionError(f"--set {key}: {executor!r} is not asked to {kind}", field="options")
            raise UnknownNameError.of("executor", executor, fields)
        owners = [executor] if executor else [name for name in fields if option in fields[name]]
        if not owners:
            raise UnknownNameError.of("option", option, {o for options in fields.values() for o in options})
        for name in owners:
            if option not in fields[name]:
                raise UnknownNameError.of(f"option of {name}", option, fields[name])
            found.setdefault(name, {})[option] = parse_value(text, fields[name][option])
    return found


def _once(values: Iterable[str]) -> dict[tuple[str, str], str]:
    """`--set` arguments, flags' values among them -> (executor or "", option) -> text, those for all first."""
    found: dict[tuple[str, str], str] = {}
    for value in values:
        key, equals, text = value.partition("=")
        executor, dot, option = key.rpartition(".")
        if not (equals and option) or (dot and not executor):
            raise OptionError(
                f"--set takes OPTION=VALUE or EXECUTOR.OPTION=VALUE, such as temperature=0.8, got {value!r}",
                field="options",
            )
        if (executor, option) in found:
            raise _twice(key, found[executor, option], text)
        found[executor, option] = text
    return dict(sorted(found.items(), key=lambda entry: bool(entry[0][0])))


def _twice(option: str, one: str, other: str) -> OptionError:
    both = f"{one!r:.60} and {other!r:.60}"
    return OptionError(f"option {option!r} is said twice: {both}; say it once, by its flag or by --set", field=option)


def parse_value(text: str, schema: Mapping[str, Any]) -> Json:
    """The JSON value that a text means, or the text itself where it is none or where the option takes text alone."""
    kinds = {part["type"] for part in (schema, *schema.get("anyOf", ())) if "type" in part}
    if kinds == {"string"}:
        return text
    try:
        value: Json = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return text
    return value


def _refuse_constant(name: str) -> Json:
    raise ValueError(f"{name} is no number that an option takes")
