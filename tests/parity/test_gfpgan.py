"""GFPGAN against the original with its stored noise. Networks and cases come from the manifest of the upscalers."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dalle_flow.deep_picture import decode_deep, to_pixels
from dalle_flow.models import gfpgan
from dalle_flow.models.gfpgan import GFPGAN
from dalle_flow.models.picture_planes import take_apart
from dalle_flow.weights.gfpgan import load_gfpgan

ROOT = Path(__file__).parents[2]
FALLBACKS = (ROOT.parent / "shared" / "parity", ROOT / "tests" / "data" / "parity")
PARITY = Path(os.environ.get("DALLE_FLOW_PARITY") or next(folder for folder in FALLBACKS if folder.is_dir()))
FOLDER = PARITY / "upscale"
MANIFEST: dict[str, Any] = json.loads((FOLDER / "manifest.json").read_text()) if FOLDER.is_dir() else {"cases": []}
FACES = [name for name, made in MANIFEST.get("models", {}).items() if made["arch"] == "GFPGANv1Clean"]
CASES = [pytest.param(case, id=case["case"]) for case in MANIFEST["cases"] if case["model"] in FACES]

NEAR = 1e-4


def load(case: dict[str, Any]) -> GFPGAN:
    return load_gfpgan(FOLDER / "checkpoints" / f"{case['model']}.pth")


def face(case: dict[str, Any]) -> Tensor:
    data = (FOLDER / "inputs" / f"{case['input']}.png").read_bytes()
    return take_apart(to_pixels(decode_deep(data))).colour[None] * 2 - 1


def answers(case: dict[str, Any]) -> dict[str, Tensor]:
    found = np.load(FOLDER / "outputs" / f"{case['case']}.npz")
    return {name: torch.from_numpy(found[name]) for name in found.files}


@pytest.mark.parametrize("case", CASES)
@torch.inference_mode()
def test_faces_and_sketches(case: dict[str, Any]) -> None:
    model, wanted = load(case), answers(case)
    torch.testing.assert_close(model(face(case)), wanted["image"], atol=NEAR, rtol=0)
    sketches = model.sketches(face(case))
    assert len(sketches) == len(wanted) - 1
    for i, sketch in enumerate(sketches):
        torch.testing.assert_close(sketch, wanted[f"rgb{i}"], atol=NEAR, rtol=0)


@pytest.mark.parametrize("case", CASES)
def test_sizes_read_off_the_weights(case: dict[str, Any]) -> None:
    made, model = MANIFEST["models"][case["model"]]["config"], load(case)
    assert model.config.size_px == made["out_size"]
    assert model.config.style_width == made["num_style_feat"]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("mistake", ["slope", "resize", "noise"])
@torch.inference_mode()
def test_mistakes_would_be_noticed(case: dict[str, Any], mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(case)
    if mistake == "slope":
        monkeypatch.setattr(gfpgan, "SLOPE", 0.01)
    elif mistake == "noise":
        monkeypatch.setattr(model.stylegan_decoder.noises, "forward", lambda i: torch.zeros(()))
    else:
        nearest = lambda x: torch.nn.functional.interpolate(x, scale_factor=2)  # noqa: E731
        monkeypatch.setattr(gfpgan, "double", nearest)
    assert (model(face(case)) - answers(case)["image"]).abs().max() > 10 * NEAR
