"""Torch's files read as data: state dicts, TorchScript, pickled networks; and pickles with code in them, not run."""

import os
import pickle
import random
import shutil
import zipfile
from collections import OrderedDict

import pytest
import torch
from torch import nn

from dalle_flow.errors import WeightsError
from dalle_flow.weights.pickle_values import Global, Shell
from dalle_flow.weights.safe_pickle import read_pickle
from dalle_flow.weights.torch_file import TORCHSCRIPT, is_torchscript, read_torch


def equal(found, wanted):
    assert list(found) == list(wanted)
    for name, tensor in wanted.items():
        assert found[name].shape == tuple(tensor.shape)
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name].read(), tensor)


def some_tensors():
    base = torch.arange(60.0).reshape(5, 12)
    return OrderedDict(
        plain=base, turned=base.T, part=base[1:4, 2::3], half=base.half(), brain=base.bfloat16(),
        scalar=torch.tensor(3), empty=torch.zeros(0, 4), flags=torch.tensor([True, False]),
        parameter=nn.Parameter(torch.ones(3)),
    )  # fmt: skip


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "before 1.6"])
def test_reads_every_kind_of_tensor(tmp_path, legacy):
    torch.save(some_tensors(), tmp_path / "a.pt", _use_new_zipfile_serialization=not legacy)
    equal(read_torch(tmp_path / "a.pt"), some_tensors())
    turned = read_torch(tmp_path / "a.pt")["turned"]
    assert torch.equal(turned.read(7), some_tensors()["turned"][7])


def test_names_of_nested_dicts_are_joined_and_the_rest_is_passed_over(tmp_path):
    torch.save({"state_dict": {"a.b": torch.ones(2)}, "epoch": 5, "lr": [0.1], "name": "x" * 300}, tmp_path / "a.pt")
    equal(read_torch(tmp_path / "a.pt"), {"state_dict.a.b": torch.ones(2)})


