"""SwinIR: published sizes, shifted windows, refusals."""

from typing import Any

import pytest
import torch
from torch import Tensor

from dalle_flow.models.swinir import SwinIR, SwinIRConfig, WindowAttention

MEDIUM: dict[str, Any] = {"width": 180, "depths": (6,) * 6, "heads": (6,) * 6, "mlp_width": 360, "body_conv": "1conv"}
SMALL: dict[str, Any] = {"width": 60, "depths": (6,) * 4, "heads": (6,) * 4, "mlp_width": 120, "body_conv": "1conv"}
PUBLISHED = {  # file -> config, millions of parameters
    "001 x2": (SwinIRConfig(**MEDIUM, tail="pixelshuffle", scale=2), 11.75),
    "001 x3": (SwinIRConfig(**MEDIUM, tail="pixelshuffle", scale=3), 11.94),
    "001 x4": (SwinIRConfig(**MEDIUM, tail="pixelshuffle", scale=4), 11.90),
    "001 x8": (SwinIRConfig(**MEDIUM, tail="pixelshuffle", scale=8), 12.05),
    "002 x2": (SwinIRConfig(**SMALL, tail="pixelshuffledirect", scale=2), 0.910),
    "002 x4": (SwinIRConfig(**SMALL, tail="pixelshuffledirect", scale=4), 0.930),
    "003-M x4": (SwinIRConfig(**MEDIUM), 11.72),
    "003-M x2": (SwinIRConfig(**MEDIUM, scale=2), 11.68),
    "003-L x4": (SwinIRConfig(), 28.01),
    "004 gray": (SwinIRConfig(**MEDIUM, channels=1, tail="none", scale=1), 11.50),
    "005 colour": (SwinIRConfig(**MEDIUM, tail="none", scale=1), 11.50),
    "006 JPEG": (SwinIRConfig(**MEDIUM, channels=1, tail="none", scale=1, window=7, value_range=255.0), 11.49),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_sizes(name: str) -> None:
    config, millions = PUBLISHED[name]
    with torch.device("meta"):
        model = SwinIR(config)
    number = sum(p.numel() for p in model.parameters())
    assert number / 1e6 == pytest.approx(millions, abs=0.0051)


def attention(x: Tensor, model: WindowAttention, shift: int) -> Tensor:
    """As `WindowAttention`, token by token: who may see whom is decided by where the tokens were."""
    size, (height, width) = model.window, x.shape[1:3]
    head = x.shape[-1] // model.heads
    q, k, v = model.qkv(x[0]).view(height, width, 3, model.heads, head).unbind(2)
    out = torch.zeros(height, width, model.heads, head)
    places = [(y, x) for y in range(height) for x in range(width)]

    def window(place: tuple[int, int]) -> tuple[int, ...]:
        # Rolled windows begin at `shift`; what is before it is a window of its own, cut off by the border.
        return tuple((at - shift) // size for at in place)

    for y, x_ in places:
        seen = [p for p in places if window(p) == window((y, x_))]
        index = [(y - p[0] + size - 1) * (2 * size - 1) + x_ - p[1] + size - 1 for p in seen]
        scores = torch.stack([(q[y, x_] * k[p]).sum(-1) * head**-0.5 for p in seen])
        scores += model.relative_position_bias_table[index]  # (seen, heads)
        out[y, x_] = (scores.softmax(0)[..., None] * torch.stack([v[p] for p in seen])).sum(0)
    return model.proj(out.flatten(2))[None]


@pytest.mark.parametrize("size", [3, 4])
@pytest.mark.parametrize("grid", [(1, 1), (1, 3), (2, 1), (3, 2)])
@pytest.mark.parametrize("shifted", [False, True])
def test_attention_stays_in_its_window(size: int, grid: tuple[int, int], shifted: bool) -> None:
    torch.manual_seed(0)
    model = WindowAttention(6, 2, size).requires_grad_(False)
    torch.nn.init.normal_(model.relative_position_bias_table)
    x = torch.randn(1, grid[0] * size, grid[1] * size, 6)
    shift = size // 2 if shifted else 0
    torch.testing.assert_close(model(x, shift), attention(x, model, shift), atol=1e-5, rtol=1e-5)


def test_half_precision_masks_too() -> None:
    torch.manual_seed(0)
    model = WindowAttention(8, 2, 4).requires_grad_(False)
    x = torch.randn(1, 12, 8, 8)
    half = model.bfloat16()(x.bfloat16(), 2)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), model.float()(x, 2), atol=0.03, rtol=0)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"tail": "bilinear"}, "no network with tail 'bilinear'"),
        ({"heads": (7,) * 9}, "no multiple of all heads"),
        ({"heads": (8,)}, "9 layers have depths, but 1 have heads"),
        ({"scale": 3}, r"scale must be one of \(2, 4\) with the tail 'nearest\+conv', got 3"),
        ({"tail": "none"}, "got 4"),
    ],
)
def test_refuses_what_there_is_no_network_for(change: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        SwinIRConfig(**change)
