"""GFPGAN: published sizes, one answer per face, refusals. Its numbers are in tests/parity/test_gfpgan.py."""

from typing import Any

import pytest
import torch

from dalle_flow.models.gfpgan import GFPGAN, GFPGANConfig, ModulatedConv

TINY = GFPGANConfig(16, 8, (6, 4, 3), (8, 6, 4))


@pytest.fixture
def model() -> GFPGAN:
    torch.manual_seed(0)
    return GFPGAN(TINY).eval().requires_grad_(False)


def test_the_published_size() -> None:
    with torch.device("meta"):
        model = GFPGAN()
    mapping = 8 * (512 * 512 + 512)  # the generator's own, which is left out
    assert sum(p.numel() for p in model.parameters()) + mapping == 86_444_252
    assert model.final_linear.out_features == 16 * 512
    assert model.stylegan_decoder.noises(14).shape == (1, 1, 512, 512)


def test_the_same_face_every_time_alone_or_in_a_batch(model: GFPGAN) -> None:
    faces = torch.rand(5, 3, 16, 16) * 2 - 1
    found = model(faces)
    assert found.shape == faces.shape
    torch.testing.assert_close(model(faces[2:3]), found[2:3])
    assert not torch.equal(found[0], found[1])


def test_noise_is_what_is_stored(model: GFPGAN) -> None:
    face = torch.rand(1, 3, 16, 16)
    before = model(face)
    for conv in model.stylegan_decoder.style_convs:
        conv.weight.fill_(0.5)
    with_noise = model(face)
    assert not torch.allclose(before, with_noise)
    assert torch.equal(with_noise, model(face))


def test_restored_pictures_are_in_range(model: GFPGAN) -> None:
    model.stylegan_decoder.to_rgb1.bias.copy_(torch.tensor([9.0, -9.0, 0.0]).view(1, 3, 1, 1))
    found = model.restore(torch.rand(3, 16, 16))
    assert found.shape == (3, 16, 16)
    assert float(found[0].min()) == 1
    assert float(found[1].max()) == 0


def test_sketches_are_of_every_level(model: GFPGAN) -> None:
    assert [sketch.shape for sketch in model.sketches(torch.rand(2, 3, 16, 16))] == [(2, 3, 8, 8), (2, 3, 16, 16)]


@pytest.mark.parametrize("demodulate", [False, True])
def test_each_picture_has_its_own_kernel(demodulate: bool) -> None:
    torch.manual_seed(0)
    conv = ModulatedConv(4, 3, 3, 5, demodulate=demodulate).requires_grad_(False)
    x, styles = torch.rand(3, 4, 7, 7), torch.randn(3, 5)
    for i, style in enumerate(styles):
        kernel = conv.weight[0] * conv.modulation(style)[:, None, None]
        if demodulate:
            kernel = kernel / kernel.square().sum((1, 2, 3), keepdim=True).add(1e-8).sqrt()
        wanted = torch.nn.functional.conv2d(x[i : i + 1], kernel, padding=1)
        torch.testing.assert_close(conv(x, styles)[i : i + 1], wanted)


def test_refuses_faces_of_another_size(model: GFPGAN) -> None:
    with pytest.raises(ValueError, match="a face must be 16 x 16"):
        model(torch.rand(1, 3, 16, 20))


@pytest.mark.parametrize(
    ("change", "match"),
    [({"size_px": 24}, "power of two"), ({"size_px": 4}, "power of two"), ({"size_px": 32}, "levels")],
)
def test_refuses_sizes_that_do_not_fit(change: dict[str, Any], match: str) -> None:
    values = {"size_px": 16, "style_width": 8, "encoder_widths": (6, 4, 3), "decoder_widths": (8, 6, 4)}
    with pytest.raises(ValueError, match=match):
        GFPGANConfig(**{**values, **change})
