"""The stages that make the embedded family, in order, and the recipe of each: sizes, steps, learning rates."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..errors import WeightsError
from ..models.clip import CLIP
from ..models.dalle_bart import DalleBart
from ..models.latent_text import LatentTextEncoder
from ..models.latent_unet import LatentUNet
from ..models.srvgg import SRVGG
from ..models.text.bpe import DalleTokenizer
from ..models.vqgan import VQGAN
from .captions import caption
from .clip import ClipLesson, Hints, clip_config
from .codec import CodecLesson, DecoderLesson, codec_config
from .dalle import DalleLesson, dalle_config, encode_dataset, save_array
from .data import Dataset, Job, render_split
from .diffusion import DiffusionLesson, Painter, text_config, unet_config
from .export import export_weights
from .judge import Judge, JudgeLesson, load_judge
from .loop import CHECKPOINT, Course, Lesson, averaged_state, train
from .scenes import scene_at
from .segment import train_segment
from .sprites import load_sprites
from .tokenizer import MAX_LENGTH, train_tokenizer
from .upscale import SCALE, Pairs, UpscaleLesson, shrink_dataset, through_codec, upscale_config
from .world import S0, World

COURSES = {
    "judge": Course(steps=1700, batch_size=64, learning_rate=2e-3),
    "codec": Course(steps=1500, batch_size=64, learning_rate=1.5e-3, betas=(0.9, 0.95), weight_decay=0.01),
    "decoder": Course(steps=1050, batch_size=64, learning_rate=1e-3, betas=(0.9, 0.95), ema_decay=0.995),
    "dalle": Course(steps=3500, batch_size=80, learning_rate=1.2e-3, warmup_steps=300),
    "diffusion": Course(steps=7000, batch_size=64, learning_rate=1e-3, warmup_steps=300),
    "clip": Course(steps=1550, batch_size=128, learning_rate=1e-3, warmup_steps=200),
    "segment": Course(steps=2500, batch_size=32, learning_rate=1e-3),
    "upscale": Course(steps=4000, batch_size=16, learning_rate=1e-3, weight_decay=0),
}
TOKENIZER_CAPTIONS = 60_000
RECONSTRUCTIONS = "reconstructed.npy"
RECONSTRUCTED = 24_000  # pictures passed through the codec for CLIP to see
LARGE = {"train": 5000, "val": 300}  # pictures rendered larger, for the upscaler; `large_train` and so on


class Paused(Exception):
    """A model's schedule is not at its end: what follows must not be made from it."""


