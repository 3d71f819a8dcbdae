"""CLIP: one vector for a picture, one for a text, near each other where they belong together. Ranks the candidates.

Source: Radford et al. 2021 (arXiv:2103.00020); reference code openai/CLIP, `clip/model.py`.
Weights: every published ViT (ViT-B/32 ... ViT-L/14@336px), and the embedded family's own.
Parity: tests/parity/test_clip.py; features within 2e-5 of the reference.
Differs: ViT image tower only (no ResNets); attention by SDPA; any number of tokens up to the context length, because
    the text tower is causal and what follows the end of the text changes nothing; `eot_token_id` for vocabularies in
    which the end of text is not the largest id.
Own code rather than transformers' CLIPModel: importing transformers costs seconds at every start, which the embedded
family must not pay. Parameter names are the reference's, so loading needs no table.

Shapes: B batch, N pictures, T text length, C channels, H W pixels, h w grid of patches, D width, E shared width.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Activation = Literal["quick_gelu", "gelu"]


@dataclass(frozen=True)
class CLIPConfig:
    """Sizes; the defaults are those of ViT-L/14@336px."""

    embed_dim: int = 768  # width shared by both towers: E
    image_size: int = 336
    patch_size: int = 14
    vision_width: int = 1024
    vision_layers: int = 24
    text_width: int = 768
    text_layers: int = 12
    vocab_size: int = 49_408
    context_length: int = 77
    head_width: int = 64  # in both towers of every OpenAI model
    vision_head_width: int | None = None  # None: head_width
    vision_mlp_width: int | None = None  # None: 4 * vision_width
    text_mlp_width: int | None = None  # None: 4 * text_width
    activation: Activation = "quick_gelu"  # "gelu": the exact one, as LAION's models have
    eot_token_id: int | None = None  # None: the end of the text is its largest id

    def __post_init__(self) -> None:
        if self.image_size % self.patch_size:
            raise ValueError(f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}")
        for tower, width, head in (
            ("vision", self.vision_width, self.vision_head_width or self.head_width),
            ("text", self.text_width, self.head_width),
        ):
            if width % head:
                raise ValueError(f"{tower}_width {width} is not a multiple of its head width {head}")
        if self.activation not in ("quick_gelu", "gelu"):
            raise ValueError(f"activation must be 'quick_gelu' or 'gelu', got {self.activation!r}")

    @property
    def patches(self) -> int:
        """Patches in a picture: h * w."""
        return (self.image_size // self.patch_size) ** 2

    @classmethod
    def from_state_dict(
        cls,
        shapes: Mapping[str, Sequence[int]],
        *,
        head_width: int = 64,
        vision_head_width: int | None = None,
        activation: Activation = "quick_gelu",
        eot_token_id: int | None = None,
    ) -> Self:
        """Read every size off the shapes of the weights, by the reference's names.

        What shapes cannot tell (the arguments) has the values of every OpenAI model.

        Raises:
            ValueError: not a CLIP with a ViT image tower, or a key is missing.
        """
        if "visual.layer1.0.conv1.weight" in shapes:
            raise ValueError("this CLIP has a ResNet image tower; only ViT towers are supported, such as ViT-L/14")
        try:
            vision_width, _, patch_size, _ = shapes["visual.conv1.weight"]
            grid = math.isqrt(shapes["visual.positional_embedding"][0] - 1)
            return cls(
                embed_dim=shapes["text_projection"][1],
                image_size=grid * patch_size,
                patch_size=patch_size,
                vision_width=vision_width,
                vision_layers=_count_layers(shapes, "visual.transformer.resblocks."),
                text_width=shapes["ln_final.weight"][0],
                text_layers=_count_layers(shapes, "transformer.resblocks."),
                vocab_size=shapes["token_embedding.weight"][0],
                context_length=shapes["positional_embedding"][0],
                head_width=head_width,
                vision_head_width=vision_head_width,
                vision_mlp_width=shapes["visual.transformer.resblocks.0.mlp.c_fc.weight"][0],
                text_mlp_width=shapes["transformer.resblocks.0.mlp.c_fc.weight"][0],
                activation=activation,
                eot_token_id=eot_token_id,
            )
        except KeyError as error:
            raise ValueError(f"not the weights of a CLIP with a ViT image tower: no key {error}") from None


def _count_layers(shapes: Mapping[str, Sequence[int]], prefix: str) -> int:
    return len({key.removeprefix(prefix).split(".")[0] for key in shapes if key.startswith(prefix)})


class Attention(nn.Module):
    """Multi-head self-attention; parameters named as nn.MultiheadAttention names them."""

    def __init__(self, width: int, head_width: int, causal: bool):
        super().__init__()
        self.head_width = head_width
        self.causal = causal
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, t, d = x.shape
        qkv = F.linear(x, self.in_proj_weight, self.in_proj_bias)  # (B, T, 3D)
        q, k, v = qkv.view(b, t, 3, -1, self.head_width).permute(2, 0, 3, 1, 4)  # (B, heads, T, head_width) each
        y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.out_proj(y.transpose(1, 2).reshape(b, t, d))  # type: ignore[no-any-return]


class MLP(nn.Module):
    def __init__(self, width: int, mlp_width: int, activation: Activation):
        super().__init__()
        self.quick = activation == "quick_gelu"
        self.c_fc = nn.Linear(width, mlp_width)
        self.c_proj = nn.Linear(mlp_width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.c_fc(x)
        x = x * torch.sigmoid(1.702 * x) if self.quick else F.gelu(x)
        return self.c_proj(x)  # type: ignore[no-any-return]


class ResidualAttentionBlock(nn.Module):
    def __init__(self, width: int, head_width: int, mlp_width: int, activation: Activation, causal: bool):
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = Attention(width, head_width, causal)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = MLP(width, mlp_width, activation)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))  # type: ignore[no-any-return]


class Transformer(nn.Module):
    """(B, T, D) -> (B, T, D)."""

    def __init__(
        self, width: int, layers: int, head_width: int, mlp_width: int, activation: Activation, *, causal: bool
    ):
        super().__init__()
        self.width = width
        self.resblocks = nn.ModuleList(
            ResidualAttentionBlock(width, head_width, mlp_width, activation, causal) for _ in range(layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        for block in self.resblocks:
            x = block(x)
        return x


class VisionTransformer(nn.Module):
    """(B, 3, H, W) -> (B, E): patches as tokens, and one token more that collects the picture."""

    def __init__(self, config: CLIPConfig):
        super().__init__()
        width = config.vision_width
        self.image_size = config.image_size
        self.conv1 = nn.Conv2d(3, width, config.patch_size, stride=config.patch_size, bias=False)
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.positional_embedding = nn.Parameter(torch.empty(config.patches + 1, width))
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = Transformer(
            width,
            config.vision_layers,
            config.vision_head_width or config.head_width,
            config.vision_mlp_width or 4 * width,
            config.activation,
            causal=False,
        )
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(torch.empty(width, config.embed_dim))

    def forward(self, pixels: Tensor) -> Tensor:
        if pixels.shape[1:] != (3, self.image_size, self.image_size):
            raise ValueError(f"pixels must be (B, 3, {self.image_size}, {self.image_size}), got {tuple(pixels.shape)}")
        return self.pool(self.transformer(self.embed(pixels)))

    def embed(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W), sides any multiples of the patch -> (B, 1 + h*w, D): what the first block reads."""
        x = self.conv1(pixels)  # (B, D, h, w)
        positions = self.positions(x.shape[2], x.shape[3])
        x = x.flatten(2).transpose(1, 2)  # (B, h*w, D)
        first = self.class_embedding.to(x.dtype).expand(x.shape[0], 1, -1)  # (B, 1, D)
        x = torch.cat([first, x], dim=1) + positions.to(x.dtype)  # (B, 1 + h*w, D)
        return self.ln_pre(x)  # type: ignore[no-any-return]

    def positions(self, height: int, width: int) -> Tensor:
        """(1 + h*w, D) for a grid of patches; between the learnt places, where it is another, bicubically."""
        table: Tensor = self.positional_embedding
        side = math.isqrt(len(table) - 1)
        if (height, width) == (side, side):
            return table
        grid = table[1:].t().reshape(1, -1, side, side)  # (1, D, side, side)
        grid = F.interpolate(grid, (height, width), mode="bicubic")[0]  # (D, h, w)
        return torch.cat([table[:1], grid.flatten(1).t()])

    def pool(self, states: Tensor) -> Tensor:
        """(B, 1 + h*w, D) after the last block -> (B, E) features."""
        return self.ln_post(states[:, 0]) @ self.proj  # type: ignore[no-any-return]


