"""Stable Diffusion's files: every layout gives the same networks, and what does not fit is refused by name."""

import json
import os
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from dalle_flow.errors import WeightsError
from dalle_flow.models.clip_text import ClipTextConfig
from dalle_flow.models.diffusion_schedule import alphas_cumprod
from dalle_flow.weights import diffusers_folder
from dalle_flow.weights.compvis_file import OTHER_MODELS, read_parts
from dalle_flow.weights.diffusers_folder import is_stepped_here, read_tokenizer, schedule_of
from dalle_flow.weights.stable_diffusion import load_stable_diffusion
from dalle_flow.weights.torch_file import read_torch

ROOT = Path(__file__).parents[2]
FALLBACKS = (ROOT.parent / "shared" / "parity", ROOT / "tests" / "data" / "parity")
FOLDER = Path(os.environ.get("DALLE_FLOW_PARITY") or next(folder for folder in FALLBACKS if folder.is_dir())) / "sd1"
UNET, VAE, TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer."
TEXTS = ["a red house near the sea", "", "café 12 !!", "word " * 100]

pytestmark = pytest.mark.skipif(not (FOLDER / "model.ckpt").is_file(), reason="no sd1 parity data")


@pytest.fixture(scope="module")
def tensors():
    """All tensors of the tiny checkpoint by the names in its state dict."""
    found = read_torch(FOLDER / "model.ckpt")
    return {name.removeprefix("state_dict."): tensor.read() for name, tensor in found.items()}


@pytest.fixture
def place(tmp_path):
    """A folder with the configs and the tokenizer, and no weights yet."""
    shutil.copytree(FOLDER / "diffusers_config", tmp_path / "diffusers_config", copy_function=shutil.copyfile)
    return tmp_path


def weights_of(found):
    state = {f"unet.{k}": v for k, v in found.unet.state_dict().items()}
    state |= {f"vae.{k}": v for k, v in found.codec.autoencoder.state_dict().items()}
    return state | {f"text.{k}": v for k, v in found.texts[0].encoder.state_dict().items()}


