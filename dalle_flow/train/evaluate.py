"""Measure the embedded family: what the judge sees in its pictures, what its CLIP tells apart, what its codec keeps.

Pictures come through the same engine and executors as a person's do. Prompts are the canonical captions of scenes that
were never trained on, so that every fact that is scored is in the prompt. `single` is the mean over all pictures made,
`best_of_9` the one of each nine that CLIP ranks first. Each score has a 95 % interval from resampling the scenes.
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
from ..flow import run
from ..flow.plan import EMBEDDED, read_plan
from ..images import contact_sheet, encode_png, write_file
from ..models.text.bpe import DalleTokenizer
from ..types import Candidate, GenerateRequest, Ranked
from ..weights.files import load_vqgan
from .batches import as_pixels, draw_pixels
from .captions import canonical
from .codec import peak_signal_to_noise
from .data import Dataset
from .judge import Judge, load_judge
from .match import match_scores
from .scenes import Scene
from .verdict import Verdict, scores, see, verdicts
from .world import S0, World

BEST_OF = 9
RESAMPLES = 500
SHEET_PROMPTS = 12
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
    scenes = [dataset.scene(i) for i in range(samples)]
    engine = LocalEngine(read_plan(flow).executors)
    _ranker(engine)  # refuse another kind of flow before the work
    rounds = []
    for i, scene in enumerate(scenes):
        rounds.append(_round(engine, canonical(scene, world), seed + BEST_OF * i))
        if progress is not None:
            progress(i + 1, samples)
    if sheet is not None:
        write_file(sheet, encode_png(uncurated_sheet(rounds[:SHEET_PROMPTS])))
    pictures = [picture for candidates in rounds for picture in candidates]
    best = [candidates[0] for candidates in rounds]
    everything = draw_pixels(dataset, torch.arange(min(1000, len(dataset))))
    every_scene = [dataset.scene(i) for i in range(len(everything))]
    kept, codec = _through_codec(engine, everything)
    return {
        "split": split,
        "samples": samples,
        "scenes": len(everything),
        "seed": seed,
        "judge": judge,
        "real": _judged(examiner, everything, every_scene, world),
        "codec": _judged(examiner, kept, every_scene, world),
        "codec_psnr_db": round(codec, 2),
        "single": _judged(examiner, _pixels(pictures), [s for s in scenes for _ in range(BEST_OF)], world, BEST_OF),
        f"best_of_{BEST_OF}": _judged(examiner, _pixels(best), scenes, world),
        "clip": {k: round(v, 3) for k, v in _clip_scores(engine, dataset).items()},
    }


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
    columns = ["real", "codec", "single", f"best_of_{BEST_OF}"]
    number = {c: found["scenes"] if c in ("real", "codec") else found["samples"] for c in columns}
    lines = [
        f"Split {found['split']!r}, judge {found['judge']!r}, seed {found['seed']}; the codec keeps "
        f"{found['codec_psnr_db']} dB (PSNR).\n",
        "| fact | " + " | ".join(f"{c} (n = {number[c]})" for c in columns) + " |",
        "| --- |" + " --- |" * len(columns),
    ]
    for fact in FACTS:
        cells = [found[column][fact] for column in columns]
        texts = ["not asked" if c is None else f"{c[0]:.3f} [{c[1]:.3f}, {c[2]:.3f}]" for c in cells]
        lines.append(f"| {fact} | " + " | ".join(texts) + " |")
    lines += ["\n| CLIP tells apart | share right |", "| --- | --- |"]
    lines += [f"| {name} | {value:.3f} |" for name, value in found["clip"].items()]
    return "\n".join(lines)


def _round(engine: LocalEngine, prompt: str, seed: int) -> tuple[Candidate, ...]:
    *_, last = run.generate(engine, GenerateRequest(prompt, BEST_OF, seed))
    assert isinstance(last, Ranked)
    return last.round.candidates


def _pixels(candidates: Sequence[Candidate]) -> Tensor:
    return as_pixels(np.stack([np.asarray(c.image) for c in candidates]))


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
