"""The flows of the package: they are found by name, and all that they name exists."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from dalle_flow.engine.local import LocalEngine
from dalle_flow.errors import UnknownNameError, UsageError, WeightsError
from dalle_flow.flow import plan as module
from dalle_flow.flow.engine import FlowEngine
from dalle_flow.flow.plan import EMBEDDED, flow_file, named_flows, read_plan
from dalle_flow.registry import executor_class, executor_names
from dalle_flow.types import Kind
from dalle_flow.weights.fetch import fetch
from dalle_flow.weights.index import find_entry, folder_of, index, name_in, names_with_needs

NAMES = sorted(named_flows())


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DALLE_FLOW_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


def entries(name: str) -> dict[str, dict[str, Any]]:
    """The executors of a named flow as the file has them, whether their classes are there or not."""
    found: dict[str, dict[str, Any]] = yaml.safe_load(named_flows()[name].read_text("utf-8"))["executors"]
    return found


def test_there_are_these() -> None:
    assert NAMES == ["classic", "embedded", "modern"]
    assert named_flows()["embedded"] == EMBEDDED


@pytest.mark.parametrize("name", NAMES)
class TestEveryNamedFlow:
    def test_reads_and_names_what_is_registered(self, name: str) -> None:
        plan = read_plan(name)
        assert (plan.name, plan.flow) == (name, name)
        assert {entry.uses for entry in plan.executors.values()} <= set(executor_names())

    def test_its_roles_and_options_are_those_of_the_executors(self, name: str) -> None:
        plan = read_plan(name)
        engine = LocalEngine(plan.executors)
        for executor, entry in plan.executors.items():
            cls = executor_class(entry.uses)
            assert set(cls.roles) <= set(entry.weights) <= {*cls.roles, *getattr(cls, "optional_roles", ())}
            for kind in [None, *cls.verbs]:
                engine.options(executor, {}, kind)

    def test_its_weights_are_in_the_index_or_in_the_package(self, name: str) -> None:
        for entry in entries(name).values():
            for text in entry["weights"].values():
                weights = name_in(text)
                if weights is None:
                    assert (named_flows()[name].parent / text).exists(), text
                    continue
                files = [file for one in find_entry(weights).files for file in one.names]
                inside = text.partition("/")[2]
                assert not inside or inside in files, text

    def test_has_a_generator_first_and_one_ranker(self, name: str) -> None:
        kinds = [executor_class(entry["uses"]).kind for entry in entries(name).values() if known(entry)]
        assert kinds[0] is Kind.GENERATOR
        assert kinds.count(Kind.RANKER) == 1

    def test_says_in_words_what_it_is(self, name: str) -> None:
        assert named_flows()[name].read_text("utf-8").startswith("# ")


def known(entry: dict[str, Any]) -> bool:
    return entry["uses"] in executor_names()


def test_nothing_in_the_package_is_mistaken_for_published_weights() -> None:
    assert read_plan("embedded").published == ()


@pytest.mark.parametrize("name", [name for name in NAMES if name != "embedded"])
def test_a_flow_that_was_fetched_is_all_there(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Files of the right names stand for the weights."""
    monkeypatch.setattr(module, "executor_names", lambda: [entry["uses"] for entry in entries(name).values()])
    plan = read_plan(name)
    source = tmp_path / "mirror"
    for weights in names_with_needs(plan.published):
        entry = find_entry(weights)
        if any(file.sha256 for file in entry.files):  # their content is known, so that nothing can stand for them
            for file in entry.files:
                place = folder_of(weights) / file.names[0]
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_text("x")
            continue
        for file in entry.files:
            (source / file.names[0]).parent.mkdir(parents=True, exist_ok=True)
            (source / file.names[0]).write_text(weights)
        fetch(weights, source=source)
    for entry in plan.executors.values():
        assert all(path.exists() for path in entry.weights.values())


class TestNames:
    def test_a_name_is_the_flow_whatever_lies_here(self, tmp_path: Path) -> None:
        (tmp_path / "embedded").write_text("executors: {a: {uses: clip}}")
        (tmp_path / "classic").mkdir()
        assert flow_file("embedded") == EMBEDDED
        assert flow_file("classic") == named_flows()["classic"]
        assert list(read_plan("./embedded").executors) == ["a"]
        assert list(read_plan(Path("embedded")).executors) == ["a"], "a Path is always a file"

    def test_files(self, tmp_path: Path) -> None:
        for text in ("my.yml", "sub/my", "/a/b", "../x", "./classic"):
            assert flow_file(text) == Path(text)
        (tmp_path / "mine").write_text("")
        assert flow_file("mine") == Path("mine")

    @pytest.mark.parametrize("text", ["clasic", "Classic", "none", ""])
    def test_unknown_names_list_what_there_is(self, text: str) -> None:
        with pytest.raises(UnknownNameError, match=r"no flow named .* Known: classic, embedded, modern\."):
            read_plan(text)

    def test_a_file_that_is_not_there(self) -> None:
        with pytest.raises(UsageError, match=r"my\.yml: No such file"):
            read_plan("my.yml")


