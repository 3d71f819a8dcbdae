"""CLIPSeg: where in a picture is what a text names. CLIP sees, a small transformer decodes what it saw into a mask.

Source: Lüddecke and Ecker 2022 (arXiv:2112.10003); reference code timojl/clipseg, `models/clipseg.py`
    (CLIPDensePredT).
Weights: `rd64-uni.pth`, `rd64-uni-refined.pth` (decoders, on OpenAI's ViT-B/16), CIDAS/clipseg-rd64-refined of
    transformers, and the embedded family's own.
Parity: tests/parity/test_clipseg.py; logits within 2e-5 of the reference, at sizes CLIP was trained on and others.
Differs: text condition only, no condition by a second picture; square pictures only (the reference fails on others);
    the blocks after the deepest one that is decoded are left out, because nothing reads them; -1 in `extract_layers`
    means what the first block reads, which the published models do not use.
Parameter names are the reference's, CLIP's under `clip.`. The reference's `reduce`, which it never calls, is left out.

Shapes: B batch, T text length, H W pixels, h w grid of patches, D width of CLIP's image tower, E its shared width,
R width of the decoder.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

import torch.nn.functional as F
from torch import Tensor, nn

from .clip import CLIP, Attention, CLIPConfig

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # RGB in [0, 1]; the published decoders were trained with these
IMAGENET_STD = (0.229, 0.224, 0.225)
VIT_B_16 = CLIPConfig(512, 224, 16, 768, 12, 512, 12)


@dataclass(frozen=True)
class CLIPSegConfig:
    """Sizes; the defaults are those of `rd64-uni.pth` on ViT-B/16."""

    clip: CLIPConfig = field(default_factory=lambda: VIT_B_16)
    reduce_dim: int = 64  # width of the decoder: R
    heads: int = 4
    mlp_width: int = 2048
    extract_layers: tuple[int, ...] = (3, 6, 9)  # CLIP's blocks whose output is decoded, rising; -1: before the first
    condition_layer: int = 0  # the decoder's block before which the text comes in
    kernels: tuple[int, ...] = (16,)  # of the transposed convolutions; two of them: the refined form
    input_size: int = 352  # pixels per side that pictures are resized to
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def __post_init__(self) -> None:
        self._check_types()
        layers, patch = self.extract_layers, self.clip.patch_size
        if not layers or list(layers) != sorted(set(layers)) or not -1 <= layers[0] <= layers[-1] < self.depth:
            raise ValueError(
                f"extract_layers must rise from -1 or more to at most {self.depth - 1}, the last block of this CLIP's "
                f"image tower; got {layers}"
            )
        if not 0 <= self.condition_layer < len(layers):
            raise ValueError(f"condition_layer must be 0 to {len(layers) - 1}, got {self.condition_layer}")
        if self.heads < 1 or self.reduce_dim < 1 or self.reduce_dim % self.heads:
            raise ValueError(f"{self.heads} heads do not divide a reduce_dim of {self.reduce_dim}")
        if len(self.kernels) not in (1, 2) or math.prod(self.kernels) != patch:
            raise ValueError(f"kernels {self.kernels} must be one or two numbers whose product is the patch, {patch}")
        if self.input_size < 1 or self.input_size % patch:
            raise ValueError(f"input_size {self.input_size} is not a multiple of the patches' {patch}")

    def _check_types(self) -> None:
        """A config may come from anybody's JSON."""
        whole = {name: getattr(self, name) for name in ("heads", "condition_layer", "input_size", "mlp_width")}
        for name in ("extract_layers", "kernels"):
            whole |= {f"{name}[{i}]": value for i, value in enumerate(getattr(self, name))}
        if wrong := [name for name, value in whole.items() if type(value) is not int]:
            raise ValueError(f"{wrong[0]} must be a whole number, got {whole[wrong[0]]!r:.60}")
        for name in ("mean", "std"):
            values = getattr(self, name)
            if len(values) != 3 or not all(isinstance(v, int | float) for v in values) or 0 in self.std:
                raise ValueError(f"{name} must be three numbers, std none of them 0; got {values!r:.60}")

    @property
    def depth(self) -> int:
        """Blocks of CLIP's image tower."""
        return self.clip.vision_layers

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """From JSON: the CLIP's sizes are a table of their own."""
        allowed, clip_allowed = ({f.name for f in fields(kind)} for kind in (cls, CLIPConfig))
        clip = values.get("clip", {})
        if not isinstance(clip, Mapping):
            raise ValueError(f"clip must be a table of CLIP's sizes, got {clip!r:.60}")
        if unknown := sorted((values.keys() - allowed) | {f"clip.{key}" for key in clip.keys() - clip_allowed}):
            raise ValueError(f"unknown: {', '.join(unknown[:4])}; allowed: {', '.join(sorted(allowed))}")
        known: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        known["clip"] = CLIPConfig(**clip)
        return cls(**known)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_state_dict(cls, shapes: Mapping[str, Sequence[int]], clip: CLIPConfig, **facts: Any) -> Self:
        """Read the decoder's sizes off the shapes of its weights, by the reference's names.

        What shapes cannot tell (the arguments: heads, extract_layers, ...) has the values of the published models.

        Raises:
            ValueError: not a decoder of CLIPSeg, or a key is missing.
        """
        try:
            plain = "trans_conv.weight" in shapes
            enlarging = ("trans_conv.weight",) if plain else ("trans_conv.2.weight", "trans_conv.4.weight")
            return cls(
                clip=clip,
                reduce_dim=shapes["film_mul.weight"][0],
                mlp_width=shapes["blocks.0.linear1.weight"][0],
                kernels=tuple(shapes[name][2] for name in enlarging),
                **facts,
            )
        except (KeyError, IndexError) as error:
            raise ValueError(f"not the weights of CLIPSeg's decoder: no key {error}") from None


