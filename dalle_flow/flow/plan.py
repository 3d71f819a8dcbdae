"""A flow file -> a checked plan: which executors there are, with which weights and options.

    name: embedded
    executors:
      dalle:                                    # the name people and recipes use
        uses: dalle                             # the executor class, by its registry name
        weights: {dalle: dalle, codec: codec}   # role -> folder or file, relative to the flow file
        options: {condition_scale: 3.0}         # what the executor uses when a request does not say
        device: cpu                             # or cuda, cuda:N, mps; auto: cuda where there is one, else cpu

In place of a path, weights may be named as 'dalle-flow weights list' has them: `dalle-mega`, or one file of them,
`glid3-xl/bert.pt` (`weights/index.py` has the rule). All faults of a file are reported at once.

Some flows come with the package and go by their names: `named_flows`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from ..errors import OptionError, UnknownNameError, UsageError
from ..registry import executor_names
from ..types import ExecutorPlan
from ..weights.index import name_in, place_of

PACKAGE = Path(__file__).parent.parent
EMBEDDED = PACKAGE / "embedded" / "flow.yml"
KEYS = {"uses", "weights", "options", "device"}
DEVICE = re.compile(r"auto|cpu|cuda(:[0-9]+)?|mps")  # whether it is there, the engine says
BAD_VALUES = (ValueError, ArithmeticError, LookupError, AttributeError, TypeError)  # what YAML's values raise


@dataclass(frozen=True)
class Plan:
    name: str
    executors: Mapping[str, ExecutorPlan]
    published: tuple[str, ...] = ()  # names of the published weights that the flow file names
    flow: str = ""  # its own name if the package has it, else its file: what --flow takes

    def executor(self, name: str) -> ExecutorPlan:
        """The executor of that name; UnknownNameError naming those there are."""
        if name not in self.executors:
            raise UnknownNameError.of("executor", name, self.executors)
        return self.executors[name]

    def with_weights(self, name: str, weights: Mapping[str, Path]) -> "Plan":
        """The same flow with other weights for one executor.

        Its options become the executor's own defaults: those of the flow were chosen for the flow's weights.
        """
        changed = replace(self.executor(name), weights={**self.executor(name).weights, **weights}, options={})
        return replace(self, executors={**self.executors, name: changed})


def named_flows() -> dict[str, Path]:
    """The flows of the package: name -> file."""
    return {"embedded": EMBEDDED, **{path.stem: path for path in sorted((PACKAGE / "flows").glob("*.yml"))}}


def flow_file(flow: str | Path) -> Path:
    """The file that a person means by `flow`.

    A text without a slash and a suffix is the name of a flow of the package, whatever lies in the current folder:
    "./classic" is the file. A Path is always a file.

    Raises:
        UnknownNameError: neither such a name nor such a file; names those there are.
    """
    if isinstance(flow, Path):
        return flow
    named, path = named_flows(), Path(flow)
    if flow in named:
        return named[flow]
    if "/" not in flow and not path.suffix and not path.is_file():
        raise UnknownNameError.of("flow", flow, named)
    return path


def read_plan(flow: str | Path = EMBEDDED) -> Plan:
    """Read and check a flow by its file or name. UsageError lists every fault found, each with its place."""
    path = flow_file(flow)
    data, faults = _read_yaml(path)
    if not isinstance(data, dict) or not isinstance(data.get("executors"), dict) or not data["executors"]:
        raise UsageError(f"{path}: a flow file needs 'executors', a table of at least one executor", field="flow")
    faults += [f"unknown key {key!r}; known: name, executors" for key in data if key not in ("name", "executors")]
    executors = {}
    for name, entry in data["executors"].items():
        faults.extend(f"executors.{name}: {fault}" for fault in _faults(entry))
        if not faults:
            executors[str(name)] = _executor(str(name), entry, path.parent)
    if faults:
        raise UsageError(f"{path}:\n  " + "\n  ".join(faults), field="flow")
    texts = [text for entry in data["executors"].values() for text in entry.get("weights", {}).values()]
    published = dict.fromkeys(name for text in texts if (name := name_in(text)))
    spoken = next((name for name, file in named_flows().items() if file == path), str(path))
    return Plan(str(data.get("name", path.stem)), executors, tuple(published), spoken)


def _read_yaml(path: Path) -> tuple[Any, list[str]]:
    """What the file holds, and a fault for every key that a table has twice."""
    try:
        loader = yaml.SafeLoader(path.read_text(encoding="utf-8"))
        node = loader.get_single_node()
        faults = _doubles(node) if node else []  # before merges (`<<`) are resolved, which may say a key again
        return (loader.construct_document(node) if node else None), faults
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or 'cannot be read'}", field="flow") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = getattr(error, "problem_mark", None)
        raise UsageError(f"{path}: not valid YAML{f', line {where.line + 1}' if where else ''}", field="flow") from None
    except RecursionError:
        raise UsageError(f"{path}: nested too deeply", field="flow") from None
    except BAD_VALUES as error:
        raise UsageError(f"{path}: a value is not what it looks like: {error}", field="flow") from None


def _doubles(root: yaml.Node) -> list[str]:
    """Keys that stand twice in one table; `1` and `'1'` are the same name."""
    faults: list[str] = []
    waiting, seen = [root], set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:  # an anchor's
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            waiting += [value for _, value in node.value]
            names = set()
            for key, _ in node.value:
                if str(key.value) in names:
                    faults.append(f"line {key.start_mark.line + 1}: {key.value!r} stands twice in this table")
                names.add(str(key.value))
        elif isinstance(node, yaml.SequenceNode):
            waiting += node.value
    return faults


def _faults(entry: Any) -> list[str]:
    if not isinstance(entry, dict):
        return [f"must be a table of {', '.join(sorted(KEYS))}, got {entry!r:.60}"]
    faults = [f"unknown key {key!r}; known: {', '.join(sorted(KEYS))}" for key in entry if key not in KEYS]
    known = executor_names()
    if entry.get("uses") not in known:
        faults.append(f"uses: no executor named {entry.get('uses')!r}; known: {', '.join(known)}")
    tables = {key: entry.get(key, {}) for key in ("weights", "options")}
    faults += [f"{key}: must be a table, got {v!r:.60}" for key, v in tables.items() if not isinstance(v, dict)]
    places = tables["weights"].items() if isinstance(tables["weights"], dict) else ()
    faults += [f"weights.{role}: {fault}" for role, value in places if (fault := _fault_of_place(value))]
    device = entry.get("device", "cpu")
    if not isinstance(device, str) or not DEVICE.fullmatch(device):
        faults.append(f"device: must be 'auto', 'cpu', 'cuda', 'cuda:N' or 'mps', got {device!r:.60}")
    return faults


def _fault_of_place(value: Any) -> str | None:
    if not isinstance(value, str):
        return f"must be a path or the name of weights, got {value!r:.60}"
    try:
        place_of(value)
    except OptionError as error:
        return error.message
    return None


def _executor(name: str, entry: Mapping[str, Any], folder: Path) -> ExecutorPlan:
    weights = {str(role): place_of(text, folder) for role, text in entry.get("weights", {}).items()}
    device = entry.get("device", "cpu")
    device = _best_device() if device == "auto" else device
    return ExecutorPlan(name, entry["uses"], weights, dict(entry.get("options", {})), device)


def _best_device() -> str:
    import torch  # heavy: for flows that ask for it alone

    return "cuda" if torch.cuda.is_available() else "cpu"


def parse_weights(values: list[str]) -> dict[str, Path]:
    """`role=path` arguments of the command line, or `role=name` of published weights; OptionError for anything else."""
    found = {}
    for value in values:
        role, equals, text = value.partition("=")
        if not (role and equals) or _fault_of_place(text):
            raise OptionError(
                f"--weights takes ROLE=PATH, such as dalle=/models/mega, or ROLE=NAME, such as dalle=dalle-mega, "
                f"got {value!r}",
                field="weights",
            )
        found[role] = place_of(text)
    return found