def same(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.fixture(scope="module")
def whole():
    return load_stable_diffusion({"stable": FOLDER / "model.ckpt"})


class TestOneFile:
    def test_every_container_gives_the_same(self, place, tensors, whole):
        torch.save({"state_dict": tensors, "global_step": 7}, place / "nested.ckpt")
        torch.save(tensors, place / "flat.ckpt")
        save_file({k: v.contiguous() for k, v in tensors.items()}, place / "model.safetensors")
        for name in ("nested.ckpt", "flat.ckpt", "model.safetensors"):
            found = load_stable_diffusion({"stable": place / name})
            same(weights_of(found), weights_of(whole))
            files = {file for part in found.files.values() for file in part}
            assert {file for file in files if file.suffix not in (".json", ".txt")} == {place / name}
            assert {file.name for file in files} > {"vocab.json", "merges.txt", "config.json"}

    def test_is_ready_to_use(self, whole):
        for model in (whole.unet, whole.codec, whole.texts[0].encoder):
            assert not model.training
            assert not any(parameter.requires_grad for parameter in model.parameters())
            assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}

    def test_other_type(self, place, tensors):
        torch.save(tensors, place / "model.ckpt")
        found = load_stable_diffusion({"stable": place / "model.ckpt"}, dtype=torch.float16)
        assert {tensor.dtype for tensor in weights_of(found).values()} == {torch.float16}

    def test_a_folder_with_one_file(self, place, tensors, whole):
        torch.save(tensors, place / "v1-5-pruned.ckpt")
        same(weights_of(load_stable_diffusion({"stable": place})), weights_of(whole))
        torch.save(tensors, place / "other.ckpt")
        with pytest.raises(WeightsError, match=r"has 2 checkpoints \(other.ckpt, v1-5-pruned.ckpt\); name one"):
            load_stable_diffusion({"stable": place})

    def test_what_training_leaves_is_ignored(self, place, tensors, whole, monkeypatch):
        """Running means, the discriminator, and classes of the training framework, which are never looked up."""
        module = ModuleType("pytorch_lightning.callbacks")
        checkpoint = type("ModelCheckpoint", (), {"__module__": module.__name__})
        module.ModelCheckpoint = checkpoint
        monkeypatch.setitem(sys.modules, "pytorch_lightning", ModuleType("pytorch_lightning"))
        monkeypatch.setitem(sys.modules, module.__name__, module)
        besides = {
            "model_ema.decay": torch.tensor(0.9),
            "model_ema.num_updates": torch.tensor(3),
            "logvar": torch.ones(3),
        }
        besides |= {
            "first_stage_model.loss.logvar": torch.ones(()),
            "model_ema.diffusion_modelout0weight": torch.ones(8),
        }
        state = {"state_dict": {**tensors, **besides}, "callbacks": {checkpoint: {"best": torch.ones(1)}}}
        torch.save(
            {**state, "hooks": checkpoint(), "optimizer_states": [{"state": {0: torch.ones(2)}}]}, place / "a.ckpt"
        )
        monkeypatch.undo()
        same(weights_of(load_stable_diffusion({"stable": place / "a.ckpt"})), weights_of(whole))

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({UNET + "out.2.bias": None}, r"missing: conv_out\.bias"),
            ({UNET + "extra.weight": 3}, r"not known: extra\.weight"),
            ({UNET + "out.2.bias": 5}, r"of another shape: conv_out\.bias is \[5\], expected \[4\]"),
            ({VAE + "quant_conv.bias": None}, r"missing: quant_conv\.bias"),
            ({VAE + "encoder.extra": 3}, r"not known: encoder\.extra"),
            ({TEXT + "text_model.final_layer_norm.bias": None}, r"missing: ln_final\.bias"),
            ({TEXT + "text_model.final_layer_norm.weight": None}, "not the weights of CLIP's text tower"),
            ({TEXT + "text_model.extra": 3}, r"not known: text_model\.extra"),
            ({"embedding_manager.x": 3}, r"1 tensors are of no part .*: embedding_manager\.x"),
        ],
    )
    def test_is_strict(self, place, tensors, change, message):
        changed = {key: torch.zeros(value) for key, value in change.items() if value}
        torch.save({k: v for k, v in {**tensors, **changed}.items() if change.get(k, 1)}, place / "model.ckpt")
        with pytest.raises(WeightsError, match=message):
            load_stable_diffusion({"stable": place / "model.ckpt"})

    @pytest.mark.parametrize("prefix", OTHER_MODELS)
    def test_other_models_are_named(self, place, prefix):
        save_file({f"{prefix}0.weight": torch.zeros(2), UNET + "x": torch.zeros(1)}, place / "model.safetensors")
        with pytest.raises(WeightsError, match=f"this is {OTHER_MODELS[prefix]}"):
            load_stable_diffusion({"stable": place / "model.safetensors"})

    def test_heads_and_groups_are_the_published_ones_where_nothing_is_said(self, place, tensors):
        shutil.rmtree(place / "diffusers_config")
        torch.save(tensors, place / "model.ckpt")
        with pytest.raises(WeightsError, match="show in no shape: a folder diffusers_config beside"):
            load_stable_diffusion({"stable": place / "model.ckpt"})

    def test_configs_may_be_elsewhere(self, place, tensors, whole):
        (place / "diffusers_config").rename(place / "said")
        torch.save(tensors, place / "model.ckpt")
        found = load_stable_diffusion({"stable": place / "model.ckpt", "config": place / "said"})
        same(weights_of(found), weights_of(whole))
        assert found.unet.config.attention_head_dim == whole.unet.config.attention_head_dim != 8
        assert found.size_px == whole.size_px == 64

    def test_configs_without_sense_are_refused(self, place, tensors):
        torch.save(tensors, place / "model.ckpt")
        config = place / "diffusers_config" / "unet" / "config.json"
        config.write_text(json.dumps({**json.loads(config.read_text()), "attention_head_dim": [5, 10]}))
        with pytest.raises(WeightsError, match=r"heads must be a whole number of at least 1, got \[5, 10\]"):
            load_stable_diffusion({"stable": place / "model.ckpt"})

    @pytest.mark.parametrize("channels", [8, 5])
    def test_unets_that_take_something_else_are_refused(self, place, tensors, channels):
        first = UNET + "input_blocks.0.0.weight"
        torch.save({**tensors, first: torch.zeros(8, channels, 3, 3)}, place / "model.ckpt")
        with pytest.raises(WeightsError, match=f"takes {channels} channels; allowed are 4, and 9 for inpainting"):
            load_stable_diffusion({"stable": place / "model.ckpt"})

    @pytest.mark.parametrize("content", [b"", b"PK", b"\x80\x02}q\x00.", b"<html>"])
    def test_damaged_files_are_refused(self, place, content):
        for name in ("model.ckpt", "model.safetensors"):
            (place / name).write_bytes(content)
            with pytest.raises(WeightsError):
                load_stable_diffusion({"stable": place / name})


