"""Any diffusers pipeline: toy ones of six families and of other kinds, all their rounds, and what is refused."""

import copy
import gc
import importlib.util
import logging
import threading
from collections.abc import Callable
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from dalle_flow.engine.device import run_slots
from dalle_flow.errors import FailureError, OptionError, PictureError
from dalle_flow.executors.base import Done, Preview, Progress, Task
from dalle_flow.executors.pipeline import PipelineGenerator
from dalle_flow.executors.pipeline_call import PipelineCall, Stepped, Turns
from dalle_flow.executors.pipeline_load import networks
from dalle_flow.executors.pipeline_options import (
    PipelineOptions,
    PipelineRefineOptions,
    arguments_of,
    scheduler_for,
)
from dalle_flow.executors.pipeline_preview import preview
from dalle_flow.executors.quiet import quiet
from dalle_flow.types import RoundKind

spec = importlib.util.spec_from_file_location("tiny_pipelines", Path(__file__).with_name("tiny_pipelines.py"))
tiny_pipelines = importlib.util.module_from_spec(spec)
with quiet():
    spec.loader.exec_module(tiny_pipelines)

FAMILIES = ("sd15", "sdxl", "sd3", "flux", "qwen", "klein")
MULTIPLES = {"sd15": 2, "sdxl": 2, "sd3": 4, "flux": 4, "qwen": 8, "klein": 4}
PROMPT = "a purple elephant, watercolor"
SIDE = 64
NEAR = 2


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def connect(*_args):
        raise AssertionError("the network was used")

    monkeypatch.setattr("socket.socket.connect", connect)


@pytest.fixture(scope="module")
def executor_of(tmp_path_factory) -> Callable[[str], PipelineGenerator]:
    """The executor of a family, loaded from its folder at first use."""
    root, loaded = tmp_path_factory.mktemp("pipelines"), {}

    def load(family: str) -> PipelineGenerator:
        if family not in loaded:
            folder = tiny_pipelines.save(family, root / family)
            loaded[family] = PipelineGenerator.load({"pipeline": folder}, "cpu")
        return loaded[family]

    return load


@pytest.fixture
def init() -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((SIDE, SIDE), Image.Resampling.BICUBIC)


