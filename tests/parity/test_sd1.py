"""Stable Diffusion 1 against the code of 2022: text, UNet, autoencoder, noise levels, and whole pictures of every kind.

Runs, sizes and seeds come from the folder's meta.json. Noise is what the originals drew where the folder has it; where
it has not, it is drawn from the seed, which gives the same numbers (asserted for those that are there).
"""

import json
import os
from collections.abc import Iterator
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
from dalle_flow.executors.base import Done, Task
from dalle_flow.executors.stable import StableGenerator
from dalle_flow.executors.stable_frames import StableSlot
from dalle_flow.executors.stable_options import StableInterpolateOptions, StableOptions, StableRefineOptions
from dalle_flow.images import to_image
from dalle_flow.models.diffusion_schedule import alphas_cumprod
from dalle_flow.models.sigmas import SigmaTable
from dalle_flow.models.subprompts import parse_subprompts
from dalle_flow.types import RoundKind

ROOT = Path(__file__).parents[2]
FALLBACKS = (ROOT.parent / "shared" / "parity", ROOT / "tests" / "data" / "parity")
FOLDER = Path(os.environ.get("DALLE_FLOW_PARITY") or next(folder for folder in FALLBACKS if folder.is_dir())) / "sd1"
HERE = (FOLDER / "meta.json").is_file()
META: dict[str, Any] = json.loads((FOLDER / "meta.json").read_text()) if HERE else {"config": {"W": 0, "H": 0}}
CONFIG = META["config"]
NEAR = 2e-5  # of the largest value
# dpm_adaptive chooses its steps by its own rounding: 1e-7 more noise at the start moves the result by 5e-4.
NEAR_ADAPTIVE = 5e-3
RUNS = [
    name
    for name, run in META.items()
    if isinstance(run, dict) and "sampler" in run and not name.startswith("interpolate.")
    if not run.get("use_dynamic_thresholding")  # DALL·E Flow never asked for it
]
SIZE = (CONFIG["W"], CONFIG["H"])

pytestmark = pytest.mark.skipif(not HERE, reason="no sd1 parity data")


@pytest.fixture(scope="module")
def reference() -> dict[str, Tensor]:
    return load_file(FOLDER / "reference.safetensors")


@pytest.fixture(scope="module")
def stable() -> StableGenerator:
    return StableGenerator.load({"stable": FOLDER / "model.ckpt"}, "cpu")


@pytest.fixture(scope="module")
def inpainting() -> StableGenerator:
    whole = FOLDER / "model.ckpt"
    return StableGenerator.load({"stable": FOLDER / "model_inpainting.ckpt", "vae": whole, "text": whole}, "cpu")


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


def error(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).abs().max() / wanted.abs().max())


def task_of(name: str, executor: StableGenerator) -> Task:
    """The run of that name as a task."""
    run = META[name]
    values = {"sampler": run["sampler"], "noiser": run.get("noiser"), "num_inference_steps": run["steps"]}
    values |= {"guidance_scale": float(CONFIG["scale"]), "width": SIZE[0], "height": SIZE[1]}
    seeds = (run["seed"],) * run["B"]
    if "strength" not in run and "rgba" not in name:
        return Task(run["prompt"], StableOptions(**values), seeds)
    file = "init.png" if "img2img" in name else "init_rgba_exact.png" if executor.sees_picture else "init_rgba.png"
    init = Image.open(FOLDER / file)
    if executor.sees_picture:  # made to fit by another filter than elsewhere
        init = init if init.mode == "RGBA" else init.resize(SIZE, Image.Resampling.BICUBIC)
    # The inpainting weights began from noise alone where there was a mask.
    values |= {"strength": run.get("strength", 1.0), "latentless": run.get("init_pil_image_as_random_latent", False)}
    return Task(run["prompt"], StableRefineOptions(**values), seeds, kind=RoundKind.REFINE, init=init)


def drawn(executor: StableGenerator, task: Task) -> list[tuple[StableSlot, Image.Image]]:
    """Finished slots with their pictures, in order."""
    done = [o for o in run_slots(executor, task) if isinstance(o, Done) and isinstance(o.slot, StableSlot)]
    return sorted(((o.slot, o.result) for o in done), key=lambda pair: pair[0].index)


