"""CLIP against openai/CLIP: preprocessing, both towers, logits. Sizes, pictures and texts come from files."""

import os
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from dalle_flow.models.clip import CLIP, CLIPConfig
from dalle_flow.models.clip_preprocess import CLIPPreprocess
from dalle_flow.weights.torch_file import TORCHSCRIPT, read_torch

ROOT = Path(__file__).parents[2]
FALLBACKS = (ROOT.parent / "shared" / "parity", ROOT / "tests" / "data" / "parity")
FOLDER = Path(os.environ.get("DALLE_FLOW_PARITY") or next(folder for folder in FALLBACKS if folder.is_dir())) / "clip"
NEAR = 2e-5
NOT_WEIGHTS = ("input_resolution", "context_length", "vocab_size")  # buffers of the archive


@pytest.fixture(scope="module")
def reference() -> dict[str, Tensor]:
    return load_file(FOLDER / "reference.safetensors")


@pytest.fixture(scope="module")
def stored() -> dict[str, Tensor]:
    (archive,) = FOLDER.glob("*.jit.pt")
    return {name: tensor.read() for name, tensor in read_torch(archive, TORCHSCRIPT).items()}


@pytest.fixture(scope="module")
def clip(stored: dict[str, Tensor]) -> CLIP:
    weights = {name: tensor.float() for name, tensor in stored.items() if name not in NOT_WEIGHTS}
    model = CLIP(CLIPConfig.from_state_dict({name: tensor.shape for name, tensor in weights.items()}))
    model.load_state_dict(weights)
    return model.eval().requires_grad_(False)


def test_sizes_read_off_the_weights(clip: CLIP, stored: dict[str, Tensor]) -> None:
    config = clip.config
    assert config.image_size == stored["input_resolution"]
    assert config.context_length == stored["context_length"]
    assert config.vocab_size == stored["vocab_size"]


def test_preprocessing(clip: CLIP, reference: dict[str, Tensor]) -> None:
    images = [Image.open(path) for path in sorted(FOLDER.glob("image*.png"))]
    pixels = CLIPPreprocess(clip.config.image_size)(images)
    torch.testing.assert_close(pixels, reference["pixel_values"], atol=1e-6, rtol=0)


def test_image_features(clip: CLIP, reference: dict[str, Tensor]) -> None:
    features = clip.encode_image(reference["pixel_values"])
    torch.testing.assert_close(features, reference["image_features"], atol=NEAR, rtol=0)


def test_text_features(clip: CLIP, reference: dict[str, Tensor]) -> None:
    states = reference["text_last_hidden_state_first2"]
    torch.testing.assert_close(clip.text_states(reference["input_ids"][: len(states)]), states, atol=NEAR, rtol=0)
    features = clip.encode_text(reference["input_ids"])
    torch.testing.assert_close(features, reference["text_features"], atol=NEAR, rtol=0)


def test_padding_left_out_changes_nothing(clip: CLIP, reference: dict[str, Tensor]) -> None:
    tokens = reference["input_ids"][:1]
    features = clip.encode_text(tokens[:, : int(clip.end_of_text(tokens)) + 1])
    torch.testing.assert_close(features, reference["text_features"][:1], atol=NEAR, rtol=0)


def test_logits(clip: CLIP, reference: dict[str, Tensor]) -> None:
    per_image, per_text = clip(reference["pixel_values"], reference["input_ids"])
    torch.testing.assert_close(per_image, reference["logits_per_image"], atol=NEAR, rtol=0)
    torch.testing.assert_close(per_text, reference["logits_per_text"], atol=NEAR, rtol=0)


def test_mistakes_would_be_noticed(clip: CLIP, reference: dict[str, Tensor]) -> None:
    other = CLIPConfig.from_state_dict({k: v.shape for k, v in clip.state_dict().items()}, activation="gelu")
    wrong = CLIP(other).requires_grad_(False)
    wrong.load_state_dict(clip.state_dict())
    assert (wrong.encode_image(reference["pixel_values"]) - reference["image_features"]).abs().max() > 100 * NEAR
