"""`dalle-flow executors`: what a flow can do, and the options of each."""

import json
from collections.abc import Mapping
from typing import Any

from .flags import AsJson, Flow

Options = Mapping[str, Mapping[str, Any]]  # option -> its JSON schema, what it allows in `allowed`


def executors(
    flow: Flow = None,
    as_json: AsJson = False,
) -> None:
    """List executors and their options.

    Of each executor in the flow: its kind, the rounds it can do, its weights, and its options with what they allow and
    their defaults. Where an option is not for all of its rounds, those that it is for are named.
    """
    from ..flow.plan import EMBEDDED, read_plan
    from ..registry import executor_class, executor_names

    plan = read_plan(flow or EMBEDDED)
    entries = {}
    for name, entry in plan.executors.items():
        cls = executor_class(entry.uses)
        places = {role: str(entry.weights.get(role, "")) or None for role in (*cls.roles, *cls.optional_roles)}
        entries[name] = {
            "uses": entry.uses,
            "kind": cls.kind.value,
            "weights": places,
            "optional_weights": list(cls.optional_roles),
            "options": _options(cls.Options, entry.options),
            "rounds": {kind.value: _options(options, entry.options) for kind, options in cls.verbs.items()},
        }
    others = sorted(set(executor_names()) - {entry.uses for entry in plan.executors.values()})
    if as_json:
        print(json.dumps({"flow": plan.name, "executors": entries, "others": others}, indent=2))
        return
    for name, entry_ in entries.items():
        print("\n".join(_lines(name, entry_)))
    if others:
        print(f"Installed and not in this flow: {', '.join(others)}")


def _options(cls: Any, given: Mapping[str, Any]) -> Options:
    """Each option's JSON schema, with what it allows in words, and the flow's value as the default where it has one."""
    fields = cls.model_json_schema().get("properties", {})
    flow = {name: {"default": given[name]} if name in given else {} for name in fields}
    return {name: {**field, **flow[name], "allowed": cls.allowed(name)} for name, field in fields.items()}


def _lines(name: str, entry: Mapping[str, Any]) -> list[str]:
    rounds = f", can {', '.join(entry['rounds'])}" if entry["rounds"] else ""
    lines = [f"{name}: {entry['kind']}" + (f" (of class {entry['uses']})" if entry["uses"] != name else "") + rounds]
    for role, place in entry["weights"].items():
        absent = "none given, and none needed" if role in entry["optional_weights"] else "none given"
        lines.append(f"  weights {role}: {place or absent}")
    rows: dict[tuple[str, ...], list[str]] = {}  # of an option -> the rounds that have it so
    for round_, options in (entry["rounds"] or {"": entry["options"]}).items():
        for option, field in options.items():
            default = f"default {json.dumps(field['default'])}" if "default" in field else "required"
            rows.setdefault((option, field["allowed"], default, field.get("description", "")), []).append(round_)
    every = len(entry["rounds"]) or 1
    wide = [max((len(row[column]) for row in rows), default=0) for column in range(3)]
    for (option, allowed, default, description), kinds in sorted(rows.items(), key=lambda row: every - len(row[1])):
        which = "" if len(kinds) == every else f" ({', '.join(kinds)})"
        columns = zip((option, allowed, default), wide, strict=True)
        lines.append("  ".join(["", *(f"{text:<{width}}" for text, width in columns), description + which]).rstrip())
    return lines
