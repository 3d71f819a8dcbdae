"""SwinIR, RRDBNet and SRVGG against the originals. Networks, sizes and cases come from the folder's manifest."""

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dalle_flow.deep_picture import decode_deep, to_pixels
from dalle_flow.models.original_upscaling import real_esrgan, real_esrgan_picture, swinir_main
from dalle_flow.models.picture_planes import Pixels, Planes, for_network, put_together, take_apart
from dalle_flow.models.stages import reflect
from dalle_flow.models.swinir import SwinIR, SwinIRConfig
from dalle_flow.models.tiling import Budget, Enlargement, plan_tiles
from dalle_flow.weights.upscale import Upscaler, interpolate, load_upscaler

ROOT = Path(__file__).parents[2]
FALLBACKS = (ROOT.parent / "shared" / "parity", ROOT / "tests" / "data" / "parity")
PARITY = Path(os.environ.get("DALLE_FLOW_PARITY") or next(folder for folder in FALLBACKS if folder.is_dir()))
FOLDER = PARITY / "upscale"
REAL = Path(os.environ.get("DALLE_FLOW_REAL") or ROOT.parent / "shared" / "real")  # published weights, not ours to ship
MANIFEST: dict[str, Any] = json.loads((FOLDER / "manifest.json").read_text()) if FOLDER.is_dir() else {"cases": []}

NEAR = 2e-5


CPU = torch.device("cpu")
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


def cases(*kinds: str) -> list[Any]:
    enlarging = {name for name, made in MANIFEST.get("models", {}).items() if made["arch"] in SIZES}
    found = [case for case in MANIFEST["cases"] if case["kind"].startswith(kinds)]
    return [pytest.param(case, id=case["case"]) for case in found if {*_names(case)} <= enlarging]


def _names(case: dict[str, Any]) -> list[str]:
    return [case["model"]] if isinstance(case["model"], str) else case["model"]


def read_pixels(path: Path) -> Pixels:
    """(H, W, C) uint8 or uint16."""
    return to_pixels(decode_deep(path.read_bytes()))


def input_pixels(name: str) -> Pixels:
    path = FOLDER / "inputs" / f"{name}.png"
    return read_pixels(path if path.is_file() else path.with_name(f"rgb_{name}.png"))


def read_input(name: str) -> Tensor:
    """(1, C, H, W) float32 in [0, 1]; grey has one channel."""
    return take_apart(input_pixels(name)).colour[None]


def check_floats(case: dict[str, Any], key: str, found: Tensor) -> None:
    """Against the original's numbers, which a small folder has for networks only."""
    if (path := FOLDER / "outputs" / f"{case['case']}.npz").is_file():
        torch.testing.assert_close(found, torch.from_numpy(np.load(path)[key]), atol=NEAR, rtol=0)


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


def check_picture(case: dict[str, Any], found: Pixels) -> None:
    wanted = read_pixels(FOLDER / "outputs" / f"{case['case']}.png")
    assert found.dtype == wanted.dtype
    assert found.shape == wanted.shape
    assert np.abs(found.astype(int) - wanted).max() <= 1


@pytest.mark.parametrize("case", cases("SwinIR pipeline"))
@torch.inference_mode()
def test_swinirs_own_program(case: dict[str, Any]) -> None:
    model = network(case["model"])
    assert isinstance(model, SwinIR)
    overlap = {} if case["tile_overlap"] is None else {"overlap": case["tile_overlap"]}
    found = swinir_main(model, read_input(case["input"]), case["tile"], **overlap)
    check_floats(case, "float_before_clamp", found)
    check_picture(case, put_together(Planes(found[0], None, 255)))


@pytest.mark.parametrize("case", cases("RealESRGANer"))
@torch.inference_mode()
def test_real_esrganer(case: dict[str, Any]) -> None:
    model, pixels = network(case["model"][0]), input_pixels(case["input"])
    if case["dni_weight"]:
        model = interpolate(
            load_upscaler(checkpoints(case["model"][0])[0]), network(case["model"][1]), case["dni_weight"][0]
        )
    assert not isinstance(model, SwinIR)
    by_network = case["alpha_upsampler"] in (None, "realesrgan")
    planes = take_apart(pixels)
    found = real_esrgan(model, for_network(planes.colour, model.channels)[None], **case["args"])
    check_floats(case, "float_before_clamp", found)
    if planes.alpha is not None and by_network:
        found = real_esrgan(model, for_network(planes.alpha, model.channels)[None], **case["args"])
        check_floats(case, "float_alpha_before_clamp", found)
    options = {"outscale": case["outscale"], "alpha_by_network": by_network}
    check_picture(case, real_esrgan_picture(model, pixels, **options, **case["args"]))


@pytest.mark.parametrize(
    "case",
    [case for case in cases("RealESRGANer") if case.values[0]["args"].get("tile", 0) and "outscale" not in case.id],
)
@torch.inference_mode()
def test_our_tiles_have_no_seams(case: dict[str, Any]) -> None:
    """Where the original's tiles differ from the whole picture, ours do not."""
    model, pixels = network(case["model"][0]), read_input(case["input"])
    tile = case["args"]["tile"]
    whole = model(pixels)[0]
    work = Enlargement(
        model, pixels[0], plan_tiles(model, *pixels.shape[2:], Budget(2**30, 2**30), tile=tile), CPU, torch.float32
    )
    while not work.step():
        pass
    torch.testing.assert_close(work.result, whole, atol=NEAR, rtol=0)
    assert (real_esrgan(model, pixels, tile, tile_pad=0)[0] - whole).abs().max() > 100 * NEAR


@pytest.mark.parametrize("mistake", ["no extra window", "edge once"])
@pytest.mark.parametrize("case", [case for case in cases("SwinIR pipeline") if not case.values[0]["tile"]])
@torch.inference_mode()
def test_mistakes_in_padding_would_be_noticed(case: dict[str, Any], mistake: str) -> None:
    model, pixels = network(case["model"]), read_input(case["input"])
    assert isinstance(model, SwinIR)
    height, width = pixels.shape[2:]
    size, s = model.config.window, model.scale
    if mistake == "edge once":
        padded = reflect(pixels, size - width % size, size - height % size)
    elif height % size or width % size:
        pytest.skip("padded in any case")
    else:
        padded = pixels
    found = put_together(Planes(model(padded)[0, :, : height * s, : width * s], None, 255))
    assert np.abs(found.astype(int) - read_pixels(FOLDER / "outputs" / f"{case['case']}.png")).max() > 2


@pytest.mark.skipif(not REAL.is_dir(), reason="no published weights: set DALLE_FLOW_REAL")
@torch.inference_mode()
def test_a_published_file() -> None:
    (path,) = REAL.glob("*.pth")
    model = load_upscaler(path)
    pixels = take_apart(read_pixels(next(REAL.glob("*.png")))).colour[None]
    answers = np.load(next(REAL.glob("*.npz")))
    wanted = torch.from_numpy(answers["raw"])
    torch.testing.assert_close(model(pixels), wanted, atol=NEAR, rtol=0)
    for tile in (16, 40):
        tiling = plan_tiles(model, *pixels.shape[2:], Budget(2**30, 2**30), tile=tile)
        work = Enlargement(model, pixels[0], tiling, CPU, torch.float32)
        while not work.step():
            pass
        torch.testing.assert_close(work.result[None], wanted, atol=NEAR, rtol=0)