def test_storages_that_no_name_leads_to_are_stepped_over(tmp_path):
    value = {"list": [torch.ones(3)], "weight": torch.arange(5), "step": {"a": torch.ones(2).half()}}
    torch.save(value, tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    equal(read_torch(tmp_path / "a.pt"), {"weight": torch.arange(5), "step.a": torch.ones(2).half()})


def test_a_file_zipped_again_with_compression_is_read(tmp_path):
    torch.save(some_tensors(), tmp_path / "a.pt")
    with (
        zipfile.ZipFile(tmp_path / "a.pt") as old,
        zipfile.ZipFile(tmp_path / "b.pt", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name))
    equal(read_torch(tmp_path / "b.pt"), some_tensors())


def test_the_published_and_reference_files_equal_what_torch_reads(parity):
    files = [*parity.glob("*/*.pt"), *parity.glob("*/*.pth"), *parity.glob("dalle/tiny_min_dalle/*/*.pt")]
    files += parity.parent.glob("real/*.pth")
    for file in files:
        if file.name == "kl-f8.pt" or is_torchscript(file):
            continue  # torch refuses them
        wanted = torch.load(file, map_location="cpu", weights_only=True)
        wanted = {f"params.{k}": v for k, v in wanted["params"].items()} if "params" in wanted else wanted
        equal(read_torch(file), {name: v for name, v in wanted.items() if isinstance(v, torch.Tensor)})


class Branch(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
        self.register_buffer("count", torch.arange(3))
        self.scale = nn.Parameter(torch.ones(2, 2, dtype=torch.float16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_torchscript_is_read_without_running_its_code(tmp_path):
    model = Branch()
    torch.jit.script(model).save(str(tmp_path / "a.pt"))
    assert is_torchscript(tmp_path / "a.pt")
    found = read_torch(tmp_path / "a.pt", TORCHSCRIPT)
    assert found.keys() == model.state_dict().keys()
    assert all(torch.equal(found[name].read(), tensor) for name, tensor in model.state_dict().items())
    with pytest.raises(WeightsError, match="__torch__"):
        read_torch(tmp_path / "a.pt")


def test_a_pickled_network_is_read_where_its_classes_are_expected(tmp_path):
    torch.save(model := Branch(), tmp_path / "a.pt")
    with pytest.raises(WeightsError, match=r"Branch.*Nothing was run"):
        read_torch(tmp_path / "a.pt")
    found = read_torch(tmp_path / "a.pt", (Branch.__module__, "torch.nn.modules."))
    equal({name: found[name] for name in model.state_dict()}, model.state_dict())


class Bomb:
    """Calls something when unpickled by Python."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    ("bomb", "named"),
    [
        (Bomb(os.system, "touch bombed"), r"(posix|nt)\.system"),
        (Bomb(eval, "open('bombed', 'w')"), r"builtins?__?\.eval"),
        (Bomb(open, "bombed", "w"), r"\.open"),
        (Bomb(getattr, "x", "upper"), r"\.getattr"),
        (Bomb(torch.load, "x"), r"torch\.serialization\.load"),
        (Bomb(torch.hub.load_state_dict_from_url, "http://127.0.0.1/"), r"torch\.hub"),
        (Bomb(shutil.rmtree, "bombed"), r"shutil\.rmtree"),
    ],
)
@pytest.mark.parametrize("place", ["whole", "within", "key", "legacy"])
def test_a_pickle_with_code_is_refused_by_name_and_not_run(tmp_path, monkeypatch, bomb, named, place):
    monkeypatch.chdir(tmp_path)
    value = {"whole": bomb, "within": {"weight": torch.ones(2), "x": [bomb]}, "key": (bomb, 1)}.get(place, {"x": bomb})
    torch.save(value, "a.pt", _use_new_zipfile_serialization=place != "legacy")
    with pytest.raises(WeightsError, match=named) as error:
        read_torch(tmp_path / "a.pt", TORCHSCRIPT)
    assert "Nothing was run" in str(error.value)
    assert os.listdir(tmp_path) == ["a.pt"]


def test_expected_classes_are_never_looked_up():
    data = pickle.dumps(Bomb(os.system, "false"), protocol=2)
    assert read_pickle(data, "x", [os.system.__module__]).of == Global(os.system.__module__, "system")
    built = read_pickle(
        b"\x80\x02cno.such.package Thing\nThing\n)\x81}b.".replace(b" Thing\n", b"\n"), "x", ["no.such."]
    )
    assert isinstance(built, Shell)
    assert built.state == {}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_values_come_back_as_they_were(protocol):
    value = {
        "a": [1, -2, 300, 70_000, 1 << 40, 1.5, None, True, False],
        "b": ("x", (), (1,), (1, 2), (1, 2, 3, 4)),
        5: {},
    }
    value["same"] = value["a"]
    assert read_pickle(pickle.dumps(value, protocol=protocol), "x") == value


def tensor_pickle(
    storage=b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04", rest=b"K\x00(K\x04t(K\x01t\x89ccollections\nOrderedDict\n)R"
):
    kind = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
    return b"\x80\x02}X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\n(" + kind + storage + b"tQ" + rest + b"tRs."


def archive(path, data, numbers=b"\0" * 16):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a/data.pkl", data)
        file.writestr("a/data/0", numbers)
    return path


def test_the_crafted_tensor_below_is_fine_as_it_is(tmp_path):
    equal(read_torch(archive(tmp_path / "a.pt", tensor_pickle())), {"a": torch.zeros(4)})


REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"
CRAFTED = [
    *(b"", b".", b"\x80\x02", b"\x80\x02N", b"\x80\x02((.", b"\x80\x02NN.", b"\xff", b"t.", b"e.", b"K\x01K\x02s."),
    *(b"]K\x01b.", b"X\xff\xff\xff\xffa.", b"B\xff\xff\xff\xffa.", b"\x8a\xff1.", b"h\x00.", b"(q\x00.", b"})s."),
    *(b"ctorch\nfloat32", b"ctorch\nfloat32\n)R.", b"K\x01)R.", b"ctorch\nFloatStorage\n)R.", b"K\x05Q.", b"}))s."),
    *(b"ccollections\nOrderedDict\nK\x01R.", b"ccollections\nOrderedDict\n(]ttR.", b"(K\x01K\x02K\x03K\x04K\x05tQ."),
    *(b"}(K\x01u.", b"X\x01\x00\x00\x00\xff.", REBUILD + b")R.", b"ctorch._utils\n_rebuild_parameter\n)R."),
    *(REBUILD + b"(K\x01K\x02K\x03K\x04tR.", b"(" * 1_000_000 + b".", b"c" + b"a" * 1_000_000 + b"\nb\n."),
    # a tensor whose stride lacks, whose shape is negative or None, whose offset is negative or too far,
    tensor_pickle(rest=b"K\x00(K\x04t(t\x89N"),
    tensor_pickle(rest=b"K\x00(J\xff\xff\xff\xfft(K\x01t\x89N"),
    tensor_pickle(rest=b"K\x00(Nt(K\x01t\x89N"),
    tensor_pickle(rest=b"J\xff\xff\xff\xff(K\x04t(K\x01t\x89N"),
    tensor_pickle(rest=b"K\x01(K\x04t(K\x01t\x89N"),
    # that is longer than its storage, steps out of it, or repeats one number a billion times,
    tensor_pickle(rest=b"K\x00(K\x05t(K\x01t\x89N"),
    tensor_pickle(rest=b"K\x00(K\x02t(K\x04t\x89N"),
    tensor_pickle(rest=b"K\x00(J\x00\x00\x00\x40t(K\x00t\x89N"),
    # whose storage is not there, has no name, or lies elsewhere
    tensor_pickle(storage=b"X\x01\x00\x00\x007X\x03\x00\x00\x00cpuK\x04"),
    tensor_pickle(storage=b"K\x00X\x03\x00\x00\x00cpuK\x04"),
    tensor_pickle(storage=b"X\x05\x00\x00\x00../..X\x03\x00\x00\x00cpuK\x04"),
]


@pytest.mark.parametrize("data", CRAFTED, ids=range(len(CRAFTED)))
def test_damaged_and_crafted_pickles_are_refused(tmp_path, data):
    with pytest.raises(WeightsError, match=r"a\.pt"):
        read_torch(archive(tmp_path / "a.pt", data))


def test_a_memo_place_far_out_takes_no_memory():
    assert read_pickle(b"\x80\x02Nr\xff\xff\xff\xff0.".replace(b"0.", b"."), "x") is None


def test_deeply_nested_and_shared_values_are_refused_in_good_time(tmp_path):
    deep = b"}" + b"X\x01\x00\x00\x00a}" * 100_000 + b"s" * 100_000 + b"."
    with pytest.raises(WeightsError, match="nested deeper"):
        read_torch(archive(tmp_path / "deep.pt", deep))
    shared = b"}q\x00"  # each dict holds the one before twice: 2^60 of them if all were walked
    for i in range(60):
        again = b"X\x01\x00\x00\x00bh" + bytes([i])
        shared = b"}(X\x01\x00\x00\x00a" + shared + again + b"uq" + bytes([i + 1])
    with pytest.raises(WeightsError, match="holding more"):
        read_torch(archive(tmp_path / "shared.pt", shared + b"."))


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "before 1.6"])
def test_files_cut_or_damaged_anywhere_are_refused_or_read_but_never_crash(tmp_path, legacy):
    value = OrderedDict(a=torch.ones(20, 3), b=torch.arange(5))
    torch.save(value, tmp_path / "a.pt", _use_new_zipfile_serialization=not legacy)
    data, draw, path = (tmp_path / "a.pt").read_bytes(), random.Random(3), tmp_path / "b.pt"
    for size in [*range(0, 200, 7), *range(200, len(data), 97)]:
        path.write_bytes(data[:size])
        with pytest.raises(WeightsError):
            read_torch(path)
    for _ in range(400):
        damaged = bytearray(data)
        for _ in range(3):
            damaged[draw.randrange(len(data))] = draw.randrange(256)
        path.write_bytes(damaged)
        try:
            for tensor in read_torch(path).values():
                if sum(tensor.shape) < 1000:
                    tensor.read()
        except WeightsError:
            pass


def test_other_files_are_refused(tmp_path):
    (tmp_path / "a.pt").write_text("<html>404</html>")
    with zipfile.ZipFile(tmp_path / "b.pt", "w") as file:
        file.writestr("readme.txt", "hello")
    for name in ("a.pt", "b.pt", "absent.pt"):
        with pytest.raises(WeightsError, match=name):
            read_torch(tmp_path / name)
    torch.save({"a": torch.ones(1)}, tmp_path / "c.pt")
    with zipfile.ZipFile(tmp_path / "c.pt") as old, zipfile.ZipFile(tmp_path / "d.pt", "w") as new:
        for name in old.namelist():
            new.writestr(name, b"big" if name.endswith("byteorder") else old.read(name))
    with pytest.raises(WeightsError, match="big-endian"):
        read_torch(tmp_path / "d.pt")
