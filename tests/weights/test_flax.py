"""Flax files: every form of array there is, and every way a file can be wrong."""

import json
import random
import struct

import msgpack
import numpy as np
import pytest
import torch

from dalle_flow.errors import WeightsError
from dalle_flow.weights.flax import read_flax
from dalle_flow.weights.flax_file import DTYPES, MAX_DEPTH


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_reads_every_dtype(flax, dtype):
    want = (torch.arange(17 * 5).reshape(17, 5) % 7).to(dtype)
    arrays = read_flax(flax.write({"a/b": want}))
    assert arrays["a/b"].shape == (17, 5)
    assert arrays["a/b"].read().dtype == dtype
    assert torch.equal(arrays["a/b"].read(), want)
    assert torch.equal(arrays["a/b"].read(16), want[16])


def test_reads_scalars_empty_and_one_element_arrays(flax):
    arrays = {
        "scalar": np.full((), 3, np.float32),
        "empty": np.zeros((0, 4), np.float32),
        "one": np.ones((1, 1), np.int8),
    }
    got = read_flax(flax.write({**arrays, "numpy": flax.ext(np.asarray(2.5), code=3)}))
    assert {key: array.read().tolist() for key, array in got.items()} == {
        "scalar": 3.0, "empty": [], "one": [[1]], "numpy": 2.5,
    }  # fmt: skip


@pytest.mark.parametrize("size", [1, 7, 13, 24, 1000])
def test_reads_arrays_in_chunks_whole_and_by_layer(flax, size):
    want = np.arange(4 * 3 * 2, dtype=np.float32).reshape(4, 3, 2)
    array = read_flax(flax.write({"stack": flax.chunked(want, size), "other": np.ones(3, np.float16)}))["stack"]
    assert array.shape == want.shape
    assert array.read().numpy().tolist() == want.tolist()
    for layer in range(4):
        assert array.read(layer).numpy().tolist() == want[layer].tolist()


def test_reads_a_sharded_index_and_a_params_wrapper(flax, tmp_path):
    a, b = np.arange(6, dtype=np.float32), np.ones((2, 2), np.float16)
    flax.write({"x/a": a}, name="flax_model-00001-of-00002.msgpack")
    flax.write({"params/x/b": b}, name="flax_model-00002-of-00002.msgpack")
    weight_map = {"x/a": "flax_model-00001-of-00002.msgpack", "x/b": "flax_model-00002-of-00002.msgpack"}
    index = tmp_path / "flax_model.msgpack.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    for path in (index, tmp_path):
        assert {key: array.read().numpy().tolist() for key, array in read_flax(path).items()} == {
            "x/a": a.tolist(), "x/b": b.tolist(),
        }  # fmt: skip

    index.write_text(json.dumps({"weight_map": {**weight_map, "x/c": "flax_model-00001-of-00002.msgpack"}}))
    with pytest.raises(WeightsError, match="x/c"):
        read_flax(tmp_path)
    index.write_text(json.dumps({"weight_map": {"x/a": weight_map["x/a"]}}))
    assert list(read_flax(tmp_path)) == ["x/a"]


