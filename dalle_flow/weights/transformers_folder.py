"""A model as transformers keeps it: the tensors in a folder, in one file or several, and how pictures are prepared.

| file | what |
| --- | --- |
| model.safetensors, or pytorch_model.bin | all tensors |
| either name with .index.json | which tensor is in which file, where there are several |
| preprocessor_config.json | size, filter, mean and deviation of the pictures that the model was trained on |
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import WeightsError
from .disk import read_json
from .plan import Stored
from .safetensors_file import read_safetensors
from .torch_file import read_torch

SAFE, TORCH = "model.safetensors", "pytorch_model.bin"
PREPROCESSOR = "preprocessor_config.json"
FILTERS = {2: "bilinear", 3: "bicubic"}  # PIL's numbers
TO_ONE = 1 / 255


@dataclass(frozen=True)
class Preprocessor:
    """What preprocessor_config.json says; None where it says nothing."""

    shortest: int | None = None  # pixels that the short side is resized to
    square: int | None = None  # pixels that both sides are resized to, whatever shape they had
    crop: int | None = None  # pixels of a square that is cut out of the middle
    filter: str | None = None  # "bilinear" or "bicubic"
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None


def read_weights(folder: Path) -> tuple[dict[str, Stored], tuple[Path, ...]]:
    """The tensors of a folder, not read yet, and the files they are in; safetensors where there are both kinds.

    Raises:
        WeightsError: there are none, a file is missing or damaged, or the index says something else than the files.
    """
    for name in (SAFE, TORCH):
        if (folder / name).is_file():
            return _read(folder / name), (folder / name,)
        if (index := folder / f"{name}.index.json").is_file():
            return _read_several(folder, index)
    raise WeightsError(f"{folder}: has neither {SAFE} nor {TORCH}; fetch the weights again.")


def _read(file: Path) -> dict[str, Stored]:
    return dict(read_safetensors(file) if file.suffix == ".safetensors" else read_torch(file))


def _read_several(folder: Path, index: Path) -> tuple[dict[str, Stored], tuple[Path, ...]]:
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not all(_is_beside(name) for name in places.values()):
        raise WeightsError(f"{index}: has no 'weight_map' of tensors to files beside it; fetch the weights again.")
    stored: dict[str, Stored] = {}
    files = tuple(folder / name for name in sorted(set(places.values())))
    for file in files:
        found = _read(file)
        said = {key for key, name in places.items() if name == file.name}
        if found.keys() != said:
            odd = sorted(found.keys() ^ said)[0]
            raise WeightsError(f"{file}: does not hold what {index.name} says ({odd}, among others); fetch both again.")
        stored |= found
    return stored, files


def _is_beside(name: object) -> bool:
    return isinstance(name, str) and Path(name).name == name and name.endswith((".safetensors", ".bin"))


def read_preprocessor(folder: Path) -> Preprocessor | None:
    """How pictures are prepared; None where the folder does not say.

    Raises:
        WeightsError: in a way that is not known here.
    """
    path = folder / PREPROCESSOR
    if not path.is_file():
        return None
    given = {key: value for key, value in read_json(path).items() if value is not None}
    for key in ("do_resize", "do_rescale", "do_normalize"):
        if given.get(key, True) is not True:
            raise WeightsError(f"{path}: {key} is {given[key]!r}; only true is known.")
    factor = given.get("rescale_factor", TO_ONE)
    if not isinstance(factor, int | float) or abs(factor - TO_ONE) > 1e-9:
        raise WeightsError(f"{path}: rescale_factor is {factor!r}; only 1/255 is known.")
    if (number := given.get("resample", 3)) not in FILTERS:
        raise WeightsError(f"{path}: resample is {number!r}; known: 2 (bilinear), 3 (bicubic).")
    shortest, square = _size(path, given)
    crop = None
    if given.get("do_center_crop", "crop_size" in given):
        crop = _side(path, "crop_size", given.get("crop_size", shortest or square))
    triples = {key: _three(path, key, given[key]) for key in ("image_mean", "image_std") if key in given}
    return Preprocessor(shortest, square, crop, FILTERS[number], triples.get("image_mean"), triples.get("image_std"))


def _size(path: Path, given: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """(shortest side, both sides); a plain number is the shortest side."""
    size = given.get("size")
    if size is None:
        return None, None
    if isinstance(size, dict) and size.keys() == {"height", "width"}:
        return None, _side(path, "size", size)
    return _side(path, "size", size.get("shortest_edge") if isinstance(size, dict) else size), None


def _side(path: Path, key: str, value: Any) -> int:
    side = value
    if isinstance(value, dict):
        sides = {value.get("height"), value.get("width")}
        side = sides.pop() if len(sides) == 1 else None
    if type(side) is not int or side < 1:
        raise WeightsError(f"{path}: {key} is {value!r}; known is one number of pixels for both sides.")
    return side


def _three(path: Path, key: str, value: Any) -> tuple[float, float, float]:
    if not (isinstance(value, list) and len(value) == 3 and all(isinstance(one, int | float) for one in value)):
        raise WeightsError(f"{path}: {key} is {value!r:.80}; it must be three numbers, for red, green and blue.")
    red, green, blue = (float(one) for one in value)
    return red, green, blue
