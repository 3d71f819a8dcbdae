"""DalleBart, the text-to-codes transformer of DALL·E Mini and Mega: BART with GLUs and NormFormer's extra norms.

Source: Dayma et al. 2021, borisdayma/dalle-mini; BART arXiv:1910.13461, NormFormer 2110.09456, GLU 2002.05202.
Weights: dalle-mini/dalle-mega, dalle-mini/dalle-mini; kuprel/min-dalle has them as torch files.
Parity: tests/parity/test_dalle_bart.py; encoder 4e-6, logits 1e-5 from the Flax original in float32.
Differs: no dropout. This file is the network over whole sequences, for training and the encoder;
`dalle_decode.py` draws pictures from the same weights code by code.

Names: as min-dalle's files, `encoder.` and `decoder.` in front and `lm_head.weight` at the top:
`{encoder,decoder}.{embed_tokens,embed_positions}.weight`, `.layernorm_embedding.{weight,bias}`, `.final_ln.bias`, and
`.layers.{i}.` with `pre_self_attn_layer_norm.bias`, `self_attn.{q,k,v,out}_proj.weight`,
`self_attn_layer_norm.{weight,bias}`, in the decoder the same three with `encoder_attn`, then `glu.{ln0,ln1}.bias`,
`glu.{fc0,fc1,fc2}.weight`. Linear weights are (out, in); `fc0` is the gelu branch; a bare `bias` is a norm of no scale.

Shapes: B batch, T text length, S length of the codes so far, D width, V image vocabulary.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self, cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..errors import WeightsError
from .attention import attend, padding_bias
from .published import read_sizes

LAYER_NORM_EPS = 1e-5  # flax's default is 1e-6; the original overrides it

# The one set of switches that all published checkpoints share; another value means a network we do not build.
ON = ("use_absolute_position_embeddings", "use_final_ln_decoder", "use_final_ln_encoder", "use_glu")
OFF = (
    *("force_ln_scale", "scale_embedding", "tie_word_embeddings", "use_alibi", "use_bias", "use_cosine_attention"),
    *("use_deepnet_scaling", "use_head_scale", "use_subln_init", "use_swin_position_embeddings"),
)
NAMED = {"activation_function": "gelu", "ln_positions": "normformer", "ln_type": "layernorm", "sinkhorn_iters": 1}
SWITCHES = dict.fromkeys(ON, True) | dict.fromkeys(OFF, False) | NAMED
# Keys for training, text, file layout or the original's own sampling loop: they change nothing here.
BESIDES = (
    *("activation_dropout", "attention_dropout", "bos_token_id", "decoder_layerdrop", "decoder_start_token_id"),
    *("do_sample", "dropout", "encoder_layerdrop", "eos_token_id", "gradient_checkpointing", "init_std", "max_length"),
    *("min_length", "normalize_text", "pad_token_id", "tau_init", "use_scan"),
)


@dataclass(frozen=True)
class DalleBartConfig:
    """Sizes, named as in the published config.json; the defaults are Mega's."""

    d_model: int = 2048
    encoder_layers: int = 24
    decoder_layers: int = 24
    encoder_attention_heads: int = 32
    decoder_attention_heads: int = 32
    encoder_ffn_dim: int = 4096  # width inside the GLU
    decoder_ffn_dim: int = 4096
    encoder_vocab_size: int = 50_272  # text tokens
    image_vocab_size: int = 16_415  # one less than the rows of the image embedding, see `vocab_size`
    max_text_length: int = 64
    image_length: int = 256  # codes of a picture
    decoder_start_token_id: int = 16_384

    def __post_init__(self) -> None:
        for heads in (self.encoder_attention_heads, self.decoder_attention_heads):
            if self.d_model % heads:
                raise WeightsError(f"DalleBart config: d_model={self.d_model} is not divisible by {heads} heads")
        if not 0 <= self.decoder_start_token_id < self.vocab_size:
            start, allowed = self.decoder_start_token_id, f"[0, {self.vocab_size})"
            raise WeightsError(f"DalleBart config: decoder_start_token_id={start} must lie in {allowed}")

    @property
    def vocab_size(self) -> int:
        """V: rows of the image embedding and of lm_head. Codes come first, then ids that never are a code."""
        return self.image_vocab_size + 1

    @classmethod
    def from_dict(cls, published: Mapping[str, Any]) -> Self:
        """Read a published config.json.

        Raises:
            WeightsError: a size is missing, or a key asks for a network other than the published one.
        """
        fields = {key: key for key in cls.__dataclass_fields__ if key != "decoder_start_token_id"}
        sizes = read_sizes("DalleBart", published, fields, SWITCHES, BESIDES)
        start = published.get("decoder_start_token_id")
        return cls(**sizes, decoder_start_token_id=sizes["image_vocab_size"] if start is None else start)

    def to_dict(self) -> dict[str, Any]:
        """The published form: what `from_dict` reads."""
        return {**asdict(self), **SWITCHES, "model_type": "dallebart"}


