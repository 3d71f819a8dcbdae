"""A split of the world, rendered once into a folder and read back without copying.

    python -m dalle_flow.train.data FOLDER --split train --number 150000 --sprites sprites.npz

A folder holds memory-mappable arrays (see ARRAYS), scenes.jsonl (line i is scene i) and meta.json. Captions are not
stored: draw them fresh with `captions.caption(data.scene(i), world, rng)`. An interrupted run goes on where it was.
"""

import argparse
import json
import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from dalle_flow.errors import StorageError

from .render import Atlas, render
from .scenes import SPLITS, Scene, Split, scene_at
from .sprites import load_sprites
from .targets import CELLS, FACTS, targets
from .world import S0, World

Bytes = NDArray[np.uint8]
CHUNK = 500  # scenes per unit of work


def array_shapes(number: int, size: int) -> dict[str, tuple[int, ...]]:
    """All uint8. See `targets` for the meaning of all but the images."""
    return {
        "images": (number, size, size, 3),
        "labels": (number, size, size),
        "kinds": (number, CELLS, CELLS),
        "colors": (number, CELLS, CELLS),
        "facts": (number, len(FACTS)),
        "done": (-(-number // CHUNK),),  # per chunk: 1 when written
    }


@dataclass(frozen=True)
class Job:
    """What a folder is to hold; written to meta.json and compared when the run goes on."""

    folder: Path
    sprites: Path
    split: Split
    number: int
    size: int = 64
    seed: int = 0

    def meta(self, world: World) -> dict[str, Any]:
        return {
            "world": world.name, "split": self.split, "number": self.number, "size": self.size, "seed": self.seed,
            "kinds": [k.name for k in world.kinds], "colors": list(world.colors), "styles": list(world.styles),
            "backgrounds": list(world.backgrounds), "background_colors": list(world.background_colors),
            "facts": list(FACTS),
        }  # fmt: skip


class Dataset:
    """A rendered folder. Indexing the arrays reads from disk (or the page cache) only what is asked for."""

    def __init__(self, folder: Path, world: World = S0):
        self.folder, self.world = folder, world
        self.meta: dict[str, Any] = _read_meta(folder)
        self.images, self.labels, self.kinds, self.colors, self.facts, done = (
            np.load(folder / f"{name}.npy", mmap_mode="r") for name in array_shapes(0, 0)
        )
        if self.meta["world"] != world.name or not done.all():
            raise StorageError(
                f"{folder} is not a complete rendering of the world {world.name!r} (it holds {self.meta['world']!r}, "
                f"{int(done.sum())} of {len(done)} chunks): render it again into an empty folder, or let the run end.",
                field="folder",
            )

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def _lines(self) -> list[bytes]:
        return (self.folder / "scenes.jsonl").read_bytes().splitlines()

    def scene(self, index: int) -> Scene:
        return Scene.from_json(self._lines[index])


def render_split(
    job: Job, world: World = S0, processes: int = 1, progress: Callable[[int, int], None] | None = None
) -> Dataset:
    """Render what is missing of `job`; `progress(done, of)` is called after every chunk of scenes.

    Raises:
        StorageError: the folder holds another job's pictures.
    """
    _prepare(job, world)
    flags = open_memmap(job.folder / "done.npy", mode="r+")
    todo = [int(c) for c in np.flatnonzero(flags == 0)]
    with _map(processes, job, world) as chunks:
        for finished, chunk in enumerate(chunks(todo), len(flags) - len(todo) + 1):
            flags[chunk] = 1
            if progress is not None:
                progress(min(finished * CHUNK, job.number), job.number)
    flags.flush()
    scenes = job.folder / "scenes.jsonl"
    if not scenes.exists():  # line i is scene i, whatever order the chunks came in: cheaper drawn again than merged
        lines = (scene_at(world, job.seed, job.split, i).to_json() for i in range(job.number))
        partial = scenes.with_suffix(".part")
        with partial.open("w") as file:
            file.writelines(f"{line}\n" for line in lines)
        partial.rename(scenes)
    return Dataset(job.folder, world)


def _prepare(job: Job, world: World) -> None:
    meta = job.meta(world)
    if (job.folder / "meta.json").exists():
        found = _read_meta(job.folder)
        different = [k for k in meta if found.get(k) != meta[k]]
        if different:
            raise StorageError(
                f"{job.folder} holds another rendering: {', '.join(f'{k} is {found.get(k)!r}' for k in different)}; "
                "remove the folder or give another.",
                field="folder",
            )
        return
    job.folder.mkdir(parents=True, exist_ok=True)
    for name, shape in array_shapes(job.number, job.size).items():
        open_memmap(job.folder / f"{name}.npy", mode="w+", dtype=np.uint8, shape=shape).flush()
    (job.folder / "meta.json").write_text(json.dumps(meta, indent=1) + "\n")


def _read_meta(folder: Path) -> dict[str, Any]:
    try:
        meta: dict[str, Any] = json.loads((folder / "meta.json").read_text())
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "its meta.json is damaged"
        cure = "make them with 'python -m dalle_flow.train scenes', and a judge with 'python -m dalle_flow.train judge'"
        raise StorageError(f"no rendered pictures in {folder}: {reason}; {cure}", field="folder") from error
    return meta


@contextmanager
def _map(processes: int, job: Job, world: World) -> Iterator[Callable[[list[int]], Iterator[int]]]:
    """Maps `_render_chunk` over chunk numbers, here or in other processes, in any order."""
    atlas = Atlas(load_sprites(job.sprites, world=world), world)
    if processes <= 1:
        yield lambda todo: (_render_chunk(job, atlas, chunk) for chunk in todo)
        return
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes, _start, (job, world)) as pool:
        yield lambda todo: pool.imap_unordered(_work, todo)


_worker: tuple[Job, Atlas] | None = None  # of a rendering process


def _start(job: Job, world: World) -> None:
    global _worker
    _worker = job, Atlas(load_sprites(job.sprites, world=world), world)


def _work(chunk: int) -> int:
    assert _worker is not None
    return _render_chunk(*_worker, chunk)


def _render_chunk(job: Job, atlas: Atlas, chunk: int) -> int:
    first, last = chunk * CHUNK, min((chunk + 1) * CHUNK, job.number)
    rows: dict[str, list[Bytes]] = {name: [] for name in ("images", "labels", "kinds", "colors", "facts")}
    for i in range(first, last):
        scene = scene_at(atlas.world, job.seed, job.split, i)
        picture, masks = render(scene, atlas, job.size)
        found = targets(scene, masks, atlas.world)
        for name, row in zip(rows, (picture, found.labels, found.kinds, found.colors, found.facts), strict=True):
            rows[name].append(row)
    for name, values in rows.items():
        open_memmap(job.folder / f"{name}.npy", mode="r+")[first:last] = np.stack(values)
    return chunk


def main() -> None:
    parser = argparse.ArgumentParser(description="Render pictures of the procedural world for training.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--split", choices=SPLITS, default="train")
    parser.add_argument("--number", type=int, required=True)
    parser.add_argument("--size", type=int, default=64, help="side of a picture in pixels")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--sprites", type=Path, default=Path("sprites.npz"), help="cache; drawn if it is missing")
    parser.add_argument("--font", type=Path, default=None, help="NotoColorEmoji.ttf, to draw the sprites")
    args = parser.parse_args()
    load_sprites(args.sprites, args.font)
    start = time.monotonic()

    def show(done: int, of: int) -> None:
        print(f"\r{done}/{of} pictures, {time.monotonic() - start:.0f} s", end="", flush=True)

    job = Job(args.folder, args.sprites, args.split, args.number, args.size, args.seed)
    render_split(job, processes=args.processes, progress=show)
    print()


if __name__ == "__main__":
    main()
