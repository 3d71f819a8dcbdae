"""CLIPSeg against timojl/clipseg: preprocessing, what CLIP saw, logits at several sizes. All sizes come from files."""

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from dalle_flow.models.clipseg import CLIPSeg, to_pixels
from dalle_flow.models.masks import as_large_as, grey, threshold
from dalle_flow.models.text.clip_bpe import ClipTokenizer
from dalle_flow.weights.clipseg import load_clipseg

ROOT = Path(__file__).parents[2]
FALLBACKS = (ROOT.parent / "shared" / "parity", ROOT / "tests" / "data" / "parity")
FOLDER = (
    Path(os.environ.get("DALLE_FLOW_PARITY") or next(folder for folder in FALLBACKS if folder.is_dir())) / "clipseg"
)
NEAR = 2e-5
LOGITS = re.compile(r"(?:(\w+)\.)?logits_(\d+)(?:_prompt(\d+))?_stride(\d+)")


@pytest.fixture(scope="module")
def reference() -> dict[str, Tensor]:
    return load_file(FOLDER / "reference.safetensors")


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    return json.loads((FOLDER / "meta.json").read_text())["config"]


@pytest.fixture(scope="module")
def names() -> list[str]:
    return json.loads((FOLDER / "meta.json").read_text())["alpha_mask_order"]


@pytest.fixture(scope="module")
def models(config: dict[str, Any]) -> dict[str, CLIPSeg]:
    """Every decoder of the folder on its CLIP: "rd64-uni" and so on."""
    facts = {"extract_layers": config["extract"]}
    clip = FOLDER / "clip_backbone.pt"
    return {file.stem: load_clipseg(file, clip, overrides=facts) for file in FOLDER.glob("*.pth")}


@pytest.fixture(scope="module")
def plain(models: dict[str, CLIPSeg]) -> CLIPSeg:
    return next(model for model in models.values() if len(model.config.kernels) == 1)


@pytest.fixture(scope="module")
def tokens(plain: CLIPSeg, config: dict[str, Any]) -> Tensor:
    tokenizer = ClipTokenizer.from_folder(FOLDER, plain.config.clip.context_length)
    return tokenizer(config["prompts"])


def pixels_of(model: CLIPSeg, size: int) -> Tensor:
    with Image.open(FOLDER / "image.png") as image:
        array = np.array(image.convert("RGB"))
    return to_pixels(torch.from_numpy(array).permute(2, 0, 1)[None].float() / 255, model.config, size)


def test_preprocessing(plain: CLIPSeg, reference: dict[str, Tensor]) -> None:
    tried = 0
    for name, wanted in reference.items():
        if match := re.fullmatch(r"pixel_values_(\d+)_stride(\d+)", name):
            size, stride = map(int, match.groups())
            found = pixels_of(plain, size)[..., ::stride, ::stride]
            torch.testing.assert_close(found, wanted, atol=2e-6, rtol=0)
            tried += 1
    assert tried


def test_what_clip_saw_and_read(plain: CLIPSeg, tokens: Tensor, reference: dict[str, Tensor]) -> None:
    torch.testing.assert_close(plain.clip.encode_text(tokens), reference["cond"], atol=NEAR, rtol=0)
    size = plain.config.clip.image_size
    pixels = pixels_of(plain, size)
    torch.testing.assert_close(plain.clip.encode_image(pixels), reference["visual_q"], atol=NEAR, rtol=0)
    (name,) = (name for name in reference if name.startswith("activations_"))
    first = int(re.search(r"first(\d+)tokens", name)[1])  # type: ignore[index]
    wanted = reference[name]
    found = torch.cat(plain.activations(pixels))[:, :first]  # (layers, tokens, D), of one picture
    torch.testing.assert_close(found, wanted.view_as(found), atol=NEAR, rtol=0)


