"""Files of pipelines: the forms they come in, their faults, code that must not run, LoRA, names on the hub."""

import importlib.util
import json
import re
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import close_session, constants
from safetensors.torch import load_file, save_file

from dalle_flow.engine.device import run_slots
from dalle_flow.errors import FetchError, OptionError, WeightsError
from dalle_flow.executors.base import Done, Task
from dalle_flow.executors.pipeline import PipelineGenerator
from dalle_flow.executors.pipeline_load import load_pipeline, networks
from dalle_flow.executors.pipeline_options import PipelineOptions
from dalle_flow.executors.quiet import quiet
from dalle_flow.flow.plan import read_plan
from dalle_flow.registry import executor_class
from dalle_flow.weights.pipeline_files import read_pipeline
from dalle_flow.weights.pipeline_hub import hub_name

spec = importlib.util.spec_from_file_location("tiny_pipelines", Path(__file__).with_name("tiny_pipelines.py"))
tiny_pipelines = importlib.util.module_from_spec(spec)
with quiet():
    spec.loader.exec_module(tiny_pipelines)

place = Path(__file__).parents[1] / "weights" / "hub_server.py"
spec = importlib.util.spec_from_file_location("hub_server", place)
hub_server = importlib.util.module_from_spec(spec)
spec.loader.exec_module(hub_server)

UNET = "unet/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """But for this machine's own."""
    connect = socket.socket.connect

    def connect_here(self, address):
        assert address[0] == "127.0.0.1", "the network was used"
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect_here)


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    return tiny_pipelines.save("sd15", tmp_path_factory.mktemp("saved") / "sd15")


@pytest.fixture
def folder(saved, tmp_path) -> Path:
    """A copy of the toy pipeline's folder, to be damaged."""
    return Path(shutil.copytree(saved, tmp_path / "pipeline"))


def load(path: Path, **weights: Path) -> PipelineGenerator:
    return PipelineGenerator.load({"pipeline": path, **weights}, "cpu")


def picture(executor: PipelineGenerator, seed: int = 0, **options) -> np.ndarray:
    options = PipelineOptions.parse({"num_inference_steps": 2} | options)
    outputs = run_slots(executor, Task("a red cat", options, seeds=(seed,)))
    return next(np.asarray(o.result, np.int16) for o in outputs if isinstance(o, Done))


def change_index(folder: Path, **entries) -> None:
    path = folder / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def change_weights(path: Path, change) -> None:
    state = load_file(path)
    change(state)
    save_file(state, path, metadata={"format": "pt"})


def save_with(pipeline, file: Path, more: dict[str, torch.Tensor]) -> None:
    """A single file that holds more than the pipeline."""
    tiny_pipelines.save_single_file(pipeline, file)
    if file.suffix == ".safetensors":
        change_weights(file, lambda state: state.update(more))
        return
    held = torch.load(file, weights_only=True)
    held["state_dict"].update(more)
    torch.save(held, file)


def as_bin(folder: Path) -> None:
    """All weights as pickles, which is how older folders have them."""
    for name, old in ((UNET, "diffusion_pytorch_model.bin"), (TEXT, "pytorch_model.bin")):
        torch.save(load_file(folder / name), folder / Path(name).with_name(old))
        (folder / name).unlink()


