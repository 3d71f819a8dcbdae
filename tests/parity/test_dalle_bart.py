"""DALL·E Mini and Mega against the Flax original: states, logits, whole pictures, gradients. All sizes come from files.

Every folder with a DalleBart is one case; its answers are in the `*_reference.npz` whose name its own begins with.
Pictures are drawn by the slot-wise decoder, all prompts in one batch.
"""

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dalle_flow.models.dalle_bart import DalleBart
from dalle_flow.models.dalle_decode import DecoderSlot, SlotDecoder
from dalle_flow.models.sampling import Filters, guide, next_noise, sample
from dalle_flow.weights.files import load_dalle_bart, open_dalle_bart

ROOT = Path(__file__).parents[2]
FALLBACKS = (ROOT.parent / "shared" / "parity", ROOT / "tests" / "data" / "parity")
DALLE = Path(os.environ.get("DALLE_FLOW_PARITY") or next(folder for folder in FALLBACKS if folder.is_dir())) / "dalle"

STATES, LOGITS, GUIDED, LOSS, GRADIENTS = 2e-5, 5e-5, 1e-3, 1e-5, 1e-4
TOP_K = 50  # of the original where its caller gave none: transformers' default


def reference_of(folder: Path) -> Path:
    files = {file.name.removesuffix("_reference.npz"): file for file in DALLE.glob("*_reference.npz")}
    return files[max((name for name in files if folder.name.startswith(name)), key=len)]


def is_dalle_bart(folder: Path) -> bool:
    config = folder / "config.json"
    return config.is_file() and json.loads(config.read_text()).get("model_type") == "dallebart"


FOLDERS = [folder for folder in sorted(DALLE.iterdir()) if is_dalle_bart(folder)]


def keys(pattern: str) -> list[Any]:
    """(folder, key) for every answer of that name."""
    pairs = [(folder, key) for folder in FOLDERS for key in np.load(reference_of(folder)).files]
    return [pytest.param(f, key, id=f"{f.name}-{key}") for f, key in pairs if re.fullmatch(pattern, key)]


@dataclass
class Case:
    model: DalleBart
    answers: dict[str, Tensor]

    @property
    def prompts(self) -> tuple[Tensor, Tensor]:
        return self.answers["input_ids"].long(), self.answers["attention_mask"].bool()

    @property
    def unconditional(self) -> tuple[Tensor, Tensor]:
        return self.answers["input_ids_uncond"].long(), self.answers["attention_mask_uncond"].bool()

    @torch.inference_mode()
    def teacher_forced(self) -> dict[str, Tensor]:
        """Logits by `DalleBart.forward`, (N, K, V) of the N prompts that have labels."""
        codes_in = self.answers["decoder_input_ids"].long()
        tokens, mask = (x[: len(codes_in)] for x in self.prompts)
        u_tokens, u_mask = (x.expand(len(codes_in), -1) for x in self.unconditional)
        return {"cond": self.model(tokens, mask, codes_in), "uncond": self.model(u_tokens, u_mask, codes_in)}

    def slots(self, count: int, guided: bool) -> tuple[SlotDecoder, list[DecoderSlot]]:
        """A decoder with a picture for each of the first prompts."""
        decoder = SlotDecoder(self.model, capacity=2 * count)
        with torch.inference_mode():
            states, u_states = self.model.encode(*self.prompts), self.model.encode(*self.unconditional)
        prompts = [decoder.prompt(s, m) for s, m in zip(states, self.prompts[1], strict=True)]
        unconditional = decoder.prompt(u_states[0], self.unconditional[1][0]) if guided else None
        return decoder, [decoder.admit(prompt, unconditional) for prompt in prompts[:count]]


LOADED: dict[Path, Case] = {}


def load(folder: Path) -> Case:
    if folder not in LOADED:
        answers = {key: torch.from_numpy(value) for key, value in np.load(reference_of(folder)).items()}
        LOADED[folder] = Case(load_dalle_bart(folder), answers)
    return LOADED[folder]


def near(got: Tensor, expected: Tensor, atol: float) -> None:
    torch.testing.assert_close(got, expected, atol=atol, rtol=0)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_encoder_states(folder: Path) -> None:
    case = load(folder)
    with torch.inference_mode():
        near(case.model.encode(*case.prompts), case.answers["encoder_last_hidden_state"], STATES)
        near(case.model.encode(*case.unconditional), case.answers["encoder_last_hidden_state_uncond"], STATES)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_states_between_layers(folder: Path) -> None:
    case, seen = load(folder), {}
    for side in ("encoder", "decoder"):
        for i, layer in enumerate(getattr(case.model, side).layers):
            layer.register_forward_pre_hook(lambda _, args, at=(side, i): seen.__setitem__(at, args[0][0]))
            layer.register_forward_hook(lambda _, args, out, at=(side, i + 1): seen.__setitem__(at, out[0]))
    tokens, mask = (x[:1] for x in case.prompts)
    with torch.inference_mode():
        case.model(tokens, mask, case.answers["decoder_input_ids"][:1].long())
    LOADED.pop(folder)  # it has hooks now
    for side, key in (("encoder", "encoder_layer_states0"), ("decoder", "decoder_layer_states0_first64")):
        expected = case.answers[key]
        got = torch.stack([seen[side, i] for i in range(len(expected))])
        near(got[:, : expected.shape[1]], expected, LOGITS)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_logits_of_whole_sequences(folder: Path) -> None:
    case = load(folder)
    logits = case.teacher_forced()
    near(logits["cond"], case.answers["logits_cond"], LOGITS)
    near(logits["uncond"], case.answers["logits_uncond"], LOGITS)
    for key, expected in case.answers.items():
        if match := re.fullmatch(r"logits_guided_scale(\d+)", key):
            near(guide(logits["uncond"], logits["cond"], float(match[1])), expected, GUIDED)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_logits_code_by_code(folder: Path) -> None:
    case = load(folder)
    codes_in, whole = case.answers["decoder_input_ids"].long(), case.teacher_forced()
    decoder, slots = case.slots(len(codes_in), guided=True)
    steps = [decoder.step(slots, codes) for codes in codes_in.T]
    uncond, cond = (torch.stack([step[i] for step in steps], dim=1) for i in range(2))  # (N, K, V)
    near(cond, case.answers["logits_cond"], LOGITS)
    near(uncond, case.answers["logits_uncond"], LOGITS)
    near(cond, whole["cond"], LOGITS)
    near(uncond, whole["uncond"], LOGITS)


