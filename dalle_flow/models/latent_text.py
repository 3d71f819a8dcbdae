"""The text encoder of latent diffusion (`bert.pt` of GLID-3 XL): a transformer without mask, trained with the UNet.

Source: Rombach et al. 2022 (arXiv:2112.10752), text-to-image 1.4B; reference code CompVis/latent-diffusion
(BERTEmbedder over x-transformers), Jack000/glid-3-xl. Pre-norm layers; the attention is 512 wide, whatever the model's
width is. Every position is looked at, padding too: the UNet was trained to read it.
Weights: bert.pt, renamed by weights/glid3.py; the embedded family's, in our own layout.
Parity: tests/parity/test_glid3.py, equal to the last bit of float32's rounding.

Shapes: B batch, T text length, D width.
"""

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .attention import attend


@dataclass(frozen=True)
class LatentTextConfig:
    """Sizes; the defaults are those of the published bert.pt."""

    vocab_size: int = 30_522
    max_length: int = 77
    width: int = 1280
    layers: int = 32
    heads: int = 8
    head_width: int = 64

    @property
    def mlp_width(self) -> int:
        return 4 * self.width


class TextAttention(nn.Module):
    def __init__(self, config: LatentTextConfig):
        super().__init__()
        inner = config.heads * config.head_width
        self.heads = config.heads
        self.q_proj = nn.Linear(config.width, inner, bias=False)
        self.k_proj = nn.Linear(config.width, inner, bias=False)
        self.v_proj = nn.Linear(config.width, inner, bias=False)
        self.out_proj = nn.Linear(inner, config.width)

    def forward(self, x: Tensor) -> Tensor:
        projected = (self.q_proj(x), self.k_proj(x), self.v_proj(x))  # (B, T, heads*head_width) each
        q, k, v = (rearrange(p, "b t (h d) -> b h t d", h=self.heads) for p in projected)
        return cast(Tensor, self.out_proj(rearrange(attend(q, k, v), "b h t d -> b t (h d)")))  # (B, T, D)


class TextLayer(nn.Module):
    def __init__(self, config: LatentTextConfig):
        super().__init__()
        self.attn_norm = nn.LayerNorm(config.width)
        self.attn = TextAttention(config)
        self.mlp_norm = nn.LayerNorm(config.width)
        self.fc1 = nn.Linear(config.width, config.mlp_width)
        self.fc2 = nn.Linear(config.mlp_width, config.width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.attn_norm(x))
        return cast(Tensor, x + self.fc2(F.gelu(self.fc1(self.mlp_norm(x)))))


class LatentTextEncoder(nn.Module):
    """Tokens (B, T) int64 in [0, vocab_size), T at most `max_length` -> states (B, T, D) for the UNet's attention."""

    def __init__(self, config: LatentTextConfig | None = None):
        super().__init__()
        self.config = config = config or LatentTextConfig()
        self.token_embedding = nn.Embedding(config.vocab_size, config.width)
        self.position_embedding = nn.Embedding(config.max_length, config.width)
        self.layers = nn.ModuleList(TextLayer(config) for _ in range(config.layers))
        self.final_norm = nn.LayerNorm(config.width)

    def forward(self, tokens: Tensor) -> Tensor:
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.token_embedding(tokens) + self.position_embedding(positions)  # (B, T, D)
        for layer in self.layers:
            x = layer(x)
        return cast(Tensor, self.final_norm(x))
