"""SwinIR: restores and enlarges pictures with attention in windows that are shifted from block to block.

Source: Liang et al. 2021 (arXiv:2108.10257); reference code JingyunLiang/SwinIR.
Weights: all files of its release v0.0, under their names; DALL·E Flow used 003_realSR_..._SwinIR-L_x4_GAN.
Parity: tests/parity/test_upscale.py; within 2e-5 of the original.
Differs: no stochastic depth; no absolute positions, which no published file has; masks and position index are computed.

Shapes: B batch, C channels, H W pixels padded to whole windows, s scale, D width, N windows, T tokens of a window.
"""

from dataclasses import dataclass
from typing import Literal, cast, get_args

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .attention import attend
from .stages import Around, Stage, missing, reflect, run_whole

RGB_MEAN = (0.4488, 0.4371, 0.4040)  # of DIV2K; subtracted from pictures of three channels
APART = -100.0  # added to the scores of tokens that are neighbours only because the picture was rolled
TAIL_FEATURES = 64
SLOPE = 0.2  # of the leaky ReLU, but of the one before enlarging, which has torch's own .01

Tail = Literal["pixelshuffle", "pixelshuffledirect", "nearest+conv", "none"]
BodyConv = Literal["1conv", "3conv"]


@dataclass(frozen=True)
class SwinIRConfig:
    """Sizes; the defaults are those of the large real-world model, four times."""

    channels: int = 3  # of the picture
    width: int = 240
    depths: tuple[int, ...] = (6,) * 9  # blocks of each layer
    heads: tuple[int, ...] = (8,) * 9  # of each layer
    window: int = 8
    mlp_width: int = 480
    scale: int = 4
    tail: Tail = "nearest+conv"
    body_conv: BodyConv = "3conv"  # at the end of each layer and of all
    value_range: float = 1.0  # pixels in [0, 1] times this are what the network sees

    def __post_init__(self) -> None:
        if self.tail not in get_args(Tail) or self.body_conv not in get_args(BodyConv):
            raise ValueError(f"no network with tail {self.tail!r} and body_conv {self.body_conv!r}")
        if len(self.depths) != len(self.heads) or not self.depths:
            raise ValueError(f"{len(self.depths)} layers have depths, but {len(self.heads)} have heads")
        if any(self.width % heads for heads in self.heads):
            raise ValueError(f"a width of {self.width} is no multiple of all heads {self.heads}")
        scales = {"nearest+conv": (2, 4), "none": (1,), "pixelshuffle": (2, 3, 4, 8)}.get(self.tail)
        if self.scale < 1 or (scales and self.scale not in scales):
            raise ValueError(f"scale must be one of {scales} with the tail {self.tail!r}, got {self.scale}")


class WindowAttention(nn.Module):
    """Attention among the tokens of a window, with a learnt bias for each distance."""

    def __init__(self, width: int, heads: int, window: int):
        super().__init__()
        self.heads, self.window = heads, window
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, shift: int) -> Tensor:
        """(B, H, W, D) -> the same, rows and columns rolled by `shift` in between."""
        x = torch.roll(x, (-shift, -shift), (1, 2)) if shift else x
        size, rows, columns = self.window, x.shape[1] // self.window, x.shape[2] // self.window
        qkv = rearrange(
            self.qkv(x), "b (r y) (c x) (k n d) -> k b r c n (y x) d", y=size, x=size, k=3, n=self.heads
        )  # (3, B, rows, columns, heads, T, D / heads)
        bias, out = self._bias(), torch.empty_like(qkv[0])
        # Only windows that the roll made of two ends of the picture need a mask: those of the last row and column.
        for r in (slice(0, rows - 1), slice(rows - 1, rows)) if shift else (slice(0, rows),):
            for c in (slice(0, columns - 1), slice(columns - 1, columns)) if shift else (slice(0, columns),):
                if (part := qkv[:, :, r, c]).numel():
                    mask = self._mask(shift, r.start > 0 or rows == 1, c.start > 0 or columns == 1, x) if shift else 0
                    q, k, v = part.flatten(1, 3)  # (N, heads, T, D / heads) each
                    out[:, r, c] = attend(q, k, v, bias + mask).view(part.shape[1:])
        x = self.proj(rearrange(out, "b r c n (y x) d -> b (r y) (c x) (n d)", y=size))
        return torch.roll(x, (shift, shift), (1, 2)) if shift else x

    def _bias(self) -> Tensor:
        """(1, heads, T, T): the bias of every pair of tokens."""
        size, table = self.window, self.relative_position_bias_table
        y, x = (a.flatten() for a in torch.meshgrid(*[torch.arange(size, device=table.device)] * 2, indexing="ij"))
        down, across = y[:, None] - y + size - 1, x[:, None] - x + size - 1  # (T, T), 0 to 2 size - 2
        return table[down * (2 * size - 1) + across].permute(2, 0, 1)[None]

    def _mask(self, shift: int, last_row: bool, last_column: bool, like: Tensor) -> Tensor:
        """(T, T): 0 within a part of the picture, `APART` between parts that the roll has put into one window."""
        beyond = torch.arange(self.window, device=like.device) >= self.window - shift
        part = (beyond & last_row)[:, None] * 2 + (beyond & last_column)  # (window, window)
        part = part.flatten()
        return (part[:, None] != part).to(like.dtype) * APART


