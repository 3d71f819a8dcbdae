"""One step of ours against the peer's, on the same weights and the same input, in turns.

    python benchmarks/peers.py [--pairs 5] [--only glid3 stable swinir rrdb]

Weights are random, at the published sizes: the time does not depend on their values. A row is the median of the peer's
seconds, of ours, and of the ratio of each pair; below 1 ours is slower. `difference` is the largest between the two
outputs, as a share of the largest value of the peer's.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterator

import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, StableDiffusionPipeline
from torch import Tensor, nn

from dalle_flow.executors.base import Executor, Task
from dalle_flow.executors.glid3 import Condition as Glid3Condition
from dalle_flow.executors.glid3 import Glid3Generator
from dalle_flow.executors.stable import StableGenerator
from dalle_flow.executors.stable_frames import Condition as StableCondition
from dalle_flow.models.latent_unet import LatentUNet, LatentUNetConfig
from dalle_flow.models.rrdb import RRDBConfig, RRDBNet
from dalle_flow.models.swinir import SwinIR, SwinIRConfig
from dalle_flow.models.tiling import Budget, Enlargement, plan_tiles

STEPS = 2  # of each run
LATENT = 32  # side: pictures of 256 px
SMALL = 128  # side of what is upscaled
MEMORY = 2**33  # bytes: nothing is cut up for want of memory
Run = Callable[[], Tensor]
Row = tuple[str, Run, Run]  # what, peer, ours


def drawn(make: Callable[[], nn.Module]) -> nn.Module:
    """A module with random weights, always the same."""
    torch.manual_seed(0)
    return make().eval().requires_grad_(False)


def finished(executor: Executor, task: Task) -> Tensor:
    """The latents of the task's one picture."""
    slots = active = list(executor.admit(task))
    while active:
        [*_] = executor.step(active)
        active = [slot for slot in active if slot.result is None]  # type: ignore[attr-defined]
    found: Tensor = slots[0].result  # type: ignore[attr-defined]
    return found


def glid3() -> Iterator[Row]:
    """GLID-3 XL's UNet with guidance, ddim: diffusers' network in diffusers' own loop."""
    config = LatentUNetConfig(guided_channels=4, size_px=8 * LATENT)
    unet = drawn(lambda: LatentUNet(config))
    said, blank = (Glid3Condition(torch.randn(77, 1280), torch.randn(768)) for _ in range(2))
    ours = Glid3Generator.tiny()
    ours.unet = ours.inpaint = unet  # type: ignore[assignment]
    ours.sees_picture, ours.guided_channels, ours.latent_scale = False, 4, config.latent_scale
    ours.codec.downscale = 8
    ours.condition = lambda prompt: said if prompt else blank  # type: ignore[assignment]
    options = {"num_inference_steps": STEPS, "sampler": "ddim", "width": 8 * LATENT, "height": 8 * LATENT}
    task = Task("a cat", ours.Options.parse({**options, "negative_prompt": ""}), seeds=(0,))

    def peer() -> Tensor:
        scheduler = DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=True
        )
        scheduler.set_timesteps(STEPS)
        latents = torch.randn(1, 4, LATENT, LATENT, generator=torch.Generator().manual_seed(0))
        context = torch.stack([blank.context, said.context])
        vector = torch.stack([blank.vector, said.vector])  # type: ignore[list-item]
        for t in scheduler.timesteps:
            found = unet.unet(torch.cat([latents] * 2), t, context, class_labels=vector).sample
            away, towards = found.chunk(2)
            latents = scheduler.step(away + 5.0 * (towards - away), t, latents).prev_sample
        return latents[0]

    yield f"GLID-3 XL, {8 * LATENT} px, {STEPS} steps with guidance", peer, lambda: finished(ours, task)