@dataclass
class Workshop:
    """One run of the chain: where it is kept and what it may use."""

    work: Path
    device: str = "cpu"
    threads: int = 2
    scenes: int = 150_000
    font: Path | None = None
    seed: int = 0
    minutes: float | None = None
    steps: int | None = None
    size_px: int = 64
    world: World = field(default_factory=lambda: S0)

    def course(self, name: str) -> Course:
        course = replace(COURSES[name], seed=self.seed)
        return course if self.steps is None else replace(course, steps=self.steps)

    def dataset(self, split: str) -> Dataset:
        return Dataset(self.work / split, self.world)

    def judge(self, name: str = "judge") -> Judge:
        """A trained judge, frozen."""
        return load_judge(self.work / name, self.world)

    def codec(self) -> VQGAN:
        """The trained codec, frozen; with its better decoder when that was trained."""
        model, state = VQGAN(codec_config(self.size_px)), averaged_state(self.work / "codec")
        if (self.work / "decoder" / CHECKPOINT).exists():
            better = averaged_state(self.work / "decoder")
            if not all(torch.equal(better[k], v) for k, v in state.items() if k.startswith(("encoder.", "quant"))):
                raise WeightsError(f"{self.work / 'decoder'} was trained for another codec's codes: remove that folder")
            state = better
        model.load_state_dict(state)
        return model.eval().requires_grad_(False)

    def codes(self, split: str) -> NDArray[np.uint16]:
        """Codes (N, K) of a split's pictures."""
        return _made(self.work / f"codes_{split}.npy", "codes")

    def reconstructed(self) -> NDArray[np.uint8]:
        """Training pictures as they are after the codec, (N, S, S, 3)."""
        return _made(self.work / RECONSTRUCTIONS, "reconstruct")

    def tokenizer(self) -> DalleTokenizer:
        return DalleTokenizer.from_folder(self.work / "tokenizer", MAX_LENGTH)

    def dalle(self) -> DalleBart:
        """An untrained DALL·E of the right size."""
        codec = codec_config(self.size_px)
        codes_per_picture = (self.size_px // codec.downscale) ** 2
        return DalleBart(dalle_config(codec.num_codes, codes_per_picture, self.tokenizer().vocab_size, MAX_LENGTH))

    def painter(self) -> Painter:
        """An untrained diffusion model of the right size, its latents scaled to a deviation of 1."""
        tokenizer, codec = self.tokenizer(), self.codec()
        used = torch.from_numpy(self.codes("val").astype(np.int64))  # (N, K)
        scale = 1 / float(codec.quantize.embedding.weight[used].std())
        text = LatentTextEncoder(text_config(tokenizer.vocab_size, MAX_LENGTH))
        return Painter(text, LatentUNet(unet_config(self.size_px, round(scale, 5))))

    def clip(self) -> CLIP:
        """An untrained CLIP of the right size."""
        tokenizer = self.tokenizer()
        return CLIP(clip_config(self.size_px, tokenizer.vocab_size, MAX_LENGTH, tokenizer.eos_token_id))

    def learn(self, name: str, lesson: Lesson, average: nn.Module, evaluate_every: int = 500) -> None:
        """Train a lesson by its course in the folder of that name, printing a line per report."""
        torch.set_num_threads(self.threads)

        def report(step: int, row: dict[str, float]) -> None:
            figures = " ".join(f"{k}={v:.4g}" for k, v in row.items())
            print(f"{name} {step}/{course.steps} {figures}", flush=True)

        course = self.course(name)
        step = train(
            lesson,
            course,
            self.work / name,
            device=self.device,
            minutes=self.minutes,
            average=average,
            report=report,
            evaluate_every=evaluate_every,
        )
        if step < course.steps:
            raise Paused(f"{name}: {step} of {course.steps} steps done; the same command goes on from there")
        print(f"{name}: {step} steps done", flush=True)


def _made(path: Path, stage: str) -> NDArray[Any]:
    """An array that a stage before has written."""
    if not path.exists():
        raise WeightsError(f"no {path}; make it with: python -m dalle_flow.train {stage}")
    array: NDArray[Any] = np.load(path, mmap_mode="r")
    return array


def render_scenes(shop: Workshop) -> None:
    """The three splits; pictures only."""
    sprites = shop.work.parent / "sprites.npz"
    load_sprites(sprites, shop.font)
    for split, number in (("train", shop.scenes), ("val", 3000), ("heldout", 1000)):
        job: Any = Job(shop.work / split, sprites, split, number, shop.size_px)  # type: ignore[arg-type]
        render_split(job, shop.world, processes=shop.threads)


def train_judge(shop: Workshop) -> None:
    torch.manual_seed(shop.seed)
    lesson = JudgeLesson(shop.dataset("train"), shop.dataset("val"))
    shop.learn("judge", lesson, Judge(lesson.model.config))


def train_codec(shop: Workshop) -> None:
    torch.manual_seed(shop.seed)
    lesson = CodecLesson(shop.dataset("train"), shop.dataset("val"), shop.size_px, shop.judge())
    shop.learn("codec", lesson, type(lesson.model)(codec_config(shop.size_px)))


def learn_tokenizer(shop: Workshop) -> None:
    def captions() -> list[str]:
        rng = np.random.default_rng(shop.seed)
        scenes = (scene_at(shop.world, shop.seed, "train", i) for i in range(TOKENIZER_CAPTIONS))
        return [caption(scene, shop.world, rng) for scene in scenes]

    if not (shop.work / "tokenizer" / "tokenizer.json").exists():
        train_tokenizer(captions(), shop.work / "tokenizer")


def write_codes(shop: Workshop) -> None:
    """Codes of all pictures."""
    torch.set_num_threads(shop.threads)
    codec = shop.codec()
    for split in ("train", "val"):
        encode_dataset(shop.dataset(split), codec, shop.work / f"codes_{split}.npy")


def reconstruct(shop: Workshop) -> None:
    """Training pictures as they are after the codec: how generated pictures look, for CLIP."""
    torch.set_num_threads(shop.threads)
    codec = shop.codec()
    codes = torch.from_numpy(shop.codes("train")[:RECONSTRUCTED].astype(np.int64))
    pictures = []
    for part in torch.split(codes, 64):
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            pictures.append((codec.decode_codes(part).float() * 255).byte().permute(0, 2, 3, 1).numpy())
    save_array(shop.work / RECONSTRUCTIONS, np.concatenate(pictures))


def train_decoder(shop: Workshop) -> None:
    codes = [shop.codes(split) for split in ("train", "val")]
    scenes = [shop.dataset(split) for split in ("train", "val")]
    lesson = DecoderLesson(shop.codec(), scenes[0], codes[0], scenes[1], codes[1], shop.judge())
    shop.learn("decoder", lesson, VQGAN(codec_config(shop.size_px)))


def train_dalle(shop: Workshop) -> None:
    torch.manual_seed(shop.seed)
    codes = [shop.codes(split) for split in ("train", "val")]
    scenes = [shop.dataset(split) for split in ("train", "val")]
    lesson = DalleLesson(shop.dalle(), shop.tokenizer(), scenes[0], codes[0], scenes[1], codes[1])
    shop.learn("dalle", lesson, shop.dalle())


def train_diffusion(shop: Workshop) -> None:
    torch.manual_seed(shop.seed)
    codes = [shop.codes(split) for split in ("train", "val")]
    scenes = [shop.dataset(split) for split in ("train", "val")]
    lesson = DiffusionLesson(shop.painter(), shop.tokenizer(), shop.codec(), scenes[0], codes[0], scenes[1], codes[1])
    shop.learn("diffusion", lesson, shop.painter())


def train_clip(shop: Workshop) -> None:
    torch.manual_seed(shop.seed)
    lesson = ClipLesson(shop.clip(), shop.tokenizer(), shop.dataset("train"), shop.dataset("val"), shop.reconstructed())
    average = Hints(shop.clip(), *lesson.model.answers)
    shop.learn("clip", lesson, average)


def render_large(shop: Workshop) -> None:
    """Scenes at the upscaler's output size, and what it gets to see of them: smaller, and through the codec."""
    torch.set_num_threads(shop.threads)
    sprites, codec = shop.work.parent / "sprites.npz", shop.codec()
    load_sprites(sprites, shop.font)
    for split, number in LARGE.items():
        folder = shop.work / f"large_{split}"
        job: Any = Job(folder, sprites, split, number, SCALE * shop.size_px)  # type: ignore[arg-type]
        small = shrink_dataset(render_split(job, shop.world, processes=shop.threads))
        save_array(folder / "small.npy", small)
        save_array(folder / RECONSTRUCTIONS, through_codec(small, codec))


def train_upscale(shop: Workshop) -> None:
    torch.manual_seed(shop.seed)
    pairs = []
    for split in LARGE:
        folder = shop.work / f"large_{split}"
        small, decoded = (_made(folder / name, "large") for name in ("small.npy", RECONSTRUCTIONS))
        pairs.append(Pairs(shop.dataset(f"large_{split}").images, small, decoded))
    shop.learn("upscale", UpscaleLesson(*pairs), SRVGG(upscale_config()))


STAGES: dict[str, Callable[[Workshop], None]] = {
    "scenes": render_scenes,
    "judge": train_judge,
    "codec": train_codec,
    "tokenizer": learn_tokenizer,
    "codes": write_codes,
    "decoder": train_decoder,
    "reconstruct": reconstruct,
    "dalle": train_dalle,
    "diffusion": train_diffusion,
    "clip": train_clip,
    "segment": train_segment,
    "large": render_large,
    "upscale": train_upscale,
    "export": export_weights,
}