class BiasNorm(nn.Module):
    """LayerNorm with a bias and no scale."""

    def __init__(self, width: int):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        # Under autocast x is bfloat16 and the bias float32: PyTorch's CPU kernel mixes the two only beside a scale.
        scale = None if x.dtype == self.bias.dtype else torch.ones_like(self.bias)
        return F.layer_norm(x, self.bias.shape, scale, self.bias, LAYER_NORM_EPS)


def scaled_norm(width: int) -> nn.LayerNorm:
    return nn.LayerNorm(width, eps=LAYER_NORM_EPS)


def linear(in_width: int, out_width: int) -> nn.Linear:
    return nn.Linear(in_width, out_width, bias=False)


class Attention(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q_proj = linear(width, width)
        self.k_proj = linear(width, width)
        self.v_proj = linear(width, width)
        self.out_proj = linear(width, width)

    def forward(self, x: Tensor, source: Tensor, bias: Tensor | None) -> Tensor:
        """x (B, Q, D) looks at source (B, K, D) where bias (B, 1, 1, K) lets it; None is causal."""
        pairs = ((self.q_proj, x), (self.k_proj, source), (self.v_proj, source))
        q, k, v = (rearrange(f(y), "b n (h d) -> b h n d", h=self.heads) for f, y in pairs)
        a = attend(q, k, v, bias, causal=bias is None)  # (B, heads, Q, D / heads)
        return cast(Tensor, self.out_proj(rearrange(a, "b h n d -> b n (h d)")))  # (B, Q, D)


class GLU(nn.Module):
    def __init__(self, width: int, inner: int):
        super().__init__()
        self.ln0 = BiasNorm(width)
        self.fc0 = linear(width, inner)
        self.fc1 = linear(width, inner)
        self.ln1 = BiasNorm(inner)
        self.fc2 = linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.ln0(x)
        x = F.gelu(self.fc0(x)) * self.fc1(x)  # (B, n, inner); gelu by erf, as trained
        return cast(Tensor, self.fc2(self.ln1(x)))  # (B, n, D)


class EncoderLayer(nn.Module):
    def __init__(self, config: DalleBartConfig):
        super().__init__()
        self.pre_self_attn_layer_norm = BiasNorm(config.d_model)
        self.self_attn = Attention(config.d_model, config.encoder_attention_heads)
        self.self_attn_layer_norm = scaled_norm(config.d_model)
        self.glu = GLU(config.d_model, config.encoder_ffn_dim)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        y = self.pre_self_attn_layer_norm(x)
        x = x + self.self_attn_layer_norm(self.self_attn(y, y, bias))
        return cast(Tensor, x + self.glu(x))


class DecoderLayer(nn.Module):
    def __init__(self, config: DalleBartConfig):
        super().__init__()
        self.pre_self_attn_layer_norm = BiasNorm(config.d_model)
        self.self_attn = Attention(config.d_model, config.decoder_attention_heads)
        self.self_attn_layer_norm = scaled_norm(config.d_model)
        self.pre_encoder_attn_layer_norm = BiasNorm(config.d_model)
        self.encoder_attn = Attention(config.d_model, config.decoder_attention_heads)
        self.encoder_attn_layer_norm = scaled_norm(config.d_model)
        self.glu = GLU(config.d_model, config.decoder_ffn_dim)

    def forward(self, x: Tensor, states: Tensor, bias: Tensor) -> Tensor:
        y = self.pre_self_attn_layer_norm(x)
        x = x + self.self_attn_layer_norm(self.self_attn(y, y, None))
        y = self.pre_encoder_attn_layer_norm(x)
        x = x + self.encoder_attn_layer_norm(self.encoder_attn(y, states, bias))
        return cast(Tensor, x + self.glu(x))


class Side(nn.Module):
    """The part that encoder and decoder share: tokens and learnt positions to states, layers, final norm."""

    def __init__(self, vocab_size: int, length: int, layers: list[nn.Module], width: int):
        super().__init__()
        self.embed_tokens = nn.Embedding(vocab_size, width)
        self.embed_positions = nn.Embedding(length, width)
        self.layernorm_embedding = scaled_norm(width)
        self.layers = nn.ModuleList(layers)
        self.final_ln = BiasNorm(width)

    def embed(self, ids: Tensor) -> Tensor:
        length, most = ids.shape[1], self.embed_positions.num_embeddings
        if length > most:
            raise ValueError(f"at most {most} tokens fit, got {length}")
        x = self.embed_tokens(ids) + self.embed_positions.weight[:length]  # (B, n, D)
        return cast(Tensor, self.layernorm_embedding(x))


class Encoder(Side):
    def forward(self, tokens: Tensor, bias: Tensor) -> Tensor:
        x = self.embed(tokens)  # (B, T, D)
        for layer in self.layers:
            x = layer(x, bias)
        return cast(Tensor, self.final_ln(x))


class Decoder(Side):
    def forward(self, codes_in: Tensor, states: Tensor, bias: Tensor) -> Tensor:
        x = self.embed(codes_in)  # (B, S, D)
        for layer in self.layers:
            x = layer(x, states, bias)
        return cast(Tensor, self.final_ln(x))


class DalleBart(nn.Module):
    """Text tokens to logits over picture codes; see the module docstring for names and sources."""

    def __init__(self, config: DalleBartConfig | None = None, init_std: float = 0.02):
        super().__init__()
        self.config = c = config or DalleBartConfig()
        encoder = [EncoderLayer(c) for _ in range(c.encoder_layers)]
        decoder = [DecoderLayer(c) for _ in range(c.decoder_layers)]
        self.encoder = Encoder(c.encoder_vocab_size, c.max_text_length, list(encoder), c.d_model)
        self.decoder = Decoder(c.vocab_size, c.image_length, list(decoder), c.d_model)
        self.lm_head = linear(c.d_model, c.vocab_size)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=init_std)  # Mini was trained from 0.02, Mega from 0.01

    def encode(self, tokens: Tensor, attention_mask: Tensor) -> Tensor:
        """Prompts to states.

        Args:
            tokens: (B, T) int64, T up to max_text_length; padding on the right.
            attention_mask: (B, T) bool, true on real tokens; each row has at least one.

        Returns:
            (B, T, D); what stands at padded positions has no meaning.
        """
        return cast(Tensor, self.encoder(tokens, padding_bias(attention_mask)))

    def forward(self, tokens: Tensor, attention_mask: Tensor, codes_in: Tensor) -> Tensor:
        """Logits of every next code, given the codes before it (teacher forcing).

        Args:
            tokens, attention_mask: as `encode`.
            codes_in: (B, S) int64, S up to image_length: the start token, then all codes but the last.

        Returns:
            (B, S, V) float32 logits; position s predicts code s. Under autocast the sums and norms stay float32.
        """
        states = self.encode(tokens, attention_mask)  # (B, T, D)
        x = self.decoder(codes_in, states, padding_bias(attention_mask))  # (B, S, D)
        return cast(Tensor, self.lm_head(x)).float()  # (B, S, V)