class TestPartsFromElsewhere:
    def without(self, place, tensors, *prefixes):
        torch.save({k: v for k, v in tensors.items() if not k.startswith(prefixes)}, place / "model.ckpt")
        return {"stable": place / "model.ckpt"}

    @pytest.mark.parametrize(("prefix", "role"), [(VAE, "vae"), (TEXT, "text")])
    def test_a_part_that_is_missing_is_said(self, place, tensors, prefix, role):
        with pytest.raises(WeightsError, match=f"say where one is with {role}=PATH"):
            load_stable_diffusion(self.without(place, tensors, prefix))

    @pytest.mark.parametrize(("prefix", "role"), [(VAE, "vae"), (TEXT, "text")])
    @pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
    def test_a_file_of_the_part_alone(self, place, tensors, whole, prefix, role, suffix):
        alone = {k.removeprefix(prefix): v.contiguous() for k, v in tensors.items() if k.startswith(prefix)}
        torch.save(alone, place / "part.ckpt")
        save_file(alone, place / "part.safetensors")
        weights = self.without(place, tensors, prefix) | {role: place / f"part{suffix}"}
        same(weights_of(load_stable_diffusion(weights)), weights_of(whole))

    def test_inpainting_file_with_another_checkpoints_parts(self):
        other = FOLDER / "model.ckpt"
        found = load_stable_diffusion({"stable": FOLDER / "model_inpainting.ckpt", "vae": other, "text": other})
        assert found.unet.config.in_channels == 9
        assert other in found.files["vae"]
        assert other in found.files["text"]

    def test_another_autoencoder_takes_the_place_of_the_files_own(self, place, tensors, whole):
        (place / "vae").mkdir()
        AutoencoderKL.from_config(dict(whole.codec.autoencoder.config)).save_pretrained(place / "vae")
        torch.save(tensors, place / "model.ckpt")
        found = load_stable_diffusion({"stable": place / "model.ckpt", "vae": place / "vae"})
        key = "decoder.conv_in.weight"
        assert not torch.equal(found.codec.autoencoder.state_dict()[key], whole.codec.autoencoder.state_dict()[key])

    def test_tokenizer_must_be_there_and_fit(self, place, tensors):
        torch.save(tensors, place / "model.ckpt")
        tokenizer = place / "diffusers_config" / "tokenizer"
        elsewhere = shutil.move(tokenizer, place / "words")
        with pytest.raises(WeightsError, match="there is no tokenizer"):
            load_stable_diffusion({"stable": place / "model.ckpt"})
        with pytest.raises(WeightsError, match="nowhere: there is no tokenizer"):
            load_stable_diffusion({"stable": place / "model.ckpt", "tokenizer": place / "nowhere"})
        load_stable_diffusion({"stable": place / "model.ckpt", "tokenizer": place / "words"})
        vocab = json.loads((elsewhere / "vocab.json").read_text())
        (elsewhere / "vocab.json").write_text(json.dumps({**vocab, "onemore</w>": len(vocab)}))
        with pytest.raises(WeightsError, match="555 tokens, the text encoder only 554: not a pair"):
            load_stable_diffusion({"stable": place / "model.ckpt", "tokenizer": place / "words"})


