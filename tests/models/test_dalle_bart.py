"""DalleBart over whole sequences, at odd sizes: config, names, masks, training. Answers to match: tests/parity."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from dalle_flow.errors import WeightsError
from dalle_flow.models.attention import FEW_QUERIES, attend, padding_bias
from dalle_flow.models.dalle_bart import DalleBart, DalleBartConfig

TINY = DalleBartConfig(
    d_model=24, encoder_layers=1, decoder_layers=2, encoder_attention_heads=2, decoder_attention_heads=3,
    encoder_ffn_dim=17, decoder_ffn_dim=19, encoder_vocab_size=31, image_vocab_size=12, max_text_length=7,
    image_length=9, decoder_start_token_id=12,
)  # fmt: skip
KEYS = 40
MINI = DalleBartConfig(1024, 12, 12, 16, 16, 2730, 2730, 50_264, 16_384)


@pytest.fixture
def model() -> DalleBart:
    torch.manual_seed(0)
    return DalleBart(TINY, init_std=0.3).eval()


@pytest.fixture
def text() -> tuple[torch.Tensor, torch.Tensor]:
    """Five prompts of 1, 2, 4, 6 and 7 tokens."""
    torch.manual_seed(1)
    lengths = torch.tensor([1, 2, 4, 6, 7])
    return torch.randint(0, 31, (5, 7)), torch.arange(7) < lengths[:, None]


def test_the_published_form_of_a_config_comes_back() -> None:
    assert DalleBartConfig.from_dict(DalleBartConfig().to_dict()) == DalleBartConfig()
    assert DalleBartConfig.from_dict(TINY.to_dict()) == TINY
    assert DalleBartConfig().vocab_size == 16_416


def test_the_start_token_is_the_last_row_where_the_config_has_none() -> None:
    published = TINY.to_dict() | {"decoder_start_token_id": 3}
    assert DalleBartConfig.from_dict(published).decoder_start_token_id == 3
    del published["decoder_start_token_id"]
    assert DalleBartConfig.from_dict(published).decoder_start_token_id == 12


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("ln_positions", "swinv2"),
        ("use_deepnet_scaling", True),
        ("use_alibi", True),
        ("use_bias", True),
        ("use_glu", False),
        ("sinkhorn_iters", 5),
        ("activation_function", "gelu_new"),
        ("use_something_new", True),
        ("d_model", 2.5),
        ("encoder_layers", 0),
    ],
)
def test_configs_of_other_networks_are_refused_by_the_key(key: str, value: object) -> None:
    with pytest.raises(WeightsError, match=key) as raised:
        DalleBartConfig.from_dict(TINY.to_dict() | {key: value})
    assert raised.value.field == key


@pytest.mark.parametrize(
    ("change", "message"),
    [({"d_model": 25}, "not divisible"), ({"decoder_start_token_id": 13}, "decoder_start_token_id=13")],
)
def test_sizes_that_do_not_fit_each_other_are_refused(change: dict[str, int], message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        DalleBartConfig.from_dict(TINY.to_dict() | change)


@pytest.mark.parametrize(("config", "count"), [(DalleBartConfig(), 2_587_521_024), (MINI, 437_833_712)])
def test_the_published_sizes(config: DalleBartConfig, count: int) -> None:
    with torch.device("meta"):
        model = DalleBart(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == count


def test_norms_before_a_part_have_no_scale(model: DalleBart) -> None:
    names = [name for name in model.state_dict() if name.startswith("decoder.layers.1.") and "n" in name]
    scaled = {name.split(".")[3] for name in names if name.endswith("norm.weight")}
    assert scaled == {"self_attn_layer_norm", "encoder_attn_layer_norm"}
    assert "decoder.final_ln.weight" not in model.state_dict()
    assert "decoder.layernorm_embedding.weight" in model.state_dict()


@torch.inference_mode()
def test_padding_changes_nothing(model: DalleBart, text: tuple[torch.Tensor, torch.Tensor]) -> None:
    tokens, mask = text
    codes = torch.randint(0, 13, (5, 9))
    logits, states = model(tokens, mask, codes), model.encode(tokens, mask)
    for i, length in enumerate(mask.sum(1).tolist()):
        alone, whole = tokens[i : i + 1, :length], torch.ones(1, length, dtype=torch.bool)
        torch.testing.assert_close(model.encode(alone, whole)[0], states[i, :length], atol=1e-5, rtol=0)
        torch.testing.assert_close(model(alone, whole, codes[i : i + 1])[0], logits[i], atol=1e-5, rtol=0)


@torch.inference_mode()
def test_a_code_does_not_see_those_after_it(model: DalleBart, text: tuple[torch.Tensor, torch.Tensor]) -> None:
    codes = torch.randint(0, 13, (5, 9))
    logits = model(*text, codes)
    torch.testing.assert_close(model(*text, codes[:, :4]), logits[:, :4], atol=1e-5, rtol=0)
    changed = codes.clone()
    changed[:, 4:] = (changed[:, 4:] + 1) % 13
    assert torch.equal(model(*text, changed)[:, :4], logits[:, :4])
    assert not torch.equal(model(*text, changed)[:, 4], logits[:, 4])


def test_too_long_a_text_or_picture_is_refused(model: DalleBart) -> None:
    tokens, mask = torch.zeros(1, 8, dtype=torch.int64), torch.ones(1, 8, dtype=torch.bool)
    with pytest.raises(ValueError, match="at most 7 tokens fit, got 8"):
        model.encode(tokens, mask)
    with pytest.raises(ValueError, match="at most 9 tokens fit, got 10"):
        model(tokens[:, :7], mask[:, :7], torch.zeros(1, 10, dtype=torch.int64))


@pytest.mark.parametrize("half", [False, True])
def test_gradients_reach_every_weight(model: DalleBart, text: tuple[torch.Tensor, torch.Tensor], half: bool) -> None:
    codes = torch.randint(0, 12, (5, 9))
    model.train()
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        logits = model(*text, codes)
    assert logits.dtype == torch.float32
    F.cross_entropy(logits.flatten(0, 1), codes.flatten()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def attention(dtype: torch.dtype, queries: int, **mask: Any) -> torch.Tensor:
    torch.manual_seed(0)
    keys = queries if mask.get("causal") else KEYS
    q, k, v = (torch.randn(2, 3, n, 8).to(dtype) for n in (queries, keys, keys))
    return attend(q, k, v, **mask).double()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("queries", [1, FEW_QUERIES, FEW_QUERIES + 1])
def test_every_way_to_attend_is_the_same(dtype: torch.dtype, queries: int) -> None:
    mark = 1e-5 if dtype == torch.float32 else 3e-2
    bias = padding_bias(torch.arange(KEYS) < torch.tensor([[5], [KEYS]]))
    for mask in ({}, {"bias": bias}, {"causal": True}):
        torch.testing.assert_close(
            attention(dtype, queries, **mask), attention(torch.float64, queries, **mask), atol=mark, rtol=0
        )