def draw(case: Case, expected: Tensor, scale: float, filters: Filters, noise: Tensor) -> Tensor:
    """Codes (N, K + 1) from the start token on, with recorded noise (N, K, V)."""
    decoder, slots = case.slots(len(expected), guided=scale != 1)
    codes = [torch.full((len(expected),), case.model.config.decoder_start_token_id)]
    streams = [iter(rows) for rows in noise]
    for _ in range(expected.shape[1] - 1):
        uncond, cond = decoder.step(slots, codes[-1])
        codes.append(sample(filters(guide(uncond, cond, scale)), next_noise(streams)))
    return torch.stack(codes, 1)


@pytest.mark.parametrize(("folder", "key"), keys(r"greedy_scale\d+"))
def test_greedy_pictures(folder: Path, key: str) -> None:
    case, expected = load(folder), load(folder).answers[key].long()
    count, length = expected.shape
    noise = torch.zeros(count, 1, case.model.config.vocab_size).expand(-1, length, -1)
    everything = Filters.of([1.0] * count, [0] * count, [1.0] * count)
    drawn = draw(case, expected, float(key.removeprefix("greedy_scale")), everything, noise)
    assert torch.equal(drawn, expected)


def decimal(digits: str) -> float:
    """ "09" is 0.9 and "1" is 1."""
    return float(f"{digits[0]}.{digits[1:]}0")


def settings(key: str) -> dict[str, float]:
    """What the name of a sampled sequence says; the rest as in the original's call."""
    found = dict(re.findall(r"(scale|topk|topp|temp)(\d+)", key))
    return {
        "scale": float(found["scale"]),
        "top_k": int(found.get("topk", TOP_K)),
        "top_p": decimal(found.get("topp", "1")),
        "temperature": decimal(found.get("temp", "1")),
    }


NOISE = {key: torch.from_numpy(value) for key, value in np.load(DALLE / "dalle_bart_sampling_noise.npz").items()}
# It was recorded for one model: the first with as many ids.
RECORDED = next(f for f in FOLDERS if open_dalle_bart(f).model.config.vocab_size == NOISE["gumbel"].shape[-1])


@pytest.mark.parametrize(
    ("folder", "key"), [case for case in keys(r"sample_scale\d+\w+") if case.values[0] == RECORDED]
)
def test_pictures_drawn_with_the_original_noise(folder: Path, key: str) -> None:
    case, rows, asked = load(folder), NOISE["row"].long(), settings(key)
    expected = case.answers[key].long()
    count = len(expected)
    gumbel = torch.zeros(count, *NOISE["gumbel"].shape[1:])
    gumbel[rows] = NOISE["gumbel"]
    filters = Filters.of([asked["temperature"]] * count, [int(asked["top_k"])] * count, [asked["top_p"]] * count)
    drawn = draw(case, expected, asked["scale"], filters, gumbel)
    assert torch.equal(drawn[rows], expected[rows])


@pytest.mark.parametrize("file", sorted(DALLE.glob("*_loss_and_grad_norms.json")), ids=lambda file: file.name)
def test_loss_and_gradient_norms(file: Path) -> None:
    folder = DALLE / file.name.removesuffix("_loss_and_grad_norms.json")
    expected, answers = json.loads(file.read_text()), load(folder).answers
    plan, model = open_dalle_bart(folder).plan, load_dalle_bart(folder).requires_grad_(True)
    labels, (tokens, mask) = answers["labels"].long(), load(folder).prompts
    logits = model(tokens[: len(labels)], mask[: len(labels)], answers["decoder_input_ids"].long())
    loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten())
    loss.backward()
    assert loss.item() == pytest.approx(expected["loss"], rel=LOSS)

    norms: dict[str, list[float]] = {key: [0.0] * len(layers) for key, layers in expected["grad_l2_norm"].items()}
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        norms[plan[name].sources[0]][plan[name].layer or 0] = parameter.grad.norm().item()
    for key, layers in expected["grad_l2_norm"].items():
        assert norms[key] == pytest.approx(layers, rel=GRADIENTS), key