class TestForms:
    def test_pickles_of_tensors(self, folder, saved) -> None:
        as_bin(folder)
        assert np.array_equal(picture(load(folder)), picture(load(saved)))

    @pytest.mark.parametrize("variant", [None, "fp16"])
    def test_weights_in_several_files(self, saved, tmp_path, variant) -> None:
        direct = load(saved)
        with quiet():
            direct.pipeline.save_pretrained(tmp_path, max_shard_size="100KB", variant=variant)
        assert len(list((tmp_path / "unet").glob("*.safetensors"))) > 1
        assert len(list((tmp_path / "text_encoder").glob("*.safetensors"))) > 1
        assert np.array_equal(picture(load(tmp_path)), picture(direct))
        next((tmp_path / "unet").glob("*-00002-of-*.safetensors")).unlink()
        with pytest.raises(WeightsError, match=r"unet|00002"):
            load(tmp_path)

    def test_a_variant_is_taken_where_there_is_nothing_else(self, folder, saved) -> None:
        """Half the numbers are gone with float16, so the picture is near; on a CPU it is computed in float32."""
        for path in (folder / UNET, folder / TEXT, folder / "vae" / Path(UNET).name):
            half = {name: tensor.half() for name, tensor in load_file(path).items()}
            save_file(half, path.with_suffix(".fp16.safetensors"), metadata={"format": "pt"})
            path.unlink()
        executor = load(folder)
        assert {network.dtype for network in networks(executor.pipeline)} == {torch.float32}
        assert 0 < np.abs(picture(executor) - picture(load(saved))).mean() < 2
        (folder / "unet" / "diffusion_pytorch_model.bf16.safetensors").write_bytes(
            (folder / "vae/config.json").read_bytes()
        )
        with pytest.raises(WeightsError, match=r"weights as bf16, fp16; keep the files of one"):
            load(folder)

    def test_bfloat16_stays(self, folder) -> None:
        for path in (folder / UNET, folder / TEXT, folder / "vae" / Path(UNET).name):
            change_weights(path, lambda state: state.update({k: v.bfloat16() for k, v in state.items()}))
        executor = load(folder)
        assert {network.dtype for network in networks(executor.pipeline)} == {torch.bfloat16}
        assert picture(executor).std() > 10

    def test_eight_bits_are_refused(self, folder) -> None:
        change_weights(folder / UNET, lambda s: s.update({k: v.to(torch.float8_e4m3fn) for k, v in s.items()}))
        with pytest.raises(WeightsError, match="its numbers are F8_E4M3, which is not computed with"):
            load(folder)

    @pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
    def test_a_single_file_is_the_folder(self, saved, tmp_path, suffix) -> None:
        """With its configuration beside it, around it, or where it is said to be."""
        direct = load(saved)
        config = tmp_path / "model"
        small = shutil.ignore_patterns("*.safetensors")
        shutil.copytree(saved, config, ignore=small)
        file = tmp_path / f"model{suffix}"
        tiny_pipelines.save_single_file(direct.pipeline, file)
        beside = load(file)
        assert np.array_equal(picture(beside), picture(direct))
        elsewhere = shutil.move(config, tmp_path / "elsewhere")
        assert load(file, config=Path(elsewhere)).weights_id == beside.weights_id != direct.weights_id
        with pytest.raises(WeightsError, match=r"no model_index.json in .*model or .*--include '\*.json'"):
            load(file)
        inside = Path(shutil.move(file, Path(elsewhere) / file.name))
        assert load(inside).weights_id == beside.weights_id

    def test_a_folder_of_another_round_of_the_family(self, folder, saved) -> None:
        change_index(folder, _class_name="StableDiffusionImg2ImgPipeline")
        executor = load(folder)
        assert type(executor.pipeline).__name__ == "StableDiffusionImg2ImgPipeline"
        assert np.array_equal(picture(executor), picture(load(saved)))

    def test_a_folder_needs_no_config(self, saved) -> None:
        with pytest.raises(OptionError, match="'config' is for single files"):
            load(saved, config=saved)

    def test_the_id_is_that_of_every_file_that_counts(self, saved, folder) -> None:
        one = load(folder).weights_id
        assert one == load(saved).weights_id
        (folder / "README.md").write_text("not a part of it")
        (folder / "unet" / "diffusion_pytorch_model.fp16.safetensors").write_bytes(b"not taken")
        assert load(folder).weights_id == one
        scheduler = folder / "scheduler" / "scheduler_config.json"
        scheduler.write_text(scheduler.read_text().replace("0.012", "0.013"))
        assert load(folder).weights_id != one

    def test_position_ids_of_old_files_are_no_fault(self, folder) -> None:
        ids = {"text_model.embeddings.position_ids": torch.arange(77)[None]}
        change_weights(folder / TEXT, lambda state: state.update(ids))
        load(folder)


