"""Measure the embedded family: what the judge sees in its pictures, what its CLIP tells apart, what its codec keeps.

Pictures come through the same engine and executors as a person's do. Prompts are the canonical captions of scenes that
were never trained on, so that every fact that is scored is in the prompt. A generator's column is the mean over all
its pictures, `best of 9` the one of each nine that CLIP ranks first. Each score has a 95 % interval from resampling the
scenes. The rounds after the first are in evaluate_rounds.py.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..engine.local import LocalEngine
from ..errors import OptionError, UsageError
from ..executors.clip import ClipRanker
from ..flow.plan import EMBEDDED, read_plan
from ..images import contact_sheet, encode_png, write_file
from ..models.text.bpe import DalleTokenizer
from ..types import Candidate, GenerateRequest, RoundKind
from ..weights.files import load_vqgan
from .batches import draw_pixels
from .captions import canonical
from .codec import peak_signal_to_noise
from .data import Dataset
from .evaluate_rounds import candidates_of, pixels_of, refine_scores, segment_scores, upscale_scores
from .judge import Judge, load_judge
from .match import match_scores
from .scenes import Scene
from .verdict import Verdict, scores, see, verdicts
from .world import S0, World

BEST_OF = 9
RESAMPLES = 500
SHEET_PROMPTS = 12
LATER = 60  # prompts whose best picture goes on to be refined
LARGE = "large_val"  # scenes rendered large, in the folder of the run
TITLE_PX = 24  # height of the prompt above its pictures
FACTS = ("object", "colour", "relation", "count", "style", "background", "all")
Progress = Callable[[int, int], None]
Figure = tuple[float, float, float]  # the score, and the ends of its 95 % interval


def evaluate(
    work: Path,
    *,
    flow: Path = EMBEDDED,
    judge: str = "judge",
    samples: int = 200,
    seed: int = 0,
    split: str = "val",
    sheet: Path | None = None,
    progress: Progress | None = None,
    world: World = S0,
) -> dict[str, Any]:
    """All scores as a dict that json.dumps takes.

    Args:
        work: folder of a training run, with the rendered `split` and the judge.
        samples: number of prompts; `BEST_OF` pictures are made of each.
        sheet: where to write a grid of the first pictures, not chosen by anybody.

    Raises:
        WeightsError: there is no judge in `work`. StorageError: no rendered scenes there.
    """
    dataset = Dataset(work / split, world)
    examiner = load_judge(work / judge, world)
    if not 1 <= samples <= len(dataset):
        raise OptionError(
            f"samples must be 1 to {len(dataset)}, the scenes of {split!r}; got {samples}", field="samples"
        )
    engine = LocalEngine(read_plan(flow).executors)
    _ranker(engine)  # refuse another kind of flow before the work
    scenes = [dataset.scene(i) for i in range(samples)]
    rounds = []
    for i, scene in enumerate(scenes):
        rounds.append(candidates_of(engine, GenerateRequest(canonical(scene, world), BEST_OF, seed + BEST_OF * i)))
        if progress is not None:
            progress(i + 1, samples)
    if sheet is not None:
        write_file(sheet, encode_png(uncurated_sheet(rounds[:SHEET_PROMPTS])))
    everything = draw_pixels(dataset, torch.arange(min(1000, len(dataset))))
    every_scene = [dataset.scene(i) for i in range(len(everything))]
    kept, codec = _through_codec(engine, everything)
    columns = {
        f"real (n = {len(everything)})": _judged(examiner, everything, every_scene, world),
        f"codec (n = {len(everything)})": _judged(examiner, kept, every_scene, world),
        **_columns(engine, rounds, scenes, examiner, world),
    }
    return {
        "split": split,
        "samples": samples,
        "seed": seed,
        "judge": judge,
        "codec_psnr_db": round(codec, 2),
        "columns": columns,
        "clip": {k: round(v, 3) for k, v in _clip_scores(engine, dataset).items()},
        **_later_rounds(engine, [r[0] for r in rounds][:LATER], scenes[:LATER], dataset, examiner, work),
    }


def _columns(
    engine: LocalEngine,
    rounds: Sequence[Sequence[Candidate]],
    scenes: Sequence[Scene],
    examiner: Judge,
    world: World,
) -> dict[str, dict[str, Figure | None]]:
    """Of each generator all pictures and the best of each nine, and of all generators the best together."""
    columns, number = {}, len(scenes)
    generators = engine.able(RoundKind.GENERATE)
    for name in generators:
        own = [[c for c in candidates if c.recipe.executor == name] for candidates in rounds]
        every = [picture for candidates in own for picture in candidates]
        repeated = [scene for scene in scenes for _ in range(BEST_OF)]
        columns[f"{name} (n = {number})"] = _judged(examiner, pixels_of(every), repeated, world, BEST_OF)
        best = pixels_of([candidates[0] for candidates in own])
        columns[f"{name}, best of {BEST_OF} (n = {number})"] = _judged(examiner, best, scenes, world)
    if len(generators) > 1:
        best = pixels_of([candidates[0] for candidates in rounds])
        columns[f"all, best of {BEST_OF * len(generators)} (n = {number})"] = _judged(examiner, best, scenes, world)
    return columns


def _later_rounds(
    engine: LocalEngine, picks: Sequence[Candidate], scenes: Sequence[Scene], dataset: Dataset, judge: Judge, work: Path
) -> dict[str, Any]:
    """Scores of the rounds after the first, as far as the flow has them."""
    found: dict[str, Any] = {}
    if engine.able(RoundKind.REFINE):
        found["refine"] = refine_scores(engine, picks, scenes, judge, dataset.world)
    if engine.able(RoundKind.UPSCALE) and (work / LARGE).is_dir():
        large = np.array(Dataset(work / LARGE, dataset.world).images[: len(picks)])
        found["upscale"] = upscale_scores(engine, large)
    if engine.able(RoundKind.SEGMENT):
        found["segment"] = segment_scores(engine, dataset, min(4 * len(picks), len(dataset)))
    return found


def uncurated_sheet(rounds: Sequence[Sequence[Candidate]], columns: int = 2) -> Image.Image:
    """All candidates of each prompt below it, best first by CLIP, none left out."""
    strips = [contact_sheet(candidates, columns=len(candidates), min_side_px=64) for candidates in rounds]
    width, height = max(s.width for s in strips), max(s.height for s in strips) + TITLE_PX
    rows = -(-len(strips) // columns)
    sheet = Image.new("RGB", (width * columns, height * rows), "#16181d")
    draw = ImageDraw.Draw(sheet)
    for i, (strip, candidates) in enumerate(zip(strips, rounds, strict=True)):
        x, y = i % columns * width, i // columns * height
        draw.text((x + 12, y + 8), candidates[0].recipe.prompt, fill="#ffffff", font=ImageFont.load_default(15))
        sheet.paste(strip, (x, y + TITLE_PX))
    return sheet


def markdown(found: dict[str, Any]) -> str:
    """The scores as the tables of docs/embedded.md."""
    columns = found["columns"]
    lines = [
        f"Split {found['split']!r}, judge {found['judge']!r}, seed {found['seed']}; the codec keeps "
        f"{found['codec_psnr_db']} dB (PSNR).\n",
        "| fact | " + " | ".join(columns) + " |",
        "| --- |" + " --- |" * len(columns),
    ]
    for fact in FACTS:
        cells = [column[fact] for column in columns.values()]
        texts = ["not asked" if c is None else f"{c[0]:.3f} [{c[1]:.3f}, {c[2]:.3f}]" for c in cells]
        lines.append(f"| {fact} | " + " | ".join(texts) + " |")
    lines += ["\n| CLIP tells apart | share right |", "| --- | --- |"]
    lines += [f"| {name} | {value:.3f} |" for name, value in found["clip"].items()]
    for kind in ("refine", "upscale", "segment"):
        if kind in found:
            lines += [f"\n| {kind} | |", "| --- | --- |"]
            lines += [f"| {name} | {_figures(value)} |" for name, value in found[kind].items()]
    return "\n".join(lines)


def _figures(value: Any) -> str:
    return ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)


def _judged(
    judge: Judge, pixels: Tensor, scenes: Sequence[Scene], world: World, per_scene: int = 1
) -> dict[str, Figure | None]:
    """Scores by fact, rounded to 3 digits; None where no scene states that fact.

    `per_scene` pictures in a row belong to one scene; the interval comes from drawing scenes, not pictures.
    """
    found = verdicts(see(judge, pixels), scenes, world)
    groups = [found[i : i + per_scene] for i in range(0, len(found), per_scene)]
    value = scores(found)
    rng = np.random.default_rng(0)
    draws = [scores(_resampled(groups, rng)) for _ in range(RESAMPLES)]
    figures: dict[str, Figure | None] = {}
    for fact in FACTS:
        if np.isnan(value[fact]):
            figures[fact] = None
            continue
        low, high = np.percentile([d[fact] for d in draws if not np.isnan(d[fact])], [2.5, 97.5])
        figures[fact] = round(value[fact], 3), round(float(low), 3), round(float(high), 3)
    return figures


def _resampled(groups: Sequence[Sequence[Verdict]], rng: np.random.Generator) -> list[Verdict]:
    return [verdict for i in rng.integers(len(groups), size=len(groups)) for verdict in groups[i]]


@torch.inference_mode()
def _through_codec(engine: LocalEngine, pixels: Tensor) -> tuple[Tensor, float]:
    """Pictures encoded and decoded by the flow's codec, and their PSNR in dB."""
    codec = load_vqgan(engine.plan("dalle").weights["codec"])
    kept = torch.cat([codec.decode_codes(codec.encode(p)) for p in torch.split(pixels, 64)])
    return kept, peak_signal_to_noise(kept, pixels)


def _clip_scores(engine: LocalEngine, dataset: Dataset) -> dict[str, float]:
    """What the flow's ranker tells apart, over all scenes of the split."""
    ranker = _ranker(engine)
    assert isinstance(ranker.tokenizer, DalleTokenizer)
    return match_scores(ranker.model, ranker.tokenizer, dataset, number=len(dataset))


def _ranker(engine: LocalEngine) -> ClipRanker:
    """The flow's ranker; UsageError when this flow is not shaped like the embedded family's."""
    ranker = engine.load("rank")[0] if {"dalle", "rank"} <= set(engine.executors) else None
    if not isinstance(ranker, ClipRanker) or not isinstance(ranker.tokenizer, DalleTokenizer):
        raise UsageError(
            "evaluate measures flows of the embedded family: a generator 'dalle' with a codec, and a ranker 'rank' "
            "that reads the same tokens",
            field="flow",
        )
    return ranker
