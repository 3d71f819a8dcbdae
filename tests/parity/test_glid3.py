"""GLID-3 XL against the original program: modules, schedules, whole trajectories, pictures.

The folder is found as the other parity tests find theirs; any folder of that layout will do, sizes come from its meta.
"""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from dalle_flow.engine.device import run_slots
from dalle_flow.errors import OptionError, WeightsError
from dalle_flow.executors import diffusion
from dalle_flow.executors.base import Done, Task
from dalle_flow.executors.glid3 import Clip, Condition, Glid3Generator
from dalle_flow.models.clip import CLIP, CLIPConfig
from dalle_flow.models.diffusion_schedule import Schedule, alphas_cumprod, ddim_timesteps, spread_timesteps
from dalle_flow.models.latent_codec import LatentCodec
from dalle_flow.models.latent_text import LatentTextEncoder
from dalle_flow.models.latent_unet import LatentUNet
from dalle_flow.models.samplers import Query, Sampler, add_noise, ddim, ddpm, plms
from dalle_flow.models.text.clip_bpe import ClipTokenizer
from dalle_flow.models.text.wordpiece import WordPieceTokenizer
from dalle_flow.types import RoundKind
from dalle_flow.weights.glid3 import load_latent_codec, load_latent_text, load_latent_unet

TESTS = Path(__file__).parents[1]
FALLBACKS = (TESTS.parents[1] / "shared" / "parity", TESTS / "data" / "parity")
FOLDER = Path(os.environ.get("DALLE_FLOW_PARITY") or next(folder for folder in FALLBACKS if folder.is_dir())) / "glid3"
MODULE = 1e-5  # of the largest value: one forward
LOOP = 1e-5  # of the largest value: a whole trajectory

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="no glid3 parity data")


@pytest.fixture(scope="module")
def meta() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / "meta.json").read_text())
    return found


@pytest.fixture(scope="module")
def reference() -> dict[str, Tensor]:
    return load_file(FOLDER / "reference.safetensors")


