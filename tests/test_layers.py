"""The architecture as a test: imports point one way, nothing happens at import, files are short and have real names.

The arrows are read from the source, wherever an import stands, also inside a function. What is imported for type
checkers only is no arrow.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "dalle_flow"
FILES = sorted(PACKAGE.rglob("*.py"))
MOST_LINES = 300
MOST_LINES_OF_A_FUNCTION = 60
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "manager", "misc"}

# Layer -> the layers it may import besides itself. `executors.base` is the contract that others may know; the
# executors themselves are found by name, through the registry.
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "types": {"errors"},
    "settings": {"errors"},
    "registry": {"errors"},
    "images": {"errors", "types"},
    "deep_picture": {"errors", "types", "images"},
    "models": {"errors"},
    "weights": {"errors", "settings", "models"},
    "executors.base": {"errors", "types"},
    "executors": {"errors", "types", "images", "deep_picture", "models", "weights", "executors.base"},
    "engine": {"errors", "types", "registry", "executors.base"},
    "flow": {"errors", "types", "registry", "images", "engine", "executors.base", "weights"},
    "session": {"errors", "types", "images", "deep_picture", "engine", "flow"},
    "train": {"errors", "types", "images", "models", "weights", "engine", "flow", "executors"},
    "cli": {
        *("errors", "types", "settings", "registry", "images", "deep_picture", "weights"),
        *("engine", "flow", "session", "train"),
    },
    "__main__": {"cli"},
    "": {"errors", "types", "session"},  # the public names of dalle_flow/__init__.py
}

# The one arrow upwards: a round shows its sheet in a notebook. Inside that method alone, so nothing loads with types.
EXCEPT = {("dalle_flow.types.rounds", "dalle_flow.images")}

# What `import dalle_flow`, `dalle-flow --help` and a quick refusal must not pay for.
LIGHT = (
    "",
    "__main__",
    "errors",
    "types",
    "settings",
    "registry",
    "flow",
    "engine",
    "session",
    "cli",
    "executors.base",
)
HEAVY = {"torch", "numpy", "einops", "tokenizers", "transformers", "diffusers", "huggingface_hub", "safetensors"}

# Where a library may be imported at all.
ONLY_IN = {
    "typer": {"cli"},
    "rich": {"cli"},
    "yaml": {"flow"},
    "pydantic": {"executors"},
    "huggingface_hub": {"weights"},
    "msgpack": {"weights"},
    "tokenizers": {"models", "train", "weights"},
    "transformers": {"executors"},
    "diffusers": {"models", "executors", "weights"},
    "torchvision": set(),
    "requests": set(),
    "ray": set(),
}


def layer_of(module: str) -> str:
    """dalle_flow.models.vqgan -> models; the contract of executors is a layer of its own."""
    parts = module.split(".")[1:]
    if parts[:2] == ["executors", "base"]:
        return "executors.base"
    return parts[0] if parts else ""


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def imports_of(path: Path) -> tuple[tuple[str, bool], ...]:
    """(module, whether it is imported when the file is): every import but those for type checkers."""
    package = module_of(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]

    def walk(node: ast.AST, top: bool) -> Iterator[tuple[str, bool]]:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, top
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:  # `from . import run` imports a module, `from .run import rank` a name of one
                full = f"{source}.{alias.name}"
                yield full if (ROOT / Path(*full.split("."))).with_suffix(".py").exists() else source, top
        inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            yield from walk(child, top and not inside)

    return tuple(walk(ast.parse(path.read_text(encoding="utf-8")), True))


@pytest.mark.parametrize("path", FILES, ids=module_of)
class TestEveryFile:
    def test_imports_point_one_way(self, path: Path) -> None:
        layer = layer_of(module_of(path))
        allowed = {layer, "", *MAY_IMPORT[layer]}
        for module, top in imports_of(path):
            if not top and (module_of(path), module) in EXCEPT:
                continue
            if module.split(".")[0] == "dalle_flow":
                assert layer_of(module) in allowed, f"{layer} must not know {module}"

    def test_libraries_stay_where_they_belong(self, path: Path) -> None:
        layer = layer_of(module_of(path)).split(".")[0]
        for module, _ in imports_of(path):
            library = module.split(".")[0]
            assert layer in ONLY_IN.get(library, {layer}), f"{library} is for {ONLY_IN.get(library)}"

    def test_light_files_import_nothing_heavy(self, path: Path) -> None:
        if layer_of(module_of(path)) in LIGHT:
            heavy = {module for module, top in imports_of(path) if top and module.split(".")[0] in HEAVY}
            assert not heavy

    def test_is_short(self, path: Path) -> None:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES

    def test_functions_are_short(self, path: Path) -> None:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                assert lines <= MOST_LINES_OF_A_FUNCTION, f"{node.name} has {lines} lines"

    def test_has_a_real_name(self, path: Path) -> None:
        assert not VAGUE_NAMES & set(path.relative_to(ROOT).with_suffix("").parts)

    def test_says_what_it_is(self, path: Path) -> None:
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), "no docstring"


def test_every_layer_is_known_and_none_is_left_over() -> None:
    found = {layer_of(module_of(path)) for path in FILES}
    assert found == set(MAY_IMPORT)


def test_there_is_no_circle() -> None:
    done: set[str] = set()
    while len(done) < len(MAY_IMPORT):
        free = {layer for layer in MAY_IMPORT if layer not in done and MAY_IMPORT[layer] <= done}
        assert free, f"a circle among {set(MAY_IMPORT) - done}"
        done |= free


def test_the_models_do_no_input_or_output() -> None:
    """Text models read their vocabularies, and no other model reads anything."""
    for path in (PACKAGE / "models").glob("*.py"):
        names = {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
        assert not names & {"open", "Path"}, path


WATCH = """
import importlib, os, sys, threading
sys.dont_write_bytecode = True
modules, libraries = sys.argv[1].split(","), sys.argv[2].split(",")
for name in libraries:
    importlib.import_module(name)