def test_logits_at_every_size(models: dict[str, CLIPSeg], tokens: Tensor, reference: dict[str, Tensor]) -> None:
    tried = set()
    for name, wanted in reference.items():
        if match := LOGITS.fullmatch(name):
            variant, size, prompt, stride = match.groups()
            model = models["rd64-uni" + (f"-{variant}" if variant else "")]
            found = model(pixels_of(model, int(size)).expand(len(tokens), -1, -1, -1), tokens)  # (B, H, W)
            assert found.shape[1:] == (int(size), int(size))
            found = found[:, :: int(stride), :: int(stride)]
            torch.testing.assert_close(found if prompt is None else found[int(prompt)], wanted, atol=NEAR, rtol=0)
            tried.add((variant, size))
    assert len(tried) >= len(models)


def test_a_text_is_read_once_for_all_pictures(plain: CLIPSeg, tokens: Tensor, reference: dict[str, Tensor]) -> None:
    size = plain.config.clip.image_size
    activations = plain.activations(pixels_of(plain, size).expand(3, -1, -1, -1))
    found = plain.decode(activations, plain.clip.encode_text(tokens[:1]))[:, ::8, ::8]
    wanted = reference[f"logits_{size}_stride8"][0]
    torch.testing.assert_close(found, wanted.expand(3, -1, -1), atol=NEAR, rtol=0)


def test_mistakes_would_be_noticed(plain: CLIPSeg, tokens: Tensor, reference: dict[str, Tensor]) -> None:
    size = plain.config.clip.image_size
    activations = plain.activations(pixels_of(plain, size))
    wrong = plain.decode(activations[::-1], reference["cond"][:1])[0, ::8, ::8]
    assert (wrong - reference[f"logits_{size}_stride8"][0]).abs().max() > 100 * NEAR


KINDS = re.compile(r"(binary|adaptive_mean|adaptive_gaussian)_?(\d+)(?:_([\d.]+))?")


def thresholded(picture: np.ndarray, name: str) -> np.ndarray:
    """By a name of the folder: none, binary85, adaptive_mean_11_2."""
    if name == "none":
        return threshold(picture, "none")
    kind, number, c = KINDS.fullmatch(name).groups()  # type: ignore[union-attr]
    if kind == "binary":
        return threshold(picture, kind, strength=int(number))
    return threshold(picture, kind, block_size=int(number), c=float(c))


def test_thresholds_are_opencvs(reference: dict[str, Tensor], names: list[str]) -> None:
    outputs = reference["threshold_outputs"].numpy()
    assert len(names) == len(outputs)
    for name, wanted in zip(names, outputs, strict=True):
        found = thresholded(reference["threshold_input"].numpy(), name)
        assert np.array_equal(found, wanted), (name, int((found != wanted).sum()))


def test_the_grey_picture(plain: CLIPSeg, tokens: Tensor, reference: dict[str, Tensor]) -> None:
    """What falls on the edge of two values may fall on either side."""
    for name, wanted in reference.items():
        if match := re.fullmatch(r"gray(\d+)_prompt(\d+)_stride(\d+)", name):
            size, prompt, stride = map(int, match.groups())
            logits = plain(pixels_of(plain, size), tokens[prompt : prompt + 1])[0]
            found = grey(logits, relative=True)
            assert found.max() == 255
            apart = np.abs(found[::stride, ::stride].astype(int) - wanted.numpy())
            assert apart.max() <= 1
            assert (apart > 0).mean() < 1e-3


def test_masks_of_the_2022_program(
    plain: CLIPSeg, tokens: Tensor, reference: dict[str, Tensor], names: list[str]
) -> None:
    """Alpha is white where the prompt is not."""
    with Image.open(FOLDER / "image.png") as picture:
        width, height = picture.size
    logits = plain(pixels_of(plain, 512), tokens[:1])[0]
    for name, wanted in zip(names, reference["alpha_masks"].numpy(), strict=True):
        mask = thresholded(grey(logits, relative=True), name)
        found = 255 - np.asarray(as_large_as(mask, width, height))
        apart = np.abs(found.astype(int) - wanted)
        assert (apart > 1).mean() <= 1e-3, name
