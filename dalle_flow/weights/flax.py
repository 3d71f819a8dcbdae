"""Reads Flax weights, one file or several with an index: key "a/b/c" -> array, read from the disk when asked for.

Source: transformers' `FlaxPreTrainedModel.save_pretrained` names the files; what is inside one: `flax_file.py`.
"""

from pathlib import Path

from ..errors import WeightsError
from .disk import read_json
from .flax_file import FlaxArray, Tree, walk

FLAX_FILE = "flax_model.msgpack"
FLAX_INDEX = "flax_model.msgpack.index.json"


def read_flax(path: Path) -> dict[str, FlaxArray]:
    """All arrays of a Flax file, an index of several, or the folder that holds either, by key "a/b/c"."""
    if path.is_dir():
        index = path / FLAX_INDEX
        path = index if index.is_file() and not (path / FLAX_FILE).is_file() else path / FLAX_FILE
    return read_flax_shards(path) if path.name.endswith(".json") else read_flax_file(path)


def read_flax_file(path: Path) -> dict[str, FlaxArray]:
    """The arrays of one file."""
    tree = walk(path)
    if isinstance(tree, dict) and set(tree) == {"params"}:  # a whole variables dict was saved
        tree = tree["params"]
    if not isinstance(tree, dict):
        raise WeightsError(
            f"{path}: holds a single {type(tree).__name__}, expected a map of arrays; is it the right file?"
        )
    arrays: dict[str, FlaxArray] = {}
    _flatten(path, tree, "", arrays)
    return arrays


def read_flax_shards(index: Path) -> dict[str, FlaxArray]:
    """The arrays of all files an index names; each key must be in the file the index says, and nowhere else."""
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise WeightsError(f"{index}: has no 'weight_map' of key -> file name; it is damaged, fetch it again.")
    arrays: dict[str, FlaxArray] = {}
    for name in sorted(set(weight_map.values())):
        if name != Path(name).name or name in ("", ".", ".."):
            raise WeightsError(f"{index}: names the file {name!r}; only files beside the index are allowed.")
        found = read_flax_file(index.parent / name)
        promised = {key for key, file in weight_map.items() if file == name}
        if wrong := sorted(promised ^ set(found)):
            raise WeightsError(
                f"{index}: does not fit {name}: {', '.join(wrong[:3])} is in one of them only; fetch both again."
            )
        arrays |= found
    return arrays


def _flatten(path: Path, tree: dict[str, Tree], prefix: str, arrays: dict[str, FlaxArray]) -> None:
    for name, value in tree.items():
        key = prefix + name
        if isinstance(value, dict):
            _flatten(path, value, key + "/", arrays)
        elif not isinstance(value, FlaxArray):
            raise WeightsError(
                f"{path}: {key!r} is a {type(value).__name__}, expected an array; is it a file of weights?"
            )
        elif key in arrays:
            raise WeightsError(f"{path}: {key!r} is there twice; the file is damaged, fetch it again.")
        else:
            arrays[key] = value