happened = []
def watch(event, args):
    writes = event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+")
    makes = event in ("os.mkdir", "os.remove", "os.rename", "os.putenv", "subprocess.Popen", "os.system")
    if writes or makes or event.startswith(("socket.", "_thread.start", "webbrowser")):
        happened.append(f"{event} {args!r:.200}")
sys.addaudithook(watch)
threads, environment, seeded = threading.active_count(), dict(os.environ), None
if "torch" in sys.modules:
    import torch
    seeded = torch.get_rng_state(), torch.get_num_threads(), torch.get_default_dtype()
for name in modules:
    importlib.import_module(name)
    assert not happened, f"{name}: {happened}"
assert threading.active_count() == threads
assert dict(os.environ) == environment
if seeded:
    assert torch.equal(torch.get_rng_state(), seeded[0])
    assert (torch.get_num_threads(), torch.get_default_dtype()) == seeded[1:]
print(*sys.modules)
"""


def imported(modules: list[str], libraries: set[str]) -> set[str]:
    """Import our modules, their libraries being there already, and watch; what is loaded then."""
    command = [sys.executable, "-c", WATCH, ",".join(modules), ",".join(sorted(libraries))]
    said = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert said.returncode == 0, said.stderr
    assert said.stderr == ""
    return set(said.stdout.split())


def test_nothing_happens_at_import() -> None:
    """No file, socket, thread, process, seed, flag or setting of the environment."""
    used = {name.split(".")[0] for path in FILES for name, top in imports_of(path) if top}
    libraries = {name for name in used if name not in sys.stdlib_module_names and name != "dalle_flow"}
    main = [m for m in map(module_of, FILES) if not m.endswith("__main__")]
    imported(main, libraries)


def test_light_modules_load_nothing_heavy() -> None:
    light = [module_of(path) for path in FILES if layer_of(module_of(path)) in LIGHT]
    found = imported([m for m in light if not m.endswith("__main__")], {"sys"})
    assert not HEAVY & found