class DecoderBlock(nn.Module):
    """nn.TransformerEncoderLayer as it is by default: ReLU, norms after each half."""

    def __init__(self, width: int, heads: int, mlp_width: int):
        super().__init__()
        self.self_attn = Attention(width, width // heads, causal=False)
        nn.init.xavier_uniform_(self.self_attn.in_proj_weight)
        self.linear1 = nn.Linear(width, mlp_width)
        self.linear2 = nn.Linear(mlp_width, width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(x + self.self_attn(x))  # (B, 1 + h*w, R)
        return self.norm2(x + self.linear2(F.relu(self.linear1(x))))  # type: ignore[no-any-return]


class CLIPSeg(nn.Module):
    """Pictures and texts -> logits per pixel; sigmoid gives how surely the pixel shows what the text names."""

    def __init__(self, config: CLIPSegConfig | None = None):
        super().__init__()
        self.config = config = config or CLIPSegConfig()
        width, depth = config.reduce_dim, len(config.extract_layers)
        self.clip = CLIP(config.clip)
        self.film_mul = nn.Linear(config.clip.embed_dim, width)
        self.film_add = nn.Linear(config.clip.embed_dim, width)
        self.reduces = nn.ModuleList(nn.Linear(config.clip.vision_width, width) for _ in range(depth))
        self.blocks = nn.ModuleList(DecoderBlock(width, config.heads, config.mlp_width) for _ in range(depth))
        self.trans_conv = _enlarge(width, config.kernels)

    def forward(self, pixels: Tensor, tokens: Tensor) -> Tensor:
        """(B, 3, H, W) pixels, normalised as the config says, and (B, T) or (1, T) tokens -> (B, H, W) logits."""
        return self.decode(self.activations(pixels), self.clip.encode_text(tokens))

    def activations(self, pixels: Tensor) -> list[Tensor]:
        """(B, 3, H, W), H = W any multiple of the patch -> (B, 1 + h*w, D) for each of `extract_layers`."""
        side, patch = pixels.shape[-1], self.config.clip.patch_size
        if pixels.ndim != 4 or pixels.shape[1:] != (3, side, side) or not side or side % patch:
            raise ValueError(f"pixels must be (B, 3, n, n), n a multiple of {patch}, got {tuple(pixels.shape)}")
        states = self.clip.visual.embed(pixels)  # (B, 1 + h*w, D)
        found = {-1: states}
        for number in range(self.config.extract_layers[-1] + 1):
            states = found[number] = self.clip.visual.transformer.resblocks[number](states)
        return [found[number] for number in self.config.extract_layers]

    def decode(self, activations: Sequence[Tensor], condition: Tensor) -> Tensor:
        """Activations of B pictures and (B, E) or (1, E) features of what to find -> (B, H, W) logits."""
        x: Tensor | None = None
        deepest_first = zip(reversed(activations), self.reduces, self.blocks, strict=True)
        for number, (activation, reduce, block) in enumerate(deepest_first):
            reduced = reduce(activation)  # (B, 1 + h*w, R)
            x = reduced if x is None else reduced + x
            if number == self.config.condition_layer:
                x = self.film_mul(condition)[:, None] * x + self.film_add(condition)[:, None]
            x = block(x)
        assert x is not None
        side = math.isqrt(x.shape[1] - 1)
        x = x[:, 1:].transpose(1, 2).reshape(len(x), -1, side, side)  # (B, R, h, w); the first token has no place
        return self.trans_conv(x)[:, 0]  # type: ignore[no-any-return]


def _enlarge(width: int, kernels: tuple[int, ...]) -> nn.Module:
    """(B, R, h, w) -> (B, 1, H, W): one transposed convolution, or the three stages of the refined form."""
    if len(kernels) == 1:
        return nn.ConvTranspose2d(width, 1, kernels[0], stride=kernels[0])
    first, second = kernels
    return nn.Sequential(
        nn.Conv2d(width, width, 3, padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(width, width // 2, first, stride=first),
        nn.ReLU(),
        nn.ConvTranspose2d(width // 2, 1, second, stride=second),
    )


def to_pixels(pictures: Tensor, config: CLIPSegConfig, size: int | None = None) -> Tensor:
    """(B, 3, H, W) in [0, 1] -> (B, 3, size, size), normalised, then resized without antialiasing as the reference.

    `size` None is the config's own.
    """
    mean, std = (pictures.new_tensor(values).view(3, 1, 1) for values in (config.mean, config.std))
    side = size or config.input_size
    return F.interpolate((pictures - mean) / std, (side, side), mode="bilinear")
