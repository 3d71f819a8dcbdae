"""SwinIR, RRDBNet and SRVGG against the originals. Networks, sizes and cases come from the folder's manifest."""

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from dalle_flow.models.swinir import SwinIR, SwinIRConfig
from dalle_flow.weights.upscale import Upscaler, load_upscaler

ROOT = Path(__file__).parents[2]
FALLBACKS = (ROOT.parent / "shared" / "parity", ROOT / "tests" / "data" / "parity")
PARITY = Path(os.environ.get("DALLE_FLOW_PARITY") or next(folder for folder in FALLBACKS if folder.is_dir()))
FOLDER = PARITY / "upscale"
REAL = Path(os.environ.get("DALLE_FLOW_REAL") or ROOT.parent / "shared" / "real")  # published weights, not ours to ship
MANIFEST: dict[str, Any] = json.loads((FOLDER / "manifest.json").read_text()) if FOLDER.is_dir() else {"cases": []}

NEAR = 2e-5


def cases(*kinds: str) -> list[Any]:
    found = [case for case in MANIFEST["cases"] if case["kind"].startswith(kinds) and "inputs" in case]
    return [pytest.param(case, id=case["case"]) for case in found]


def read_input(name: str) -> Tensor:
    """(1, C, H, W) float32 in [0, 1]; grey has one channel."""
    path = FOLDER / "inputs" / f"{name}.png"
    with Image.open(path if path.is_file() else path.with_name(f"rgb_{name}.png")) as image:
        pixels = np.asarray(image, np.float32) / 255
    return torch.from_numpy(pixels if pixels.ndim == 3 else pixels[..., None]).permute(2, 0, 1)[None]


def checkpoints(name: str) -> list[Path]:
    return sorted((FOLDER / "checkpoints").glob(f"{name}.*"))


@cache
def network(name: str) -> Upscaler:
    return load_upscaler(checkpoints(name)[0])


@pytest.mark.parametrize("case", cases("network forward"))
@torch.inference_mode()
def test_networks(case: dict[str, Any]) -> None:
    wanted = np.load(FOLDER / "outputs" / f"{case['case']}.npz")
    assert set(wanted.files) == set(case["inputs"])
    for path in checkpoints(case["model"]):
        model = load_upscaler(path)
        for name in wanted.files:
            found = model(read_input(name))
            torch.testing.assert_close(found, torch.from_numpy(wanted[name]), atol=NEAR, rtol=0)


SIZES = {  # the originals' word -> ours
    "SwinIR": {
        "in_chans": "channels", "embed_dim": "width", "depths": "depths", "num_heads": "heads",
        "window_size": "window", "upscale": "scale", "img_range": "value_range", "resi_connection": "body_conv",
    },
    "RRDBNet": {
        "num_in_ch": "channels", "num_feat": "features", "num_block": "blocks", "num_grow_ch": "growth",
        "scale": "scale",
    },
    "SRVGGNetCompact": {
        "num_in_ch": "channels", "num_feat": "features", "num_conv": "convolutions", "upscale": "scale",
    },
}  # fmt: skip


@pytest.mark.parametrize("name", [name for name, made in MANIFEST.get("models", {}).items() if made["arch"] in SIZES])
def test_sizes_read_off_the_weights(name: str) -> None:
    made = MANIFEST["models"][name]
    config = network(name).config
    for theirs, ours in SIZES[made["arch"]].items():
        wanted = made["config"][theirs]
        assert getattr(config, ours) == (tuple(wanted) if isinstance(wanted, list) else wanted), ours
    assert sum(p.numel() for p in network(name).parameters()) == made["params"]
    if isinstance(config, SwinIRConfig):
        assert config.tail == (made["config"]["upsampler"] or "none")
        assert config.mlp_width == made["config"]["mlp_ratio"] * config.width


@pytest.mark.parametrize("case", [case for case in cases("network forward") if "swinir" in case.id])
@pytest.mark.parametrize("mistake", ["no mean", "no range", "transposed positions", "no shift"])
@torch.inference_mode()
def test_mistakes_would_be_noticed(case: dict[str, Any], mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_upscaler(checkpoints(case["model"])[0])
    assert isinstance(model, SwinIR)
    if (mistake == "no mean" and model.channels == 1) or (mistake == "no range" and model.config.value_range == 1):
        pytest.skip("nothing to leave out")
    if mistake == "no mean":
        monkeypatch.setattr(model, "_mean", lambda like: like.new_zeros(()))
    elif mistake == "no range":
        object.__setattr__(model.config, "value_range", 1.0)
    else:
        for layer in model.layers:
            for block in layer.residual_group.blocks:
                if mistake == "no shift":
                    block.shift = 0
                else:
                    side, table = 2 * model.config.window - 1, block.attn.relative_position_bias_table
                    table.copy_(table.view(side, side, -1).transpose(0, 1).flatten(0, 1))
    wanted = np.load(FOLDER / "outputs" / f"{case['case']}.npz")
    name = wanted.files[0]
    assert (model(read_input(name)) - torch.from_numpy(wanted[name])).abs().max() > 2 * NEAR


@pytest.mark.skipif(not REAL.is_dir(), reason="no published weights: set DALLE_FLOW_REAL")
@torch.inference_mode()
def test_a_published_file() -> None:
    (path,) = REAL.glob("*.pth")
    model = load_upscaler(path)
    with Image.open(next(REAL.glob("*.png"))) as image:
        pixels = torch.from_numpy(np.asarray(image.convert("RGB"), np.float32) / 255).permute(2, 0, 1)[None]
    answers = np.load(next(REAL.glob("*.npz")))
    torch.testing.assert_close(model(pixels), torch.from_numpy(answers["raw"]), atol=NEAR, rtol=0)
