"""Stable Diffusion by slots: rounds of every kind, rows of frames, sub-prompts, sizes; XL and v against diffusers."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from PIL import Image

from dalle_flow.engine.device import run_slots
from dalle_flow.errors import OptionError, PictureError, WeightsError
from dalle_flow.executors.base import Done, Output, Preview, Task
from dalle_flow.executors.stable import StableGenerator
from dalle_flow.executors.stable_frames import StableSlot
from dalle_flow.executors.stable_tiny import TinyStable, tiny_parts
from dalle_flow.models.karras import SamplerName
from dalle_flow.types import MAX_SEED, RoundKind

ROOT = Path(__file__).parents[2]
FALLBACKS = (ROOT.parent / "shared" / "parity", ROOT / "tests" / "data" / "parity")
FOLDER = Path(os.environ.get("DALLE_FLOW_PARITY") or next(folder for folder in FALLBACKS if folder.is_dir())) / "sd1"
NEAR = 2  # of 255


@pytest.fixture(scope="module")
def stable() -> StableGenerator:
    return StableGenerator.tiny()


@pytest.fixture(scope="module")
def inpainting() -> StableGenerator:
    return TinyStable(tiny_parts(sees_picture=True), "tiny")


@pytest.fixture(params=["stable", "inpainting"])
def either(request: pytest.FixtureRequest) -> StableGenerator:
    found: StableGenerator = request.getfixturevalue(request.param)
    return found


def task_of(
    executor: StableGenerator, seeds: Iterable[int] = (0,), kind: RoundKind = RoundKind.GENERATE, **facts: Any
) -> Task:
    """A task; what is an option is one, the rest are facts of the task."""
    options = executor.verbs[kind]
    given = {name: facts.pop(name) for name in list(facts) if name in options.model_fields}
    return Task(**{"prompt": "a red house", "options": options(**given), "seeds": tuple(seeds), "kind": kind, **facts})


def done_in(outputs: Iterable[Output]) -> dict[int, Done]:
    return {output.slot.index: output for output in outputs if isinstance(output, Done)}


def pixels(image: Any) -> np.ndarray:
    assert image.mode == "RGB"
    return np.asarray(image, np.int16)


def pictures(executor: StableGenerator, *arguments: Any, **facts: Any) -> list[np.ndarray]:
    done = done_in(run_slots(executor, task_of(executor, *arguments, **facts)))
    return [pixels(done[index].result) for index in sorted(done)]


def picture(executor: StableGenerator, *arguments: Any, **facts: Any) -> np.ndarray:
    (found,) = pictures(executor, *arguments, **facts)
    return found


def distance(one: np.ndarray, other: np.ndarray) -> int:
    assert one.shape == other.shape
    return int(np.abs(one - other).max())


def given(width: int = 24, height: int = 16, seed: int = 5) -> Image.Image:
    """Coloured stripes, none of which is black."""
    noise = np.random.default_rng(seed).integers(60, 250, (1, width, 3), dtype=np.uint8)
    return Image.fromarray(np.broadcast_to(noise, (height, width, 3)).copy())


def left_half(image: Image.Image) -> Image.Image:
    """A mask that is white on the left."""
    mask = Image.new("L", image.size)
    mask.paste(255, (0, 0, image.width // 2, image.height))
    return mask


class TestGenerating:
    @pytest.mark.parametrize("number", [1, 5, 6])
    @pytest.mark.parametrize("name", ["k_lms", "euler_ancestral", "dpm_fast"])
    def test_exact_counts(self, either: StableGenerator, name: str, number: int) -> None:
        assert len(pictures(either, range(number), sampler=name)) == number

    @pytest.mark.parametrize("name", get_args(SamplerName))
    def test_beside_every_other_sampler_size_and_prompt(self, stable: StableGenerator, name: str) -> None:
        """All at once, one step each: the picture is what it is alone."""
        alone = picture(stable, [3], sampler=name, num_inference_steps=4)
        tasks = [task_of(stable, [7], sampler=other, num_inference_steps=6) for other in get_args(SamplerName)[:4]]
        tasks.append(task_of(stable, [8], width=24, height=8, guidance_scale=1.0))
        tasks.append(task_of(stable, [9], prompt="one:2 two:-1 three:0.5", negative_prompt="grey"))
        mine = task_of(stable, [3], sampler=name, num_inference_steps=4)
        active = [slot for task in (*tasks, mine) for slot in stable.admit(task)]
        found = None
        while found is None:
            done = [output for output in stable.step(active) if isinstance(output, Done)]
            found = next((output.result for output in done if output.slot.task is mine), None)
            active = [slot for slot in active if slot not in [output.slot for output in done]]
        stable.drop(active)
        assert distance(pixels(found), alone) <= NEAR

    @pytest.mark.parametrize("name", get_args(SamplerName))
    @pytest.mark.parametrize("noiser", [None, "karras", "exponential", "vp"])
    def test_steps_are_counted_to_the_end(self, stable: StableGenerator, name: str, noiser: str | None) -> None:
        (slot,) = stable.admit(task_of(stable, sampler=name, noiser=noiser))
        for _ in range(400):
            before = slot.step
            outputs = list(stable.step([slot]))
            assert before < slot.step <= slot.of
            if outputs:
                break
        assert slot.step == slot.of
        assert isinstance(outputs[-1], Done)

    def test_one_step_is_enough_for_all(self, stable: StableGenerator) -> None:
        found = [picture(stable, sampler=name, num_inference_steps=1) for name in get_args(SamplerName)]
        assert all(distance(found[0], other) <= NEAR for other in found)

    @pytest.mark.parametrize(("width", "height"), [(8, 8), (24, 16), (10, 22), (None, 32), (48, None)])
    def test_sizes(self, either: StableGenerator, width: int | None, height: int | None) -> None:
        assert picture(either, width=width, height=height).shape == (height or 16, width or 16, 3)

    @pytest.mark.parametrize("side", ["width", "height"])
    def test_sizes_that_do_not_fit_are_refused(self, stable: StableGenerator, side: str) -> None:
        with pytest.raises(
            OptionError, match=f"{side} must be a multiple of 2 .* got 17; near are 16 and 18"
        ) as caught:
            stable.admit(task_of(stable, **{side: 17}))
        assert caught.value.field == side

    def test_options_change_the_picture(self, stable: StableGenerator) -> None:
        changes: list[dict[str, Any]] = [{}, {"guidance_scale": 1.0}, {"guidance_scale": 20.0}, {"noiser": "karras"}]
        changes += [{"sampler": "euler"}, {"negative_prompt": "a blue sea"}, {"num_inference_steps": 7}]
        found = [picture(stable, **change) for change in changes]
        assert len({one.tobytes() for one in found}) == len(changes)

    @pytest.mark.parametrize(
        ("values", "field"),
        [
            ({"sampler": "ddim"}, "sampler"),
            ({"noiser": "cosine"}, "noiser"),
            ({"num_inference_steps": 251}, "num_inference_steps"),
            ({"num_inference_steps": 0}, "num_inference_steps"),
            ({"guidance_scale": -1.0}, "guidance_scale"),
            ({"strength": 0.5}, "strength"),
        ],
    )
    def test_other_values_are_refused(self, values: dict[str, Any], field: str) -> None:
        with pytest.raises(OptionError) as caught:
            StableGenerator.Options.parse(values)
        assert caught.value.field == field

    def test_previews_are_small_and_as_many_as_asked_for(self, stable: StableGenerator) -> None:
        outputs = list(run_slots(stable, task_of(stable, preview_every=2)))
        assert len([output for output in outputs if isinstance(output, Preview)]) == 2


class TestPrompts:
    def test_subprompts_pull_by_their_weights(self, stable: StableGenerator) -> None:
        """Guidance is the sum over all parts, so a part twice is the part with twice the weight."""
        twice = picture(stable, prompt="a red house:1 a red house:1")
        assert distance(twice, picture(stable, prompt="a red house:2")) <= NEAR
        assert distance(twice, picture(stable, prompt="a red house", guidance_scale=15.0)) <= NEAR
        assert distance(twice, picture(stable, prompt="a red house")) > NEAR

    def test_a_weight_is_not_read_as_text(self, stable: StableGenerator) -> None:
        (_, one), weights = stable.conditions(task_of(stable, prompt="a red house:0.5"), 0)
        (_, other), whole = stable.conditions(task_of(stable, prompt="a red house"), 0)
        assert torch.equal(one.context, other.context)
        assert (weights, whole) == ((3.75,), (7.5,))

    def test_without_guidance_the_model_is_asked_once(self, stable: StableGenerator) -> None:
        assert len(stable.conditions(task_of(stable, guidance_scale=1.0), 0)[0]) == 1
        assert len(stable.conditions(task_of(stable, guidance_scale=1.0, prompt="a:0.5"), 0)[0]) == 2

    def test_too_many_parts_are_refused(self, stable: StableGenerator) -> None:
        with pytest.raises(OptionError, match="9 weighted sub-prompts"):
            stable.admit(task_of(stable, prompt=":".join("abcdefghi")))

    def test_remarks_name_the_part_that_is_too_long(self, stable: StableGenerator) -> None:
        assert not stable.remarks("a red house:2 sea")
        (remark,) = stable.remarks("a red house:2 " + "word " * 30)
        assert "this model reads 24; its end is not read" in remark


class TestRefining:
    kind = RoundKind.REFINE

    def test_little_strength_stays_near_the_picture(self, either: StableGenerator) -> None:
        """Nearer than much strength: a toy autoencoder gives back no picture as it was."""
        from dalle_flow.executors.pasting import fitted, to_pixels

        init = given()
        with torch.inference_mode():
            mean, _ = either.codec.encode(to_pixels(fitted(init, (24, 16))))
        apart = []
        for strength in (0.1, 0.5, 1.0):
            done = done_in(run_slots(either, task_of(either, [1], self.kind, init=init, strength=strength)))
            slot = done[0].slot
            assert isinstance(slot, StableSlot)
            assert slot.result is not None
            apart.append(float((slot.result / either.latent_scale - mean[0]).abs().mean()))
        assert apart[0] < apart[1] < apart[2]

    @pytest.mark.parametrize(("strength", "steps"), [(0.01, 1), (0.2, 2), (0.5, 3), (0.8, 5), (1.0, 5)])
    def test_strength_decides_the_steps(self, stable: StableGenerator, strength: float, steps: int) -> None:
        (slot,) = stable.admit(task_of(stable, [1], self.kind, init=given(), strength=strength))
        assert slot.of == steps
        stable.drop([slot])

    def test_latentless_starts_from_noise_alone(self, stable: StableGenerator) -> None:
        """Then the picture says nothing but its size."""
        one, other = (
            picture(stable, [1], self.kind, init=given(seed=seed), latentless=True, strength=0.5) for seed in (5, 6)
        )
        assert distance(one, other) == 0
        assert distance(one, picture(stable, [1], self.kind, init=given(), strength=0.5)) > NEAR

    def test_full_strength_ignores_the_picture(self, stable: StableGenerator) -> None:
        one, other = (picture(stable, [1], self.kind, init=given(seed=seed), strength=1.0) for seed in (5, 6))
        assert distance(one, other) == 0

    @pytest.mark.parametrize(
        ("size", "made"),
        [((16, 16), (16, 16)), ((23, 17), (16, 16)), ((25, 23), (24, 16)), ((100, 50), (24, 8)), ((4, 4), (16, 16))],
    )
    def test_size_follows_the_picture_where_the_weights_can(
        self, stable: StableGenerator, size: tuple[int, int], made: tuple[int, int]
    ) -> None:
        assert stable.size(task_of(stable, [1], self.kind, init=given(*size))) == made

    def test_size_may_be_asked_for(self, stable: StableGenerator) -> None:
        assert picture(stable, [1], self.kind, init=given(), width=10, height=12).shape == (12, 10, 3)

    @pytest.mark.parametrize("kind", [RoundKind.REFINE, RoundKind.INPAINT])
    def test_without_a_picture_it_is_refused(self, stable: StableGenerator, kind: RoundKind) -> None:
        with pytest.raises(PictureError, match="needs a picture"):
            stable.admit(task_of(stable, [1], kind))

    def test_what_is_transparent_is_made_new(self, either: StableGenerator) -> None:
        """A picture with holes is the same as the picture with a mask of the holes."""
        init, mask = given(), left_half(given())
        rgba = init.convert("RGBA")
        rgba.putalpha(Image.eval(mask, lambda value: 255 - value))
        holes = picture(either, [1], self.kind, init=rgba, strength=0.6)
        masked = picture(either, [1], RoundKind.INPAINT, init=init, mask=mask, strength=0.6)
        assert distance(holes, masked) == 0
        solid = init.convert("RGBA")
        whole = picture(either, [1], self.kind, init=solid, strength=0.6)
        assert distance(whole, picture(either, [1], self.kind, init=init, strength=0.6)) == 0


class TestInpainting:
    kind = RoundKind.INPAINT

    @pytest.mark.parametrize("strength", [0.4, 1.0])
    def test_what_is_kept_is_kept_to_the_pixel(self, either: StableGenerator, strength: float) -> None:
        init = given(25, 17)
        for made in pictures(either, range(5), self.kind, init=init, mask=left_half(init), strength=strength):
            assert made.shape == (17, 25, 3)
            assert (made[:, 12:] == pixels(init)[:, 12:]).all()
            assert np.abs(made[:, :6] - pixels(init)[:, :6]).max() > NEAR

    def test_weights_for_inpainting_see_what_is_kept(self, inpainting: StableGenerator) -> None:
        """Full strength takes nothing from the picture but what stands beside the mask."""
        one, other = given(seed=5), given(seed=6)
        under = one.copy()
        under.paste((9, 200, 90), (0, 0, 12, 16))  # what is under the mask it does not see
        found = []
        for init in (one, other, under):
            done = done_in(run_slots(inpainting, task_of(inpainting, [1], self.kind, init=init, mask=left_half(init))))
            found.append(done[0].slot.result)
        assert float((found[0] - found[1]).abs().max()) > 1e-3 * float(found[0].abs().max())
        assert torch.equal(found[0], found[2])

    def test_a_mask_that_is_white_makes_all_of_it_new(self, either: StableGenerator) -> None:
        init = given()
        white = Image.new("L", init.size, 255)
        made = picture(either, [1], self.kind, init=init, mask=white, strength=0.5)
        assert distance(made, pixels(init)) > NEAR


class TestInterpolating:
    kind = RoundKind.INTERPOLATE

    def row(self, executor: StableGenerator, number: int, **facts: Any) -> Task:
        seeds = facts.pop("seeds", (4,) * number)
        return task_of(executor, seeds, self.kind, **({"prompt_to": "a blue sea", "of": number} | facts))

    def frames(self, executor: StableGenerator, task: Task) -> list[np.ndarray]:
        """The pictures alone: as long as a slot is kept, its row is."""
        done = done_in(run_slots(executor, task))
        return [pixels(done[index].result) for index in sorted(done)]

    @pytest.mark.parametrize("number", [1, 5, 6])
    @pytest.mark.parametrize("resample_prior", [True, False])
    def test_a_frame_alone_is_that_of_its_row(self, either: StableGenerator, number: int, resample_prior: bool) -> None:
        row = self.frames(either, self.row(either, number, resample_prior=resample_prior))
        assert len(row) == number
        for frame in {0, number // 2, number - 1}:
            task = self.row(either, number, resample_prior=resample_prior, first=frame, seeds=(4,))
            (alone,) = done_in(run_slots(either, task)).values()
            assert alone.slot.index == frame
            assert distance(pixels(alone.result), row[frame]) <= NEAR

    def test_both_ends_are_the_prompts_own(self, stable: StableGenerator) -> None:
        done = done_in(run_slots(stable, self.row(stable, 5, resample_prior=False)))
        assert distance(pixels(done[0].result), picture(stable, [4])) <= NEAR
        assert distance(pixels(done[4].result), picture(stable, [4], prompt="a blue sea")) <= NEAR
        assert len({pixels(done[i].result).tobytes() for i in done}) == 5

    def test_each_frame_starts_from_the_one_before(self, stable: StableGenerator) -> None:
        """Only the first moves at first; every frame draws from a seed of its own; little strength stays near."""
        slots = list(stable.admit(self.row(stable, 4)))
        assert [slot.of for slot in slots] == [5, 4, 4, 4]  # 0.75 of 5 steps leaves 4
        [*_] = stable.step(slots)
        assert [slot.step for slot in slots] == [1, 0, 0, 0]
        stable.drop(slots)
        still = self.row(stable, 3, prompt_to="a red house", strength=0.01)
        results = [done.slot.result for _, done in sorted(done_in(run_slots(stable, still)).items())]
        assert not torch.equal(results[0], results[1])
        assert float((results[0] - results[1]).abs().mean()) < float(results[0].abs().mean())

    def test_a_row_in_parts_is_made_once(self, stable: StableGenerator) -> None:
        whole = self.row(stable, 6)
        wanted = dict(enumerate(self.frames(stable, whole)))
        early = list(stable.admit(whole.part(0, 2)))
        late = list(stable.admit(whole.part(2, 6)))
        assert [slot.of for slot in late] == [4, 4, 4, 4]
        asked, done = 0, {}
        slots = early + late
        while slots:
            asked += 1
            found = done_in(stable.step(slots))
            done |= found
            slots = [slot for slot in slots if slot.index not in done]
        assert asked == 5 + 5 * 4
        for frame in wanted:
            assert distance(pixels(done[frame].result), wanted[frame]) <= NEAR

    @pytest.mark.parametrize("gone", [0, 1, 3])
    def test_a_frame_that_nobody_wants_any_more_is_made_by_the_next(self, stable: StableGenerator, gone: int) -> None:
        wanted = self.frames(stable, self.row(stable, 4))
        slots = list(stable.admit(self.row(stable, 4)))
        done: dict[int, Done] = {}
        for step in range(60):
            if step == 2 + 4 * gone:
                stable.drop([slots[gone]])
            left = [slot for slot in slots if slot.index not in done and (slot.index != gone or step < 2 + 4 * gone)]
            if not left:
                break
            done |= done_in(stable.step(left))
        assert sorted(done) == [i for i in range(4) if i != gone]
        for frame, output in done.items():
            assert distance(pixels(output.result), wanted[frame]) <= NEAR

    def test_the_same_row_twice_at_once(self, stable: StableGenerator) -> None:
        tasks = [self.row(stable, 3), self.row(stable, 3)]
        slots = [slot for task in tasks for slot in stable.admit(task)]
        done = []
        while len(done) < 6:
            done += [output for output in stable.step([s for s in slots if s not in [d.slot for d in done]])
                     if isinstance(output, Done)]  # fmt: skip
        for frame in range(3):
            one, other = (output for output in done if output.slot.index == frame)
            assert one.slot.task is not other.slot.task
            assert distance(pixels(one.result), pixels(other.result)) == 0

    def test_seeds_run_on_at_the_end(self, stable: StableGenerator) -> None:
        task = task_of(stable, [MAX_SEED] * 2, self.kind, prompt_to="a blue sea")
        assert sorted(done_in(run_slots(stable, task))) == [0, 1]

    def test_weights_of_subprompts_go_over(self, stable: StableGenerator) -> None:
        task = self.row(stable, 5, prompt="a:1 b:2", prompt_to="c:3 d:-2", guidance_scale=2.0)
        assert stable.conditions(task, 1)[1] == (3.0, 2.0)
        with pytest.raises(OptionError, match="have 1 and 2 weighted sub-prompts"):
            stable.admit(self.row(stable, 5, prompt="a", prompt_to="a:1 b:2"))

    def test_what_says_nothing_is_refused(self, stable: StableGenerator) -> None:
        with pytest.raises(OptionError, match="strength says nothing where resample_prior is false"):
            stable.admit(self.row(stable, 2, resample_prior=False, strength=0.5))
        with pytest.raises(OptionError, match="the frames of a row have one seed"):
            stable.admit(self.row(stable, 2, seeds=(4, 5)))


class TestLoading:
    def test_hands_other_pipelines_over(self, tmp_path: Path) -> None:
        from dalle_flow.executors.pipeline import PipelineGenerator
        from dalle_flow.executors.pipeline_tiny import tiny_stable_diffusion
        from dalle_flow.executors.quiet import quiet

        with quiet():
            torch.manual_seed(0)
            pipeline = tiny_stable_diffusion()
            pipeline.save_pretrained(tmp_path)
        index = tmp_path / "model_index.json"
        index.write_text(index.read_text().replace('"StableDiffusionPipeline"', '"StableDiffusionSAGPipeline"'))
        executor = StableGenerator.load({"stable": tmp_path}, "cpu")
        assert isinstance(executor, PipelineGenerator)
        options = StableGenerator.Options(num_inference_steps=2)
        assert sorted(done_in(run_slots(executor, Task("a red house", options, seeds=(1, 2))))) == [0, 1]
        with pytest.raises(OptionError, match="has no 'sampler'; leave it out"):
            executor.admit(Task("a red house", StableGenerator.Options(sampler="euler"), seeds=(1,)))
        kind = RoundKind.INTERPOLATE
        with pytest.raises(OptionError, match="cannot interpolate"):
            executor.admit(Task("a", StableGenerator.verbs[kind](), (1,), prompt_to="b", kind=kind))
        with pytest.raises(OptionError, match="brings its own vae"):
            StableGenerator.load({"stable": tmp_path, "vae": tmp_path / "vae"}, "cpu")

    @pytest.mark.parametrize("name", ["nothing.ckpt", "nothing.safetensors", "nowhere/at/all"])
    def test_nothing_there_is_a_weights_error(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(WeightsError, match="no such file or folder"):
            StableGenerator.load({"stable": tmp_path / name}, "cpu")


@pytest.mark.skipif(not (FOLDER / "diffusers_config").is_dir(), reason="no sd1 parity data")
class TestAgainstDiffusers:
    """Whole latents by Euler, whose steps diffusers takes as well."""

    def saved(self, folder: Path, *, xl: bool, prediction: str = "epsilon") -> Any:
        import diffusers
        from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

        torch.manual_seed(0)
        added = {"addition_embed_type": "text_time", "addition_time_embed_dim": 8} if xl else {}
        added |= {"projection_class_embeddings_input_dim": 68} if xl else {}
        unet = diffusers.UNet2DConditionModel(
            sample_size=8, block_out_channels=(8, 16), layers_per_block=1, cross_attention_dim=96 if xl else 64,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), norm_num_groups=4, attention_head_dim=(2, 4),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), use_linear_projection=xl, **added,
        )  # fmt: skip
        vae = diffusers.AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4,
            block_out_channels=(8, 16), norm_num_groups=4, scaling_factor=0.13,
        )  # fmt: skip
        scheduler = diffusers.EulerDiscreteScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="linspace",
            prediction_type=prediction,
        )  # fmt: skip
        sizes = {"vocab_size": 554, "num_hidden_layers": 3, "num_attention_heads": 4, "projection_dim": 20}
        sizes |= {"eos_token_id": 553, "bos_token_id": 552}
        words = CLIPTokenizer.from_pretrained(FOLDER / "diffusers_config" / "tokenizer")
        parts = {"unet": unet, "vae": vae, "scheduler": scheduler, "tokenizer": words}
        parts["text_encoder"] = CLIPTextModel(CLIPTextConfig(hidden_size=64, intermediate_size=99, **sizes))
        if xl:
            config = CLIPTextConfig(hidden_size=32, intermediate_size=66, hidden_act="gelu", **sizes)
            pipeline = diffusers.StableDiffusionXLPipeline(
                **parts, text_encoder_2=CLIPTextModelWithProjection(config), tokenizer_2=words
            )
        else:
            pipeline = diffusers.StableDiffusionPipeline(
                **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
            )
        pipeline.save_pretrained(folder)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    @pytest.mark.parametrize(
        ("facts", "values"),
        [
            ({"xl": False}, {}),
            ({"xl": False, "prediction": "v_prediction"}, {}),
            ({"xl": True}, {}),
            ({"xl": True}, {"negative_prompt": "a blue sea", "width": 24, "height": 8}),
        ],
        ids=["1", "2 with v", "XL", "XL with a negative prompt"],
    )
    def test_the_same_latents(self, tmp_path: Path, facts: dict[str, Any], values: dict[str, Any]) -> None:
        from dalle_flow.executors.quiet import quiet

        with quiet():
            pipeline = self.saved(tmp_path, **facts)
        executor = StableGenerator.load({"stable": tmp_path}, "cpu")
        size = (values.get("height", 16), values.get("width", 16))
        start = torch.randn((1, 4, size[0] // 2, size[1] // 2), generator=torch.Generator().manual_seed(3))
        with quiet():
            wanted = pipeline(
                "a red house", num_inference_steps=5, guidance_scale=4.0, output_type="latent", height=size[0],
                width=size[1], latents=start, negative_prompt=values.get("negative_prompt"),
            ).images  # fmt: skip
        options = StableGenerator.Options(sampler="euler", num_inference_steps=5, guidance_scale=4.0, **values)
        slot = done_in(run_slots(executor, Task("a red house", options, seeds=(3,))))[0].slot
        assert isinstance(slot, StableSlot)
        assert slot.result is not None
        # diffusers starts at sqrt(sigma^2 + 1) for some spacings; for this one at sigma, as here.
        assert float((slot.result - wanted[0]).abs().max() / wanted.abs().max()) < 2e-5
