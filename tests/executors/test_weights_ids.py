"""The id of an executor's weights tells apart whatever makes another picture, and nothing else.

Files that change places count, and so do the small files that lie beside a single file of weights.
"""

import gzip
import importlib.util
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from dalle_flow.executors.base import Executor
from dalle_flow.executors.clip import ClipRanker
from dalle_flow.executors.dalle import DalleGenerator
from dalle_flow.executors.glid3 import Glid3Generator
from dalle_flow.executors.pipeline import PipelineGenerator
from dalle_flow.executors.quiet import quiet
from dalle_flow.executors.segment import SegmentExecutor
from dalle_flow.executors.stable import StableGenerator
from dalle_flow.executors.upscale import UpscaleExecutor
from dalle_flow.models.clip import CLIP, CLIPConfig
from dalle_flow.models.srvgg import SRVGG, SRVGGConfig

spec = importlib.util.spec_from_file_location("tiny_pipelines", Path(__file__).with_name("tiny_pipelines.py"))
assert spec is not None
assert spec.loader is not None
tiny_pipelines = importlib.util.module_from_spec(spec)
with quiet():
    spec.loader.exec_module(tiny_pipelines)

ROOT = Path(__file__).parents[2]
FALLBACKS = (ROOT.parent / "shared" / "parity", ROOT / "tests" / "data" / "parity")
PARITY = Path(os.environ.get("DALLE_FLOW_PARITY") or next(folder for folder in FALLBACKS if folder.is_dir()))

Weights = Mapping[str, Path]


def copied(name: str, folder: Path) -> Path:
    """A folder of the parity data, to be changed."""
    if not (PARITY / name).is_dir():
        pytest.skip(f"no {name} parity data")
    return Path(shutil.copytree(PARITY / name, folder, copy_function=shutil.copyfile))


def rewrite(file: Path) -> None:
    """Other bytes that can be read as well."""
    if file.suffix == ".gz":
        file.write_bytes(gzip.compress(gzip.decompress(file.read_bytes()), mtime=1))
    else:
        file.write_bytes(file.read_bytes() + b"\n")


def glid3(folder: Path) -> Weights:
    """The published files with what no shape tells beside them, and an OpenAI's CLIP beside its vocabulary."""
    copied("glid3", folder)
    config = json.loads((folder / "meta.json").read_text())["config"]
    groups, heads = {"norm_groups": config["groups"]}, {"heads": config["unet"]["num_heads"]}
    for name, sizes in {"finetune": groups | heads, "kl-f8": groups}.items():
        (folder / f"{name}.json").write_text(json.dumps(sizes))
    (folder / "bert.json").write_text("{}")
    words = json.loads((PARITY / "clip" / "hf_tokenizer" / "vocab.json").read_text())
    torch.manual_seed(0)
    clip = CLIPConfig(
        embed_dim=config["unet"]["clip_embed_dim"], image_size=14, patch_size=7, vision_width=64, vision_layers=1,
        text_width=64, text_layers=1, vocab_size=len(words),
    )  # fmt: skip
    (folder / "clip").mkdir()
    torch.save(CLIP(clip).state_dict(), folder / "clip" / "ViT.pt")
    for name in ("vocab.json", "merges.txt"):
        shutil.copyfile(PARITY / "clip" / "hf_tokenizer" / name, folder / "clip" / name)
    roles = {"unet": "finetune.pt", "text": "bert.pt", "codec": "kl-f8.pt", "clip": "clip/ViT.pt"}
    return {role: folder / name for role, name in roles.items()}


def clip(folder: Path) -> Weights:
    return {"clip": copied("clip", folder) / "ViT-tiny.jit.pt"}


def segment(folder: Path) -> Weights:
    copied("clipseg", folder)
    extract = json.loads((folder / "meta.json").read_text())["config"]["extract"]
    (folder / "config.json").write_text(json.dumps({"extract_layers": extract}))
    return {"clipseg": folder / "rd64-uni.pth", "clip": folder / "clip_backbone.pt"}


def dalle(folder: Path) -> Weights:
    """Files of min-dalle: the codec lies in a folder of the one that is named."""
    copied("dalle/tiny_min_dalle", folder)
    shutil.copyfile(PARITY / "dalle" / "tiny_dalle_bart" / "config.json", folder / "dalle_bart_mega" / "config.json")
    return {"dalle": folder / "dalle_bart_mega" / "encoder.pt", "codec": folder}


def stable(folder: Path) -> Weights:
    copied("sd1", folder)
    return {"stable": folder / "model.ckpt", "tokenizer": folder / "diffusers_config" / "tokenizer"}


