"""VQGAN: pictures as a grid of integer codes, and back. The picture half of DALL·E Mini.

Source: Esser et al. 2021 (arXiv:2012.09841); reference code CompVis/taming-transformers, patil-suraj/vqgan-jax.
Weights: dalle-mini/vqgan_imagenet_f16_16384. Parameters carry taming's names (`encoder.down.0.block.1.conv1.weight`,
`decoder.up.4.attn.0.q.weight`, `quantize.embedding.weight`); the Flax file's are the same with `down_0/block_1`.
Parity: tests/parity/test_vqgan.py; codes equal, pixels within 2e-5 of the Flax original.
Differs: pixels in [0, 1] in and out (as vqgan-jax; taming has [-1, 1]); no dropout.

Shapes: B batch, K codes, h w code grid, C channels, H W pixels. Row-major grid, H = h * downscale.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import isqrt
from typing import Any, Self, cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..errors import WeightsError
from .attention import attend
from .published import read_sizes

GROUP_NORM_EPS = 1e-6  # as trained; PyTorch's default is 1e-5
DISTANCES_AT_ONCE = 2**24  # floats of the distance table that `encode` holds at a time: 64 MiB

# Published config.json -> field.
RENAMED = {"ch": "base_channels", "ch_mult": "channel_mults", "embed_dim": "code_dim", "n_embed": "num_codes"}
FIELDS = RENAMED | {key: key for key in ("num_res_blocks", "attn_resolutions", "resolution", "z_channels")}
# Switches of the original that no published checkpoint turns: another value means a network we do not build.
OFF = {"double_z": False, "dropout": 0, "give_pre_end": False}
SWITCHES = {**OFF, "in_channels": 3, "out_ch": 3, "resamp_with_conv": True}


@dataclass(frozen=True)
class VQGANConfig:
    """Sizes; the defaults are those of the published `f16_16384` checkpoint."""

    base_channels: int = 128
    channel_mults: tuple[int, ...] = (1, 1, 2, 2, 4)  # finest level first
    num_res_blocks: int = 2  # per level of the encoder; the decoder has one more
    attn_resolutions: tuple[int, ...] = (16,)  # grid sides, at `resolution`, that get attention
    resolution: int = 256  # pixels; decides which levels have attention, other sizes work too
    z_channels: int = 256  # channels between the convolutions and the 1x1 convs around the codebook
    code_dim: int = 256  # width of one codebook row
    num_codes: int = 16_384  # rows of the codebook
    norm_groups: int = 32  # not in the published file: there it is always 32

    def __post_init__(self) -> None:
        for channels in {self.base_channels * m for m in self.channel_mults}:
            if channels % self.norm_groups:
                raise ValueError(f"norm_groups={self.norm_groups} does not divide a level's {channels} channels")

    @property
    def downscale(self) -> int:
        """Pixels per code along one side."""
        return int(2 ** (len(self.channel_mults) - 1))

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level, finest first."""
        return tuple(self.base_channels * m for m in self.channel_mults)

    def has_attention(self, level: int) -> bool:
        return self.resolution // 2**level in self.attn_resolutions

    @classmethod
    def from_dict(cls, published: Mapping[str, Any]) -> Self:
        """Read a published config.json.

        Raises:
            WeightsError: a size is missing, or a key asks for a network other than the published one.
        """
        besides = ("num_resolutions", "norm_groups")
        sizes = read_sizes("VQGAN", published, FIELDS, SWITCHES, besides)
        levels = published.get("num_resolutions", len(sizes["channel_mults"]))
        if levels != len(sizes["channel_mults"]):
            raise WeightsError(f"VQGAN config: num_resolutions={levels} but ch_mult={published['ch_mult']}")
        return cls(**sizes, norm_groups=published.get("norm_groups", cls.norm_groups))

    def to_dict(self) -> dict[str, Any]:
        """The published form: what `from_dict` reads."""
        fields = asdict(self)
        sizes = {key: list(v) if isinstance(v := fields[field], tuple) else v for key, field in FIELDS.items()}
        own = {} if self.norm_groups == 32 else {"norm_groups": self.norm_groups}
        return {**sizes, **SWITCHES, "num_resolutions": len(self.channel_mults), **own}


