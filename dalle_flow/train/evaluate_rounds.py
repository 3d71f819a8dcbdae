"""How well the rounds after the first do their work, measured through the same executors that people use.

- refine: of the pictures in which the judge saw every thing that the prompt names, how many still show them;
- upscale: PSNR against the scene rendered large, beside bicubic's, and what tiling changes;
- segment: overlap of the mask with the thing's true outline, and empty masks for what is not there.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..engine.local import LocalEngine
from ..flow.run import run_round
from ..types import Candidate, Ranked, RefineRequest, Request, RoundKind, SegmentRequest, UpscaleRequest
from .batches import as_pixels
from .codec import peak_signal_to_noise
from .data import Dataset
from .dice import Dice
from .judge import Judge
from .queries import absent, present
from .scenes import Scene
from .upscale import SCALE, shrink
from .verdict import see, verdicts
from .world import World

STRENGTHS = (0.2, 0.5, 0.9)
REFINED = 4  # pictures of each pick
SMALLEST_PX = 40  # of 4,096: a thing of fewer visible pixels is not asked for
HALF = 127  # a mask's white: the model holds it for likelier than not


def candidates_of(engine: LocalEngine, request: Request) -> tuple[Candidate, ...]:
    """The candidates of a round."""
    *_, last = run_round(engine, request)
    assert isinstance(last, Ranked)
    return last.round.candidates


def refine_scores(
    engine: LocalEngine, picks: Sequence[Candidate], scenes: Sequence[Scene], judge: Judge, world: World
) -> dict[str, Any]:
    """By strength: share of things that were there and still are, and the mean change of a pixel in 255.

    Args:
        picks: one picture of each scene; those that do not show all that the scene names are left out.
    """
    right = [all(v.object) for v in verdicts(see(judge, pixels_of(picks)), scenes, world)]
    chosen = [(pick, scene) for pick, scene, good in zip(picks, scenes, right, strict=True) if good]
    found: dict[str, Any] = {"picks": len(chosen)}
    for strength in STRENGTHS if chosen else ():
        kept, change = [], []
        for pick, scene in chosen:
            request = RefineRequest(
                pick.image,
                pick.recipe.prompt,
                REFINED,
                options={name: {"strength": strength} for name in engine.able(RoundKind.REFINE)},
            )
            refined = candidates_of(engine, request)
            seen = verdicts(see(judge, pixels_of(refined)), [scene] * len(refined), world)
            kept += [thing for verdict in seen for thing in verdict.object]
            change += [float((pixels_of([one]) - pixels_of([pick])).abs().mean()) * 255 for one in refined]
        found[f"{strength:g}"] = {"kept": round(float(np.mean(kept)), 3), "change": round(float(np.mean(change)), 1)}
    return found


def upscale_scores(engine: LocalEngine, large: np.ndarray) -> dict[str, float]:
    """PSNR in dB of pictures (N, 4H, 4W, 3) uint8 made small and enlarged again; and the largest change by tiling."""
    small = [Image.fromarray(one) for one in shrink(large)]
    ours = [candidates_of(engine, UpscaleRequest(one))[0].image for one in small]
    bicubic = [one.resize((one.width * SCALE, one.height * SCALE), Image.Resampling.BICUBIC) for one in small]
    truth = as_pixels(large)
    tiled = candidates_of(engine, UpscaleRequest(small[0], options={"tile": small[0].width // 2}))[0].image
    difference = np.asarray(tiled, np.int16) - np.asarray(ours[0], np.int16)
    figures = {"psnr_db": _psnr(ours, truth), "bicubic_db": _psnr(bicubic, truth)}
    return figures | {
        "gain_db": round(figures["psnr_db"] - figures["bicubic_db"], 2),
        "seam": int(np.abs(difference).max()),
    }


def segment_scores(engine: LocalEngine, dataset: Dataset, number: int) -> dict[str, Any]:
    """Mean IoU over `number` scenes asked for what is there, and the share of empty masks when it is not."""
    overlaps, empty = [], []
    dice = Dice(np.random.default_rng(0))
    for i in range(number):
        scene, labels, image = dataset.scene(i), np.asarray(dataset.labels[i]), Image.fromarray(dataset.images[i])
        visible = [t for t in range(len(scene.things)) if int((labels == 1 + t).sum()) >= SMALLEST_PX]
        if visible:
            query = present(scene, dataset.world, dice, visible)
            mask, truth = _mask(engine, image, query.text), np.isin(labels, [1 + t for t in query.things])
            overlaps.append(float((mask & truth).sum() / (mask | truth).sum()))
        empty.append(not _mask(engine, image, absent(scene, dataset.world, dice).text).any())
    return {"iou": round(float(np.mean(overlaps)), 3), "empty": round(float(np.mean(empty)), 3), "scenes": number}


def pixels_of(candidates: Sequence[Candidate]) -> Tensor:
    """(N, 3, H, W) in [0, 1]."""
    return as_pixels(np.stack([np.asarray(c.image.convert("RGB")) for c in candidates]))


def _mask(engine: LocalEngine, image: Image.Image, prompt: str) -> np.ndarray:
    request = SegmentRequest(image, prompt, options={"binary_thresh_strength": HALF})
    return np.asarray(candidates_of(engine, request)[0].image) > HALF


def _psnr(images: Sequence[Image.Image], truth: torch.Tensor) -> float:
    return round(peak_signal_to_noise(as_pixels(np.stack([np.asarray(one) for one in images])), truth), 2)