class TestFaults:
    @pytest.mark.parametrize("name", [UNET, TEXT])
    def test_a_weight_that_is_missing(self, folder, name) -> None:
        change_weights(folder / name, lambda state: state.pop(sorted(state)[3]))
        with pytest.raises(WeightsError, match="1 weights are missing: "):
            load(folder)

    @pytest.mark.parametrize("name", [UNET, TEXT])
    def test_a_weight_too_many(self, folder, name) -> None:
        change_weights(folder / name, lambda state: state.update({"stray.weight": torch.zeros(3)}))
        with pytest.raises(WeightsError, match=r"1 weights fit nothing: stray\.weight"):
            load(folder)

    @pytest.mark.parametrize("name", [UNET, TEXT])
    def test_a_weight_of_another_shape(self, folder, name) -> None:
        change_weights(folder / name, lambda state: state.update({sorted(state)[3]: torch.zeros(3, 5)}))
        with pytest.raises(WeightsError, match="could not be loaded"):
            load(folder)

    @pytest.mark.parametrize("name", [UNET, TEXT])
    def test_a_file_that_is_cut_off(self, folder, name) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: len(data) // 2])
        with pytest.raises(WeightsError, match="not a whole safetensors file"):
            load(folder)

    def test_a_single_file_without_a_part(self, saved, tmp_path) -> None:
        file = tmp_path / "model.safetensors"
        tiny_pipelines.save_single_file(load(saved).pipeline, file)
        change_weights(file, lambda s: [s.pop(k) for k in list(s) if k.startswith("model.diffusion_model.out.2")])
        with pytest.raises(WeightsError, match=r"model\.safetensors"):
            load(file, config=saved)

    @pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
    @pytest.mark.parametrize(
        ("stray", "part"),
        [
            ("model.diffusion_model.input_blocks.4.0.in_layers.0.weight", "unet"),  # a level more
            ("model.diffusion_model.label_emb.0.0.weight", "unet"),  # XL's
            ("model.diffusion_model.anything", "unet"),
            ("first_stage_model.encoder.down.0.block.7.norm1.weight", "vae"),
            ("first_stage_model.stray.weight", "vae"),
        ],
    )
    def test_a_single_file_with_a_weight_too_many(self, saved, tmp_path, suffix, stray, part) -> None:
        """diffusers leaves it out without a word."""
        file = tmp_path / f"model{suffix}"
        save_with(load(saved).pipeline, file, {stray: torch.zeros(3)})
        with pytest.raises(WeightsError, match=rf"model\{suffix}: 1 weights fit nothing in the {part}: {stray}"):
            load(file, config=saved)

    def test_a_single_file_with_what_training_left_in_it(self, saved, tmp_path) -> None:
        file = tmp_path / "model.safetensors"
        names = ("model_ema.decay", "first_stage_model.loss.logvar", "alphas_cumprod", "betas")
        position_ids = {"cond_stage_model.transformer.text_model.embeddings.position_ids": torch.arange(77)[None]}
        direct = load(saved)
        save_with(direct.pipeline, file, {name: torch.zeros(3) for name in names} | position_ids)
        assert np.array_equal(picture(load(file, config=saved)), picture(direct))

    @pytest.mark.parametrize("gone", ["model_index.json", "unet", UNET, "tokenizer", "vae/config.json"])
    def test_what_is_gone_is_named(self, folder, gone) -> None:
        path = folder / gone
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        with pytest.raises(WeightsError, match=Path(gone).parts[0]):
            load(folder)

    def test_what_is_no_pipeline(self, tmp_path, folder) -> None:
        with pytest.raises(WeightsError, match="no such folder or file"):
            load(tmp_path / "nowhere" / "at" / "all")
        (tmp_path / "cat.png").write_bytes(b"\x89PNG")
        with pytest.raises(WeightsError, match=r"weights are \.safetensors, \.ckpt or a folder; this is \.png"):
            load(tmp_path / "cat.png")
        change_index(folder, _class_name="TomorrowPipeline")
        with pytest.raises(WeightsError, match=r"TomorrowPipeline, which diffusers .* does not have"):
            load(folder)


