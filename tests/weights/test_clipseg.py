"""CLIPSeg from its authors' decoders, transformers folders and ours: the same masks; what does not fit is refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dalle_flow.errors import WeightsError
from dalle_flow.models.clip import CLIP, CLIPConfig
from dalle_flow.models.clipseg import CLIPSeg, CLIPSegConfig
from dalle_flow.weights.clipseg import load_clipseg, open_clipseg
from dalle_flow.weights.ours import save_ours

BACKBONE = CLIPConfig(24, 48, 8, 64, 5, 64, 2, 99, 20, vision_mlp_width=80, text_mlp_width=72)  # heads as OpenAI's
CONFIG = CLIPSegConfig(BACKBONE, reduce_dim=12, heads=3, mlp_width=20, extract_layers=(0, 2, 3), kernels=(8,))
FACTS = {"heads": 3, "extract_layers": [0, 2, 3]}
PIXELS, TOKENS = (3, 3, 56, 56), torch.tensor([[97, 5, 6, 98], [97, 7, 98, 0], [97, 1, 2, 98]])

Wanted = tuple[CLIPSeg, Tensor, Tensor]


@pytest.fixture(params=[(8,), (2, 4)], ids=["plain", "refined"])
def wanted(request: pytest.FixtureRequest) -> Wanted:
    """A model, pixels and the logits it gives for them."""
    torch.manual_seed(0)
    model = CLIPSeg(replace(CONFIG, kernels=request.param)).eval().requires_grad_(False)
    pixels = torch.randn(PIXELS)
    return model, pixels, model(pixels, TOKENS)


def split(model: CLIPSeg) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Decoder and CLIP, as they are published: two files."""
    state = model.state_dict()
    clip = {name.removeprefix("clip."): tensor for name, tensor in state.items() if name.startswith("clip.")}
    decoder = {name: tensor for name, tensor in state.items() if not name.startswith("clip.")}
    return {**decoder, "reduce.weight": torch.ones(12, 64), "reduce.bias": torch.ones(12)}, clip


@pytest.fixture
def published(wanted: Wanted, tmp_path: Path) -> tuple[Path, Path]:
    decoder, clip = split(wanted[0])
    torch.save(decoder, tmp_path / "rd12.pth")
    torch.save(clip, tmp_path / "ViT.pt")
    return tmp_path / "rd12.pth", tmp_path / "ViT.pt"


def to_transformers(model: CLIPSeg) -> dict[str, Tensor]:
    """Our names -> transformers', written independently of the loader."""
    out: dict[str, Tensor] = {}
    decoder = (
        ("film", "decoder.film"), ("reduces", "decoder.reduces"), ("trans_conv", "decoder.transposed_convolution"),
        ("blocks.", "decoder.layers."), (".linear1", ".mlp.fc1"), (".linear2", ".mlp.fc2"), (".norm", ".layer_norm"),
    )  # fmt: skip
    clip = (
        ("clip.visual.transformer.resblocks.", "clip.vision_model.encoder.layers."),
        ("clip.transformer.resblocks.", "clip.text_model.encoder.layers."),
        (".attn.", ".self_attn."), (".ln_1", ".layer_norm1"), (".ln_2", ".layer_norm2"), (".c_fc", ".fc1"),
        (".c_proj", ".fc2"), ("clip.token_embedding", "clip.text_model.embeddings.token_embedding"),
        ("clip.visual.positional_embedding", "clip.vision_model.embeddings.position_embedding.weight"),
        ("clip.positional_embedding", "clip.text_model.embeddings.position_embedding.weight"),
        ("clip.ln_final", "clip.text_model.final_layer_norm"),
        ("clip.visual.class_embedding", "clip.vision_model.embeddings.class_embedding"),
        ("clip.visual.conv1", "clip.vision_model.embeddings.patch_embedding"),
        ("clip.visual.ln_pre", "clip.vision_model.pre_layrnorm"),
        ("clip.visual.ln_post", "clip.vision_model.post_layernorm"),
        ("clip.visual.proj", "clip.visual_projection.weight"),
        ("clip.text_projection", "clip.text_projection.weight"),
    )  # fmt: skip
    for name, tensor in model.state_dict().items():
        for ours, theirs in clip if name.startswith("clip.") else decoder:
            name = name.replace(ours, theirs, 1)
        if "in_proj_" in name:
            for third, rows in zip("qkv", tensor.chunk(3), strict=True):
                out[name.replace("in_proj_", f"{third}_proj.")] = rows.clone()
        else:
            out[name] = tensor.T.contiguous() if name.endswith("_projection.weight") else tensor
    return out