def stable() -> Iterator[Row]:
    """Stable Diffusion 1's UNet with guidance, euler: diffusers' pipeline."""
    from diffusers import UNet2DConditionModel

    unet = drawn(
        lambda: UNet2DConditionModel(
            sample_size=LATENT,
            block_out_channels=(320, 640, 1280, 1280),
            layers_per_block=2,
            cross_attention_dim=768,
            attention_head_dim=8,
        )
    )
    said, blank = (StableCondition(torch.randn(77, 768), None) for _ in range(2))
    ours = StableGenerator.tiny()
    ours.unet, ours.codec.downscale, ours.cells_per_row = unet, 8, 320
    ours.condition = lambda prompt: said if prompt else blank  # type: ignore[assignment]
    options = {"num_inference_steps": STEPS, "sampler": "euler", "width": 8 * LATENT, "height": 8 * LATENT}
    task = Task("a cat", ours.Options.parse(options), seeds=(0,))
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="linspace"
    )
    pipeline = StableDiffusionPipeline(
        vae=ours.codec.autoencoder, text_encoder=None, tokenizer=None, unet=unet, scheduler=scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)

    def peer() -> Tensor:
        noise = torch.randn(1, 4, LATENT, LATENT, generator=torch.Generator().manual_seed(0))
        return pipeline(
            prompt_embeds=said.context[None], negative_prompt_embeds=blank.context[None], latents=noise,
            num_inference_steps=STEPS, guidance_scale=7.5, output_type="latent",
        ).images[0]  # fmt: skip

    yield f"Stable Diffusion 1, {8 * LATENT} px, {STEPS} steps with guidance", peer, lambda: finished(ours, task)


def enlargers(name: str, network: nn.Module) -> Iterator[Row]:
    """The plain network in float32 against ours, in float32 and in bfloat16, whole and in tiles."""
    pixels = torch.rand(1, 3, SMALL, SMALL, generator=torch.Generator().manual_seed(0))
    halved = drawn(lambda: type(network)(network.config)).to(torch.bfloat16)

    def enlarged(network: nn.Module, side: int | None, dtype: torch.dtype) -> Tensor:
        tiling = plan_tiles(network, SMALL, SMALL, Budget(MEMORY, MEMORY), tile=side)
        work = Enlargement(network, pixels[0], tiling, torch.device("cpu"), dtype)
        while not work.step():
            pass
        return work.result[None]

    def plain() -> Tensor:
        return network(pixels)

    yield f"{name}, {SMALL} px, float32", plain, lambda: enlarged(network, None, torch.float32)
    yield f"{name}, {SMALL} px, float32, tiles of 64", plain, lambda: enlarged(network, 64, torch.float32)
    yield f"{name}, {SMALL} px, bfloat16", plain, lambda: enlarged(halved, None, torch.bfloat16)


def swinir() -> Iterator[Row]:
    large = SwinIRConfig()
    yield from enlargers("SwinIR-L x4", drawn(lambda: SwinIR(large)))


def rrdb() -> Iterator[Row]:
    yield from enlargers("RealESRGAN x4plus", drawn(lambda: RRDBNet(RRDBConfig())))


TABLES: dict[str, Callable[[], Iterator[Row]]] = {"glid3": glid3, "stable": stable, "swinir": swinir, "rrdb": rrdb}


def timed(run: Run) -> tuple[float, Tensor]:
    started = time.perf_counter()
    found = run()
    return time.perf_counter() - started, found


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pairs", type=int, default=5, help="counted pairs of each row, after one that is not")
    parser.add_argument("--only", nargs="*", choices=TABLES, default=list(TABLES), help="which tables")
    asked = parser.parse_args()
    print(
        f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, torch {torch.__version__}, {asked.pairs} pairs\n"
    )
    print("| what | peer, s | ours, s | ratio | difference |\n| --- | --- | --- | --- | --- |")
    for name in asked.only:
        for what, peer, ours in TABLES[name]():
            _, theirs = timed(peer)
            _, mine = timed(ours)
            difference = float((theirs - mine).abs().max() / theirs.abs().max())
            pairs = [(timed(peer)[0], timed(ours)[0]) for _ in range(asked.pairs)]
            seconds = [statistics.median(side) for side in zip(*pairs, strict=True)]
            ratio = statistics.median(a / b for a, b in pairs)
            print(f"| {what} | {seconds[0]:.2f} | {seconds[1]:.2f} | {ratio:.2f} | {difference:.1e} |", flush=True)


if __name__ == "__main__":
    main()