class Mlp(nn.Module):
    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> the same."""
        return cast(Tensor, self.fc2(F.gelu(self.fc1(x))))


class SwinBlock(nn.Module):
    def __init__(self, config: SwinIRConfig, heads: int, shift: int):
        super().__init__()
        self.shift = shift
        self.norm1 = nn.LayerNorm(config.width)
        self.attn = WindowAttention(config.width, heads, config.window)
        self.norm2 = nn.LayerNorm(config.width)
        self.mlp = Mlp(config.width, config.mlp_width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, D) -> the same."""
        x = x + self.attn(self.norm1(x), self.shift)
        return cast(Tensor, x + self.mlp(self.norm2(x)))


def body_conv(kind: BodyConv, width: int) -> nn.Module:
    if kind == "1conv":
        return nn.Conv2d(width, width, 3, padding=1)
    return nn.Sequential(
        nn.Conv2d(width, width // 4, 3, padding=1),
        nn.LeakyReLU(SLOPE),
        nn.Conv2d(width // 4, width // 4, 1),
        nn.LeakyReLU(SLOPE),
        nn.Conv2d(width // 4, width, 3, padding=1),
    )


class Blocks(nn.Module):
    """Holds the blocks of a layer under their published name."""

    def __init__(self, config: SwinIRConfig, depth: int, heads: int):
        super().__init__()
        shifts = [config.window // 2 if i % 2 else 0 for i in range(depth)]
        self.blocks = nn.Sequential(*(SwinBlock(config, heads, shift) for shift in shifts))


class Layer(nn.Module):
    """Some blocks, a convolution, and a way around them."""

    def __init__(self, config: SwinIRConfig, depth: int, heads: int):
        super().__init__()
        self.residual_group = Blocks(config, depth, heads)
        self.conv = body_conv(config.body_conv, config.width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, H, W) -> the same."""
        tokens = self.residual_group.blocks(x.permute(0, 2, 3, 1))  # (B, H, W, D)
        return cast(Tensor, x + self.conv(tokens.permute(0, 3, 1, 2)))


class PatchNorm(nn.Module):
    """Holds the first norm under its published name."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)


class SwinIR(nn.Module):
    fold = 1

    def __init__(self, config: SwinIRConfig | None = None):
        super().__init__()
        self.config = config = config or SwinIRConfig()
        self.channels, self.scale = config.channels, config.scale
        self.conv_first = nn.Conv2d(config.channels, config.width, 3, padding=1)
        self.patch_embed = PatchNorm(config.width)
        self.layers = nn.ModuleList(Layer(config, *sizes) for sizes in zip(config.depths, config.heads, strict=True))
        self.norm = nn.LayerNorm(config.width)
        self.conv_after_body = body_conv(config.body_conv, config.width)
        self._make_tail(config)

    def _make_tail(self, config: SwinIRConfig) -> None:
        def conv(inside: int, outside: int) -> nn.Conv2d:
            return nn.Conv2d(inside, outside, 3, padding=1)

        features = TAIL_FEATURES
        if config.tail in ("pixelshuffle", "nearest+conv"):
            self.conv_before_upsample = nn.Sequential(conv(config.width, features), nn.LeakyReLU())
        if config.tail == "pixelshuffle":
            factors = [3] if config.scale == 3 else [2] * (config.scale.bit_length() - 1)
            steps = [(conv(features, features * factor**2), nn.PixelShuffle(factor)) for factor in factors]
            self.upsample = nn.Sequential(*(module for step in steps for module in step))
        elif config.tail == "pixelshuffledirect":
            direct = conv(config.width, config.channels * config.scale**2)
            self.upsample = nn.Sequential(direct, nn.PixelShuffle(config.scale))
        elif config.tail == "nearest+conv":
            self.conv_up1 = conv(features, features)
            if config.scale == 4:
                self.conv_up2 = conv(features, features)
            self.conv_hr = conv(features, features)
        if config.tail != "pixelshuffledirect":
            self.conv_last = conv(config.width if config.tail == "none" else features, config.channels)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> (B, C, H*s, W*s), not clamped."""
        return run_whole(self, pixels)

    def prepare(self, pixels: Tensor) -> Tensor:
        """(B, C, H, W) -> the same, padded to whole windows."""
        size = self.config.window
        return reflect(pixels, missing(pixels.shape[3], size), missing(pixels.shape[2], size))

    def stages(self) -> tuple[Stage, ...]:
        """The first convolution, each layer, the rest; between them (B, D + C, H, W): tokens and the picture.

        What the first convolution gives is added once more at the end. It is computed anew there: kept, it would take
        half of the memory.
        """
        config, size = self.config, self.config.window
        state = config.width + config.channels
        convolutions = 1 if config.body_conv == "1conv" else 2
        held = 2 * state + 7 * config.width + 2 * max(config.mlp_width, 3 * config.width)

        def whole_windows(reach: int) -> int:
            return reach + missing(reach, size)

        def layer_reach(depth: int) -> int:
            # A block spoils a window where tiles are cut; the shifted one after it half a window more.
            blocks = depth // 2 * size - (0 if depth % 2 else size // 2)
            return whole_windows(blocks + convolutions)

        first = Stage(self._first, whole_windows(1), state, 4 * (config.width + config.channels), align=size)
        layers = [
            Stage(Around(layer, config.width), layer_reach(depth), state, held, align=size)
            for layer, depth in zip(self.layers, config.depths, strict=True)
        ]
        enlarged = config.channels if config.tail in ("none", "pixelshuffledirect") else TAIL_FEATURES
        tail_floats = state + 5 * config.width + 3 * enlarged * config.scale**2
        tail_reach = whole_windows(convolutions + 3)  # what comes after the body sees 3 pixels
        return (first, *layers, Stage(self._tail, tail_reach, config.channels, tail_floats, config.scale, size))

    def _mean(self, like: Tensor) -> Tensor:
        mean = RGB_MEAN if self.channels == 3 else (0.0,) * self.channels
        return like.new_tensor(mean).view(1, -1, 1, 1)

    def _first(self, pixels: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> (B, D + C, H, W)."""
        x = (pixels - self._mean(pixels)) * self.config.value_range
        features = self.conv_first(x)  # (B, D, H, W)
        tokens = self.patch_embed.norm(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)  # (B, D, H, W)
        return torch.cat([tokens, x], 1)

    def _tail(self, state: Tensor) -> Tensor:
        """(B, D + C, H, W) -> (B, C, H*s, W*s) in [0, 1], about."""
        tokens, x = state[:, : self.config.width], state[:, self.config.width :]
        tokens = self.norm(tokens.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        features = self.conv_after_body(tokens) + self.conv_first(x)  # (B, D, H, W)
        return self._enlarge(features, x) / self.config.value_range + self._mean(x)

    def _enlarge(self, features: Tensor, x: Tensor) -> Tensor:
        """(B, D, H, W) -> (B, C, H*s, W*s)."""
        tail = self.config.tail
        if tail == "none":
            return cast(Tensor, x + self.conv_last(features))
        if tail == "pixelshuffledirect":
            return cast(Tensor, self.upsample(features))
        features = self.conv_before_upsample(features)  # (B, 64, H, W)
        if tail == "pixelshuffle":
            return cast(Tensor, self.conv_last(self.upsample(features)))
        for conv in [self.conv_up1, *([self.conv_up2] if self.scale == 4 else [])]:
            features = F.leaky_relu(conv(F.interpolate(features, scale_factor=2, mode="nearest")), SLOPE)
        return cast(Tensor, self.conv_last(F.leaky_relu(self.conv_hr(features), SLOPE)))
