"""CLIP's text tower alone, as the text encoder of Stable Diffusion: a state for every token instead of one vector.

Source: Radford et al. 2021 (arXiv:2103.00020); Rombach et al. 2022 (arXiv:2112.10752) for the states after the last
norm, Podell et al. 2023 (arXiv:2307.01952) for those before the last layer.
Weights: ViT-L/14's tower in version 1, OpenCLIP's ViT-H/14 in version 2, ViT-L/14's and ViT-bigG/14's in XL.
Parity: tests/parity/test_sd1.py; states within 1e-5 of transformers' CLIPTextModel.
Parameter names are those of `clip.py` without the picture tower.

Shapes: B batch, T text length, D width, E width of the vector shared with pictures.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from .clip import Activation, Transformer


@dataclass(frozen=True)
class ClipTextConfig:
    """Sizes; the defaults are those of Stable Diffusion version 1."""

    width: int = 768
    layers: int = 12
    heads: int = 12
    mlp_width: int = 3072
    vocab_size: int = 49_408
    context_length: int = 77
    activation: Activation = "quick_gelu"
    projection: int | None = None  # E; None: it gives states only
    eot_token_id: int | None = None  # None: the end of the text is its largest id

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"{self.heads} attention heads do not divide a width of {self.width}")
        if self.activation not in ("quick_gelu", "gelu"):
            raise ValueError(f"activation must be 'quick_gelu' or 'gelu', got {self.activation!r}")

    @classmethod
    def from_shapes(
        cls,
        shapes: Mapping[str, Sequence[int]],
        *,
        heads: int | None = None,
        activation: Activation = "quick_gelu",
        eot_token_id: int | None = None,
    ) -> Self:
        """Read every size off the shapes, by our names. What they do not tell (the arguments) is as in version 1.

        Raises:
            ValueError: not the weights of CLIP's text tower.
        """
        try:
            width = shapes["ln_final.weight"][0]
            return cls(
                width=width,
                layers=len({key.split(".")[2] for key in shapes if key.startswith("transformer.resblocks.")}),
                heads=heads or max(1, width // 64),
                mlp_width=shapes["transformer.resblocks.0.mlp.c_fc.weight"][0],
                vocab_size=shapes["token_embedding.weight"][0],
                context_length=shapes["positional_embedding"][0],
                activation=activation,
                projection=shapes["text_projection"][1] if "text_projection" in shapes else None,
                eot_token_id=eot_token_id,
            )
        except KeyError as error:
            raise ValueError(f"not the weights of CLIP's text tower: no key {error}") from None


class TextStates(NamedTuple):
    """What the UNet may be told of a text."""

    last: Tensor  # (B, T, D) after the last norm
    penultimate: Tensor  # (B, T, D) before the last layer, without a norm
    vector: Tensor | None  # (B, E) of the end of the text; None where the weights have no projection


class ClipText(nn.Module):
    def __init__(self, config: ClipTextConfig | None = None):
        super().__init__()
        self.config = config = config or ClipTextConfig()
        width = config.width
        self.token_embedding = nn.Embedding(config.vocab_size, width)
        self.positional_embedding = nn.Parameter(torch.empty(config.context_length, width))
        self.transformer = Transformer(
            width, config.layers, width // config.heads, config.mlp_width, config.activation, causal=True
        )
        self.ln_final = nn.LayerNorm(width)
        if config.projection is not None:
            self.text_projection = nn.Parameter(torch.empty(width, config.projection))
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=width**-0.5)

    def forward(self, tokens: Tensor) -> TextStates:
        """(B, T) int64 tokens, T <= context length -> states. All T are read: padding is attended to."""
        length = tokens.shape[1]
        if length > self.config.context_length:
            raise ValueError(f"a text holds at most {self.config.context_length} tokens, got T={length}")
        x = self.token_embedding(tokens) + self.positional_embedding[:length]  # (B, T, D)
        before = x
        for block in self.transformer.resblocks:
            before, x = x, block(x)  # (B, T, D)
        last = self.ln_final(x)  # (B, T, D)
        if self.config.projection is None:
            return TextStates(last, before, None)
        ends = last[torch.arange(len(tokens), device=tokens.device), self.end_of_text(tokens)]  # (B, D)
        return TextStates(last, before, ends @ self.text_projection)

    def end_of_text(self, tokens: Tensor) -> Tensor:
        """(B, T) tokens -> (B,) place of the first end-of-text token."""
        if self.config.eot_token_id is None:
            return tokens.argmax(dim=-1)
        return (tokens == self.config.eot_token_id).int().argmax(dim=-1)
