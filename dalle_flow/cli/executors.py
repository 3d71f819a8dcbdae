"""`dalle-flow executors`: what a flow can do, and the options of each."""

import json
from collections.abc import Mapping
from typing import Any

from .flags import AsJson, Flow


def executors(
    flow: Flow = None,
    as_json: AsJson = False,
) -> None:
    """List executors and their options.

    Of each executor in the flow: its kind, its weights, and its options with what they allow and their defaults.
    """
    from ..flow.plan import EMBEDDED, read_plan
    from ..registry import executor_class, executor_names

    plan = read_plan(flow or EMBEDDED)
    entries, allowed = {}, {}
    for name, entry in plan.executors.items():
        cls = executor_class(entry.uses)
        entries[name] = {
            "uses": entry.uses,
            "kind": cls.kind.value,
            "weights": {role: str(entry.weights.get(role, "")) or None for role in cls.roles},
            "options": _options(cls.option_schema(), entry.options),
        }
        allowed[name] = {option: cls.Options.allowed(option) for option in cls.Options.model_fields}
    others = sorted(set(executor_names()) - {entry.uses for entry in plan.executors.values()})
    if as_json:
        print(json.dumps({"flow": plan.name, "executors": entries, "others": others}, indent=2))
        return
    for name, entry_ in entries.items():
        print("\n".join(_lines(name, entry_, allowed[name])))
    if others:
        print(f"Installed and not in this flow: {', '.join(others)}")


def _options(schema: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Each option's JSON schema, with the flow's value as the default where it gives one."""
    fields = schema.get("properties", {})
    return {name: {**field, **({"default": given[name]} if name in given else {})} for name, field in fields.items()}


def _lines(name: str, entry: Mapping[str, Any], allowed: Mapping[str, str]) -> list[str]:
    lines = [f"{name}: {entry['kind']}" + (f" (of class {entry['uses']})" if entry["uses"] != name else "")]
    lines.extend(f"  weights {role}: {place or 'none given'}" for role, place in entry["weights"].items())
    for option, field in entry["options"].items():
        default = f"default {json.dumps(field['default'])}" if "default" in field else "required"
        lines.append(f"  {option:<20} {allowed[option]:<24} {default:<16} {field.get('description', '')}".rstrip())
    return lines
