"""The commands put together, and what becomes of an error: one line on stderr and an exit code.

| exit code | meaning |
| --- | --- |
| 0 | done |
| 1 | the request was fine, doing it failed (`FailureError`, a full disk, our own fault); `replay`: other pixels |
| 2 | the request cannot be done as asked (`UsageError`, an unknown option) |
| 130 | interrupted with Ctrl-C; 143: ended with SIGTERM |

`DALLE_FLOW_DEBUG=1` shows the traceback of any error.
"""

import os
import signal
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated

import typer

from ..errors import DalleFlowError, UsageError
from ..settings import is_on
from . import evaluate, executors, generate, inpaint, interpolate, pictures, refine, segment, upscale, weights
from .screen import printable

INTERRUPTED = 130  # 128 + SIGINT, as shells have it

app = typer.Typer(
    name="dalle-flow",
    help="Pictures from text with a person in the loop: generate, rank, pick, refine, upscale.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain help: it keeps its lines, and answers sooner
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("generate")(generate.generate)
app.command("refine")(refine.refine)
app.command("inpaint")(inpaint.inpaint)
app.command("interpolate")(interpolate.interpolate)
app.command("upscale")(upscale.upscale)
app.command("segment")(segment.segment)
app.command("show")(pictures.show)
app.command("replay")(pictures.replay)
app.command("executors")(executors.executors)
app.add_typer(weights.app, name="weights")
app.command("evaluate")(evaluate.evaluate)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"dalle-flow {version('dalle-flow')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line, by default this process's, and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal that cannot show a letter gets its number, not a crash
            stream.reconfigure(errors="backslashreplace")
    before = signal.signal(signal.SIGTERM, _terminate)  # so that what is half done is undone on SIGTERM too
    try:
        is_on("debug")  # refuse a word that is neither yes nor no now, not with the first error
        code = app(args=arguments, prog_name="dalle-flow", standalone_mode=False)
        sys.stdout.flush()
        if code == INTERRUPTED:  # newer versions of typer turn Ctrl-C into this code, older ones into Abort
            return _fail("interrupted", INTERRUPTED)
        return int(code or 0)
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:  # the reader of our output has gone, such as `head`
        _give_up_unwritten_output()
        return 1
    except DalleFlowError as error:
        return _fail(error.message, 2 if isinstance(error, UsageError) else 1)
    except OSError as error:
        _give_up_unwritten_output()
        place = f"{error.filename}: " if error.filename else ""
        return _fail(f"{place}{error.strerror or error}", 1)
    except Exception as error:
        # Typer's own errors; their class has moved between its versions, what they can do has not.
        if type(error).__name__ == "NoArgsIsHelpError":
            print(error, file=sys.stderr)
            return 2
        if told := getattr(error, "format_message", None):
            return _fail(told(), getattr(error, "exit_code", 2))
        return _fail(f"unexpected {type(error).__name__}: {error}; DALLE_FLOW_DEBUG=1 shows where", 1)
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminate(number: int, frame: object) -> None:
    sys.exit(128 + number)


def _give_up_unwritten_output() -> None:
    """What could not be written to stdout would be tried once more at exit, and fail once more."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message: str, code: int) -> int:
    with suppress(DalleFlowError):
        if is_on("debug"):
            traceback.print_exc()
    lines = [printable(line) for line in message.splitlines()]
    print("error: " + "\n".join(lines), file=sys.stderr)
    return code