class GroupNorm(nn.GroupNorm):
    """GroupNorm that stays exact in float32 inference on the CPU.

    PyTorch's channels-last float32 CPU kernel sums squares in one pass: measured off by 7e-4 on a 256x256 plane of
    mean -0.9 and deviation 0.19, where its contiguous kernel is off by 1e-6 in the same time (a norm written out in
    two passes: 2e-5, in three times the time). So inference takes the contiguous one; training keeps its layout.
    """

    def __init__(self, groups: int, channels: int):
        super().__init__(groups, channels, eps=GROUP_NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training and x.is_cpu and x.dtype == torch.float32:
            x = x.contiguous()
        return F.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


class ResnetBlock(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, groups: int):
        super().__init__()
        self.norm1 = GroupNorm(groups, in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = GroupNorm(groups, out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.nin_shortcut = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.silu(self.norm1(x)))  # (B, C_out, h, w)
        y = self.conv2(F.silu(self.norm2(y)))
        return cast(Tensor, self.nin_shortcut(x) + y)


class AttnBlock(nn.Module):
    """Single-head self-attention over all positions of the grid."""

    def __init__(self, channels: int, groups: int):
        super().__init__()
        self.norm = GroupNorm(groups, channels)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        n = self.norm(x)
        q, k, v = (rearrange(f(n), "b c h w -> b 1 (h w) c") for f in (self.q, self.k, self.v))
        a = attend(q, k, v)  # (B, 1, h*w, C)
        return cast(Tensor, x + self.proj_out(rearrange(a, "b 1 (h w) c -> b c h w", h=x.shape[-2])))


class Downsample(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.conv(F.pad(x, (0, 1, 0, 1))))  # (B, C, h/2, w/2); padded right and bottom only


class Upsample(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest")))  # (B, C, 2h, 2w)


class Level(nn.Module):
    """The blocks of one resolution, each with attention if the level has it, then the resize named, if any."""

    def __init__(self, config: VQGANConfig, level: int, blocks: int, in_channels: int, resize: str = ""):
        super().__init__()
        width, groups = config.widths[level], config.norm_groups
        self.block = nn.ModuleList(ResnetBlock(in_channels if j == 0 else width, width, groups) for j in range(blocks))
        self.attn = nn.ModuleList(AttnBlock(width, groups) for _ in range(blocks) if config.has_attention(level))
        self.resize = resize  # the published name of that child
        if resize:
            self.add_module(resize, {"downsample": Downsample, "upsample": Upsample}[resize](width))

    def forward(self, x: Tensor) -> Tensor:
        for j, block in enumerate(self.block):
            x = block(x)  # (B, width, h, w)
            if len(self.attn):
                x = self.attn[j](x)
        return cast(Tensor, self.get_submodule(self.resize)(x)) if self.resize else x


class Mid(nn.Module):
    def __init__(self, channels: int, groups: int):
        super().__init__()
        self.block_1 = ResnetBlock(channels, channels, groups)
        self.attn_1 = AttnBlock(channels, groups)
        self.block_2 = ResnetBlock(channels, channels, groups)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.block_2(self.attn_1(self.block_1(x))))


class Encoder(nn.Module):
    """(B, 3, H, W) -> (B, z_channels, h, w)."""

    def __init__(self, config: VQGANConfig):
        super().__init__()
        widths = config.widths
        self.conv_in = nn.Conv2d(3, config.base_channels, 3, padding=1)
        self.down = nn.ModuleList()
        for i in range(len(widths)):
            in_channels = widths[i - 1] if i else config.base_channels
            resize = "downsample" if i < len(widths) - 1 else ""
            self.down.append(Level(config, i, config.num_res_blocks, in_channels, resize))
        self.mid = Mid(widths[-1], config.norm_groups)
        self.norm_out = GroupNorm(config.norm_groups, widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], config.z_channels, 3, padding=1)

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.conv_in(pixels)  # (B, base_channels, H, W)
        for level in self.down:
            x = level(x)  # (B, width, h', w'), halved by all levels but the last
        x = self.mid(x)
        return cast(Tensor, self.conv_out(F.silu(self.norm_out(x))))  # (B, z_channels, h, w)


class Decoder(nn.Module):
    """(B, z_channels, h, w) -> (B, 3, H, W)."""

    def __init__(self, config: VQGANConfig):
        super().__init__()
        widths = config.widths
        self.conv_in = nn.Conv2d(config.z_channels, widths[-1], 3, padding=1)
        self.mid = Mid(widths[-1], config.norm_groups)
        self.up = nn.ModuleList()  # finest first, as the published file names them; they run coarsest first
        for i in range(len(widths)):
            in_channels = widths[min(i + 1, len(widths) - 1)]
            self.up.append(Level(config, i, config.num_res_blocks + 1, in_channels, "upsample" if i else ""))
        self.norm_out = GroupNorm(config.norm_groups, widths[0])
        self.conv_out = nn.Conv2d(widths[0], 3, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = self.mid(self.conv_in(z))  # (B, widths[-1], h, w)
        for level in reversed(list(self.up)):
            x = level(x)  # (B, width, h', w'), doubled by all levels but the finest
        return cast(Tensor, self.conv_out(F.silu(self.norm_out(x))))  # (B, 3, H, W)


class Codebook(nn.Module):
    def __init__(self, num_codes: int, code_dim: int):
        super().__init__()
        self.embedding = nn.Embedding(num_codes, code_dim)


class VQGAN(nn.Module):
    """Pictures to codes and back; see the module docstring. Works at any picture size that `downscale` divides."""

    def __init__(self, config: VQGANConfig | None = None):
        super().__init__()
        self.config = config = config or VQGANConfig()
        self.encoder = Encoder(config)
        self.quant_conv = nn.Conv2d(config.z_channels, config.code_dim, 1)
        self.quantize = Codebook(config.num_codes, config.code_dim)
        self.post_quant_conv = nn.Conv2d(config.code_dim, config.z_channels, 1)
        self.decoder = Decoder(config)

    def encode_prequant(self, pixels: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) in [0, 1] -> what codes are nearest to (B, code_dim, h, w). ValueError on odd sizes."""
        scale = self.config.downscale
        if pixels.ndim != 4 or pixels.shape[1] != 3 or pixels.shape[2] % scale or pixels.shape[3] % scale:
            raise ValueError(f"pixels must be (B, 3, H, W), H and W multiples of {scale}, got {tuple(pixels.shape)}")
        return cast(Tensor, self.quant_conv(self.encoder(pixels)))  # (B, code_dim, h, w)

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) float in [0, 1] -> codes (B, K) int64: the nearest codebook row, the first on ties."""
        prequant = self.encode_prequant(pixels).float()
        rows = rearrange(prequant, "b c h w -> (b h w) c")  # (B*K, code_dim)
        book = self.quantize.embedding.weight.float()  # (num_codes, code_dim)
        norms = book.square().sum(1)  # |row|^2 is the same for every code and is left out
        at_once = max(1, DISTANCES_AT_ONCE // self.config.num_codes)
        with torch.autocast(pixels.device.type, enabled=False):
            codes = [torch.addmm(norms, r, book.T, alpha=-2).argmin(1) for r in torch.split(rows, at_once)]
        return torch.cat(codes).view(pixels.shape[0], -1)  # (B, K)

    def lookup(self, codes: Tensor) -> Tensor:
        """Codes (B, K), row-major over a square grid, -> their codebook rows (B, code_dim, h, w).

        Raises ValueError when K is no square or a code lies outside the codebook.
        """
        side = isqrt(codes.shape[1])
        if side * side != codes.shape[1]:
            raise ValueError(f"codes must fill a square grid, got K={codes.shape[1]}")
        low, high = (int(v) for v in codes.aminmax()) if codes.numel() else (0, 0)
        if low < 0 or high >= self.config.num_codes:
            allowed = f"[0, {self.config.num_codes})"
            raise ValueError(f"codes must lie in {allowed}, got [{low}, {high}]; was the start token left in?")
        return cast(Tensor, rearrange(self.quantize.embedding(codes), "b (h w) c -> b c h w", h=side))

    def decode(self, quantized: Tensor) -> Tensor:
        """Codebook rows (B, code_dim, h, w) -> pictures (B, 3, H, W), not clamped; differentiable."""
        return cast(Tensor, self.decoder(self.post_quant_conv(quantized)))

    @torch.no_grad()
    def decode_codes(self, codes: Tensor) -> Tensor:
        """Codes (B, K) int64 in [0, num_codes) -> pictures (B, 3, H, W) in [0, 1], RGB; H = W = downscale * sqrt(K).

        To bytes as the original does: times 255, then truncate. Raises ValueError as `lookup` does.
        On the CPU one by one: a batch saves 15 % of the time, but a picture's bits would depend on it.
        """
        quantized = self.lookup(codes)  # (B, code_dim, h, w)
        parts = torch.split(quantized, 1) if quantized.is_cpu else (quantized,)
        return torch.cat([self.decode(part) for part in parts]).clamp(0, 1)