@pytest.fixture(scope="module")
def config(meta: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = meta["config"]
    return found


def file(name: str) -> Path:
    found = FOLDER / name
    if not found.exists():
        pytest.skip(f"no {name} here")
    return found


@pytest.fixture(scope="module")
def unet(config: dict[str, Any]) -> LatentUNet:
    return load_latent_unet(file("finetune.pt"), heads=config["unet"]["num_heads"], norm_groups=config["groups"])


@pytest.fixture(scope="module")
def codec(config: dict[str, Any]) -> LatentCodec:
    return load_latent_codec(file("kl-f8.pt"), norm_groups=config["groups"])


@pytest.fixture(scope="module")
def text() -> LatentTextEncoder:
    return load_latent_text(file("bert.pt"))


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


def close(ours: Tensor, theirs: Tensor, share: float = MODULE) -> None:
    assert ours.shape == theirs.shape
    assert float((ours - theirs).abs().max()) <= share * float(theirs.abs().max())


class TestModules:
    def test_text_encoder(self, text: LatentTextEncoder, reference: dict[str, Tensor]) -> None:
        close(text(reference["bert.input_ids"]), reference["bert.output"])

    @pytest.mark.parametrize(("timesteps", "wanted"), [("unet.t", "unet.eps"), ("unet.t_float", "unet.eps_t_float")])
    def test_unet(self, unet: LatentUNet, reference: dict[str, Tensor], timesteps: str, wanted: str) -> None:
        r = reference
        ours = unet(r["unet.x"], r[timesteps].float(), r["unet.context"], r["unet.clip_embed"])
        close(ours, r[wanted])

    def test_unet_on_a_wide_latent(self, unet: LatentUNet, reference: dict[str, Tensor]) -> None:
        r = reference
        ours = unet(r["unet.x_wide"], r["unet.t"][1:2].float(), r["unet.context"][:1], r["unet.clip_embed"][:1])
        close(ours, r["unet.eps_wide"])

    def test_inpaint_unet(self, config: dict[str, Any], reference: dict[str, Tensor]) -> None:
        model = load_latent_unet(file("inpaint.pt"), heads=config["inp"]["num_heads"], norm_groups=config["groups"])
        r = reference
        said = (r["unet.x"], r["unet.t"].float(), r["unet.context"], r["unet.clip_embed"])
        assert model.config.sees_picture
        close(model(*said, r["inpaint.image_embed"]), r["inpaint.eps"])
        close(model(*said), r["inpaint.eps_zero_image"])

    def test_codec(self, codec: LatentCodec, reference: dict[str, Tensor]) -> None:
        r = reference
        mean, deviation = codec.encode((r["kl.image"] + 1) / 2)
        assert deviation is not None
        close(mean, r["kl.mean"])
        close(deviation, (0.5 * r["kl.logvar"]).exp())
        close(codec.decode(r["kl.z"]), ((r["kl.decoded"] + 1) / 2).clamp(0, 1))

    def test_codec_from_a_state_dict(self, config: dict[str, Any], reference: dict[str, Tensor]) -> None:
        codec = load_latent_codec(file("kl-f8.state.safetensors"), norm_groups=config["groups"])
        close(codec.decode(reference["kl.z"]), ((reference["kl.decoded"] + 1) / 2).clamp(0, 1))


class TestText:
    def test_tokens(self, meta: dict[str, Any], reference: dict[str, Tensor]) -> None:
        tokenizer = WordPieceTokenizer.from_file(file("vocab.txt"), reference["bert.input_ids"].shape[1])
        assert torch.equal(tokenizer(meta["bert_texts"]), reference["bert.input_ids"])

    def test_tokens_of_the_published_vocabulary(self) -> None:
        tokenizer = WordPieceTokenizer.from_file(file("bert-base-uncased-vocab.txt"), 77)
        for case in json.loads(file("bert_tokenizer_ids.json").read_text()):
            ours = tokenizer([case["text"]])[0].tolist()
            wanted = case["input_ids"]
            assert ours == wanted + [0] * (77 - len(wanted)), case["text"]


class TestSchedule:
    def test_signal(self) -> None:
        wanted = load_file(file("schedule_float64.safetensors"))
        assert torch.allclose(alphas_cumprod(), wanted["alphas_cumprod"], rtol=1e-12, atol=0)

    def test_timesteps(self) -> None:
        for said, wanted in json.loads(file("timesteps.json").read_text())["respacing_of_1000"].items():
            if "," in said:  # sections, which no command of the original asks for
                continue
            space = ddim_timesteps if said.startswith("ddim") else spread_timesteps
            if wanted == "ValueError":
                with pytest.raises(OptionError):
                    space(int(said.removeprefix("ddim")))
            else:
                assert space(int(said.removeprefix("ddim"))) == wanted, said


@pytest.fixture(scope="module")
def ask(unet: LatentUNet, reference: dict[str, Tensor], config: dict[str, Any]) -> Callable[[Query, int], Tensor]:
    """The guided estimate for a query of picture `row`."""
    context, vector = reference["sample.context_cond_then_blank"], reference["sample.clip_embed_cond_then_blank"]
    number = len(context) // 2

    def guided(query: Query, row: int) -> Tensor:
        rows = [row, number + row]
        with torch.inference_mode():
            found = unet(
                query.latents.expand(2, -1, -1, -1), torch.full((2,), query.timestep), context[rows], vector[rows]
            )
        away = found[1] + config["guidance"] * (found[0] - found[1])
        return torch.cat([away[:3], found[0, 3:]])

    return guided


def trajectory(sampler: Sampler, ask: Callable[[Query, int], Tensor], row: int) -> Tensor:
    query = next(sampler)
    while True:
        try:
            query = sampler.send(ask(query, row))
        except StopIteration as end:
            found: Tensor = end.value
            return found


class TestTrajectories:
    @pytest.mark.parametrize(
        "name", ["plms", "plms_init", "plms_skip_noinit", "ddim", "ddim_init", "ddim_eta1", "ddpm"]
    )
    def test_ends_where_the_original_ends(
        self,
        name: str,
        meta: dict[str, Any],
        config: dict[str, Any],
        reference: dict[str, Tensor],
        ask: Callable[[Query, int], Tensor],
    ) -> None:
        said = meta[name]["timestep_respacing"]
        schedule = Schedule.of((ddim_timesteps if "ddim" in said else spread_timesteps)(int(said.removeprefix("ddim"))))
        start = len(schedule) - 1 - meta[name].get("skip_timesteps", 0)
        wanted = reference[f"{name}.pred_xstart"][-1]
        for row in range(len(wanted)):
            latents = reference["sample.x_T"][row]
            if start < len(schedule) - 1:
                init = reference["sample.init_latent"][0] if "noinit" not in name else torch.zeros_like(latents)
                latents = add_noise(init, latents, schedule.signal[start])
            draws = iter(reference.get(f"{name}.step_noise", ()))

            def noise(row: int = row, draws: Iterator[Tensor] = draws) -> Tensor:
                return next(draws)[row]

            if name.startswith("plms"):
                sampler = plms(latents, schedule, start)
            elif name == "ddpm":
                sampler = ddpm(latents, schedule, start, noise)
            else:
                sampler = ddim(latents, schedule, start, noise, meta[name].get("eta", 0.0))
            close(trajectory(sampler, ask, row), wanted[row], LOOP)


class TestPictures:
    """The original's whole program, with the random numbers it drew."""

    @pytest.fixture
    def executor(
        self,
        unet: LatentUNet,
        text: LatentTextEncoder,
        codec: LatentCodec,
        config: dict[str, Any],
        reference: dict[str, Tensor],
    ) -> Glid3Generator:
        width = config["unet"]["clip_embed_dim"]
        letters = ClipTokenizer.of_bytes()
        small = CLIPConfig(
            embed_dim=width, image_size=14, patch_size=7, vision_width=8, vision_layers=1, text_width=8, text_layers=1,
            vocab_size=letters.vocab_size, head_width=8,
        )  # fmt: skip
        tokenizer = WordPieceTokenizer.from_file(file("vocab.txt"), text.config.max_length)
        made = Glid3Generator(unet, text, codec, tokenizer, "parity", clip=Clip(CLIP(small), letters))
        context, vector = reference["sample.context_cond_then_blank"], reference["sample.clip_embed_cond_then_blank"]
        # The vectors are of no CLIP; the states must come out of our text encoder, quotes and all.
        quoted = f'"{config["text"]}"'
        close(text(tokenizer([quoted]))[0], context[0])
        rows = {quoted: 0, config["blank"]: len(context) // 2}
        made.condition = lambda prompt: Condition(context[rows[prompt]], vector[rows[prompt]])  # type: ignore[assignment]
        return made

    @pytest.mark.parametrize("name", ["txt2img", "img2img"])
    def test_are_the_original_s(
        self,
        name: str,
        executor: Glid3Generator,
        config: dict[str, Any],
        meta: dict[str, Any],
        reference: dict[str, Tensor],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        wanted = reference[f"do_run.{name}.images_uint8"].numpy()
        argv = meta[f"do_run.{name}"]["argv"]
        skip = int(argv[argv.index("--skip_timesteps") + 1]) if "--skip_timesteps" in argv else 0
        refine = name == "img2img"
        options: dict[str, Any] = {
            "num_inference_steps": config["steps"],
            "guidance_scale": config["guidance"],
            "width": config["W"],
            "height": config["H"],
        }
        kind = RoundKind.REFINE if refine else RoundKind.GENERATE
        if refine:
            options["strength"] = 1 - skip / config["steps"]
        init = Image.open(file("init.png")).convert("RGB") if refine else None
        task = Task(
            f'"{config["text"]}"',
            executor.verbs[kind].parse(options),
            seeds=tuple(range(len(wanted))),
            kind=kind,
            init=init,
        )
        draws = []  # of each picture: the posterior's noise, which all share, then its own
        for row in range(len(wanted)):
            draws += (
                [reference["do_run.img2img.randn_0"][0], reference["do_run.img2img.randn_1"][row]]
                if refine
                else [reference["do_run.txt2img.randn_0"][row]]
            )
        drawn = iter(draws)
        monkeypatch.setattr(diffusion.torch, "randn", lambda *_, **__: next(drawn))
        done = [output for output in run_slots(executor, task) if isinstance(output, Done)]
        for output in done:
            assert isinstance(output.result, Image.Image)
            ours = np.asarray(output.result, np.int16)
            assert np.abs(ours - wanted[output.slot.index].astype(np.int16)).max() <= 1
        assert len(done) == len(wanted)


class TestSizesThatNoShapeTells:
    @pytest.mark.parametrize(("name", "load"), [("finetune.pt", load_latent_unet), ("kl-f8.pt", load_latent_codec)])
    def test_a_wrong_guess_says_where_to_write_the_right_one(self, name: str, load: Callable[..., Any]) -> None:
        with pytest.raises(WeightsError, match=rf"norm_groups=7 does not divide .* {Path(name).stem}\.json"):
            load(file(name), norm_groups=7)

    def test_they_are_read_from_beside_the_file(self, tmp_path: Path, config: dict[str, Any]) -> None:
        (tmp_path / "finetune.pt").symlink_to(file("finetune.pt").resolve())
        sizes = {"heads": config["unet"]["num_heads"], "norm_groups": config["groups"]}
        (tmp_path / "finetune.json").write_text(json.dumps(sizes))
        assert load_latent_unet(tmp_path / "finetune.pt").config.norm_groups == config["groups"]
        (tmp_path / "finetune.json").write_text('{"head": 2}')
        with pytest.raises(WeightsError, match="unknown 'head'; it may say heads, norm_groups"):
            load_latent_unet(tmp_path / "finetune.pt")