def hf_config(**more: Any) -> dict[str, Any]:
    return {
        "model_type": "clipseg",
        "text_config": {"hidden_size": 64, "num_attention_heads": 1, "eos_token_id": 2},
        "vision_config": {"hidden_size": 64, "num_attention_heads": 1, "patch_size": 8},
        "extract_layers": [0, 2, 3],
        "decoder_num_attention_heads": 3,
        "decoder_hidden_act": "quick_gelu",  # which transformers does not use either
        **more,
    }


@pytest.fixture
def folder(wanted: Wanted, tmp_path: Path) -> Path:
    path = tmp_path / "hf"
    path.mkdir()
    save_file(to_transformers(wanted[0]), path / "model.safetensors")
    (path / "config.json").write_text(json.dumps(hf_config()))
    return path


def test_a_decoder_and_its_clip(wanted: Wanted, published: tuple[Path, Path]) -> None:
    model, pixels, logits = wanted
    for path in (published[0], published[0].parent):
        loaded = load_clipseg(path, published[1], overrides=FACTS)
        assert loaded.config == model.config
        assert torch.equal(loaded(pixels, TOKENS), logits)
    checkpoint = open_clipseg(published[0], published[1], overrides=FACTS)
    assert checkpoint.layout == "clipseg"
    assert checkpoint.files == published


def test_a_config_beside_a_decoder(wanted: Wanted, published: tuple[Path, Path]) -> None:
    _, pixels, logits = wanted
    beside = published[0].with_name("config.json")
    beside.write_text(json.dumps({**FACTS, "input_size": 64}))
    loaded = load_clipseg(*published)
    assert loaded.config.input_size == 64
    assert torch.equal(loaded(pixels, TOKENS), logits)
    assert load_clipseg(*published, overrides={"input_size": 96}).config.input_size == 96
    beside.write_text(json.dumps({**FACTS, "depth": 3}))
    with pytest.raises(WeightsError, match="no entry 'depth' is known; allowed: heads, extract_layers"):
        load_clipseg(*published)
    beside.write_text(json.dumps({"model_type": "clip"}))  # of another model in that folder
    with pytest.raises(WeightsError, match=r"at most 4.*A config\.json beside the decoder may say"):
        load_clipseg(*published)


def test_the_clip_may_be_ours_or_transformers(wanted: Wanted, published: tuple[Path, Path], tmp_path: Path) -> None:
    model, pixels, logits = wanted
    save_ours(model.clip, tmp_path / "clip")
    (tmp_path / "hf").mkdir()
    clip = {
        name.removeprefix("clip."): tensor
        for name, tensor in to_transformers(model).items()
        if name.startswith("clip.")
    }
    save_file(clip, tmp_path / "hf" / "model.safetensors")
    (tmp_path / "hf" / "config.json").write_text(json.dumps(hf_config(model_type="clip")))
    for other in ("clip", "hf"):
        loaded = load_clipseg(published[0], tmp_path / other, overrides=FACTS)
        torch.testing.assert_close(loaded(pixels, TOKENS), logits, atol=1e-6, rtol=0)


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_a_transformers_folder(wanted: Wanted, folder: Path, file: str) -> None:
    model, pixels, logits = wanted
    if file == "pytorch_model.bin":
        state = {**load_file(folder / "model.safetensors"), "clip.text_model.embeddings.position_ids": torch.arange(20)}
        torch.save(state, folder / file)
        (folder / "model.safetensors").unlink()
    loaded = load_clipseg(folder)
    assert loaded.config == replace(model.config, clip=replace(model.config.clip, vision_head_width=64))
    assert torch.equal(loaded(pixels, TOKENS), logits)