def save_diffusers(folder, *, encoders=1, **unet):
    """A tiny pipeline as diffusers and transformers save it."""
    width = 64 if encoders == 1 else 96
    added = {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 68,
    }
    torch.manual_seed(0)
    UNet2DConditionModel(
        sample_size=8, block_out_channels=(8, 16), layers_per_block=1, cross_attention_dim=width, attention_head_dim=2,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        norm_num_groups=4, **(added if encoders == 2 else {}), **unet,
    ).save_pretrained(folder / "unet")  # fmt: skip
    AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4,
        block_out_channels=(8, 16), norm_num_groups=4, scaling_factor=0.13,
    ).save_pretrained(folder / "vae")  # fmt: skip
    index = {"_class_name": "StableDiffusionXLPipeline" if encoders == 2 else "StableDiffusionPipeline"}
    index |= {"unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"]}
    for number in range(encoders):
        suffix, width = ("", "_2")[number], (64, 32)[number]
        config = CLIPTextConfig(
            vocab_size=554, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=3, num_attention_heads=4,
            projection_dim=20, eos_token_id=553, bos_token_id=552, hidden_act=("quick_gelu", "gelu")[number],
        )  # fmt: skip
        kind = CLIPTextModelWithProjection if number else CLIPTextModel
        kind(config).save_pretrained(folder / f"text_encoder{suffix}")
        index[f"text_encoder{suffix}"] = ["transformers", kind.__name__]
        shutil.copytree(
            FOLDER / "diffusers_config" / "tokenizer", folder / f"tokenizer{suffix}", copy_function=shutil.copyfile
        )
    (folder / "scheduler").mkdir()
    scheduler = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def edit(file, **changes):
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