class CLIP(nn.Module):
    def __init__(self, config: CLIPConfig | None = None):
        super().__init__()
        self.config = config = config or CLIPConfig()
        width = config.text_width
        self.visual = VisionTransformer(config)
        self.token_embedding = nn.Embedding(config.vocab_size, width)
        self.positional_embedding = nn.Parameter(torch.empty(config.context_length, width))
        self.transformer = Transformer(
            width,
            config.text_layers,
            config.head_width,
            config.text_mlp_width or 4 * width,
            config.activation,
            causal=True,
        )
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.empty(width, config.embed_dim))
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.reset_parameters()

    def encode_image(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) pixels, normalised as the model expects -> (B, E) features, not of unit length."""
        return self.visual(pixels)  # type: ignore[no-any-return]

    def encode_text(self, tokens: Tensor) -> Tensor:
        """(B, T) int64 tokens, T <= context length -> (B, E) features at the end of each text, not of unit length."""
        states = self.text_states(tokens)  # (B, T, D)
        ends = states[torch.arange(tokens.shape[0], device=tokens.device), self.end_of_text(tokens)]  # (B, D)
        return ends @ self.text_projection

    def text_states(self, tokens: Tensor) -> Tensor:
        """(B, T) tokens -> (B, T, D): after the last norm, before the projection."""
        length = tokens.shape[1]
        if length > self.config.context_length:
            raise ValueError(f"a text holds at most {self.config.context_length} tokens, got T={length}")
        x = self.token_embedding(tokens) + self.positional_embedding[:length]  # (B, T, D)
        return self.ln_final(self.transformer(x))  # type: ignore[no-any-return]

    def end_of_text(self, tokens: Tensor) -> Tensor:
        """(B, T) tokens -> (B,) place of the first end-of-text token."""
        if self.config.eot_token_id is None:
            return tokens.argmax(dim=-1)
        return (tokens == self.config.eot_token_id).int().argmax(dim=-1)

    def forward(self, pixels: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Logits per picture (N, B) and per text (B, N): the cosine times the learnt scale."""
        cosine = similarity(self.encode_image(pixels), self.encode_text(tokens))
        logits = self.logit_scale.exp() * cosine
        return logits, logits.t()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """The reference's initialisation, from torch's global generator."""
        visual, scale = self.visual, self.config.vision_width**-0.5
        for parameter in (visual.class_embedding, visual.positional_embedding, visual.proj):
            nn.init.normal_(parameter, std=scale)
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.positional_embedding, std=0.01)
        nn.init.normal_(self.text_projection, std=self.config.text_width**-0.5)
        for tower in (visual.transformer, self.transformer):
            width = tower.width
            stds = {"in_proj_weight": width**-0.5, "c_fc.weight": (2 * width) ** -0.5}
            stds["out_proj.weight"] = stds["c_proj.weight"] = width**-0.5 * (2 * len(tower.resblocks)) ** -0.5
            for name, parameter in tower.named_parameters():
                kind = ".".join(name.split(".")[3:])  # what follows resblocks.{i}.{attn,mlp,ln_1,ln_2}
                if kind in stds:
                    nn.init.normal_(parameter, std=stds[kind])
                elif kind.endswith("bias"):
                    nn.init.zeros_(parameter)


def similarity(image_features: Tensor, text_features: Tensor) -> Tensor:
    """(N, E) and (B, E) -> (N, B) cosines in [-1, 1]: float32, also under autocast."""
    with torch.autocast(image_features.device.type, enabled=False):
        return F.normalize(image_features.float(), dim=-1) @ F.normalize(text_features.float(), dim=-1).t()