def test_what_transformers_says_of_pictures(wanted: Wanted, folder: Path) -> None:
    file = folder / "preprocessor_config.json"
    file.write_text(json.dumps({"size": {"height": 96, "width": 96}, "image_mean": [0.5] * 3, "image_std": [0.2] * 3}))
    config = load_clipseg(folder).config
    assert (config.input_size, config.mean, config.std) == (96, (0.5,) * 3, (0.2,) * 3)
    file.write_text(json.dumps({"size": 64}))
    assert load_clipseg(folder).config.input_size == 64
    file.write_text(json.dumps({"size": {"height": 96, "width": 64}}))
    with pytest.raises(WeightsError, match="64 x 96; only square"):
        load_clipseg(folder)
    file.write_text(json.dumps({"size": 50}))
    with pytest.raises(WeightsError, match="input_size 50 is not a multiple"):
        load_clipseg(folder)


def test_a_condition_further_on(wanted: Wanted, folder: Path) -> None:
    _, pixels, logits = wanted
    (folder / "config.json").write_text(json.dumps(hf_config(conditional_layer=1)))
    loaded = load_clipseg(folder)
    assert loaded.config.condition_layer == 1
    assert (loaded(pixels, TOKENS) - logits).abs().max() > 1e-3


@pytest.mark.parametrize("int8", [False, True])
def test_our_own_layout(wanted: Wanted, tmp_path: Path, int8: bool) -> None:
    model, pixels, logits = wanted
    save_ours(model, tmp_path / "ours", int8=int8)
    loaded = load_clipseg(tmp_path / "ours")
    assert loaded.config == model.config
    torch.testing.assert_close(loaded(pixels, TOKENS), logits, atol=0.15 if int8 else 0, rtol=0)
    assert load_clipseg(tmp_path / "ours", overrides={"input_size": 48}).config.input_size == 48
    with pytest.raises(WeightsError, match="holds its own CLIP; leave out the second one"):
        load_clipseg(tmp_path / "ours", tmp_path / "ours")


def test_half_precision(wanted: Wanted, published: tuple[Path, Path]) -> None:
    loaded = load_clipseg(*published, dtype=torch.bfloat16, overrides=FACTS)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.bfloat16}
    assert loaded(wanted[1].bfloat16(), TOKENS).isfinite().all()


