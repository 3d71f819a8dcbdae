"""`dalle-flow weights`: the published weights we know by name; fetching, checking and converting them."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import FetchError, OptionError, UsageError
from .flags import AsJson, as_flow
from .screen import bar, printable

if TYPE_CHECKING:
    from ..weights.index import WeightsStatus

DTYPES = ("float32", "float16", "bfloat16")

app = typer.Typer(help="Weights: list, fetch, verify, convert.", no_args_is_help=True)


@app.command("list")
def list_weights(
    as_json: AsJson = False,
) -> None:
    """List the weights known by name.

    Shows what is on this machine (in DALLE_FLOW_HOME) of each; 'verify' also looks into the files.
    """
    from ..weights.index import list_weights as every

    found = every()
    if as_json:
        print(json.dumps([_row(status) for status in found], indent=2))
        return
    wide = max(len(status.entry.name) for status in found)
    for status in found:
        entry = status.entry
        size = status.size_bytes or entry.size_bytes
        shown = "" if size is None else f"{size / 1e6:,.0f} MB"
        needs = f"; needs {', '.join(entry.needs)}" if entry.needs else ""
        print(f"{entry.name:<{wide}} {status.state:<11} {shown:>9}  {entry.title}{needs}")


def _row(status: "WeightsStatus") -> dict[str, Any]:
    from .flow_weights import places

    entry = status.entry
    return {
        "name": entry.name,
        "title": entry.title,
        "kind": entry.kind,
        "state": status.state,
        "folder": str(status.folder),
        "bytes": status.size_bytes,
        "megabytes": entry.megabytes,
        "parameters": entry.parameters,
        "needs": list(entry.needs),
        "repo": entry.repo,
        "revision": entry.revision,
        "source": places(entry),
        "pinned": entry.is_pinned,
        "licence": entry.licence,
    }


@app.command("fetch")
def fetch(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="As 'dalle-flow weights list' has them.")
    ] = None,
    flow: Annotated[
        Path | None,
        typer.Option(
            metavar="FLOW",
            parser=as_flow,
            help="All that a flow needs, given by its name or file, in place of names: shows what that is, and asks.",
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="With --flow: do not ask.")] = False,
    folder: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Where to put them; by default a folder of that name in DALLE_FLOW_HOME."),
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option("--from", metavar="FOLDER", help="A local folder that has the files, instead of the network."),
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Use what this machine has in its caches only.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Fetch even what is there.")] = False,
) -> None:
    """Get weights by name, and check them.

    Also gets what they cannot be used without, unless --folder or --from is given. A folder appears when all of it is
    there and checked. After an interruption the same command goes on: files that came whole are kept.
    """
    from ..weights.index import names_with_needs

    names = names or []
    if flow is not None:
        if names or folder or source:
            raise OptionError("--flow takes no names, no --folder and no --from", field="flow")
        wanted = _needed(flow, yes=yes, offline=offline, again=again)
    elif not names:
        raise UsageError("Missing argument: NAME... of weights, or --flow FLOW")
    elif folder is not None and len(names) > 1:
        raise OptionError("--folder takes one name at a time", field="folder")
    else:
        wanted = list(dict.fromkeys(names)) if folder or source else names_with_needs(names)
    for done, name in enumerate(wanted):
        try:
            print(f"{name}: {_get(name, folder, source, offline=offline, again=again)}", flush=True)
        except FetchError as error:
            rest = f"\nnot fetched yet: {', '.join(wanted[done:])}; the same command goes on there" if flow else ""
            raise FetchError(error.message + rest) from error


def _needed(flow: Path, *, yes: bool, offline: bool, again: bool) -> list[str]:
    """The names of what a flow needs and is not here, once they were shown and the person agreed; else exits."""
    from ..flow.plan import read_plan
    from ..weights.index import names_with_needs
    from .flow_weights import confirm, needs_of, table

    published = read_plan(flow).published
    if not published:
        print("nothing to fetch: this flow names no published weights")
        return []
    with bar() as line:
        needs = needs_of(names_with_needs(published), line, offline=offline, again=again)
    print(table(needs), flush=True)
    wanted = [need.entry.name for need in needs if need.state != "fetched"]
    if wanted and not confirm(yes):
        print("nothing was fetched")
        raise typer.Exit(1)
    return wanted


def _get(name: str, folder: Path | None, source: Path | None, *, offline: bool, again: bool) -> Path:
    from ..weights.fetch import fetch as get

    with bar(in_bytes=True) as line:
        line.show(name)
        return get(
            name,
            folder,
            source=source,
            offline=offline,
            again=again,
            progress=lambda done, of: line.show(name, done, of),
            checking=lambda done, of: line.show(f"checking {name}", done, of),
        )


@app.command("verify")
def verify(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME|FOLDER]...", help="What to check; everything that was fetched when not given."),
    ] = None,
) -> None:
    """Check weights against their hashes.

    Reads every file, and says who vouches for it: our index, the Hub, or the first fetch.
    """
    from ..weights.fetch import verify as check
    from ..weights.index import list_weights as every

    names = names or [status.entry.name for status in every() if status.state != "absent"]
    if not names:
        print("nothing was fetched yet")
    for name in names:
        with bar(in_bytes=True) as line:
            line.show(name)
            lock = check(name, lambda done, of, name=name: line.show(name, done, of))  # type: ignore[misc]
        vouchers = ", ".join(sorted({file.trusted for file in lock.files.values()}))
        print(f"{printable(name)}: {len(lock.files)} files as they should be (by {printable(vouchers)})")


@app.command("convert")
def convert(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="Weights in any layout: a folder or a file.")],
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="A folder that does not exist or is empty.")],
    dtype: Annotated[
        str | None, typer.Option(metavar="TYPE", help=f"One of {', '.join(DTYPES)}; as stored when not given.")
    ] = None,
    int8: Annotated[bool, typer.Option("--int8", help="Keep matrices in 8 bits.")] = False,
    config: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="An entry of the model's config.json to replace or add."),
    ] = None,
) -> None:
    """Rewrite weights as our safetensors."""
    if dtype is not None and dtype not in DTYPES:
        raise OptionError(f"--dtype is one of {', '.join(DTYPES)}, got {dtype!r}", field="dtype")
    with bar(in_bytes=True) as line:
        line.show("reading")
        import torch

        from ..weights.convert import convert as rewrite

        place = rewrite(
            source,
            target,
            dtype=None if dtype is None else getattr(torch, dtype),
            int8=int8,
            overrides=_overrides(config or []),
            progress=lambda done, of: line.show("converting", done, of),
        )
    print(place)


def _overrides(values: list[str]) -> dict[str, Any]:
    from .request import parse_value

    found = {}
    for value in values:
        name, equals, text = value.partition("=")
        if not (name and equals):
            raise UsageError(f"--config takes NAME=VALUE, such as decoder_start_token_id=16384, got {value!r}")
        found[name] = parse_value(text, {})
    return found
