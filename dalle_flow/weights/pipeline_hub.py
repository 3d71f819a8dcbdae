"""A diffusers pipeline from the Hugging Face Hub, by `hub:OWNER/NAME` or `hub:OWNER/NAME@REVISION`.

Through huggingface_hub's own cache, as all fetching here. What the pipeline is made of is looked at before its weights
are downloaded, and code in the repository is neither run nor wanted.
"""

import re
from pathlib import Path

from ..errors import FetchError
from .hub import explain, find_on_hub, get_from_hub, is_offline
from .pipeline_files import INDEX, read_index

PREFIX = "hub:"
NAME = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+?)(?:@(?P<revision>[\w./-]+))?")


def hub_name(path: Path) -> tuple[str, str] | None:
    """(OWNER/NAME, revision) that a path of weights means; None where it means a place on the disk.

    `hub:OWNER/NAME` always does, with whatever folder in front: that is how a flow file's paths come. OWNER/NAME does
    where there is no such folder.
    """
    text = path.as_posix()
    before, prefix, after = text.rpartition(PREFIX)
    if prefix and (not before or before.endswith("/")):
        match = NAME.fullmatch(after)
        if match is None:
            raise FetchError(f"{PREFIX}{after}: is no name on the hub; names are OWNER/NAME or OWNER/NAME@REVISION.")
    else:
        match = None if path.is_absolute() or path.exists() else NAME.fullmatch(text)
    return (match["repo"], match["revision"] or "main") if match else None


def fetch_pipeline(repo: str, revision: str = "main") -> Path:
    """The folder of a pipeline in the hub's cache, downloaded if it is not there.

    Raises:
        FetchError: it cannot be had.
        WeightsError: it wants code of its own to be run.
    """
    from diffusers import DiffusionPipeline
    from huggingface_hub import constants

    offline = is_offline()
    index = find_on_hub(repo, INDEX, revision, offline=offline)
    if index is None and offline:
        raise FetchError(f"{repo}: {missing(repo)}")
    if index is None:
        raise FetchError(f"{repo}: has no {INDEX} at {revision}, so it is no diffusers pipeline.")
    read_index(get_from_hub(index, lambda _: None, offline=offline))
    try:
        folder = DiffusionPipeline.download(
            repo, revision=index.commit, local_files_only=offline, cache_dir=constants.HF_HUB_CACHE
        )
    except Exception as error:
        if offline:
            raise FetchError(f"{repo}: {missing(repo)}") from error
        raise explain(error, repo, INDEX, revision) from error
    return Path(folder)


def missing(repo: str) -> str:
    return (
        "is not (all) in the hub's cache, and HF_HUB_OFFLINE forbids the network; where there is one, run "
        f"'hf download {repo} --local-dir FOLDER' and give that folder."
    )