class TestCode:
    """Code that comes with weights is never run: it would leave a file."""

    @pytest.fixture
    def trap(self, tmp_path) -> tuple[Path, str]:
        ran = tmp_path / "ran"
        return ran, f"open({str(ran)!r}, 'w')\nclass Mine:\n    pass\n"

    def test_of_the_pipeline(self, folder, trap) -> None:
        (folder / "mine.py").write_text(trap[1])
        change_index(folder, _class_name=["mine", "Mine"])
        with pytest.raises(WeightsError, match=r"the pipeline is \['mine', 'Mine'\], not a class of diffusers"):
            load(folder)
        assert not trap[0].exists()

    @pytest.mark.parametrize("library", ["mine", "diffusers", "os", "a.b", "../mine"])
    def test_of_a_part(self, folder, trap, library) -> None:
        if "/" not in library:
            (folder / "unet" / f"{library}.py").write_text(trap[1])
        change_index(folder, unet=[library, "Mine"])
        with pytest.raises(WeightsError, match="not a class of diffusers or transformers"):
            load(folder)
        assert not trap[0].exists()

    def test_of_a_tokenizer(self, folder, trap) -> None:
        config = folder / "tokenizer" / "tokenizer_config.json"
        (folder / "tokenizer" / "mine.py").write_text(trap[1])
        config.write_text(json.dumps({**json.loads(config.read_text()), "auto_map": {"AutoTokenizer": "mine.Mine"}}))
        with pytest.raises(WeightsError, match="code of its own in 'auto_map'"):
            load(folder)
        assert not trap[0].exists()

    @pytest.mark.parametrize("form", ["bin", "ckpt"])
    def test_in_a_pickle(self, folder, tmp_path, form) -> None:
        class Trap:
            def __reduce__(self):
                return open, (str(tmp_path / "ran"), "w")

        path = folder / "unet" / "diffusion_pytorch_model.bin" if form == "bin" else folder / "model.ckpt"
        if form == "bin":
            (folder / UNET).unlink()
        torch.save({"conv_in.weight": torch.zeros(3), "trap": Trap()}, path)
        with pytest.raises(WeightsError, match=r"open"):
            load(folder if form == "bin" else path)
        assert not (tmp_path / "ran").exists()

    def test_a_pipeline_inside_a_pipeline(self, folder) -> None:
        change_index(folder, vae=["diffusers", "StableDiffusionPipeline"])
        with pytest.raises(WeightsError, match="a pipeline inside a pipeline"):
            load(folder)


class TestLora:
    @pytest.fixture(scope="class")
    @staticmethod
    def lora(saved, tmp_path_factory) -> Path:
        """A LoRA for the UNet's attention and the text encoder, random and strong."""
        random = torch.Generator().manual_seed(7)
        state = {}
        for place, width in {
            "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_q": 8,
            "unet.up_blocks.1.attentions.1.transformer_blocks.0.attn1.to_v": 8,
            "text_encoder.text_model.encoder.layers.0.self_attn.q_proj": 32,
        }.items():
            state[f"{place}.lora_A.weight"] = torch.randn(4, width, generator=random)
            state[f"{place}.lora_B.weight"] = torch.randn(width, 4, generator=random)
        path = tmp_path_factory.mktemp("lora") / "lora.safetensors"
        save_file(state, path)
        return path

    def test_changes_the_picture_as_much_as_it_is_told_to(self, saved, lora) -> None:
        plain, with_lora = load(saved), load(saved, lora=lora)
        without, full = picture(plain), picture(with_lora)
        assert np.abs(full - without).max() > 2
        assert np.array_equal(picture(with_lora, lora_scale=1.0), full)
        half = picture(with_lora, lora_scale=0.5)
        assert not np.array_equal(half, full)
        assert not np.array_equal(half, without)
        assert np.array_equal(picture(with_lora, lora_scale=0.0), without)
        assert np.array_equal(picture(with_lora), full)  # the scale of one round is not the next one's

    def test_is_a_part_of_the_weights(self, saved, lora, tmp_path) -> None:
        other = shutil.copy(lora, tmp_path / "lora.safetensors")
        assert load(saved, lora=lora).weights_id == load(saved, lora=tmp_path).weights_id != load(saved).weights_id
        change_weights(Path(other), lambda state: state.update({k: -v for k, v in state.items()}))
        assert load(saved, lora=Path(other)).weights_id != load(saved, lora=lora).weights_id

    def test_of_another_model(self, saved, lora, tmp_path) -> None:
        for name, change in {
            "renamed": lambda s: [s.__setitem__(k.replace("attn2.to_q", "attn9.to_q"), s.pop(k)) for k in list(s)],
            "wider": lambda s: s.update({k: torch.randn(4, 99) for k in s if k.startswith("unet") and "lora_A" in k}),
            "foreign": lambda s: [s.__setitem__(f"transformer.{k}", s.pop(k)) for k in list(s)],
            "nothing": lambda s: [s.pop(k) for k in list(s)] and s.update(bias=torch.zeros(1)),
        }.items():
            path = Path(shutil.copy(lora, tmp_path / f"{name}.safetensors"))
            change_weights(path, change)
            with pytest.raises(WeightsError, match=rf"{name}\.safetensors"):
                load(saved, lora=path)

    def test_is_no_pickle(self, saved, tmp_path) -> None:
        torch.save({"unet.lora_A.weight": torch.zeros(3)}, tmp_path / "lora.bin")
        with pytest.raises(WeightsError, match=r"a LoRA is one \.safetensors file"):
            load(saved, lora=tmp_path / "lora.bin")