class TestDiffusersFolder:
    def test_text_states_are_those_of_transformers(self, tmp_path):
        found = load_stable_diffusion({"stable": save_diffusers(tmp_path)})
        (reader,) = found.texts
        tokenizer = CLIPTokenizer.from_pretrained(tmp_path / "tokenizer")
        model = CLIPTextModel.from_pretrained(tmp_path / "text_encoder")
        for text in TEXTS:
            asked = tokenizer(text, padding="max_length", max_length=77, truncation=True, return_tensors="pt")
            wanted = model(asked.input_ids).last_hidden_state.detach()
            torch.testing.assert_close(reader.read(text).last, wanted, atol=2e-6, rtol=0)

    def test_xl_has_two_encoders_and_a_vector(self, tmp_path):
        found = load_stable_diffusion({"stable": save_diffusers(tmp_path, encoders=2)})
        assert found.blank_is_zero
        assert (found.latent_scale, found.size_px) == (0.13, 16)
        tokenizer = CLIPTokenizer.from_pretrained(tmp_path / "tokenizer_2")
        model = CLIPTextModelWithProjection.from_pretrained(tmp_path / "text_encoder_2")
        for text in TEXTS:
            asked = tokenizer(text, padding="max_length", max_length=77, truncation=True, return_tensors="pt")
            wanted = model(asked.input_ids, output_hidden_states=True)
            states = found.texts[1].read(text)
            torch.testing.assert_close(states.penultimate, wanted.hidden_states[-2].detach(), atol=2e-6, rtol=0)
            torch.testing.assert_close(states.vector, wanted.text_embeds.detach(), atol=2e-6, rtol=0)

    @pytest.mark.parametrize("layout", ["fp16", "bin", "sharded", "old names", "text model inside"])
    def test_every_way_of_keeping_the_weights(self, tmp_path, layout):
        folder = save_diffusers(tmp_path)
        wanted = weights_of(load_stable_diffusion({"stable": folder}))
        for part, name in (
            ("unet", "diffusion_pytorch_model"),
            ("vae", "diffusion_pytorch_model"),
            ("text_encoder", "model"),
        ):
            file = folder / part / f"{name}.safetensors"
            state = load_file(file)
            file.unlink()
            if layout == "fp16":
                save_file(state, folder / part / f"{name}.fp16.safetensors")
            elif layout == "bin":
                torch.save(state, folder / part / f"{'pytorch_model' if name == 'model' else name}.bin")
            elif layout == "sharded":
                halves = [dict(list(state.items())[i::2]) for i in range(2)]
                names = [f"{name}-0000{i + 1}-of-00002.safetensors" for i in range(2)]
                for half, shard in zip(halves, names, strict=True):
                    save_file(half, folder / part / shard)
                places = {key: shard for half, shard in zip(halves, names, strict=True) for key in half}
                (folder / part / f"{name}.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
            else:
                if layout == "old names" and part == "vae":
                    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
                    for new, before in old.items():
                        state = {key.replace(f".0.{new}.", f".0.{before}."): value for key, value in state.items()}
                    assert any(".query." in key for key in state)
                if layout == "text model inside" and part == "text_encoder":
                    state = {f"text_model.{key}": value for key, value in state.items()}
                    state["text_model.embeddings.position_ids"] = torch.arange(77)[None]
                save_file(state, file)
        same(weights_of(load_stable_diffusion({"stable": folder})), wanted)

    @pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
    @pytest.mark.parametrize(("change", "message"), [("gone", "missing: "), ("more", "not known: extra")])
    def test_is_strict(self, tmp_path, part, change, message):
        folder = save_diffusers(tmp_path)
        (file,) = (folder / part).glob("*.safetensors")
        state = load_file(file)
        if change == "gone":
            del state[next(key for key in state if key.endswith("bias"))]
        else:
            state["extra"] = torch.zeros(1)
        save_file(state, file)
        with pytest.raises(WeightsError, match=message):
            load_stable_diffusion({"stable": folder})

    def test_a_part_without_weights_or_with_a_damaged_index_is_refused(self, tmp_path):
        folder = save_diffusers(tmp_path)
        (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
        with pytest.raises(WeightsError, match=r"unet: has no weights; looked for diffusion_pytorch_model\."):
            load_stable_diffusion({"stable": folder})
        index = folder / "unet" / "diffusion_pytorch_model.safetensors.index.json"
        for places in ({"x": "../../secret.safetensors"}, ["x"], None):
            index.write_text(json.dumps({"weight_map": places}))
            with pytest.raises(WeightsError, match="no weight_map of file names"):
                load_stable_diffusion({"stable": folder})

    def test_parts_that_it_brings_itself_are_not_given_besides(self, tmp_path):
        folder = save_diffusers(tmp_path)
        with pytest.raises(WeightsError, match="brings its own tokenizer; leave tokenizer=PATH out"):
            load_stable_diffusion({"stable": folder, "tokenizer": folder / "tokenizer"})
        load_stable_diffusion({"stable": folder, "vae": folder})

    def test_parts_of_different_models_are_refused(self, tmp_path):
        folder = save_diffusers(tmp_path / "one")
        shutil.rmtree(folder / "text_encoder")
        shutil.copytree(save_diffusers(tmp_path / "xl", encoders=2) / "text_encoder_2", folder / "text_encoder")
        with pytest.raises(WeightsError, match="reads text states of width 64, the text encoder has 32"):
            load_stable_diffusion({"stable": folder})

    @pytest.mark.parametrize(
        ("file", "change"),
        [
            ("model_index.json", {"_class_name": "FluxPipeline"}),
            ("model_index.json", {"_class_name": None}),
            ("model_index.json", {"image_encoder": ["transformers", "CLIPVisionModelWithProjection"]}),
            ("model_index.json", {"text_encoder": ["transformers", "BertModel"]}),
            ("model_index.json", {"text_encoder_2": ["transformers", "CLIPTextModel"]}),
            ("model_index.json", {"vae": ["diffusers", "AutoencoderTiny"]}),
            ("unet/config.json", {"time_cond_proj_dim": 256}),
            ("unet/config.json", {"addition_embed_type": "text"}),
            ("scheduler/scheduler_config.json", {"rescale_betas_zero_snr": True}),
            ("scheduler/scheduler_config.json", {"prediction_type": "sample"}),
        ],
    )
    def test_what_is_not_stepped_here_is_known(self, tmp_path, file, change):
        folder = save_diffusers(tmp_path)
        assert is_stepped_here(folder)
        edit(folder / file, **change)
        assert not is_stepped_here(folder)
        with pytest.raises(WeightsError, match="is no Stable Diffusion 1, 2 or XL"):
            load_stable_diffusion({"stable": folder})

    def test_xls_refiner_is_not_stepped_here(self, tmp_path):
        folder = save_diffusers(tmp_path, encoders=2)
        assert is_stepped_here(folder)
        edit(folder / "model_index.json", requires_aesthetics_score=True)
        assert not is_stepped_here(folder)


class TestSchedules:
    def write(self, folder, **config):
        (folder / "scheduler").mkdir(exist_ok=True)
        (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(config))
        return folder

    def test_the_published_one(self, tmp_path):
        config = {
            "beta_start": 0.00085,
            "beta_end": 0.012,
            "beta_schedule": "scaled_linear",
            "num_train_timesteps": 1000,
        }
        signal, prediction = schedule_of(self.write(tmp_path, **config))
        torch.testing.assert_close(signal, alphas_cumprod(), atol=1e-12, rtol=0)
        assert prediction == "epsilon"

    def test_others(self, tmp_path):
        signal, _ = schedule_of(self.write(tmp_path, beta_start=0.1, beta_end=0.3, num_train_timesteps=3))
        assert signal.tolist() == pytest.approx([0.9, 0.9 * 0.8, 0.9 * 0.8 * 0.7])
        signal, predicted = schedule_of(self.write(tmp_path, trained_betas=[0.5, 0.5], prediction_type="v_prediction"))
        assert (signal.tolist(), predicted) == ([0.5, 0.25], "v")

    @pytest.mark.parametrize("config", [{"beta_schedule": "squaredcos_cap_v2"}, {"prediction_type": "sample"}])
    def test_unknown_ones_are_refused(self, tmp_path, config):
        with pytest.raises(WeightsError, match=f"{next(iter(config))} '{next(iter(config.values()))}'; allowed"):
            schedule_of(self.write(tmp_path, **config))


class TestTokenizers:
    @pytest.fixture
    def words(self, tmp_path):
        shutil.copytree(FOLDER / "diffusers_config" / "tokenizer", tmp_path / "w", copy_function=shutil.copyfile)
        return tmp_path / "w"

    def test_padding(self, words):
        assert read_tokenizer(words, 77)[1] == 553
        edit(words / "tokenizer_config.json", pad_token="!")
        assert read_tokenizer(words, 77)[1] == 0
        edit(words / "tokenizer_config.json", pad_token={"content": "!"})
        assert read_tokenizer(words, 77)[1] == 0
        edit(words / "tokenizer_config.json", pad_token="<nothing>")
        with pytest.raises(WeightsError, match="pad_token '<nothing>' is not in the vocabulary"):
            read_tokenizer(words, 77)
        (words / "tokenizer_config.json").unlink()
        assert read_tokenizer(words, 77)[1] == 553

    @pytest.mark.parametrize("pairs", [False, True])
    def test_everything_in_one_file(self, words, pairs):
        wanted = read_tokenizer(words, 77)[0].encode(TEXTS[0])
        merges = (words / "merges.txt").read_text().splitlines()[1:]
        model = {"vocab": json.loads((words / "vocab.json").read_text())}
        model["merges"] = [line.split() if pairs else line for line in merges]
        (words / "tokenizer.json").write_text(json.dumps({"model": model}))
        (words / "vocab.json").unlink()
        assert read_tokenizer(words, 77)[0].encode(TEXTS[0]) == wanted
        (words / "tokenizer.json").write_text("{}")
        with pytest.raises(WeightsError, match="has no vocabulary with merges"):
            read_tokenizer(words, 77)


def test_text_encoders_with_other_norms_are_refused(tmp_path):
    folder = save_diffusers(tmp_path)
    edit(folder / "text_encoder" / "config.json", layer_norm_eps=1e-3)
    with pytest.raises(WeightsError, match=r"layer_norm_eps is 0.001; only 1e-05"):
        diffusers_folder.open_text(folder / "text_encoder")


def test_every_key_of_the_real_text_encoder_is_used():
    """ViT-L/14's tower as version 1 holds it, on the meta device."""
    with torch.device("meta"):
        real = CLIPTextModel(
            CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)
        )
    stored = {key: value for key, value in real.state_dict().items() if "position_ids" not in key}
    checkpoint = diffusers_folder.text_checkpoint(Path("here"), stored, (), {})
    assert (len(stored), sum(tensor.numel() for tensor in stored.values())) == (196, 123_060_480)
    assert checkpoint.model.config == ClipTextConfig()


def test_parts_of_a_file_lose_their_prefixes(tensors):
    parts = read_parts(FOLDER / "model.ckpt")
    assert sum(map(len, parts.values())) == len(tensors) - 12  # the noise schedule
    assert "out.2.weight" in parts[UNET]
    assert "quant_conv.weight" in parts[VAE]
    assert "text_model.final_layer_norm.bias" in parts[TEXT]
    assert not parts[""]