class TestRefusals:
    """One kind of network is enough."""

    @pytest.fixture
    def wanted(self) -> Wanted:
        torch.manual_seed(0)
        return CLIPSeg(CONFIG), torch.empty(0), torch.empty(0)

    def test_a_decoder_without_clip(self, published: tuple[Path, Path]) -> None:
        with pytest.raises(WeightsError, match="is a decoder alone; give the CLIP"):
            load_clipseg(published[0])

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"embed_dim": 32}, "features have a size of 24, those of .* have 32"),
            ({"vision_width": 128, "vision_mlp_width": None}, "image tokens have a size of 64, those of .* have 128"),
            ({"patch_size": 16}, "patches have a size of 8, those of .* have 16"),  # as ViT-B/32 to ViT-B/16
            ({"vision_layers": 3}, "at most 2"),
        ],
    )
    def test_a_clip_that_the_decoder_was_not_made_for(
        self, published: tuple[Path, Path], tmp_path: Path, change: dict[str, Any], message: str
    ) -> None:
        torch.save(CLIP(replace(BACKBONE, **change)).state_dict(), tmp_path / "other.pt")
        with pytest.raises(WeightsError, match=message):
            load_clipseg(published[0], tmp_path / "other.pt", overrides=FACTS)

    def test_several_decoders_in_a_folder(self, published: tuple[Path, Path]) -> None:
        published[0].with_name("other.pth").write_bytes(published[0].read_bytes())
        with pytest.raises(WeightsError, match=r"several decoders \(other\.pth, rd12\.pth\); name the file"):
            load_clipseg(published[0].parent, published[1])

    def test_another_models_checkpoint(self, published: tuple[Path, Path], tmp_path: Path) -> None:
        with pytest.raises(WeightsError, match=r"not a decoder of CLIPSeg, it has no film_mul\.weight"):
            load_clipseg(published[1], published[1])
        save_ours(CLIP(BACKBONE), tmp_path / "clip")
        with pytest.raises(WeightsError, match="holds a CLIP, expected a CLIPSeg"):
            load_clipseg(tmp_path / "clip")

    def test_nothing_there(self, tmp_path: Path) -> None:
        with pytest.raises(WeightsError, match="no such file or folder"):
            load_clipseg(tmp_path / "nowhere")
        with pytest.raises(WeightsError, match=r"no CLIPSeg weights in a layout we know.*rd64-uni\.pth"):
            load_clipseg(tmp_path)

    @pytest.mark.parametrize("kept", [0, 3, 700, -40])
    def test_a_damaged_file(self, published: tuple[Path, Path], kept: int) -> None:
        published[0].write_bytes(published[0].read_bytes()[:kept])
        with pytest.raises(WeightsError):
            load_clipseg(*published, overrides=FACTS)

    def test_a_file_with_code_is_not_run(self, published: tuple[Path, Path], tmp_path: Path) -> None:
        class Evil:
            def __reduce__(self) -> tuple[Any, ...]:
                return (Path.touch, (tmp_path / "run",))

        torch.save({"film_mul.weight": Evil()}, published[0])
        with pytest.raises(WeightsError):
            load_clipseg(*published, overrides=FACTS)
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize(
        ("edit", "message"),
        [
            ({"film_add.bias": None}, r"missing: film_add\.bias"),
            ({"extra.weight": torch.ones(2)}, r"not known: extra\.weight"),
            ({"film_add.weight": torch.ones(12, 25)}, "of another shape: film_add.weight"),
            ({"film_add.weight": torch.ones(12, 24, dtype=torch.int32)}, "expected a floating-point type"),
            ({"trans_conv.weight": None}, "no key 'trans_conv"),
            ({"blocks.0.linear1.weight": torch.tensor(1.0)}, "not the weights of CLIPSeg's decoder"),
        ],
    )
    def test_other_tensors(
        self, published: tuple[Path, Path], wanted: Wanted, edit: dict[str, Tensor | None], message: str
    ) -> None:
        state = {name: tensor for name, tensor in {**split(wanted[0])[0], **edit}.items() if tensor is not None}
        torch.save(state, published[0])
        with pytest.raises(WeightsError, match=message):
            load_clipseg(*published, overrides=FACTS)

    @pytest.mark.parametrize(
        ("overrides", "message"),
        [
            ({"heads": 5}, "5 heads do not divide"),
            ({"heads": "3"}, "must be a whole number"),
            ({"extract_layers": [0, 2]}, "not known: blocks.2"),
            ({"extract_layers": 3}, "."),
            ({"reduce_dim": 8}, "no entry 'reduce_dim' can be overridden; allowed: heads"),
        ],
    )
    def test_overrides(self, published: tuple[Path, Path], overrides: dict[str, Any], message: str) -> None:
        with pytest.raises(WeightsError, match=message):
            load_clipseg(*published, overrides={**FACTS, **overrides})

    def test_transformers_folders(self, folder: Path, wanted: Wanted) -> None:
        state = load_file(folder / "model.safetensors")
        save_file({**state, "decoder.layers.0.extra.weight": torch.ones(1)}, folder / "model.safetensors")
        with pytest.raises(WeightsError, match=r"not known: decoder\.layers\.0\.extra\.weight"):
            load_clipseg(folder)
        del state["clip.visual_projection.weight"]
        save_file(state, folder / "model.safetensors")
        with pytest.raises(WeightsError, match=r"missing: clip\.visual\.proj"):
            load_clipseg(folder)
        (folder / "model.safetensors").unlink()
        with pytest.raises(WeightsError, match=r"neither model\.safetensors nor pytorch_model\.bin"):
            load_clipseg(folder)
        (folder / "config.json").write_text(json.dumps(hf_config(model_type="clip")))
        with pytest.raises(WeightsError, match="no CLIPSeg weights"):
            load_clipseg(folder)