class TestHub:
    @pytest.mark.parametrize(
        ("path", "name"),
        [
            ("hub:stabilityai/sdxl-turbo", ("stabilityai/sdxl-turbo", "main")),
            ("hub:owner/name@refs/pr/3", ("owner/name", "refs/pr/3")),
            ("/flows/hub:owner/name.v2", ("owner/name.v2", "main")),
            ("owner/name", ("owner/name", "main")),
            ("/owner/name", None),
            ("name", None),
            ("./a/b/c", None),
            ("github:owner/name", None),
            ("hub:owner/name.ckpt", ("owner/name.ckpt", "main")),
            ("owner/name@v1.5", ("owner/name", "v1.5")),
            ("../nope", None),
            (".cache/sdxl", None),
            ("models/.sdxl", None),
            ("models/sd@../nope", None),
            ("models/sd-v1-5.ckpt@main", None),
            ("models/v2@old/sd.ckpt", None),
        ],
    )
    def test_what_is_a_name_and_what_a_place(self, path, name) -> None:
        assert hub_name(Path(path)) == name

    def test_a_folder_is_never_a_name(self, tmp_path, monkeypatch) -> None:
        (tmp_path / "owner" / "name").mkdir(parents=True)
        monkeypatch.chdir(tmp_path)
        assert hub_name(Path("owner/name")) is None

    @pytest.mark.parametrize(
        "suffix", [".ckpt", ".safetensors", ".SafeTensors", ".pt", ".pth", ".bin", ".gguf", ".onnx"]
    )
    def test_a_mistyped_file_is_a_file_that_is_not_there(self, suffix, monkeypatch) -> None:
        """It is not asked of the hub: what somebody's files are called is nobody else's."""
        monkeypatch.setattr("dalle_flow.executors.pipeline.fetch_pipeline", lambda *_: pytest.fail("left the machine"))
        path = Path(f"models/sd-v1-5{suffix}")
        assert not PipelineGenerator.can_find(path)
        with pytest.raises(WeightsError, match=rf"models/sd-v1-5\{suffix}: there is no such folder or file"):
            load(path)

    def test_a_mistyped_name_in_a_folder_that_is_there(self, tmp_path, monkeypatch) -> None:
        (tmp_path / "models" / "sdxl-turbo").mkdir(parents=True)
        monkeypatch.chdir(tmp_path)
        assert hub_name(Path("models/sdxl-tubro")) is None
        assert hub_name(Path("hub:models/sdxl-tubro")) == ("models/sdxl-tubro", "main")

    def test_a_name_that_is_none(self) -> None:
        with pytest.raises(FetchError, match="is no name on the hub; names are OWNER/NAME"):
            load(Path("hub:stable-diffusion"))

    @pytest.fixture
    def cache(self, tmp_path, monkeypatch) -> Path:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        return tmp_path / "cache"

    @pytest.fixture
    def hub(self, cache, folder, monkeypatch):
        """The hub on loopback with the folder as owner/name; it can list the files too."""
        with hub_server.serving() as hub:
            monkeypatch.setenv("HF_ENDPOINT", hub.url)
            monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
            (folder / "unet" / "diffusion_pytorch_model.fp16.safetensors").write_bytes(b"not wanted")
            (folder / "picture.png").write_bytes(b"not wanted")
            paths = [path for path in folder.rglob("*") if path.is_file()]
            files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
            hub.repos["owner/name"] = files
            find = hub.find

            def find_or_list(path):
                if not path.startswith("/api/models/owner/name/revision/"):
                    return find(path)
                listing = {"id": "owner/name", "siblings": [{"rfilename": name} for name in hub.repos["owner/name"]]}
                return "listing", json.dumps(listing).encode()

            hub.find = find_or_list
            yield hub
            close_session()

    def test_without_the_network_says_how_to_fetch(self, cache) -> None:
        with pytest.raises(FetchError, match=r"HF_HUB_OFFLINE forbids .* 'hf download owner/name --local-dir FOLDER'"):
            load(Path("hub:owner/name"))

    def test_gets_what_is_needed_and_then_needs_no_network(self, hub, cache, saved, monkeypatch) -> None:
        made = load(Path("hub:owner/name"))
        assert made.weights_id == load(saved).weights_id
        assert not [line for line in hub.requests if "fp16" in line or "png" in line]
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        asked = len(hub.requests)
        assert load(Path("hub:owner/name@main")).weights_id == made.weights_id
        assert len(hub.requests) == asked
        unet = next(cache.rglob("unet"))
        shutil.rmtree(unet)
        with pytest.raises(WeightsError, match="names a unet, but there is no such folder; fetch all of it"):
            load(Path("hub:owner/name"))

    def test_nothing_is_downloaded_that_wants_to_be_run(self, hub, cache) -> None:
        index = json.loads(hub.repos["owner/name"]["model_index.json"])
        hub.repos["owner/name"]["model_index.json"] = json.dumps({**index, "_class_name": ["a", "B"]}).encode()
        with pytest.raises(WeightsError, match="not a class of diffusers"):
            load(Path("hub:owner/name"))
        assert {line.split("/")[-1] for line in hub.requests} == {"model_index.json"}

    def test_a_repository_that_is_none(self, hub) -> None:
        with pytest.raises(FetchError, match="no such repository"):
            load(Path("hub:owner/other"))
        del hub.repos["owner/name"]["model_index.json"]
        with pytest.raises(FetchError, match=r"has no model_index\.json at main, so it is no diffusers pipeline"):
            load(Path("hub:owner/name"))


def test_the_flow_in_the_document_is_one(tmp_path) -> None:
    page = Path(__file__).parents[2] / "docs" / "pipelines.md"
    (tmp_path / "flow.yml").write_text(re.search(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL)[1])
    plan = read_plan(tmp_path / "flow.yml")
    assert set(plan.executors) == {"turbo", "lcm", "flux", "qwen"}
    for entry in plan.executors.values():
        assert executor_class(entry.uses) is PipelineGenerator
        PipelineOptions.parse(entry.options)
        assert set(entry.weights) <= {*PipelineGenerator.roles, *PipelineGenerator.optional_roles}


def test_numbers_on_a_gpu_stay_as_they_are_stored(folder) -> None:
    """What is float16 is float16 there; asked of the meta device, which has no memory to fill."""
    for path in (folder / UNET, folder / TEXT, folder / "vae" / Path(UNET).name):
        change_weights(path, lambda state: state.update({k: v.half() for k, v in state.items()}))
    files = read_pipeline(folder)
    assert files.stored_dtype() == torch.float16
    assert {network.dtype for network in networks(load_pipeline(files, "meta"))} == {torch.float16}
