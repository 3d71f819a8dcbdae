"""Text of the command line -> the flow and the options that it means."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import OptionError, UnknownNameError
from ..flow.engine import FlowEngine
from ..flow.plan import EMBEDDED, Plan, parse_weights, read_plan
from ..registry import executor_class
from ..types import Json


def engine_for(flow: Path | None, weights: Iterable[str]) -> FlowEngine:
    """The engine of a flow file (the embedded one when None) with `[EXECUTOR.]ROLE=PATH` weights in it."""
    plan = read_plan(flow or EMBEDDED)
    for role, path in parse_weights(list(weights)).items():
        executor, role = _owner(plan, role)
        plan = plan.with_weights(executor, {role: path})
    return FlowEngine(plan)


def _owner(plan: Plan, role: str) -> tuple[str, str]:
    """`[EXECUTOR.]ROLE` -> the one executor of the flow that has this role, and the role."""
    executor, dot, last = role.rpartition(".")
    if dot:
        plan.executor(executor)
        return executor, last
    roles = {name: executor_class(entry.uses).roles for name, entry in plan.executors.items()}
    owners = [name for name in roles if role in roles[name]]
    if len(owners) > 1:
        fuller = " or ".join(f"{name}.{role}=PATH" for name in owners)
        raise OptionError(f"--weights: several executors have a role {role!r}; write {fuller}", field="weights")
    if not owners:
        raise UnknownNameError.of("weights role", role, {r for names in roles.values() for r in names})
    return owners[0], role


def parse_settings(
    values: Iterable[str], schemas: Mapping[str, Mapping[str, Any]], others: Sequence[str] = ()
) -> dict[str, dict[str, Json]]:
    """`[EXECUTOR.]OPTION=VALUE` arguments -> options by executor.

    Without an executor, the option goes to each that has one of that name. `schemas` are the JSON schemas of the
    options of the executors asked to generate; `others` are the names of the flow's further executors.
    """
    fields = {name: schema.get("properties", {}) for name, schema in schemas.items()}
    found: dict[str, dict[str, Json]] = {}
    for value in values:
        key, equals, text = value.partition("=")
        executor, dot, option = key.rpartition(".")
        if not (equals and option) or (dot and not executor):
            raise OptionError(
                f"--set takes OPTION=VALUE or EXECUTOR.OPTION=VALUE, such as temperature=0.8, got {value!r}",
                field="options",
            )
        if executor and executor not in fields:
            if executor in others:
                raise OptionError(f"--set {key}: {executor!r} is not asked to generate", field="options")
            raise UnknownNameError.of("executor", executor, fields)
        owners = [executor] if executor else [name for name in fields if option in fields[name]]
        if not owners:
            raise UnknownNameError.of("option", option, {o for options in fields.values() for o in options})
        for name in owners:
            if option not in fields[name]:
                raise UnknownNameError.of(f"option of {name}", option, fields[name])
            found.setdefault(name, {})[option] = parse_value(text, fields[name][option])
    return found


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