def replay(
    monkeypatch: pytest.MonkeyPatch,
    executor: StableGenerator,
    reference: dict[str, Tensor],
    rows: list[tuple[str, int]],
) -> None:
    """Let the executor draw what the originals drew: for each picture a run and its row there, as far as it is kept."""
    draw, waiting = executor._noise, iter(rows)

    def noise(seed: int, size: tuple[int, int]):
        name, row = next(waiting)
        if f"{name}.randn_0" not in reference:
            return draw(seed, size)
        kept = iter([reference[f"{name}.randn_{i}"][row] for i in range(len(META[name]["draws"]))])
        return lambda: next(kept)

    monkeypatch.setattr(executor, "_noise", noise)


def check_picture(image: Image.Image, wanted: Tensor, most: int, share: float = 0.05) -> None:
    """Every fourth pixel; a value that is cut off to 8 bits may fall to the one beside it, in a share of them."""
    found = torch.from_numpy(np.array(image))[::4, ::4].int()
    apart = (found - wanted.int()).abs()
    assert int(apart.max()) <= most
    assert float((apart > 0).float().mean()) < share


@pytest.mark.parametrize("name", RUNS)
def test_whole_pictures(
    name: str, request: pytest.FixtureRequest, reference: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    executor: StableGenerator = request.getfixturevalue("inpainting" if name.startswith("rml.") else "stable")
    adaptive = META[name]["sampler"] == "dpm_adaptive"
    task = task_of(name, executor)
    replay(monkeypatch, executor, reference, [(name, row) for row in range(len(task))])
    found = drawn(executor, task)
    assert len(found) == META[name]["B"]
    for row, (slot, _) in enumerate(found):
        assert slot.result is not None
        assert error(slot.result, reference[f"{name}.samples"][row]) < (NEAR_ADAPTIVE if adaptive else NEAR)
        share = 0.05
        image = to_image(executor.codec.decode(slot.result[None] / executor.latent_scale)[0])
        if slot.new is not None and slot.task.init is not None:  # what is kept was put back pixel by pixel
            mask = Image.fromarray((slot.new[0] * 255).byte().numpy()).resize(SIZE, Image.Resampling.NEAREST)
            image = Image.composite(image, slot.task.init.resize(SIZE, Image.Resampling.LANCZOS), mask)
            share = 0.5  # it went to [-1, 1] and back there
        check_picture(image, reference[f"{name}.image_uint8_stride4"][row], 3 if adaptive else 1, share)


@pytest.mark.parametrize("name", RUNS)
def test_seeds_draw_what_the_originals_drew(name: str, reference: dict[str, Tensor]) -> None:
    if f"{name}.randn_0" not in reference:
        pytest.skip("not in this folder")
    stream = torch.Generator().manual_seed(META[name]["seed"])
    for i, shape in enumerate(META[name]["draws"]):
        assert torch.equal(torch.randn(shape, generator=stream), reference[f"{name}.randn_{i}"])


class TestInterpolation:
    names = [name for name in META if name.startswith("interpolate.")]

    def task(self, **changes: Any) -> Task:
        run, options = META[self.names[0]], META["interpolate"]
        values = {"sampler": run["sampler"], "num_inference_steps": run["steps"], "strength": options["strength"]}
        values |= {"guidance_scale": float(CONFIG["scale"]), "width": SIZE[0], "height": SIZE[1]}
        one, other = options["prompts"]
        count = len(self.names)
        seeds = (options["seed0"],) * count
        facts: dict[str, Any] = {"kind": RoundKind.INTERPOLATE, "prompt_to": other, "of": count, "seeds": seeds}
        return Task(one, StableInterpolateOptions(**values), **(facts | changes))

    def test_a_row_of_frames(
        self, stable: StableGenerator, reference: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        replay(monkeypatch, stable, reference, [(name, 0) for name in self.names])
        found = drawn(stable, self.task())
        assert len(found) == len(self.names)
        for name, (slot, image) in zip(self.names, found, strict=True):
            assert slot.result is not None
            assert error(slot.result, reference[f"{name}.samples"][0]) < NEAR
            check_picture(image, reference[f"{name}.image_uint8_stride4"][0], 1)

    def test_one_frame_alone(self, stable: StableGenerator, reference: dict[str, Tensor]) -> None:
        last = len(self.names) - 1
        ((slot, _),) = drawn(stable, self.task(first=last, seeds=(META["interpolate"]["seed0"],)))
        assert slot.index == last
        assert slot.result is not None
        assert error(slot.result, reference[f"{self.names[last]}.samples"][0]) < NEAR

    def test_conditions_between(self, stable: StableGenerator, reference: dict[str, Tensor]) -> None:
        kept = [name for name in self.names if f"{name}.conditioning" in reference]
        assert kept
        for name in kept:
            (_, condition), _ = stable.conditions(self.task(), self.names.index(name))
            assert error(condition.context, reference[f"{name}.conditioning"][0]) < NEAR


class TestParts:
    def test_tokens_and_text_states(self, stable: StableGenerator, reference: dict[str, Tensor]) -> None:
        (reader,) = stable.texts
        for row, text in enumerate(META["texts"]):
            assert error(reader.read(text).last[0], reference["text.last_hidden_state"][row]) < NEAR
        assert reader.pad_token_id == reference["text.input_ids"][0, -1]
        states = reader.encoder(reference["text.input_ids"]).last
        assert error(states, reference["text.last_hidden_state"]) < NEAR

    def test_unet(self, stable: StableGenerator, reference: dict[str, Tensor]) -> None:
        timesteps, context = reference["unet.t"], reference["unet.context"]
        found = stable.unet(reference["unet.x"], timesteps, context).sample
        assert error(found, reference["unet.eps"]) < NEAR
        wide = stable.unet(reference["unet.x_wide"], timesteps[1], context[:1]).sample
        assert error(wide, reference["unet.eps_wide"]) < NEAR

    def test_inpainting_unet(self, inpainting: StableGenerator, reference: dict[str, Tensor]) -> None:
        seen = torch.cat([reference["unet.x"], reference["inpaint.c_concat_mask_then_masked_latent"]], 1)
        found = inpainting.unet(seen, reference["unet.t"], reference["unet.context"]).sample
        assert error(found, reference["inpaint.eps"]) < NEAR

    def test_autoencoder(self, stable: StableGenerator, reference: dict[str, Tensor]) -> None:
        mean, deviation = stable.codec.encode((reference["vae.image"] + 1) / 2)
        wanted_mean, log_variance = reference["vae.moments"].chunk(2, 1)
        assert error(mean, wanted_mean) < NEAR
        assert deviation is not None
        assert error(deviation, (log_variance / 2).exp()) < NEAR
        sampled = (mean + deviation * reference["vae.posterior_noise"]) * stable.latent_scale
        assert error(sampled, reference["vae.latent_scaled"]) < NEAR
        decoded = stable.codec.decode(reference["vae.z_scaled"] / stable.latent_scale)
        assert error(decoded, ((reference["vae.decode_first_stage"] + 1) / 2).clamp(0, 1)) < NEAR

    def test_mistakes_would_be_noticed(self, stable: StableGenerator, reference: dict[str, Tensor]) -> None:
        found = stable.unet(reference["unet.x"], reference["unet.t"] - 20, reference["unet.context"]).sample
        assert error(found, reference["unet.eps"]) > 100 * NEAR


class TestNoiseLevels:
    def test_schedule(self, reference: dict[str, Tensor]) -> None:
        assert error(alphas_cumprod(), reference["schedule.alphas_cumprod"].double()) < 1e-6
        assert error(torch.from_numpy(np.exp(SigmaTable.of().logs)), reference["sigmas.model_table"].double()) < NEAR

    @pytest.mark.parametrize("name", ["default", "default_50", "karras", "exponential", "vp"])
    def test_tables(self, name: str, reference: dict[str, Tensor]) -> None:
        wanted = reference[f"sigmas.{name}"].double()
        found = torch.tensor(
            SigmaTable.of().sigmas(len(wanted) - 1, None if "default" in name else name), dtype=torch.float64
        )
        assert found[-1] == wanted[-1] == 0
        # The reference subtracts 1 from numbers near 1 in float32: 2e-7 of sigma squared.
        assert ((found**2 - wanted**2).abs() < 2e-7 + 2 * NEAR * wanted**2).all()


def test_subprompts() -> None:
    cases = json.loads((FOLDER / "subprompt_parse.json").read_text())
    assert cases
    for prompt, wanted in cases:
        if isinstance(wanted, list):
            assert [list(part) for part in parse_subprompts(prompt)] == wanted
        else:
            with pytest.raises(OptionError, match=f"{prompt.count(':')} weighted sub-prompts"):
                parse_subprompts(prompt)


def test_a_checkpoint_without_a_model_is_refused() -> None:
    with pytest.raises(WeightsError, match=r"pl_toplevel_only\.ckpt: has no model\.diffusion_model"):
        StableGenerator.load({"stable": FOLDER / "pl_toplevel_only.ckpt"}, "cpu")