@pytest.fixture
def mask() -> Image.Image:
    """The left half is to be made new."""
    image = Image.new("L", (SIDE, SIDE))
    image.paste(255, (0, 0, SIDE // 2, SIDE))
    return image


def generate(seeds, prompt=PROMPT, preview_every=0, **options) -> Task:
    options = {"num_inference_steps": 2, "width": SIDE, "height": SIDE} | options
    return Task(prompt, PipelineOptions.parse(options), seeds=tuple(seeds), preview_every=preview_every)


def refine(seeds, init, mask=None, prompt=PROMPT, **options) -> Task:
    options = PipelineRefineOptions.parse({"num_inference_steps": 4, "strength": 0.5} | options)
    kind = RoundKind.INPAINT if mask else RoundKind.REFINE
    return Task(prompt, options, seeds=tuple(seeds), kind=kind, init=init, mask=mask)


def pictures(executor, task) -> list[np.ndarray]:
    done = {o.slot.index: o.result for o in run_slots(executor, task) if isinstance(o, Done)}
    assert sorted(done) == list(range(len(task)))
    assert {image.mode for image in done.values()} == {"RGB"}
    return [np.asarray(done[i], np.int16) for i in range(len(task))]


def distance(one, other) -> int:
    assert one.shape == other.shape
    return int(np.abs(one - other).max())


def calls() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "pipeline call"]


@pytest.mark.parametrize("family", FAMILIES)
class TestFamily:
    @pytest.mark.parametrize("number", [1, 5, 6])
    def test_generates_so_many(self, executor_of, family, number) -> None:
        drawn = pictures(executor_of(family), generate(range(number)))
        assert {image.shape for image in drawn} == {(SIDE, SIDE, 3)}
        assert len({image.tobytes() for image in drawn}) == number

    def test_draws_what_diffusers_draws(self, executor_of, family) -> None:
        """To the last bit, and a picture from the middle of a task is that of the same seed alone."""
        executor = executor_of(family)
        among = pictures(executor, generate(range(5)))[3]
        with quiet():
            direct = executor.pipeline(
                prompt=PROMPT,
                num_inference_steps=2,
                width=SIDE,
                height=SIDE,
                generator=torch.Generator().manual_seed(3),
            )
        assert distance(np.asarray(direct.images[0], np.int16), among) == 0

    def test_a_batch_would_be_near_but_not_always_the_same(self, executor_of, family) -> None:
        """Why one picture is one call; it also shows that pipelines draw a list of generators as we draw each."""
        executor = executor_of(family)
        alone = pictures(executor, generate(range(3)))
        with quiet():
            batch = executor.pipeline(
                prompt=[PROMPT] * 3,
                num_inference_steps=2,
                width=SIDE,
                height=SIDE,
                generator=[torch.Generator().manual_seed(seed) for seed in range(3)],
            ).images
        assert max(distance(np.asarray(b, np.int16), a) for a, b in zip(alone, batch, strict=True)) <= NEAR

    def test_refines(self, executor_of, family, init) -> None:
        """Nearer to the given picture the smaller the strength; each seed its own; the same seed the same."""
        executor = executor_of(family)
        first, second = pictures(executor, refine([0, 1], init))
        assert first.shape == (SIDE, SIDE, 3)
        assert distance(first, second) > NEAR
        assert distance(pictures(executor, refine([1], init))[0], second) == 0
        (wide,) = pictures(executor, refine([1], init, strength=1.0))
        assert distance(wide, second) > NEAR

    def test_refines_a_picture_of_any_size(self, executor_of, family, init) -> None:
        """What is over the pipeline's multiple is taken off; RGBA is read as RGB."""
        (made,) = pictures(executor_of(family), refine([0], init.resize((83, 67)).convert("RGBA")))
        multiple = MULTIPLES[family]
        assert made.shape == (67 // multiple * multiple, 83 // multiple * multiple, 3)

    def test_inpaints_and_keeps_what_is_black(self, executor_of, family, init, mask) -> None:
        executor = executor_of(family)
        first, second = pictures(executor, refine([0, 1], init, mask, strength=1.0))
        given = np.asarray(init, np.int16)
        for made in (first, second):
            assert distance(made[:, SIDE // 2 :], given[:, SIDE // 2 :]) == 0
            assert distance(made[:, : SIDE // 2], given[:, : SIDE // 2]) > NEAR
        assert distance(first, second) > NEAR

    def test_inpainting_keeps_a_picture_of_any_size(self, executor_of, family, init) -> None:
        """45 x 37 is no multiple of anything: it is resized for the pipeline, and what is kept must not show that."""
        given = init.resize((45, 37))
        mask = Image.new("L", given.size)
        mask.paste(255, (0, 0, 20, 37))
        size = {"width": 48} if family == "sdxl" else {}  # diffusers' SDXL inpaints multiples of 8 alone, toys too
        (made,) = pictures(executor_of(family), refine([0], given, mask, strength=1.0, **size))
        assert made.shape == (37, 45, 3)
        old = np.asarray(given, np.int16)
        assert distance(made[:, 20:], old[:, 20:]) == 0
        assert distance(made[:, :20], old[:, :20]) > NEAR

    def test_rounds_share_the_networks(self, executor_of, family, init, mask) -> None:
        executor = executor_of(family)
        pictures(executor, refine([0], init))
        pictures(executor, refine([0], init, mask))
        mine = {id(network) for network in networks(executor.pipeline)}
        for pipeline in executor._by_kind.values():
            assert {id(network) for network in networks(pipeline)} <= mine
        assert len(executor._by_kind) >= 2

    def test_a_preview_of_the_last_latents_is_the_picture(self, executor_of, family) -> None:
        pipeline, seen = executor_of(family).pipeline, []
        options = {"num_inference_steps": 2, "width": SIDE, "height": SIDE}
        with quiet():
            image = pipeline(
                prompt=PROMPT,
                generator=torch.Generator().manual_seed(0),
                callback_on_step_end=lambda _pipeline, _step, _timestep, tensors: seen.append(tensors) or {},
                **options,
            ).images[0]
        latents = seen[-1]["latents"]
        for size in ((), (SIDE, SIDE), (SIDE,), (None, SIDE)):
            shown = preview(pipeline, latents, *size)
            assert distance(np.asarray(shown, np.int16), np.asarray(image, np.int16)) <= 1  # rounded the other way

    def test_tells_its_steps(self, executor_of, family) -> None:
        outputs = list(run_slots(executor_of(family), generate([0, 1], preview_every=1, num_inference_steps=3)))
        assert [type(o) for o in outputs].count(Done) == 2
        assert [type(o) for o in outputs].count(Preview) >= 4
        told = [o for o in outputs if isinstance(o, Progress)]
        assert [p.step for p in told] == list(range(1, told[-1].of + 1))
        assert len({p.of for p in told}) == 1


class TestOtherKinds:
    def test_one_that_edits_refines_with_and_without_a_strength(self, executor_of, init) -> None:
        """FLUX.2 klein reads the picture beside the prompt; where a strength is asked for, it starts from it."""
        executor = executor_of("klein")
        edited, other = pictures(executor, refine([0, 1], init, strength=None))
        assert distance(edited, other) > NEAR
        near, far = (pictures(executor, refine([0], init, strength=strength))[0] for strength in (0.25, 1.0))
        given = np.asarray(init, np.int16)
        assert np.abs(near - given).mean() < np.abs(far - given).mean()
        with pytest.raises(OptionError, match="distilled and do not read guidance_scale; 1 is what they do"):
            pictures(executor, generate([0], guidance_scale=4.0))

    def test_an_inpainting_model_inpaints_and_does_nothing_else(self, executor_of, init, mask) -> None:
        executor = executor_of("inpaint")
        (made,) = pictures(executor, refine([0], init, mask, strength=1.0))
        given = np.asarray(init, np.int16)
        assert distance(made[:, SIDE // 2 :], given[:, SIDE // 2 :]) == 0
        for task in (generate([0]), refine([0], init)):
            with pytest.raises(OptionError, match=f"StableDiffusionInpaintPipeline cannot {task.kind}; .* can inpaint"):
                list(run_slots(executor, task))

    def test_a_safety_checker_in_the_folder_is_used(self, executor_of) -> None:
        executor = executor_of("checked")
        assert type(executor.pipeline.safety_checker).__name__ == "StableDiffusionSafetyChecker"
        (made,) = pictures(executor, generate([0]))
        assert made.std() > 10
        executor.pipeline.safety_checker.concept_embeds_weights.data.fill_(-2.0)
        (found,) = pictures(executor, generate([0]))
        assert found.max() == 0  # it makes black what it finds

    def test_an_autoencoder_that_overflows_in_half_precision_shows_previews(self, executor_of) -> None:
        """As SDXL's: it is taken to float32 for as long as it decodes."""
        pipeline = copy.copy(executor_of("sdxl").pipeline)
        pipeline.vae = copy.deepcopy(pipeline.vae).half()
        assert pipeline.vae.config.force_upcast
        latents = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
        shown = preview(pipeline, latents.half())
        assert pipeline.vae.dtype == torch.float16
        whole = preview(executor_of("sdxl").pipeline, latents)
        assert distance(np.asarray(shown, np.int16), np.asarray(whole, np.int16)) <= NEAR

    def test_previews_are_small(self, executor_of) -> None:
        latents = torch.randn(1, 4, 512, 256, generator=torch.Generator().manual_seed(0))
        assert preview(executor_of("sd15").pipeline, latents).size == (128, 256)

    def test_previews_of_what_we_cannot_read_are_none(self, executor_of) -> None:
        pipeline = executor_of("flux").pipeline
        assert preview(pipeline, torch.zeros(1, 15, 16)) is None  # no square
        assert preview(pipeline, torch.zeros(1, 16)) is None
        assert preview(executor_of("sd15").pipeline, torch.zeros(1, 16, 16)) is None
        assert preview(object(), torch.zeros(1, 4, 8, 8)) is None

    def test_generates_by_an_older_callback(self, executor_of) -> None:
        outputs = list(run_slots(executor_of("pixart"), generate([0], preview_every=1, width=256, height=256)))
        assert [type(o).__name__ for o in outputs] == ["Preview", "Progress", "Done", "Progress"]
        assert outputs[2].result.size == (256, 256)

    def test_a_pipeline_without_a_family_says_what_it_can_do(self, executor_of, init) -> None:
        with pytest.raises(OptionError, match="PixArtSigmaPipeline cannot refine; they can generate"):
            list(run_slots(executor_of("pixart"), refine([0], init)))


class TestCall:
    def test_no_thread_is_left(self, executor_of) -> None:
        """Given up at every step of the way, twice, at the first picture, or run to the end."""
        executor = executor_of("sd15")
        assert not calls()
        for steps in range(3):
            slots = list(executor.admit(generate([0], num_inference_steps=4)))
            for _ in range(steps):
                list(executor.step(slots))
            assert calls() == ["pipeline call"]
            executor.drop(slots)
            executor.drop(slots)
            assert not calls()
        running = run_slots(executor, generate(range(3)))
        assert next(o for o in running if isinstance(o, Done))
        running.close()
        assert not calls()
        pictures(executor, generate([0]))
        assert not calls()

    @pytest.mark.parametrize("steps", [0, 1, 3])
    def test_a_slot_that_is_forgotten_leaves_no_thread(self, executor_of, steps) -> None:
        """Nobody dropped it: its thread would stand for as long as the process runs, with latents and networks."""
        executor = executor_of("sd15")
        slots = list(executor.admit(generate([0, 1], num_inference_steps=4)))
        threads = [slot.call._turns._thread for slot in slots]
        for _ in range(steps):
            list(executor.step(slots))
        assert all(thread.is_alive() for thread in threads)
        slots.clear()
        gc.collect()
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads)
        assert not calls()

    def test_forgotten_in_a_cycle_while_another_call_computes(self, executor_of, monkeypatch) -> None:
        """The garbage collector comes in whatever thread it likes, here in the other call's own; that one goes on."""
        executor = executor_of("sd15")
        alone = pictures(executor, generate([1]))[0]
        (slot,), (other,) = executor.admit(generate([0])), executor.admit(generate([1]))
        thread, slot.itself = slot.call._turns._thread, slot
        collected, forward = [], executor.pipeline.unet.forward

        def collecting(*args, **options):
            collected.append(threading.current_thread().name)
            gc.collect()
            return forward(*args, **options)

        monkeypatch.setattr(executor.pipeline.unet, "forward", collecting)
        del slot
        made = []
        while not made:
            made = [o.result for o in executor.step([other]) if isinstance(o, Done)]
        assert set(collected) == {"pipeline call"}
        thread.join(60)
        assert not thread.is_alive()
        assert distance(np.asarray(made[0], np.int16), alone) == 0

    def test_interrupted_while_it_computes_it_ends(self, executor_of, monkeypatch) -> None:
        """Ctrl-C comes to the main thread, which waits; the call ends at its next step."""
        executor = executor_of("sd15")
        slots = list(executor.admit(generate([0], num_inference_steps=4)))
        back = slots[0].call._turns._back

        def acquire() -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(back, "acquire", acquire)
        with pytest.raises(KeyboardInterrupt):
            list(executor.step(slots))
        assert not calls()
        executor.drop(slots)

    def test_it_computes_only_while_somebody_waits(self) -> None:
        """Strictly in turns: what is written between two waits is the waiter's, never the call's."""
        said: list[str] = []

        def work(hand_over):
            for step in range(3):
                said.append(f"call {step}")
                hand_over(step)
            return "picture"

        turns = Turns(work)
        for step in range(3):
            assert said[-1:] in ([], [f"waiter {step - 1}"])
            assert turns.next() == step
            said.append(f"waiter {step}")
        assert turns.next() == "picture"
        assert said == [f"{who} {step}" for step in range(3) for who in ("call", "waiter")]
        assert not calls()

    def test_pictures_in_turns_are_those_alone(self, executor_of) -> None:
        """Two calls stepped side by side, of other schedulers, prompts and numbers of steps."""
        executor = executor_of("sd15")
        tasks = [
            generate([5], scheduler="EulerAncestralDiscreteScheduler", num_inference_steps=3),
            generate([6], prompt="a teapot", num_inference_steps=4),
        ]
        alone = [pictures(executor, task)[0] for task in tasks]
        active = [slot for task in tasks for slot in executor.admit(task)]
        made = {}
        while active:
            made |= {o.slot.task: np.asarray(o.result, np.int16) for o in executor.step(active) if isinstance(o, Done)}
            active = [slot for slot in active if slot.task not in made]
        assert [distance(made[task], picture) for task, picture in zip(tasks, alone, strict=True)] == [0, 0]

    def test_a_pipeline_of_pipelines(self, executor_of) -> None:
        """It makes no bar of its own: its number of steps is that asked for, its first step is told when it is done."""
        inner = executor_of("sd15").pipeline

        class Combined:
            progress_bar = None

            def __call__(self, prompt, generator, num_inference_steps, callback_on_step_end=None, output_type="pil"):
                return inner(
                    prompt,
                    generator=generator,
                    num_inference_steps=num_inference_steps,
                    callback_on_step_end=callback_on_step_end,
                )

        arguments = {"prompt": PROMPT, "num_inference_steps": 4, "generator": torch.Generator().manual_seed(0)}
        call = PipelineCall(Combined(), arguments, seed=0, steps=4)
        assert call.of == 4
        assert [type(call.step()) for _ in range(5)] == [Stepped] * 5  # this scheduler takes one more than asked for
        own = pictures(executor_of("sd15"), generate([0], num_inference_steps=4, width=None, height=None))[0]
        assert distance(np.asarray(call.finish(), np.int16), own) == 0
        assert not calls()

    def test_a_pipeline_that_tells_nothing(self) -> None:
        class Silent:
            progress_bar = None

            def __call__(self, prompt, callback=None, output_type="pil"):
                return type("Output", (), {"images": [Image.new("RGB", (3, 3))]})

        call = PipelineCall(Silent(), {"prompt": PROMPT}, seed=0, steps=9)
        assert call.of == 1
        assert call.step().size == (3, 3)
        assert not calls()

    def test_a_failure_inside_says_what_the_pipeline_said(self, executor_of, monkeypatch) -> None:
        executor = executor_of("sd15")
        slots = list(executor.admit(generate([0], num_inference_steps=4)))
        list(executor.step(slots))

        def broken(*_args, **_options):
            raise ValueError("the moon is in the wrong house")

        monkeypatch.setattr(executor.pipeline.unet, "forward", broken)
        with pytest.raises(FailureError, match="StableDiffusionPipeline: the moon is in the wrong house"):
            list(executor.step(slots))
        assert not calls()
        executor.drop(slots)
        with pytest.raises(FailureError, match="the moon"):
            list(run_slots(executor, generate([0])))
        monkeypatch.undo()
        pictures(executor, generate([0]))

    def test_numbers_that_overflow_are_no_black_picture(self) -> None:
        executor = PipelineGenerator.tiny()
        executor.pipeline.unet.conv_out.bias.fill_(torch.nan)
        with pytest.raises(FailureError, match=r"became infinite in float32"):
            list(run_slots(executor, generate([0])))
        assert not calls()

    def test_nothing_is_written_on_the_terminal(self, executor_of, capfd, tmp_path) -> None:
        """And the libraries' settings are as they were."""
        level = logging.getLogger("diffusers").level
        assert level != logging.CRITICAL
        executor = PipelineGenerator.load({"pipeline": tiny_pipelines.save("sdxl", tmp_path / "sdxl")}, "cpu")
        list(run_slots(executor, generate([0], prompt="word " * 400, preview_every=1)))
        assert capfd.readouterr() == ("", "")
        assert logging.getLogger("diffusers").level == level
        assert diffusers.utils.logging.is_progress_bar_enabled()


class TestOptions:
    @pytest.fixture
    def sd15(self, executor_of) -> PipelineGenerator:
        return executor_of("sd15")

    def refused(self, executor, task, field, match) -> None:
        with pytest.raises((OptionError, PictureError), match=match) as caught:
            list(run_slots(executor, task))
        assert caught.value.field == field
        assert not calls()

    @pytest.mark.parametrize("name", ["LCMScheduler", "EulerDiscreteScheduler", "HeunDiscreteScheduler"])
    def test_another_scheduler(self, sd15, name) -> None:
        """Few-step, usual, and one that takes more steps than it is asked for; the pipeline keeps its own."""
        own = pictures(sd15, generate([0], num_inference_steps=4, guidance_scale=1.0))[0]
        (made,) = pictures(sd15, generate([0], num_inference_steps=4, guidance_scale=1.0, scheduler=name))
        (again,) = pictures(sd15, generate([0], num_inference_steps=4, guidance_scale=1.0, scheduler=name))
        assert distance(made, again) == 0
        assert distance(made, own) > 0
        assert type(sd15.pipeline.scheduler).__name__ == "PNDMScheduler"

    @pytest.mark.parametrize("family", ["sd15", "sd3", "flux"])
    def test_every_scheduler_that_is_offered_draws(self, executor_of, family) -> None:
        pipeline = executor_of(family).pipeline
        with pytest.raises(OptionError) as caught:
            scheduler_for(pipeline, "Nope")
        names = caught.value.message.split("those that do: ")[1].split(", ")
        assert type(pipeline.scheduler).__name__ in names
        assert {"LCMScheduler", "FlowMatchLCMScheduler"} & set(names)
        for name in names:
            pictures(executor_of(family), generate([0], scheduler=name, num_inference_steps=4))

    @pytest.mark.parametrize("name", ["Nope", "AutoencoderKL", "FlowMatchEulerDiscreteScheduler", "EDMEulerScheduler"])
    def test_what_is_no_scheduler_of_this_pipeline(self, sd15, name) -> None:
        self.refused(sd15, generate([0], scheduler=name), "scheduler", "those that do: DDIMScheduler, ")

    @pytest.mark.parametrize(("family", "width", "multiple"), [("sd15", 33, 2), ("flux", 34, 4), ("qwen", 36, 8)])
    def test_sizes_that_are_no_multiple(self, executor_of, family, width, multiple) -> None:
        self.refused(executor_of(family), generate([0], width=width), "width", f"multiples of {multiple}, got {width}")

    def test_the_size_of_what_is_made_of_a_picture(self, executor_of, init) -> None:
        """Larger or smaller, of the picture's shape: one side is enough, and two must not distort it."""
        wide = init.resize((96, 64))
        for options, shape in (
            ({"width": 48}, (32, 48, 3)),
            ({"height": 96}, (96, 144, 3)),
            ({"width": 48, "height": 32}, (32, 48, 3)),
        ):
            (made,) = pictures(executor_of("sd15"), refine([0], wide, **options))
            assert made.shape == shape
        (made,) = pictures(executor_of("flux"), refine([0], wide, width=72))
        assert made.shape == (48, 72, 3)
        self.refused(executor_of("flux"), refine([0], wide, width=72, height=72), "width", "would distort it, .* 96x64")
        self.refused(executor_of("flux"), refine([0], wide, width=73), "width", "multiples of 4, got 73")

    def test_a_picture_whose_own_size_is_beyond_memory(self, sd15) -> None:
        """A photograph is refused before anything is computed; both sides given, it is made at that size."""
        large = Image.new("RGB", (8192, 8192))
        mask = Image.new("L", large.size, 255)
        said = r"the picture is 8192x8192; 8192x8192 would be made of it, 67,108,864 pixels, .* up to 4,194,304 .*"
        for task in (refine([0], large), refine([0], large, mask)):
            self.refused(sd15, task, "init", said + "; give width and height")
        self.refused(sd15, refine([0], Image.new("RGB", (10, 9000)), width=600), "init", "600x540000 would be made")
        (made,) = pictures(sd15, refine([0], large, width=48, height=48))
        assert made.shape == (48, 48, 3)

    @pytest.mark.parametrize(
        ("given", "options", "size"),
        [
            ((2048, 2048), {}, (2048, 2048)),
            ((4096, 1024), {}, (4096, 1024)),
            ((2049, 2049), {}, (2048, 2048)),  # what is made counts, not what is cut off
            ((64, 64), {"width": 2048}, (2048, 2048)),
            ((64, 64), {"width": 4096, "height": 4096}, (4096, 4096)),  # asked for
        ],
    )
    def test_a_size_up_to_the_limit_is_taken(self, sd15, given, options, size) -> None:
        arguments = arguments_of(sd15._pipeline(RoundKind.REFINE), refine([0], Image.new("RGB", given), **options), {})
        assert arguments["image"].size == size

    @pytest.mark.parametrize("width", [48, 144])
    def test_inpainting_at_another_size_gives_the_picture_back_at_its_own(self, sd15, init, mask, width) -> None:
        """And does work at that size: what is new is not what it is at the picture's own."""
        wide, half = init.resize((96, 64)), mask.resize((96, 64))
        (made,) = pictures(sd15, refine([0], wide, half, width=width))
        given = np.asarray(wide, np.int16)
        assert made.shape == given.shape
        assert distance(made[:, 48:], given[:, 48:]) == 0
        assert distance(made, pictures(sd15, refine([0], wide, half))[0]) > NEAR

    def test_a_size_of_its_own_for_each_side(self, sd15) -> None:
        (made,) = pictures(sd15, generate([0], width=48, height=24))
        assert made.shape == (24, 48, 3)

    def test_a_picture_of_another_size_than_asked_for_is_a_failure(self, sd15) -> None:
        """Some pipelines round what is asked for; that must not pass for what was."""
        (slot,) = sd15.admit(generate([0], scheduler="DDIMScheduler", num_inference_steps=1))
        slot.size = (128, 128)
        with pytest.raises(FailureError, match="made 64x64 where 128x128 was asked for"):
            list(sd15.step([slot]))

    @pytest.mark.parametrize("strength", [0, 0.0, 1.5, -1.0])
    def test_strengths_that_are_none(self, strength) -> None:
        with pytest.raises(OptionError, match="strength"):
            PipelineRefineOptions.parse({"strength": strength})

    def test_a_strength_that_leaves_no_step(self, sd15, init) -> None:
        self.refused(sd15, refine([0], init, strength=0.2), "strength", "0.2 leaves none of 4 steps; .* 0.25 or 5")

    def test_options_that_the_pipeline_does_not_take(self, sd15, executor_of) -> None:
        self.refused(sd15, generate([0], true_cfg_scale=4.0), "true_cfg_scale", "StableDiffusionPipeline takes no true")
        self.refused(sd15, generate([0], lora_scale=0.5), "lora_scale", "no LoRA to scale")

    def test_options_that_would_do_nothing(self, executor_of) -> None:
        sd15, flux, qwen = (executor_of(family) for family in ("sd15", "flux", "qwen"))
        one = {"negative_prompt": "rain", "guidance_scale": 1.0}
        self.refused(sd15, generate([0], **one), "negative_prompt", "does nothing where guidance_scale is 1")
        self.refused(flux, generate([0], negative_prompt="rain"), "negative_prompt", "where true_cfg_scale is 1")
        self.refused(flux, generate([0], true_cfg_scale=3.0), "true_cfg_scale", "nothing without a negative_prompt")
        self.refused(qwen, generate([0], guidance_scale=3.0), "guidance_scale", "do not read guidance_scale")

    def test_guidance_and_negative_prompts_change_the_picture(self, executor_of) -> None:
        for family, scale in (("sd15", "guidance_scale"), ("flux", "true_cfg_scale"), ("qwen", "true_cfg_scale")):
            executor = executor_of(family)
            one = pictures(executor, generate([0], negative_prompt="rain", **{scale: 3.0}))[0]
            assert distance(pictures(executor, generate([0]))[0], one) > 0
            assert distance(pictures(executor, generate([0], negative_prompt="snow", **{scale: 9.0}))[0], one) > 0

    def test_a_picture_to_start_from_is_needed(self, sd15, init, mask) -> None:
        self.refused(sd15, refine([0], None), "init", "needs a picture")
        self.refused(sd15, refine([0], init.resize((1, 1))), "init", "the picture is 1x1; .* in steps of 2")
        self.refused(sd15, refine([0], init, mask.resize((8, 8))), "mask", "as large as the picture, 64x64; got 8x8")
        self.refused(sd15, refine([0], init, mask.point(lambda _: 0)), "mask", "black")

    def test_says_where_the_prompt_is_cut(self, sd15, executor_of) -> None:
        assert not sd15.remarks("a cat")
        assert sd15.remarks("x " * 75) == ()
        assert sd15.remarks("x " * 76) == ("the prompt has 78 tokens and this model reads 77; its end is not read",)
        assert not executor_of("flux").remarks("x " * 200)  # its T5 reads 512
        assert "reads 512" in executor_of("flux").remarks("x " * 600)[0]