class TestWeightsByName:
    @pytest.fixture
    def flow(self, tmp_path: Path) -> Path:
        path = tmp_path / "mine.yml"
        path.write_text(
            "executors:\n"
            "  a: {uses: dalle, weights: {dalle: dalle-mini, codec: ./codec}}\n"
            "  b: {uses: clip, weights: {clip: openai-vit-b-16/ViT-B-16.pt}}\n"
            "  c: {uses: clip, weights: {clip: openai-vit-b-16}}\n"
        )
        return path

    def test_they_are_places_in_the_home(self, flow: Path, home: Path, tmp_path: Path) -> None:
        plan = read_plan(flow)
        assert plan.executor("a").weights == {"dalle": home / "dalle-mini", "codec": tmp_path / "codec"}
        assert plan.executor("b").weights == {"clip": home / "openai-vit-b-16" / "ViT-B-16.pt"}
        assert plan.published == ("dalle-mini", "openai-vit-b-16")
        assert plan.flow == str(flow)

    def test_what_was_not_fetched_says_how(self, flow: Path, tmp_path: Path) -> None:
        engine = FlowEngine(read_plan(flow))
        with pytest.raises(WeightsError) as caught:
            engine.check("a")
        assert "a: the weights dalle-mini are not on this machine" in caught.value.message
        assert f"'dalle-flow weights fetch --flow {flow}' gets all that this flow needs" in caught.value.message
        other = FlowEngine(read_plan(flow).with_weights("a", {"dalle": folder_of("dalle-mega")}))
        with pytest.raises(WeightsError, match="'dalle-flow weights fetch dalle-mega' gets them"):
            other.check("a")

    def test_other_weights_that_are_missing_are_said_as_before(self, flow: Path, home: Path) -> None:
        (home / "dalle-mini").mkdir(parents=True)
        with pytest.raises(WeightsError, match=r"a: no weights at .*codec; say where with codec=PATH"):
            FlowEngine(read_plan(flow)).check("a")

    def test_what_is_there_is_used(self, flow: Path, home: Path) -> None:
        (home / "openai-vit-b-16").mkdir(parents=True)
        engine = FlowEngine(read_plan(flow))
        engine.check("c")
        with pytest.raises(WeightsError, match=r"openai-vit-b-16 are not on this machine .*ViT-B-16\.pt"):
            engine.check("b")

    @pytest.mark.parametrize("text", ["dalle-mini/../x", "dalle-mini//x"])
    def test_they_lead_nowhere_else(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "x.yml").write_text(f"executors: {{a: {{uses: clip, weights: {{clip: {text}}}}}}}")
        with pytest.raises(
            UsageError, match=re.escape(f"weights.clip: must be a path or the name of weights, got '{text}'")
        ):
            read_plan("x.yml")


@pytest.mark.parametrize(("has_cuda", "device"), [(True, "cuda"), (False, "cpu")])
def test_auto_is_the_gpu_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_cuda: bool, device: str
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_cuda)
    (tmp_path / "x.yml").write_text("executors: {a: {uses: clip, device: auto}, b: {uses: clip}}")
    plan = read_plan("x.yml")
    assert [entry.device for entry in plan.executors.values()] == [device, "cpu"]


def test_every_name_in_a_flow_can_be_fetched() -> None:
    for name in NAMES:
        published = {name_in(text) for entry in entries(name).values() for text in entry["weights"].values()} - {None}
        assert published <= set(index())


def test_the_document_tells_the_licences_of_all_that_is_fetched() -> None:
    text = (Path(__file__).parents[2] / "docs" / "flows.md").read_text("utf-8")
    told = re.findall(r"^\| `([\w.-]+)` \| (\w+) \| (.+) \|$", text.split("## Licences")[1], re.MULTILINE)
    needed = []
    for name in ("classic", "modern"):
        texts = [text for entry in entries(name).values() for text in entry["weights"].values()]
        published = [weights for text in texts if (weights := name_in(text))]
        needed += [(weights, name, find_entry(weights).licence) for weights in names_with_needs(published)]
    assert told == needed


def test_the_document_names_every_flow_and_ranker() -> None:
    text = (Path(__file__).parents[2] / "docs" / "flows.md").read_text("utf-8")
    assert all(f"| `{name}` |" in text for name in NAMES)
    rankers = text.split("## Rankers")[1].split("## Licences")[0]
    for uses, named in re.findall(r"^\| `(\w+)` \| (`.+`) \|", rankers, re.MULTILINE):
        assert executor_class(uses).kind is Kind.RANKER
        assert set(re.findall(r"`([\w.-]+)`", named)) <= set(index())
