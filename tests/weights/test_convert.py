"""Any layout -> ours: the same numbers, bounded memory, and nothing left behind when it fails."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from dalle_flow.errors import OptionError, StorageError, WeightsError
from dalle_flow.models.dalle_bart import DalleBart, DalleBartConfig
from dalle_flow.weights import convert as module
from dalle_flow.weights import disk
from dalle_flow.weights.convert import convert
from dalle_flow.weights.disk import sha256_of
from dalle_flow.weights.fetch import verify
from dalle_flow.weights.files import load_clip, load_dalle_bart, load_vqgan
from dalle_flow.weights.flax_layout import LAYER_NAMES
from dalle_flow.weights.ours import read_metadata
from dalle_flow.weights.plan import Piece

HEADS = {"encoder_attention_heads": 5, "decoder_attention_heads": 5, "decoder_start_token_id": 96}
CASES = {
    "scanned": ("dalle/tiny_dalle_bart", load_dalle_bart, None),
    "un-scanned": ("dalle/tiny_dalle_bart_mini_unscanned_fp16", load_dalle_bart, None),
    "vqgan": ("dalle/tiny_vqgan", load_vqgan, None),
    "min-dalle": ("dalle/tiny_min_dalle/dalle_bart_mega", load_dalle_bart, HEADS),
    "clip": ("clip/ViT-tiny.jit.pt", load_clip, None),
}


@pytest.mark.parametrize(("source", "load", "overrides"), CASES.values(), ids=CASES)
@pytest.mark.parametrize("dtype", [None, torch.float32, torch.float16])
def test_the_converted_model_is_the_same(parity, tmp_path, source, load, overrides, dtype):
    """The tiny weights are exact in float16, so no type changes a number."""
    told = []
    target = convert(
        parity / source, tmp_path / "new", dtype=dtype, overrides=overrides, progress=lambda *p: told.append(p)
    )
    wanted = load(parity / source, **({"overrides": overrides} if overrides else {}))
    loaded = load(target)
    assert loaded.config == wanted.config
    states = loaded.state_dict(), wanted.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[1])
    assert dtype is None or {p.dtype for p in load(target, dtype=None).parameters()} == {dtype}
    assert told == sorted(told)
    assert told[-1][0] == told[-1][1]
    assert [file.name for file in tmp_path.iterdir()] == ["new"]


def test_the_header_names_the_files_and_the_tokenizer_comes_along(parity, tmp_path):
    source = parity / "dalle" / "tiny_dalle_bart"
    convert(source, tmp_path / "new")
    hashes = json.loads(read_metadata(tmp_path / "new")["source"])
    assert hashes == {"flax_model.msgpack": sha256_of(source / "flax_model.msgpack")}
    theirs = {file.name for file in source.iterdir()} - {"flax_model.msgpack", "config.json"}
    assert {file.name for file in (tmp_path / "new").iterdir()} == theirs | {
        *("config.json", "model.safetensors", "weights.lock")
    }
    assert verify(tmp_path / "new").files["model.safetensors"].trusted == "converted"
    for name in theirs:
        assert (tmp_path / "new" / name).read_bytes() == (source / name).read_bytes()


def test_minis_tokenizer_is_taken_where_both_lie_together(parity, tmp_path):
    source = parity / "dalle" / "tiny_min_dalle" / "dalle_bart_mega"
    for name in ("encoder.pt", "decoder.pt", "merges.txt"):
        shutil.copy(source / name, tmp_path / name.replace(".", "_mini."))
    (tmp_path / "merges.txt").write_text("mega's")
    convert(tmp_path / "encoder_mini.pt", tmp_path / "new", overrides=HEADS)
    assert (tmp_path / "new" / "merges.txt").read_bytes() == (source / "merges.txt").read_bytes()


def test_in_8_bits_and_again_from_ours(parity, tmp_path):
    source = parity / "dalle" / "tiny_dalle_bart"
    convert(source, tmp_path / "small", int8=True, dtype=torch.float16)
    convert(tmp_path / "small", tmp_path / "again")
    a, b, c = load_dalle_bart(tmp_path / "small"), load_dalle_bart(tmp_path / "again"), load_dalle_bart(source)
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
    assert all(
        torch.allclose(x, y, atol=y.abs().max() / 250) for x, y in zip(a.parameters(), c.parameters(), strict=True)
    )
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("small", "again")]
    assert sizes[0] < sizes[1] * 0.4


def test_the_target_must_be_free_and_the_source_one_model(parity, tmp_path):
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").touch()
    (tmp_path / "empty").mkdir()
    source = parity / "dalle" / "tiny_vqgan"
    for target in (tmp_path / "used", tmp_path / "used" / "file"):
        with pytest.raises(OptionError, match="in use"):
            convert(source, target)
    assert load_vqgan(convert(source, tmp_path / "empty")).config.num_codes == 96
    with pytest.raises(WeightsError, match=r"several models \(DalleBart, VQGAN\)"):
        convert(parity / "dalle" / "tiny_min_dalle", tmp_path / "x")
    with pytest.raises(OptionError, match="only DALL·E's config"):
        convert(source, tmp_path / "x", overrides={"d_model": 3})
    with pytest.raises(WeightsError, match="no such file"):
        convert(tmp_path / "absent", tmp_path / "x")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("at", [0, 3, 40])
@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt(), ValueError("a bug")])
def test_nothing_is_left_when_writing_fails(parity, tmp_path, monkeypatch, at, failure):
    """A disk that fills up, a person who interrupts, a mistake of ours: at the first tensor or a later one."""
    reads, read = [], Piece.read

    def failing(self, *args):
        reads.append(self)
        if len(reads) > at:
            raise failure
        return read(self, *args)

    monkeypatch.setattr(Piece, "read", failing)
    expected = StorageError if isinstance(failure, OSError) else type(failure)
    with pytest.raises(expected):
        convert(parity / "dalle" / "tiny_vqgan", tmp_path / "a" / "new")
    assert list(tmp_path.rglob("*.part*")) == []
    assert not (tmp_path / "a" / "new").exists()


def test_a_full_disk_is_noticed_before_and_while_writing(parity, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: usage._replace(free=10_000))
    with pytest.raises(StorageError, match=r"write 0\.00 GB where 0\.00 GB are free: the disk is full"):
        convert(parity / "dalle" / "tiny_vqgan", tmp_path / "new")
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: usage)
    monkeypatch.setattr(disk, "sync", lambda file: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left")))
    with pytest.raises(StorageError, match="the disk is full; free some space"):
        convert(parity / "dalle" / "tiny_vqgan", tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


MEASURE = """
import sys
from pathlib import Path
import torch
from dalle_flow.weights.convert import convert
from dalle_flow.weights.fetch import verify
from dalle_flow.weights.files import load_dalle_bart
def memory(field):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(field))
source, target = map(Path, sys.argv[2:])
torch.randn(300, 300) @ torch.randn(300, 300)
load_dalle_bart(sys.argv[1])
before = memory("VmRSS")
model = convert(source, target, dtype=torch.float16) if str(target) != "-" else load_dalle_bart(source)
print(memory("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc to measure memory")
@pytest.mark.parametrize("what", ["convert", "load"])
def test_memory_is_bounded(parity, tmp_path, flax, what):
    """90 MB of scanned layers: converting holds one layer at a time, loading the model and one layer."""
    wanted = DalleBartConfig(512, 3, 3, 8, 8, 1024, 1024, 4000, 999, 64, 256, 999)
    with torch.device("meta"):
        model = DalleBart(wanted)
    size = sum(p.numel() * 4 for p in model.parameters())
    flax.write(scanned_zeros(model))
    (tmp_path / "config.json").write_text(json.dumps(wanted.to_dict()))
    target = tmp_path / "new" if what == "convert" else "-"
    command = [sys.executable, "-c", MEASURE, parity / "dalle" / "tiny_dalle_bart", tmp_path, target]
    exact = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}  # glibc gives back at once what is freed
    used = int(subprocess.run(command, check=True, capture_output=True, text=True, env=exact).stdout)
    largest = 4 * 4000 * 512
    slack = 12 << 20
    assert size > 80e6
    assert used < (0 if what == "convert" else size) + 2 * largest + slack


