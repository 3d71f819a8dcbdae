"""The codec's grid: rounding while training and nearest neighbour afterwards are the same thing."""

import pytest
import torch

from dalle_flow.models.vqgan import VQGAN
from dalle_flow.train.codec import LEVELS, codec_config, grid_codebook, peak_signal_to_noise, round_to_grid


def test_codebook_is_every_combination() -> None:
    book = grid_codebook()
    assert book.shape == (8 * 8 * 6 * 5, 4)
    assert len(torch.unique(book, dim=0)) == len(book)
    assert book.abs().max() == 1


@pytest.mark.parametrize("spread", [0.3, 1.0, 3.0])  # well inside, about as wide as, and far outside [-1, 1]
def test_rounding_equals_the_nearest_row(spread: float) -> None:
    z = torch.randn(3, len(LEVELS), 5, 7, generator=torch.Generator().manual_seed(1)) * spread
    rounded = round_to_grid(z)
    rows = z.permute(0, 2, 3, 1).reshape(-1, len(LEVELS))
    book = grid_codebook()
    nearest = book[torch.cdist(rows, book).argmin(1)]
    assert torch.allclose(rounded.permute(0, 2, 3, 1).reshape(-1, len(LEVELS)), nearest, atol=1e-6)


def test_gradient_passes_straight_through() -> None:
    z = torch.linspace(-2, 2, 4 * 6).view(1, 4, 2, 3).requires_grad_()
    round_to_grid(z).sum().backward()
    assert torch.equal(z.grad, torch.ones_like(z))


def test_exported_codec_reads_and_writes_its_own_codes() -> None:
    torch.manual_seed(0)
    codec = VQGAN(codec_config(64)).eval()
    codec.quantize.embedding.weight.data.copy_(grid_codebook())
    pixels = torch.rand(2, 3, 64, 64)
    codes = codec.encode(pixels)
    assert codes.shape == (2, 64)
    with torch.no_grad():
        assert torch.allclose(codec.lookup(codes), round_to_grid(codec.encode_prequant(pixels)), atol=1e-6)
        assert codec.decode_codes(codes).shape == pixels.shape


def test_psnr() -> None:
    black, grey = torch.zeros(2, 3, 8, 8), torch.full((2, 3, 8, 8), 0.1)
    assert peak_signal_to_noise(black, grey) == pytest.approx(20.0, abs=1e-4)
