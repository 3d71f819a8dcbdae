"""Refining, inpainting and interpolating by latent diffusion, on a model of toy size."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dalle_flow.engine.device import run_slots
from dalle_flow.errors import OptionError, PictureError, WeightsError
from dalle_flow.executors.base import Done, Preview, Task
from dalle_flow.executors.diffusion import slerp, start_index
from dalle_flow.executors.glid3 import Glid3Generator
from dalle_flow.executors.pasting import latent_mask, pasted
from dalle_flow.models.latent_text import LatentTextConfig, LatentTextEncoder
from dalle_flow.types import RoundKind
from dalle_flow.weights.ours import save_ours

FEW = {"num_inference_steps": 4, "sampler": "ddim"}


@pytest.fixture(scope="module")
def glid3() -> Glid3Generator:
    return Glid3Generator.tiny()


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def drawn(glid3: Glid3Generator, kind: RoundKind, number: int = 1, **fields: Any) -> list[np.ndarray]:
    options = glid3.verbs[kind].parse({**FEW, **fields.pop("options", {})})
    seeds = fields.pop("seeds", tuple(range(number)))
    task = Task(fields.pop("prompt", "a cat"), options, seeds=seeds, kind=kind, **fields)
    found = {o.slot.index: o.result for o in run_slots(glid3, task) if isinstance(o, Done)}
    assert sorted(found) == list(range(len(seeds)))
    return [np.asarray(found[i], np.int16) for i in sorted(found)]


def picture(width: int, height: int, seed: int = 0, mode: str = "RGB") -> Image.Image:
    blocks = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


class TestRefine:
    def test_little_strength_stays_near_and_much_goes_far(self, glid3: Glid3Generator) -> None:
        init = picture(16, 16)
        codec = drawn(glid3, RoundKind.REFINE, init=init, options={"strength": 0.01, "num_inference_steps": 1000})[0]
        near, far = (
            np.abs(drawn(glid3, RoundKind.REFINE, init=init, options={"strength": s})[0] - codec).mean()
            for s in (0.25, 1.0)
        )
        assert near < far

    def test_strength_1_ignores_the_picture(self, glid3: Glid3Generator) -> None:
        one, other = (
            drawn(glid3, RoundKind.REFINE, init=picture(16, 16, i), options={"strength": 1.0})[0] for i in (0, 1)
        )
        assert np.array_equal(one, other)

    @pytest.mark.parametrize("strength", [0, -1, 1.5, "a"])
    def test_refuses_other_strengths(self, glid3: Glid3Generator, strength: object) -> None:
        with pytest.raises(OptionError) as caught:
            glid3.RefineOptions.parse({"strength": strength})
        assert caught.value.field == "strength"

    @pytest.mark.parametrize("number", [1, 5, 6, 36])
    def test_exact_counts(self, glid3: Glid3Generator, number: int) -> None:
        assert len(drawn(glid3, RoundKind.REFINE, number, init=picture(16, 16))) == number

    def test_alone_and_in_a_batch(self, glid3: Glid3Generator) -> None:
        init = picture(16, 16)
        batch = drawn(glid3, RoundKind.REFINE, 5, init=init)
        alone = drawn(glid3, RoundKind.REFINE, init=init, seeds=(3,))[0]
        assert np.abs(batch[3] - alone).max() <= 2

    @pytest.mark.parametrize(("size", "wanted"), [((64, 64), (16, 16)), ((90, 40), (24, 12)), ((30, 300), (4, 52))])
    def test_keeps_the_shape_of_the_picture(
        self, glid3: Glid3Generator, size: tuple[int, int], wanted: tuple[int, int]
    ) -> None:
        found = drawn(glid3, RoundKind.REFINE, init=picture(*size))[0]
        assert found.shape == (wanted[1], wanted[0], 3)

    @pytest.mark.parametrize("steps", [1, 2, 3, 4, 27])
    @pytest.mark.parametrize("strength", [0.01, 0.03, 0.5, 0.99, 1.0])
    @pytest.mark.parametrize("sampler", ["plms", "ddim", "ddpm"])
    def test_every_start_ends_in_a_picture(
        self, glid3: Glid3Generator, steps: int, strength: float, sampler: str
    ) -> None:
        """The original gave black pictures from NaN when few steps were left, and crashed at none."""
        if sampler == "ddim" and steps == 27:
            steps = 25
        options = {"num_inference_steps": steps, "strength": strength, "sampler": sampler}
        found = drawn(glid3, RoundKind.REFINE, init=picture(16, 16), options=options)[0]
        assert found.std() > 1

    def test_steps_left_out(self) -> None:
        assert [start_index(100, s) for s in (1.0, 0.5, 0.3, 0.03, 0.001)] == [99, 49, 29, 2, 0]
        assert start_index(10, 0.7) == 6  # 1 - .7 is a little more than .3


class TestInpaint:
    @staticmethod
    def mask(width: int, height: int) -> Image.Image:
        mask = Image.new("L", (width, height))
        mask.paste(255, (width // 2, 0, width, height))
        return mask

    @pytest.mark.parametrize("size", [(16, 16), (50, 34)])
    def test_keeps_what_is_black_to_the_pixel(self, glid3: Glid3Generator, size: tuple[int, int]) -> None:
        init, mask = picture(*size), self.mask(*size)
        for found in drawn(glid3, RoundKind.INPAINT, 5, init=init, mask=mask):
            assert found.shape == (size[1], size[0], 3)
            kept = np.asarray(mask) == 0
            assert np.array_equal(found[kept], np.asarray(init, np.int16)[kept])
            assert np.abs(found[~kept] - np.asarray(init, np.int16)[~kept]).mean() > 5

    def test_the_model_is_shown_what_is_kept(self, glid3: Glid3Generator) -> None:
        """Other surroundings, another new part."""
        mask = self.mask(16, 16)
        one, other = (drawn(glid3, RoundKind.INPAINT, init=picture(16, 16, i), mask=mask)[0] for i in (0, 1))
        white = np.asarray(mask) == 255
        assert np.abs(one[white] - other[white]).max() > 2

    def test_a_cell_with_any_white_is_new(self) -> None:
        mask = Image.new("L", (32, 16))
        mask.putpixel((31, 0), 255)
        assert latent_mask(mask, (2, 4)).tolist() == [[[0, 0, 0, 1], [0, 0, 0, 0]]]

    def test_the_new_part_fades_in_inside_the_mask(self) -> None:
        old, new, mask = Image.new("RGB", (64, 64)), Image.new("RGB", (8, 8), "white"), self.mask(64, 64)
        row = np.asarray(pasted(new, old, mask))[32, :, 0].astype(int)
        assert (row[:32] == 0).all()
        assert (np.diff(row) >= 0).all()
        assert row[40] == 255


class TestInterpolate:
    def test_ends_are_the_two_prompts(self, glid3: Glid3Generator) -> None:
        fields = {"prompt": "a red heart", "prompt_to": "a blue moon", "of": 5}
        frames = drawn(glid3, RoundKind.INTERPOLATE, seeds=(7,) * 5, **fields)
        first = drawn(glid3, RoundKind.GENERATE, seeds=(7,), prompt="a red heart")[0]
        last = drawn(glid3, RoundKind.GENERATE, seeds=(7,), prompt="a blue moon")[0]
        assert np.abs(frames[0] - first).max() <= 2
        assert np.abs(frames[-1] - last).max() <= 2
        assert len({frame.tobytes() for frame in frames}) == 5

    def test_slerp_stays_on_the_arc(self) -> None:
        one, other = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
        assert torch.allclose(slerp(one, other, 0.5), torch.full((2,), 0.5**0.5))
        assert torch.allclose(slerp(one, one * 1.1, 0.5), one * 1.05)


class TestOptions:
    def test_sizes_that_the_unet_cannot_have(self, glid3: Glid3Generator) -> None:
        with pytest.raises(OptionError, match=r"multiple of 4.* 16 and 20") as caught:
            drawn(glid3, RoundKind.GENERATE, options={"width": 18})
        assert caught.value.field == "width"

    def test_another_size(self, glid3: Glid3Generator) -> None:
        assert drawn(glid3, RoundKind.GENERATE, options={"width": 24, "height": 8})[0].shape == (8, 24, 3)

    def test_steps_that_ddim_cannot_take(self, glid3: Glid3Generator) -> None:
        with pytest.raises(OptionError, match="ddim cannot take 300 steps") as caught:
            drawn(glid3, RoundKind.GENERATE, options={"num_inference_steps": 300})
        assert caught.value.field == "num_inference_steps"

    def test_a_negative_prompt_leads_away(self, glid3: Glid3Generator) -> None:
        plain, away = (drawn(glid3, RoundKind.GENERATE, options={"negative_prompt": p})[0] for p in (None, "a dog"))
        assert not np.array_equal(plain, away)

    def test_previews_become_the_picture(self, glid3: Glid3Generator) -> None:
        task = Task("a cat", glid3.Options.parse(FEW), seeds=(0,), preview_every=1)
        outputs = list(run_slots(glid3, task))
        previews = [np.asarray(o.image, int) for o in outputs if isinstance(o, Preview)]
        final = next(np.asarray(o.result, int) for o in outputs if isinstance(o, Done))
        assert len(previews) == 3
        assert np.abs(previews[-1] - final).mean() < np.abs(previews[0] - final).mean()


class TestWeights:
    def test_parts_of_different_models(self, glid3: Glid3Generator) -> None:
        other = LatentTextEncoder(LatentTextConfig(300, 24, width=24, layers=1, heads=2, head_width=8))
        with pytest.raises(WeightsError, match="reads text states of 16, the text encoder gives 24"):
            Glid3Generator(glid3.unet, other, glid3.codec, glid3.tokenizer, "x")

    def test_another_model(self, glid3: Glid3Generator, tmp_path: Path) -> None:
        save_ours(glid3.text, tmp_path / "text")
        roles = dict.fromkeys(("unet", "text", "codec"), tmp_path / "text")
        with pytest.raises(WeightsError, match="holds a LatentTextEncoder, expected a LatentUNet"):
            Glid3Generator.load(roles, "cpu")


class TestSeveralAtOnce:
    @staticmethod
    def with_inpaint_unet() -> Glid3Generator:
        """Another UNet for inpainting than for the rest."""
        glid3 = Glid3Generator.tiny()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            other = type(glid3.unet)(glid3.unet.config).eval().requires_grad_(False)
        parts = (glid3.unet, glid3.text, glid3.codec, glid3.tokenizer, "tiny")
        return Glid3Generator(*parts, inpaint=other)

    @pytest.mark.parametrize("kind", list(Glid3Generator.verbs))
    def test_a_picture_is_the_same_beside_every_other_kind_of_round(self, kind: RoundKind) -> None:
        """An inpainted neighbour once lent its UNet to all others of its size."""
        glid3, init = self.with_inpaint_unet(), picture(16, 16)
        mask = TestInpaint.mask(16, 16)
        tasks = {
            RoundKind.GENERATE: {},
            RoundKind.REFINE: {"init": init},
            RoundKind.INPAINT: {"init": init, "mask": mask},
            RoundKind.INTERPOLATE: {"prompt_to": "a blue moon", "of": 3},
        }
        alone = drawn(glid3, kind, seeds=(5,), **tasks[kind])[0]
        made = {
            k: Task("a cat", glid3.verbs[k].parse(FEW), seeds=(5,), kind=k, **fields)  # type: ignore[arg-type]
            for k, fields in tasks.items()
        }
        active = [slot for task in made.values() for slot in glid3.admit(task)]
        found = {}
        while active:
            done = [output for output in glid3.step(active) if isinstance(output, Done)]
            found |= {output.slot.task.kind: output.result for output in done}
            active = [slot for slot in active if slot not in [output.slot for output in done]]
        assert np.abs(np.asarray(found[kind], np.int16) - alone).max() <= 2

    def test_inpainting_all_of_it_uses_the_inpainting_unet(self) -> None:
        glid3, init = self.with_inpaint_unet(), picture(16, 16)
        white = Image.new("L", (16, 16), 255)
        inpainted = drawn(glid3, RoundKind.INPAINT, init=init, mask=white)[0]
        generated = drawn(glid3, RoundKind.GENERATE)[0]
        assert np.abs(inpainted - generated).max() > 2

    def test_an_inpainting_unet_that_sees_nothing_is_refused(self) -> None:
        glid3 = Glid3Generator.tiny()
        blind = type(glid3.unet)(replace(glid3.unet.config, sees_picture=False))
        with pytest.raises(WeightsError, match=r"give inpaint\.pt"):
            Glid3Generator(glid3.unet, glid3.text, glid3.codec, glid3.tokenizer, "x", inpaint=blind)


class TestOptionsThatSayNothing:
    @pytest.mark.parametrize(
        ("options", "field"),
        [
            ({"sampler": "plms", "eta": 0.5}, "eta"),
            ({"guidance_scale": 1.0, "negative_prompt": "a dog"}, "negative_prompt"),
        ],
    )
    def test_are_refused(self, glid3: Glid3Generator, options: dict[str, Any], field: str) -> None:
        with pytest.raises(OptionError) as caught:
            drawn(glid3, RoundKind.GENERATE, options=options)
        assert caught.value.field == field

    def test_one_side_keeps_the_shape(self, glid3: Glid3Generator) -> None:
        found = drawn(glid3, RoundKind.REFINE, init=picture(90, 45), options={"width": 32})[0]
        assert found.shape == (16, 32, 3)

    def test_a_strip_is_refused(self, glid3: Glid3Generator) -> None:
        with pytest.raises(PictureError, match="8000 x 1: too thin"):
            drawn(glid3, RoundKind.REFINE, init=picture(8000, 1))
        with pytest.raises(OptionError, match="at most 2048"):
            drawn(glid3, RoundKind.REFINE, init=picture(2000, 125), options={"height": 192})
        assert drawn(glid3, RoundKind.REFINE, init=picture(8000, 1), options={"width": 16, "height": 8})[0].shape == (
            8,
            16,
            3,
        )
