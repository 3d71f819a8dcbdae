"""min-dalle's files and answers: the same weights as the Flax ones beside them, read and run as they are."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from einops import rearrange
from torch import Tensor

from dalle_flow.models.dalle_bart import DalleBart
from dalle_flow.models.dalle_decode import SlotDecoder
from dalle_flow.models.sampling import Filters, guide, mask_non_codes
from dalle_flow.models.vqgan import VQGAN, GroupNorm
from dalle_flow.weights.files import load_dalle_bart, load_vqgan

ROOT = Path(__file__).parents[2]
FALLBACKS = (ROOT.parent / "shared" / "parity", ROOT / "tests" / "data" / "parity")
DALLE = Path(os.environ.get("DALLE_FLOW_PARITY") or next(folder for folder in FALLBACKS if folder.is_dir())) / "dalle"

STATES, LOGITS, PROBABILITIES, PIXELS = 2e-5, 5e-5, 1e-3, 1e-4
FLAX, VQGAN_FLAX, MIN_DALLE = DALLE / "tiny_dalle_bart", DALLE / "tiny_vqgan", DALLE / "tiny_min_dalle"
ANSWERS = {key: torch.from_numpy(value) for key, value in np.load(DALLE / "tiny_min_dalle_reference.npz").items()}
ITS_EPS = 1e-5  # of its GroupNorms; the original, and ours, has 1e-6


@pytest.fixture(scope="module")
def dalle() -> DalleBart:
    config = json.loads((FLAX / "config.json").read_text())
    shown_in_no_shape = ("encoder_attention_heads", "decoder_attention_heads", "decoder_start_token_id")
    return load_dalle_bart(MIN_DALLE, overrides={key: config[key] for key in shown_in_no_shape})


@pytest.fixture(scope="module")
def detokenizer() -> VQGAN:
    vqgan = load_vqgan(MIN_DALLE)
    for module in vqgan.modules():
        if isinstance(module, GroupNorm):
            module.eps = ITS_EPS
    return vqgan


def near(got: Tensor, expected: Tensor, atol: float) -> None:
    torch.testing.assert_close(got, expected, atol=atol, rtol=0)


def test_the_weights_are_those_of_the_flax_file(dalle: DalleBart) -> None:
    flax = load_dalle_bart(FLAX)
    assert dalle.config == flax.config
    for name, tensor in flax.state_dict().items():
        assert torch.equal(dalle.state_dict()[name], tensor), name


def test_the_detokenizer_is_the_decoding_half_of_the_flax_file(detokenizer: VQGAN) -> None:
    flax = load_vqgan(VQGAN_FLAX).state_dict()
    for name, tensor in detokenizer.state_dict().items():
        assert torch.equal(flax[name], tensor), name


def prompts() -> tuple[Tensor, Tensor]:
    tokens = ANSWERS["text_tokens"].long()
    return tokens, tokens != 1  # its padding


def test_encoder_states(dalle: DalleBart) -> None:
    tokens, mask = prompts()
    with torch.inference_mode():
        near(dalle.encode(tokens, mask)[mask], ANSWERS["encoder_state"][mask], STATES)


@pytest.fixture(scope="module")
def logits(dalle: DalleBart) -> tuple[Tensor, Tensor]:
    """Unconditional and conditional logits (steps, V), code by code."""
    tokens, mask = prompts()
    decoder = SlotDecoder(dalle, capacity=2)
    with torch.inference_mode():
        unconditional, prompt = (decoder.prompt(s, m) for s, m in zip(dalle.encode(tokens, mask), mask, strict=True))
    slot = decoder.admit(prompt, unconditional)
    steps = ANSWERS["logits_uncond_cond_first32"].shape[1]
    pairs = [decoder.step([slot], ANSWERS["prev_tokens"][i : i + 1].long()) for i in range(steps)]
    return torch.cat([u for u, _ in pairs]), torch.cat([c for _, c in pairs])


def test_logits(logits: tuple[Tensor, Tensor]) -> None:
    near(torch.stack(logits), ANSWERS["logits_uncond_cond_first32"], LOGITS)


def test_the_probabilities_it_draws_from(logits: tuple[Tensor, Tensor], detokenizer: VQGAN) -> None:
    combinations = ANSWERS["sampling_combos_temperature_topk_scale"]
    for (temperature, top_k, scale), expected in zip(combinations, ANSWERS["sampling_probabilities"], strict=True):
        uncond, cond = (x[: len(expected)] for x in logits)
        filters = Filters.of([float(temperature)] * len(expected), [int(top_k)] * len(expected), [1.0] * len(expected))
        guided = mask_non_codes(guide(uncond, cond, float(scale)), detokenizer.config.num_codes)
        near(filters(guided).softmax(-1), expected, PROBABILITIES)


def its_pixels(pixels: Tensor, stride: int) -> Tensor:
    """(3, H, W) in [0, 1] -> its (H, W, 3) in 0..255, every `stride`-th pixel."""
    return rearrange(pixels, "c h w -> h w c")[::stride, ::stride] * 255


def test_pictures(detokenizer: VQGAN) -> None:
    expected = ANSWERS["detokenizer_image_0_255_eps1e-5_stride4"]
    decoded = detokenizer.decode_codes(ANSWERS["detokenizer_tokens"].long())
    near(its_pixels(decoded[0], stride=4), expected, PIXELS * 255)


def test_a_grid_of_pictures(detokenizer: VQGAN) -> None:  # it fills columns first
    decoded = detokenizer.decode_codes(ANSWERS["seamless_tokens"].long())
    grid = rearrange(decoded, "(columns rows) c h w -> c (rows h) (columns w)", rows=2)
    near(its_pixels(grid, stride=8), ANSWERS["grid_2x2_stride8"], PIXELS * 255)


def test_pictures_decoded_as_one(detokenizer: VQGAN) -> None:
    codes = ANSWERS["seamless_tokens"].long()
    side = round(codes.shape[1] ** 0.5)
    grid = rearrange(codes, "(columns rows) (h w) -> 1 (rows h columns w)", rows=2, h=side)
    near(its_pixels(detokenizer.decode_codes(grid)[0], stride=8), ANSWERS["seamless_2x2_stride8"], PIXELS * 255)
