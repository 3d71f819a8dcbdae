"""What a drawing DalleBart remembers: keys and values of the codes so far and of the prompts, and where each stands.

Rows that are stepped together are brought together at the front of the cache, and the prompts they read at the front of
the pool, so that a step reads plain slices. That happens when the set of pictures changes, and copies about one row for
each picture that left. `dalle_decode.py` does the steps.

Shapes: L layers, H heads, S codes, T text length, D width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from .attention import FEW_QUERIES

QUERIES = 4  # rows of a group come in multiples of it: products of fewer rows have other last bits (MKL)
GROUP_COST = 4  # of reading a prompt's keys and values, counted in rows; a guess that matters for speed alone


def round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def key_step(head_width: int) -> int:
    """Keys come in multiples of this: of a vector's 16, and products of under 512 numbers have other last bits."""
    return max(16, round_up(512 // head_width, 16))


@dataclass(frozen=True, eq=False)
class Prompt:
    """A prompt as all layers of the decoder read it."""

    keys_values: Tensor  # (L, 2, H, T, D / H), of its real tokens only

    @property
    def length(self) -> int:
        return self.keys_values.shape[3]


@dataclass(eq=False)
class Row:
    """One sequence: the codes so far of a picture, read with one prompt."""

    prompt: Prompt
    position: int = 0  # codes that were fed; the cache holds as many
    at: int = -1  # its place in the cache; none before its first step


class RowCache:
    """Keys and values of the codes so far, one place per row."""

    def __init__(self, empty: Tensor):
        self.keys_values = empty  # (L, 2, places, H, S, D / H)
        self.owners: list[Row | None] = [None] * empty.shape[2]

    def take(self, row: Row) -> Tensor:
        """A copy of what is kept of a row: (L, 2, H, position, D / H)."""
        return self.keys_values[:, :, row.at, :, : row.position].clone()

    def put(self, row: Row, kept: Tensor, at: int | None = None) -> None:
        """Place a row with what is kept of it, anywhere if not told where."""
        row.at = self.owners.index(None) if at is None else at
        self.owners[row.at] = row
        self.keys_values[:, :, row.at, :, : row.position] = kept

    def drop(self, row: Row) -> None:
        if row.at >= 0:
            self.owners[row.at] = None

    def bring_to_front(self, rows: Sequence[Row]) -> None:
        """Give `rows` the first places: those that stand there stay, the others fill the gaps in order."""
        front = range(len(rows))
        standing = {row.at for row in rows}
        gaps = iter([at for at in front if at not in standing])
        for row in rows:
            if row.at not in front:
                self._move(row, next(gaps))

    def _move(self, row: Row, to: int) -> None:
        kept, other, source = self.take(row), self.owners[to], row.at
        self.drop(row)
        if other is not None:  # it lives on, but is not wanted at the front now
            self.put(other, self.take(other), source if source >= 0 else None)
        self.put(row, kept, to)


class PromptPool:
    """The prompts that are read now, stacked."""

    def __init__(self, empty: Tensor):
        self.keys_values = empty  # (L, 2, places, H, T, D / H); grows
        self.prompts: list[Prompt | None] = [None] * empty.shape[2]

    def stack(self, wanted: Sequence[Prompt]) -> list[int]:
        """Bring the wanted prompts to the first places, each as often as it is wanted; returns which stands at each."""
        if len(wanted) > len(self.prompts):
            layers, two, _, *rest = self.keys_values.shape
            self.keys_values = self.keys_values.new_zeros(layers, two, 2 * len(wanted), *rest)
            self.prompts = [None] * (2 * len(wanted))
        coming, order = list(range(len(wanted))), [-1] * len(wanted)
        for at, standing in enumerate(self.prompts[: len(wanted)]):
            match = next((i for i in coming if wanted[i] is standing), None)
            if match is not None:
                coming.remove(match)
                order[at] = match
        for at in range(len(wanted)):
            if order[at] < 0:
                order[at] = coming.pop(0)
                prompt = self.prompts[at] = wanted[order[at]]
                self.keys_values[:, :, at, :, : prompt.length] = prompt.keys_values
        return order


def group_by_prompt(rows: Sequence[Row]) -> tuple[list[tuple[Prompt, list[Row]]], int]:
    """Rows in groups that read one prompt, and how many rows every group is filled up to.

    A prompt of many rows is dealt out over several groups where that saves filling up groups of few.
    """
    by_prompt: dict[int, list[Row]] = {}
    for row in rows:
        by_prompt.setdefault(id(row.prompt), []).append(row)
    counts = [len(group) for group in by_prompt.values()]

    def cost(size: int) -> int:
        return sum(-(-count // size) for count in counts) * (size + GROUP_COST)

    most = min(round_up(max(counts), QUERIES), FEW_QUERIES)
    size = min(range(QUERIES, most + 1, QUERIES), key=cost)
    parts = [group[i : i + size] for group in by_prompt.values() for i in range(0, len(group), size)]
    return [(part[0].prompt, part) for part in parts], size
