"""A diffusers pipeline from the Hugging Face Hub, by `hub:OWNER/NAME` or `hub:OWNER/NAME@REVISION`.

Through huggingface_hub's own cache, as all fetching here. What the pipeline is made of is looked at before its weights
are downloaded, and code in the repository is neither run nor wanted.
"""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from ..errors import FetchError
from .hub import explain, find_on_hub, get_from_hub, is_offline
from .pipeline_files import INDEX, SMALL, read_index, weights_among

PREFIX = "hub:"
# What a file of weights ends in. Nobody means a repository by that: it is a path with a slip in it.
FILES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".gguf", ".onnx")
NAME = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+?)(?:@(?P<revision>[\w./-]+))?")


def hub_name(path: Path) -> tuple[str, str] | None:
    """(OWNER/NAME, revision) that a path of weights means; None where it means a place on the disk.

    `hub:OWNER/NAME` always does, with whatever folder in front: that is how a flow file's paths come. OWNER/NAME does
    where it can be no slip in a path, because what is private about a path must not be asked of the hub: not where
    there is such a file or folder or one named OWNER, nor with the name of a file of weights or a hidden one.
    """
    text = path.as_posix()
    before, prefix, after = text.rpartition(PREFIX)
    if prefix and (not before or before.endswith("/")):
        match = NAME.fullmatch(after)
        if match is None:
            raise FetchError(f"{PREFIX}{after}: is no name on the hub; names are OWNER/NAME or OWNER/NAME@REVISION.")
    else:
        match = None if _may_be_a_place(path) else NAME.fullmatch(text)
    return (match["repo"], match["revision"] or "main") if match else None


def _may_be_a_place(path: Path) -> bool:
    if path.is_absolute() or path.exists() or Path(*path.parts[:1]).exists():
        return True
    names = [name for part in path.parts for name in part.split("@")]
    return any(name.startswith(".") or name.lower().endswith(FILES) for name in names)


def fetch_pipeline(repo: str, revision: str = "main") -> Path:
    """The folder of a pipeline in the hub's cache, with what it needs of the repository downloaded.

    Without the network the folder as it is in the cache: what lacks there is said when it is read.

    Raises:
        FetchError: it cannot be had.
        WeightsError: it wants code of its own to be run.
    """
    offline = is_offline()
    index = find_on_hub(repo, INDEX, revision, offline=offline)
    if index is None and offline:
        raise FetchError(
            f"{repo}: is not in the hub's cache, and HF_HUB_OFFLINE forbids the network; where there is one, run "
            f"'hf download {repo} --local-dir FOLDER' and give that folder."
        )
    if index is None:
        raise FetchError(f"{repo}: has no {INDEX} at {revision}, so it is no diffusers pipeline.")
    # By the revision's name and not its commit: so the cache notes which commit that is, for when there is no network.
    path = get_from_hub(replace(index, commit=revision), _tell_nobody, offline=offline)
    _, parts = read_index(path)
    commit = path.parent.name
    if not offline:
        for name in _needed(repo, parts, _names(repo, commit)):
            if file := find_on_hub(repo, name, commit):
                get_from_hub(file, _tell_nobody)
    return path.parent


def _names(repo: str, commit: str) -> list[str]:
    """All files of a repository."""
    from huggingface_hub import HfApi

    try:
        api = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None, library_name="dalle-flow")
        return [file.rfilename for file in api.model_info(repo, revision=commit).siblings or ()]
    except Exception as error:
        raise explain(error, repo, INDEX, commit) from error


def _needed(repo: str, parts: Iterable[str], names: Sequence[str]) -> list[str]:
    """Of a repository's files those that the pipeline is read from."""
    needed = []
    for part in parts:
        inside = sorted(name.removeprefix(f"{part}/") for name in names if name.startswith(f"{part}/"))
        weights, _ = weights_among(f"{repo}/{part}", inside)
        small = [name for name in inside if "/" not in name and name.endswith(SMALL)]
        needed += [f"{part}/{name}" for name in (*small, *weights)]
    return needed


def _tell_nobody(_bytes: int) -> None:
    pass