MADE = {"glid3": glid3, "clip": clip, "segment": segment, "dalle": dalle, "stable": stable}
EXECUTORS: dict[str, type[Executor]] = {
    "glid3": Glid3Generator,
    "clip": ClipRanker,
    "segment": SegmentExecutor,
    "dalle": DalleGenerator,
    "stable": StableGenerator,
    "pipeline": PipelineGenerator,
}


def id_of(name: str, weights: Weights) -> str:
    return EXECUTORS[name].load(weights, "cpu").weights_id


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("glid3", ["vocab.txt", "finetune.json", "bert.json", "kl-f8.json", "clip/vocab.json", "clip/merges.txt"]),
        ("clip", ["bpe_tiny.txt.gz"]),
        ("segment", ["bpe_tiny.txt.gz", "config.json"]),
        ("dalle", ["dalle_bart_mega/vocab.json", "dalle_bart_mega/merges.txt", "dalle_bart_mega/config.json"]),
        ("stable", [f"diffusers_config/{part}" for part in ("vae/config.json", "tokenizer/vocab.json")]),
    ],
)
def test_what_lies_beside_a_file_of_weights_counts(tmp_path: Path, name: str, files: list[str]) -> None:
    found = {id_of(name, MADE[name](tmp_path / "one"))}
    assert found == {id_of(name, MADE[name](tmp_path / "elsewhere" / "two"))}
    weights = MADE[name](tmp_path / "changed")
    for number, file in enumerate(files, start=2):
        rewrite(tmp_path / "changed" / file)
        found.add(id_of(name, weights))
        assert len(found) == number, f"{file} does not count"
    (tmp_path / "changed" / "notes.md").write_text("of no model")
    assert id_of(name, weights) in found


def test_weights_in_a_folder_below_count(tmp_path: Path) -> None:
    weights = dalle(tmp_path / "dalle")
    before = id_of("dalle", weights)
    state = torch.load(tmp_path / "dalle" / "vqgan" / "detoker.pt")
    torch.save({name: 2 * tensor for name, tensor in state.items()}, tmp_path / "dalle" / "vqgan" / "detoker.pt")
    assert id_of("dalle", weights) != before


def test_a_vocabulary_is_the_same_beside_the_weights_or_named(tmp_path: Path) -> None:
    weights = glid3(tmp_path / "glid3")
    before = id_of("glid3", weights)
    (tmp_path / "words").mkdir()
    moved = shutil.move(tmp_path / "glid3" / "vocab.txt", tmp_path / "words" / "vocab.txt")
    assert id_of("glid3", {**weights, "vocab": Path(moved)}) == before


def test_an_upscaler_and_its_second_weights_do_not_change_places(tmp_path: Path) -> None:
    """Mixed 3 to 1 they enlarge in another way than 1 to 3."""
    for seed, name in enumerate(("up.pth", "wdn.pth")):
        torch.manual_seed(seed)
        torch.save({"params": SRVGG(SRVGGConfig(features=6, convolutions=1)).state_dict()}, tmp_path / name)

    def loaded(one: str, other: str) -> str:
        return UpscaleExecutor.load({"upscaler": tmp_path / one, "wdn": tmp_path / other}, "cpu").weights_id

    assert loaded("up.pth", "wdn.pth") == loaded("up.pth", "wdn.pth")
    assert loaded("up.pth", "wdn.pth") != loaded("wdn.pth", "up.pth")


@pytest.mark.parametrize("name", ["stable", "pipeline"])
def test_parts_of_a_pipeline_do_not_change_places(tmp_path: Path, name: str) -> None:
    """Files of one name: XL's two tokenizers fill up short texts in two ways."""
    folder = tiny_pipelines.save("sdxl", tmp_path / "sdxl")
    files = [folder / part / "tokenizer_config.json" for part in ("tokenizer", "tokenizer_2")]
    rewrite(files[0])
    before = id_of(name, {name: folder})
    texts = [file.read_bytes() for file in files]
    assert texts[0] != texts[1]
    for file, text in zip(files, reversed(texts), strict=True):
        file.write_bytes(text)
    assert id_of(name, {name: folder}) != before


def test_the_index_of_a_folder_counts(tmp_path: Path) -> None:
    """It says what stands for no negative prompt."""
    folder = tiny_pipelines.save("sdxl", tmp_path / "sdxl")
    before = id_of("stable", {"stable": folder})
    rewrite(folder / "model_index.json")
    assert id_of("stable", {"stable": folder}) != before


def test_the_config_of_a_part_that_is_given_by_itself_counts(tmp_path: Path) -> None:
    weights = dict(stable(tmp_path / "sd1"))
    weights["vae"] = tiny_pipelines.save("sd15", tmp_path / "sd15") / "vae"
    before = id_of("stable", weights)
    rewrite(weights["vae"] / "config.json")
    assert id_of("stable", weights) != before
