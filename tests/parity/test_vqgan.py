"""VQGAN against the Flax original: states, codes, pixels, and a picture of DALL·E's. All sizes come from files."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

from dalle_flow.models.vqgan import VQGAN
from dalle_flow.weights.files import load_vqgan

ROOT = Path(__file__).parents[2]
FALLBACKS = (ROOT.parent / "shared" / "parity", ROOT / "tests" / "data" / "parity")
DALLE = Path(os.environ.get("DALLE_FLOW_PARITY") or next(folder for folder in FALLBACKS if folder.is_dir())) / "dalle"

PREQUANT, PIXELS, INNER = 5e-5, 1e-4, 5e-5  # the last relative to the largest value
ANSWERS = dict(np.load(DALLE / "vqgan_reference.npz"))


def is_vqgan(folder: Path) -> bool:
    config = folder / "config.json"
    return config.is_file() and "ch_mult" in json.loads(config.read_text())


@pytest.fixture(scope="module", params=[f for f in sorted(DALLE.iterdir()) if is_vqgan(f)], ids=lambda f: f.name)
def vqgan(request: pytest.FixtureRequest) -> VQGAN:
    return load_vqgan(request.param)


@pytest.fixture(scope="module", params=[torch.contiguous_format, torch.channels_last], ids=["NCHW", "NHWC"])
def pixels(request: pytest.FixtureRequest) -> Tensor:
    pixels = torch.from_numpy(ANSWERS["pixels_u8"]).float() / 255  # (B, H, W, 3)
    return rearrange(pixels, "b h w c -> b c h w").contiguous(memory_format=request.param)


@pytest.fixture(scope="module")
def codes() -> Tensor:
    return torch.from_numpy(ANSWERS["encode_indices"]).long()


def channels_last(x: Tensor) -> NDArray[np.float32]:
    return x.movedim(-3, -1).numpy()


def to_bytes(pixels: Tensor) -> NDArray[np.int64]:
    """As the original: truncated, not rounded."""
    return channels_last((pixels * 255).to(torch.uint8)).astype(np.int64)


def near(got: Tensor, expected: NDArray[np.float32], atol: float) -> None:
    np.testing.assert_allclose(channels_last(got), expected, atol=atol, rtol=0)


@torch.inference_mode()
def test_states_before_the_codebook(vqgan: VQGAN, pixels: Tensor) -> None:
    near(vqgan.encode_prequant(pixels), ANSWERS["encode_prequant"], PREQUANT)


def test_codes(vqgan: VQGAN, pixels: Tensor, codes: Tensor) -> None:
    assert torch.equal(vqgan.encode(pixels), codes)


@torch.inference_mode()
def test_lookup(vqgan: VQGAN, codes: Tensor) -> None:
    near(vqgan.lookup(codes[:1])[0], ANSWERS["encode_quantized0"], 0)


@torch.inference_mode()
def test_pixels(vqgan: VQGAN, codes: Tensor) -> None:
    decoded = vqgan.decode(vqgan.lookup(codes))  # (B, 3, H, W)
    for key, expected in ANSWERS.items():
        if key.startswith("decode_pixels"):
            index, _, stride = key.removeprefix("decode_pixels").partition("_stride")
            step = int(stride or 1)
            near(decoded[int(index), :, ::step, ::step], expected, PIXELS)


def test_bytes(vqgan: VQGAN, codes: Tensor) -> None:
    decoded = to_bytes(vqgan.decode_codes(codes))
    for key, expected in ANSWERS.items():
        if key.startswith("decode_u8_"):
            assert np.abs(decoded[int(key.removeprefix("decode_u8_"))] - expected).max() <= 1


def test_a_picture_from_its_prompt_on(vqgan: VQGAN) -> None:
    found = 0
    for file in DALLE.glob("*_reference.npz"):
        answers = np.load(file)
        if "pipeline_pixels0_u8" in answers.files:
            codes = torch.from_numpy(answers["greedy_scale10"][:1, 1:]).long()
            assert np.abs(to_bytes(vqgan.decode_codes(codes))[0] - answers["pipeline_pixels0_u8"]).max() <= 1
            found += 1
    assert found


def ours(name: str) -> str:
    """`inner.encoder.down_0` is the output of `encoder.down.0`."""
    parts = [part.replace("_", ".") if part[:-1] in ("down_", "up_") else part for part in name.split(".")[1:]]
    return ".".join(parts)


@torch.inference_mode()
def test_every_stage(vqgan: VQGAN, pixels: Tensor, codes: Tensor) -> None:
    seen: dict[str, Tensor] = {}
    names = {key: ours(key) for key in ANSWERS if key.startswith("inner.")}
    hooks = [
        vqgan.get_submodule(name).register_forward_hook(lambda _, __, out, at=key: seen.__setitem__(at, out[0]))
        for key, name in names.items()
    ]
    vqgan.encode_prequant(pixels[:1])
    vqgan.decode(vqgan.lookup(codes[:1]))
    for hook in hooks:
        hook.remove()
    for key in names:
        expected = ANSWERS[key]  # (side, side, channels)
        stride = seen[key].shape[-1] // expected.shape[0]
        got = seen[key][: expected.shape[-1], ::stride, ::stride]
        near(got, expected, INNER * np.abs(expected).max())
