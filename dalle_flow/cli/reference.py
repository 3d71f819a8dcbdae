"""Every command with its arguments and options as one page: `python -m dalle_flow.cli.reference` prints docs/cli.md."""

import inspect
import sys
from typing import Any

import typer.main

from .app import app

HEAD = """# The command line

Written by `make docs` from the commands themselves; a test holds it to them. Every command also has `--help`.

Exit codes: 0 done; 1 it failed (`replay`: the pixels differ); 2 it cannot be done as asked; 130 interrupted.
Errors are one line on stderr; `DALLE_FLOW_DEBUG=1` shows where they come from."""


def reference() -> str:
    """The page, in Markdown."""
    return "\n\n".join([HEAD, *_sections("dalle-flow", typer.main.get_command(app))]) + "\n"


def _sections(name: str, command: Any) -> list[str]:
    """One section for the command, or one for each command below it."""
    below = getattr(command, "commands", {})
    own = [p for p in command.params if "--help" not in p.opts]
    rows = [_row(p) for p in sorted(own, key=lambda p: p.param_type_name != "argument")]
    table = "\n".join(["| | |", "| --- | --- |", *rows])
    parts = [f"## {name}", inspect.cleandoc(command.help or ""), *([table] if rows else [])]
    return ["\n\n".join(parts), *(part for word in below for part in _sections(f"{name} {word}", below[word]))]


def _row(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"| `{_cell(parameter.metavar)}` | {_cell(parameter.help)} |"
    words = ", ".join(f"`{word}`" for word in (*parameter.opts, *parameter.secondary_opts))
    value = f" `{parameter.metavar}`" if parameter.metavar else ""
    default = "" if parameter.default is None or parameter.is_flag else f" Default: `{parameter.default}`."
    return f"| {words}{value} | {_cell(parameter.help)}{default} |"


def _cell(text: str | None) -> str:
    return (text or "").replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(reference())