def scanned_zeros(model: DalleBart) -> dict[str, np.ndarray]:
    """A Flax file of such a model, by the same names as the originals'."""
    theirs = {ours: flax for flax, ours in LAYER_NAMES.items()}
    arrays = {}
    for name, parameter in model.named_parameters():
        *path, leaf = name.split(".")
        shape = tuple(parameter.shape)
        embedding = path[-1].startswith("embed_")
        kernel = leaf == "weight" and len(shape) == 2 and not embedding
        leaf = "bias" if leaf == "bias" else "embedding" if embedding else "kernel" if kernel else "scale"
        shape = shape[::-1] if kernel else shape
        if "layers" in path:
            side, _, number, *rest = path
            stack = (len(getattr(model, side).layers), *shape)
            place = f"model/{side}/layers/FlaxBart{side.title()}Layers/{theirs['.'.join(rest)]}/{leaf}"
            if number == "0":
                arrays[place] = np.zeros(stack, np.float32)
        else:
            arrays["/".join((["model"] if path[0] != "lm_head" else []) + path + [leaf])] = np.zeros(shape, np.float32)
    return arrays


@pytest.mark.parametrize("there", [True, False])
def test_a_target_that_is_a_link_stays_one(parity, tmp_path, there):
    disk, target = tmp_path / "disk", tmp_path / "target"
    if there:
        disk.mkdir()
    target.symlink_to(disk)
    assert convert(parity / "dalle" / "tiny_vqgan", target) == target
    assert target.is_symlink()
    assert (disk / "model.safetensors").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "target"]
