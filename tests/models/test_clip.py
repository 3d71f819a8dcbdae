"""CLIP without files: names and number of the published parameters, training, refusals, preprocessing, ranking."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from PIL import Image

from dalle_flow.models.clip import CLIP, CLIPConfig, similarity
from dalle_flow.models.clip_preprocess import CLIPPreprocess

TINY = CLIPConfig(
    embed_dim=12,
    image_size=20,
    patch_size=5,
    vision_width=16,
    vision_layers=2,
    text_width=24,
    text_layers=1,
    vocab_size=50,
    context_length=9,
    head_width=8,
)


@pytest.fixture
def tiny() -> CLIP:
    torch.manual_seed(3)
    return CLIP(TINY)


def shapes_of(model: CLIP) -> dict[str, Sequence[int]]:
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        (CLIPConfig(), 427_944_193),  # ViT-L/14@336px
        (CLIPConfig(image_size=224), 427_616_513),  # ViT-L/14
        (CLIPConfig(512, 224, 32, 768, 12, 512, 12), 151_277_313),  # ViT-B/32
    ],
)
def test_published_models_have_their_parameters(config: CLIPConfig, parameters: int) -> None:
    with torch.device("meta"):
        model = CLIP(config)
    assert sum(p.numel() for p in model.parameters()) == parameters
    again = CLIPConfig.from_state_dict(shapes_of(model))
    with torch.device("meta"):
        assert shapes_of(CLIP(again)) == shapes_of(model)


def test_names_are_the_references() -> None:
    with torch.device("meta"):
        names = set(CLIP(TINY).state_dict())
    assert {
        "visual.class_embedding",
        "visual.conv1.weight",
        "visual.ln_pre.bias",
        "visual.proj",
        "visual.transformer.resblocks.1.attn.in_proj_weight",
        "visual.transformer.resblocks.1.attn.out_proj.bias",
        "transformer.resblocks.0.ln_1.weight",
        "transformer.resblocks.0.mlp.c_proj.bias",
        "token_embedding.weight",
        "positional_embedding",
        "ln_final.weight",
        "text_projection",
        "logit_scale",
    } <= names


def test_what_is_no_vit_is_refused(tiny: CLIP) -> None:
    shapes = shapes_of(tiny)
    with pytest.raises(ValueError, match="ResNet"):
        CLIPConfig.from_state_dict(shapes | {"visual.layer1.0.conv1.weight": (64, 64, 1, 1)})
    del shapes["ln_final.weight"]
    with pytest.raises(ValueError, match=r"ln_final\.weight"):
        CLIPConfig.from_state_dict(shapes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patch_size": 7}, "multiple of patch_size"),
        ({"head_width": 7}, "vision_width 16"),
        ({"head_width": 16}, "text_width 24"),
        ({"activation": "gelu_new"}, "quick_gelu"),
    ],
)
def test_sizes_that_cannot_be(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CLIPConfig(**{**TINY.__dict__, **change})


def test_wrong_inputs_are_named(tiny: CLIP) -> None:
    with pytest.raises(ValueError, match=r"\(B, 3, 20, 20\)"):
        tiny.encode_image(torch.zeros(2, 3, 20, 25))
    with pytest.raises(ValueError, match="at most 9 tokens"):
        tiny.encode_text(torch.zeros(1, 10, dtype=torch.int64))


def test_features_do_not_depend_on_the_batch(tiny: CLIP) -> None:
    pixels, tokens = torch.randn(5, 3, 20, 20), torch.randint(0, 50, (5, 9))
    images, texts = tiny.encode_image(pixels), tiny.encode_text(tokens)
    for i in range(5):
        torch.testing.assert_close(tiny.encode_image(pixels[i : i + 1])[0], images[i])
        torch.testing.assert_close(tiny.encode_text(tokens[i : i + 1])[0], texts[i])


def test_end_of_text_is_the_largest_id_or_the_one_named(tiny: CLIP) -> None:
    tokens = torch.tensor([[0, 7, 9, 2, 1, 1], [0, 49, 2, 1, 1, 2]])
    assert tiny.end_of_text(tokens).tolist() == [2, 1]
    named = CLIP(CLIPConfig(**{**TINY.__dict__, "eot_token_id": 2}))
    assert named.end_of_text(tokens).tolist() == [3, 2]
    changed = tokens.clone()
    changed[0, 4:] = 30  # behind the end
    torch.testing.assert_close(named.encode_text(tokens), named.encode_text(changed))


def test_towers_may_have_heads_of_different_width() -> None:
    wide = CLIP(CLIPConfig(**{**TINY.__dict__, "vision_head_width": 16, "text_mlp_width": 40}))
    assert wide.encode_image(torch.zeros(1, 3, 20, 20)).shape == (1, 12)
    assert CLIPConfig.from_state_dict(shapes_of(wide), head_width=8).text_mlp_width == 40


@pytest.mark.parametrize("autocast", [False, True])
def test_learns_which_text_belongs_to_which_picture(tiny: CLIP, autocast: bool) -> None:
    pixels, tokens = torch.randn(6, 3, 20, 20), torch.randint(1, 50, (6, 9))
    optimizer = torch.optim.AdamW(tiny.parameters(), lr=1e-2)
    for _ in range(25):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            per_image, per_text = tiny(pixels, tokens)
        assert per_image.dtype == torch.float32
        loss = sum(torch.nn.functional.cross_entropy(logits, torch.arange(6)) for logits in (per_image, per_text))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 1  # 3.6 is chance


def test_similarity_is_a_cosine() -> None:
    images, texts = torch.randn(4, 7) * 30, torch.randn(3, 7)
    expected = torch.nn.functional.cosine_similarity(images[:, None], texts[None], dim=-1)
    torch.testing.assert_close(similarity(images, texts), expected)


@pytest.mark.parametrize("size", [(17, 5), (1, 1), (20, 20), (21, 20), (300, 41)])
def test_pictures_of_any_size(size: tuple[int, int]) -> None:
    preprocess = CLIPPreprocess(20)
    picture = Image.new("RGB", size, (255, 0, 51))
    pixels = preprocess([picture, picture])
    assert pixels.shape == (2, 3, 20, 20)
    expected = [(v - m) / s for v, m, s in zip((1.0, 0.0, 0.2), preprocess.mean, preprocess.std, strict=True)]
    torch.testing.assert_close(pixels.mean((0, 2, 3)), torch.tensor(expected))


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "LA", "I;16"])
def test_pictures_of_any_mode(mode: str) -> None:
    picture = Image.new("RGB", (30, 25), (255, 255, 255)).convert("L" if mode == "I;16" else mode)
    if mode == "I;16":
        picture = Image.fromarray(np.full((25, 30), 65535, np.uint16))
    assert CLIPPreprocess(20)([picture]).shape == (1, 3, 20, 20)


def test_no_pictures_are_no_pixels() -> None:
    assert CLIPPreprocess(20)([]).shape == (0, 3, 20, 20)


def test_crop_takes_the_centre_and_ties_go_to_even() -> None:
    columns = np.arange(27, dtype=np.uint8)[None, :, None].repeat(20, 0).repeat(3, 2)
    cropped = np.asarray(CLIPPreprocess(20).resize_and_crop(Image.fromarray(columns)))
    assert cropped[0, :, 0].tolist() == list(range(4, 24))  # 3.5 -> 4
