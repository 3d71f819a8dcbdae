"""Flow files: what is right is read, what is wrong is said, all of it at once and with its place."""

from pathlib import Path

import pytest

from dalle_flow.errors import OptionError, UnknownNameError, UsageError
from dalle_flow.flow.plan import EMBEDDED, parse_weights, read_plan

GOOD = """
name: both
executors:
  big:
    uses: dalle
    weights: {dalle: models/mega, codec: /models/vqgan}
    options: {top_k: 50}
    device: cuda
  rank: {uses: clip, weights: {clip: ~/clip.pt}}
"""


def flow(folder: Path, text: str) -> Path:
    path = folder / "flow.yml"
    path.write_text(text, encoding="utf-8")
    return path


def test_reads(tmp_path: Path) -> None:
    plan = read_plan(flow(tmp_path, GOOD))
    assert plan.name == "both"
    assert list(plan.executors) == ["big", "rank"]
    big = plan.executor("big")
    assert (big.name, big.uses, big.options, big.device) == ("big", "dalle", {"top_k": 50}, "cuda")
    assert big.weights == {"dalle": tmp_path / "models" / "mega", "codec": Path("/models/vqgan")}
    assert plan.executor("rank").weights == {"clip": Path.home() / "clip.pt"}
    assert plan.executor("rank").device == "cpu"


def test_the_name_is_the_files_when_none_is_given(tmp_path: Path) -> None:
    assert read_plan(flow(tmp_path, "executors: {a: {uses: clip}}")).name == "flow"


def test_the_embedded_flow() -> None:
    plan = read_plan(EMBEDDED)
    assert {"dalle", "clip"} <= {entry.uses for entry in plan.executors.values()}
    for entry in plan.executors.values():
        assert all(EMBEDDED.parent in path.parents for path in entry.weights.values())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("executors: {a: {uses: clip", "not valid YAML, line 1"),
        ("a: [\n b: {]", "not valid YAML, line 2"),
        ("", "needs 'executors'"),
        ("- a", "needs 'executors'"),
        ("name: x", "needs 'executors'"),
        ("executors: {}", "needs 'executors'"),
        ("executors: [a]", "needs 'executors'"),
        ("executors: {a: clip}", "executors.a: must be a table of device, options, uses, weights, got 'clip'"),
        ("executors: {a: {uses: clop}}", "executors.a: uses: no executor named 'clop'; known: .*clip, dalle"),
        ("executors: {a: {}}", "no executor named None"),
        ("executors: {a: {uses: [clip]}}", r"no executor named \['clip'\]"),
        ("executors: {a: {uses: clip, wieghts: {}}}", "unknown key 'wieghts'"),
        ("executors: {a: {uses: clip, weights: x}}", "weights: must be a table, got 'x'"),
        ("executors: {a: {uses: clip, weights: {clip: 3}}}", "weights.clip: must be a path or the name of .*, got 3"),
        ("executors: {a: {uses: clip, options: [1]}}", r"options: must be a table, got \[1\]"),
        ("executors: {a: {uses: clip, options: null}}", "options: must be a table, got None"),
        ("executors: {a: {uses: clip}}\nreplicas: 3", "unknown key 'replicas'"),
        ("executors: {a: {uses: clip}}\n3: 3", "unknown key 3"),
        ("executors: {a: {uses: clip, weights: {clip: ''}}}", "weights.clip: must be a path or the name of .*, got ''"),
        (
            "executors: {a: {uses: clip, weights: {clip: ~nobody-x/a}}}",
            "weights.clip: must be a path or the name of weights, got '~nobody-x/a'",
        ),
        ("executors: {a: {uses: clip, device: gpu}}", "'cpu', 'cuda', 'cuda:N' or 'mps', got 'gpu'"),
        ("executors: {a: {uses: clip, device: [1]}}", r"device: must be .*, got \[1\]"),
        ("executors: {a: {uses: clip, device: null}}", "device: must be .*, got None"),
        ("executors: {a: {uses: clip, device: 'cuda:x'}}", "device: must be .*, got 'cuda:x'"),
        ("executors: {a: {uses: clip, options: {x: 2001-13-45}}}", "month must be in 1..12"),
        ("executors: !!int ''", "a value is not what it looks like"),
        ("executors: !!bool x", "a value is not what it looks like"),
        ("executors: !!timestamp x", "a value is not what it looks like"),
        ("[" * 5000, "nested too deeply"),
        ("executors: {a: {uses: clip}, a: {uses: dalle}}", "line 1: 'a' stands twice in this table"),
        ("executors:\n  1: {uses: clip}\n  '1': {uses: clip}", "line 3: '1' stands twice in this table"),
        ("executors: {a: {uses: clip, options: {x: 1, x: 2}}}", "line 1: 'x' stands twice"),
        ("executors: {a: !!python/object/apply:os.system [id]}", "not valid YAML"),
    ],
)
def test_faults(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        read_plan(flow(tmp_path, text))
    assert "flow.yml" in caught.value.message
    assert caught.value.field == "flow"


def test_all_faults_at_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        read_plan(flow(tmp_path, "x: 1\nexecutors: {a: {uses: clop, y: 1}, b: {uses: clip, weights: 3}}"))
    for fault in ("'x'", "executors.a: unknown key 'y'", "'clop'", "executors.b: weights"):
        assert fault in caught.value.message


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        read_plan(tmp_path / "none.yml")
    with pytest.raises(UsageError, match="Is a directory"):
        read_plan(tmp_path)
    (tmp_path / "flow.yml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="not valid YAML"):
        read_plan(tmp_path / "flow.yml")


def test_a_merged_table_may_say_a_key_again(tmp_path: Path) -> None:
    text = "executors:\n  a: &a {uses: clip, device: cuda}\n  b: &b {<<: *a, device: mps}\n  c: {<<: *b, device: cpu}"
    plan = read_plan(flow(tmp_path, text))
    assert [entry.device for entry in plan.executors.values()] == ["cuda", "mps", "cpu"]


def test_an_executor_by_name(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'rank'"):
        read_plan(flow(tmp_path, GOOD)).executor("rnak")


def test_other_weights_for_one_executor(tmp_path: Path) -> None:
    plan = read_plan(flow(tmp_path, GOOD))
    other = plan.with_weights("big", {"dalle": Path("/x")})
    assert other.executor("big").weights == {"dalle": Path("/x"), "codec": Path("/models/vqgan")}
    assert plan.executor("big").options
    assert other.executor("big").options == {}  # they were chosen for the flow's own weights
    assert plan.executor("big").weights["dalle"] == tmp_path / "models" / "mega"
    with pytest.raises(UnknownNameError):
        plan.with_weights("small", {})


def test_weights_arguments() -> None:
    assert parse_weights(["dalle=/a=b", "codec=~/c"]) == {"dalle": Path("/a=b"), "codec": Path.home() / "c"}
    assert parse_weights([]) == {}
    for wrong in ("dalle", "dalle=", "=path", "", "dalle=~nobody-of-that-name/x"):
        with pytest.raises(OptionError, match="ROLE=PATH"):
            parse_weights([wrong])