@pytest.mark.parametrize("name", ["../secret.msgpack", "/etc/passwd", "..", "", "a/b.msgpack"])
def test_an_index_names_only_files_beside_it(tmp_path, name):
    (tmp_path / "flax_model.msgpack.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(WeightsError, match="only files beside"):
        read_flax(tmp_path)


@pytest.mark.parametrize("text", ["{}", '{"weight_map": 3}', '{"weight_map": {"a": 3}}', "[1]", "{", "[" * 100_000, ""])
def test_a_damaged_index_is_refused(tmp_path, text):
    (tmp_path / "flax_model.msgpack.index.json").write_text(text)
    with pytest.raises(WeightsError):
        read_flax(tmp_path)


def test_reads_nothing_but_the_layer_asked_for(flax, monkeypatch):
    """A stack of a thousand layers: reading one moves one layer's bytes."""
    path = flax.write({"stack": np.arange(4_000_000, dtype=np.int32).reshape(1000, 4000)})
    array, read = read_flax(path)["stack"], []
    original = type(array)._fill
    monkeypatch.setattr(
        type(array), "_fill", lambda self, view, skip: (read.append(len(view)), original(self, view, skip))
    )
    assert array.read(777)[5] == 777 * 4000 + 5
    assert read == [16_000]


def test_a_file_cut_anywhere_is_refused(flax, tmp_path):
    flat = {
        "a/b": np.ones((3, 3), np.float32),
        "a/c": flax.chunked(np.arange(9.0), 4),
        "long" * 20: np.zeros(300, np.int8),
    }
    data = flax.write(flat).read_bytes()
    path = tmp_path / "cut.msgpack"
    for size in range(len(data)):
        path.write_bytes(data[:size])
        with pytest.raises(WeightsError, match="cut off"):
            read_flax(path)
    path.write_bytes(data + b"\xc0")
    with pytest.raises(WeightsError, match="1 bytes too many"):
        read_flax(path)


def test_damaged_bytes_are_refused_or_read_as_arrays_but_never_crash(flax, tmp_path):
    data = flax.write({"a/b": np.ones((3, 3), np.float32), "c": flax.chunked(np.arange(9.0), 4)}).read_bytes()
    path, draw, refused = tmp_path / "damaged.msgpack", random.Random(5), 0
    for _ in range(2000):
        damaged = bytearray(data)
        for _ in range(draw.randint(1, 3)):
            damaged[draw.randrange(len(data))] = draw.randrange(256)
        path.write_bytes(damaged)
        try:
            for array in read_flax(path).values():
                array.read()
        except WeightsError:
            refused += 1
    assert refused > 500  # the others differ in numbers only


def test_a_file_that_shrinks_after_it_was_opened_is_refused(flax):
    path = flax.write({"a": np.ones(1000, np.float32)})
    array = read_flax(path)["a"]
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(WeightsError, match="became shorter"):
        array.read()


BOMBS = {
    "map of 4 billion": b"\xdf\xff\xff\xff\xff",
    "list of 4 billion": b"\xdd\xff\xff\xff\xff",
    "string of 4 GB": b"\x81\xdb\xff\xff\xff\xff",
    "bytes of 4 GB": b"\x81\xa1a\xc6\xff\xff\xff\xff",
    "array of 4 GB": b"\x81\xa1a\xc9\xff\xff\xff\xff\x01",
    "maps in maps": b"\x81\xa1a" * 100_000 + b"\xc0",
    "lists in lists": b"\x91" * 100_000 + b"\xc0",
    "no such head": b"\xc1",
    "empty": b"",
    "number": b"\x05",
    "string": b"\xa5hello",
    "nil": b"\xc0",
    "list of plain values": b"\x92\xc3\xca\x00\x00\x00\x00",
    "key not UTF-8": b"\x81\xa1\xff\xc0",
    "key a number": b"\x81\x01\xc0",
    "key twice": b"\x82\xa1a\xc0\xa1a\xc0",
    "text in place of an array": msgpack.packb({"a": "words"}),
    "million entries": b"\xdf" + struct.pack(">I", 1_000_001) + b"\xa1a\xc0" * 1_000_001,
}


@pytest.mark.parametrize("data", BOMBS.values(), ids=BOMBS)
def test_bombs_and_other_files_are_refused(tmp_path, data):
    path = tmp_path / "bomb.msgpack"
    path.write_bytes(data)
    with pytest.raises(WeightsError, match=r"bomb\.msgpack"):
        read_flax(path)


def flat(array):
    return packed([list(array.shape), array.dtype.name, array.tobytes()])


def packed(*parts: object, code: int = 1) -> msgpack.ExtType:
    return msgpack.ExtType(code, b"".join(msgpack.packb(part, use_bin_type=True) for part in parts))


WRONG = {
    "complex": packed([[2], "complex64", b"x" * 16], code=2),
    "unknown extension": packed([[2], "float32", b"x" * 8], code=9),
    "unknown dtype": packed([[2], "float128", b"x" * 32]),
    "object dtype": packed([[2], "object", b"x" * 16]),
    "two parts": packed([[2], "float32"]),
    "not a list": packed({"shape": 2}),
    "bytes too few": packed([[3], "float32", b"x" * 8]),
    "bytes too many": packed([[1], "float32", b"x" * 8]),
    "shape negative": packed([[-1, -2], "float32", b"x" * 8]),
    "shape of texts": packed([["2"], "float32", b"x" * 8]),
    "shape a number": packed([2, "float32", b"x" * 8]),
    "shape huge": packed([[1 << 62, 0], "float32", b""]),
    "nine dimensions": packed([[1] * 9, "float32", b"x" * 4]),
    "data as text": packed([[2], "float32", "x" * 8]),
    "something after": packed([[2], "float32", b"x" * 8], 3),
    "chunks missing": {"__msgpack_chunked_array__": True, "shape": {"0": 2}},
    "chunks empty": {"__msgpack_chunked_array__": True, "shape": {"0": 0}, "chunks": {}},
    "chunks too few": {"__msgpack_chunked_array__": True, "shape": {"0": 5}, "chunks": {"0": flat(np.ones(4))}},
    "chunks of two types": {
        "__msgpack_chunked_array__": True,
        "shape": {"0": 2},
        "chunks": {"0": flat(np.ones(1)), "1": flat(np.ones(1, "i4"))},
    },
    "chunks not flat": {"__msgpack_chunked_array__": True, "shape": {"0": 4}, "chunks": {"0": flat(np.ones((2, 2)))}},
    "chunks misnumbered": {"__msgpack_chunked_array__": True, "shape": {"0": 4}, "chunks": {"1": flat(np.ones(4))}},
    "chunk shape negative": {"__msgpack_chunked_array__": True, "shape": {"0": -4}, "chunks": {"0": flat(np.ones(4))}},
    "nested too deep": {"a": {}},
}  # fmt: skip
for _ in range(MAX_DEPTH):
    WRONG["nested too deep"] = {"a": WRONG["nested too deep"]}


@pytest.mark.parametrize("value", WRONG.values(), ids=WRONG)
def test_wrong_arrays_are_refused(flax, value):
    with pytest.raises(WeightsError, match=r"flax_model\.msgpack"):
        read_flax(flax.write({"fine": np.ones(2), "wrong": value}))


def test_a_missing_file_says_so(tmp_path):
    with pytest.raises(WeightsError, match="no such file"):
        read_flax(tmp_path / "absent.msgpack")
