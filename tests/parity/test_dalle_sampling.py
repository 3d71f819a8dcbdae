"""Filters against the Flax original's: every recorded combination of settings, alone and all in one batch."""

import json
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dalle_flow.models.sampling import Filters

ROOT = Path(__file__).parents[2]
FALLBACKS = (ROOT.parent / "shared" / "parity", ROOT / "tests" / "data" / "parity")
DALLE = Path(os.environ.get("DALLE_FLOW_PARITY") or next(folder for folder in FALLBACKS if folder.is_dir())) / "dalle"

CASES = dict(np.load(DALLE / "logits_warper_cases.npz"))
ROWS = torch.from_numpy(CASES["rows"])
DEFAULTS = {"temperature": 1.0, "top_k": 50, "top_p": 1.0}  # transformers', where a case says nothing
SETTINGS = [DEFAULTS | case for case in json.loads(str(CASES["combos"]))]
EXPECTED = [torch.from_numpy(CASES[f"out_{i}"]) for i in range(len(SETTINGS))]


def filtered(settings: list[dict[str, float]], rows: Tensor) -> Tensor:
    columns = {name: [case[name] for case in settings] for name in DEFAULTS}
    return Filters.of(columns["temperature"], [int(k) for k in columns["top_k"]], columns["top_p"])(rows)


def test_each_combination_alone() -> None:
    for settings, expected in zip(SETTINGS, EXPECTED, strict=True):
        got = filtered([settings] * len(ROWS), ROWS)
        assert torch.equal(got.isinf(), expected.isinf()), settings
        torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-6)


def test_all_combinations_in_one_batch() -> None:
    settings = [case for case in SETTINGS for _ in ROWS]
    got, expected = filtered(settings, ROWS.repeat(len(SETTINGS), 1)), torch.cat(EXPECTED)
    assert torch.equal(got.isinf(), expected.isinf())
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-6)
