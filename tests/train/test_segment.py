"""Training the segmenter: what queries mean, one lesson on a few pictures, its export."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dalle_flow.models.clip import CLIP
from dalle_flow.models.clipseg import CLIPSeg, CLIPSegConfig
from dalle_flow.models.text.bpe import DalleTokenizer
from dalle_flow.train.chain import COURSES, STAGES, Workshop
from dalle_flow.train.clip import Hints, clip_config
from dalle_flow.train.data import Dataset, Job, render_split
from dalle_flow.train.dice import Dice
from dalle_flow.train.loop import CHECKPOINT, Course, train
from dalle_flow.train.queries import ALIKE, absent, look, present
from dalle_flow.train.scenes import Scene, Thing, scene_at
from dalle_flow.train.segment import (
    SegmentLesson,
    clipseg_config,
    export_segment,
    overlap,
    train_segment,
    trained_clip,
)
from dalle_flow.train.sprites import Sprites
from dalle_flow.train.world import S0
from dalle_flow.weights.files import load_ours

NUMBER = 24
THINGS = (Thing("cat", "red", 0.3, 0.5, 0.4), Thing("apple", None, 0.7, 0.5, 0.4))
SCENE = Scene("pair", THINGS, "left of", "plain", "grass", None, 0.6, 1)


@pytest.fixture(scope="module")
def scenes(sprites: Sprites, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("scenes")
    np.savez(folder / "sprites.npz", **sprites)
    return render_split(Job(folder / "train", folder / "sprites.npz", "train", NUMBER))


@pytest.fixture(scope="module")
def tokenizer() -> DalleTokenizer:
    return DalleTokenizer.of_bytes(max_length=48)


@pytest.fixture
def model(tokenizer: DalleTokenizer) -> CLIPSeg:
    """Narrow, but of the embedded one's form."""
    torch.manual_seed(0)
    clip = clip_config(64, tokenizer.vocab_size, tokenizer.max_length, tokenizer.eos_token_id)
    clip = replace(clip, vision_width=32, text_width=32, text_layers=1, embed_dim=24, head_width=16)
    return CLIPSeg(replace(clipseg_config(clip), reduce_dim=16, mlp_width=32))


@pytest.fixture
def lesson(model: CLIPSeg, tokenizer: DalleTokenizer, scenes: Dataset) -> SegmentLesson:
    return SegmentLesson(model, tokenizer, scenes, scenes)


def test_the_embedded_segmenter_sees_16_x_16_patches(tokenizer: DalleTokenizer) -> None:
    config = clipseg_config(clip_config(64, tokenizer.vocab_size, 32, 2))
    assert config.input_size // config.clip.patch_size == 16
    with torch.device("meta"):
        logits = CLIPSeg(config)(torch.empty(3, 3, 128, 128), torch.zeros(1, 5, dtype=torch.int64))
    assert logits.shape == (3, 128, 128)


def test_present_queries_mean_what_they_say() -> None:
    """Of a red cat beside an apple as it grows: red means both, a red cat one."""
    dice = Dice(np.random.default_rng(0))
    asked = [present(SCENE, S0, dice, [0]) for _ in range(300)]
    assert {query.form for query in asked} == {"kind", "color and kind", "color"}
    for query in asked:
        assert query.things == ((0, 1) if query.form == "color" else (0,))
        assert ("red" in query.text) == (query.form != "kind")
    assert {"the kitty", "kitten", "a red cat", "the red ones"} <= {query.text for query in asked}


def test_a_color_alone_is_not_asked_beside_a_thing_of_several_colors() -> None:
    scene = replace(SCENE, things=(THINGS[0], Thing("dog", None, 0.7, 0.5, 0.4)))
    dice = Dice(np.random.default_rng(0))
    assert "color" not in {present(scene, S0, dice, [0]).form for _ in range(200)}
    assert not [q for q in (absent(scene, S0, dice) for _ in range(200)) if q.form == "color"]


def test_absent_queries_are_of_nothing_in_the_scene() -> None:
    rng = np.random.default_rng(1)
    dice, forms = Dice(rng), Counter[str]()
    for index in range(300):
        scene = scene_at(S0, 0, "train", index)
        query = absent(scene, S0, dice)
        assert query.things == ()
        forms[query.form] += 1
        words = set(query.text.replace("violet", "purple").replace("rosy", "pink").split())
        for thing in scene.things:
            named = thing.kind in query.text
            if query.form == "color":
                assert look(thing, S0) not in words
            elif query.form == "kind" and thing.kind != "moon":
                assert not named or thing.kind in ("star", "car", "cat")  # inside other words
        for kind in ALIKE.get(scene.background, ()):
            assert kind in {thing.kind for thing in scene.things} or f" {kind}" not in f" {query.text} "
    assert min(forms[form] for form in ("kind", "color and kind", "color")) > 5


def test_masks_are_of_what_is_asked_for(lesson: SegmentLesson, scenes: Dataset) -> None:
    found = lesson.searches(scenes, torch.arange(NUMBER), Dice(np.random.default_rng(0)), 0.25)
    assert found.masks.shape == (2 * NUMBER, 64, 64)
    nothing = [not query.things for query in found.asked]
    assert 0 < sum(nothing) < NUMBER
    for row, query in enumerate(found.asked):
        labels = scenes.labels[row // 2]
        assert bool(found.masks[row].any()) == bool(query.things)
        assert set(np.unique(labels[found.masks[row].numpy() > 0])) == {1 + thing for thing in query.things}


def test_the_loss_falls_and_clip_stays(lesson: SegmentLesson, tmp_path: Path) -> None:
    before = {name: tensor.clone() for name, tensor in lesson.model.clip.state_dict().items()}
    rows: list[dict[str, float]] = []
    course = Course(30, 4, 1e-2, warmup_steps=5, log_every=10)
    average = CLIPSeg(lesson.model.config)
    train(lesson, course, tmp_path, report=lambda _, row: rows.append(row), average=average, evaluate_every=30)
    assert rows[-1]["loss"] < 0.9 * rows[0]["loss"]
    for name, tensor in average.clip.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert {"val_iou", "val_iou_kind", "val_empty"} <= set(rows[-1])


def test_evaluation_knows_right_from_wrong(lesson: SegmentLesson, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lesson, "logits", lambda model, batch: batch.masks * 2 - 1)
    right = lesson.evaluate(lesson.model)
    assert right["iou"] == right["empty"] == 1
    monkeypatch.setattr(lesson, "logits", lambda model, batch: torch.ones_like(batch.masks))
    wrong = lesson.evaluate(lesson.model)
    assert wrong["iou"] < 0.5
    assert wrong["empty"] == 0


def test_half_of_a_batch_has_been_through_the_codec(lesson: SegmentLesson, scenes: Dataset) -> None:
    lesson.reconstructed = np.zeros((10, 64, 64, 3), np.uint8)
    batch = lesson.batch(6, torch.Generator().manual_seed(0))
    assert (batch.pictures[:3].flatten(1).amax(1) > 0).all()
    assert (batch.pictures[3:] == 0).all()


def test_overlap_is_1_for_the_same_and_near_0_for_nothing_in_common() -> None:
    mask = torch.zeros(2, 10, 10)
    mask[:, :5] = 1
    assert overlap(mask, mask).tolist() == [1, 1]
    assert (overlap(mask, 1 - mask) < 0.01).all()


def test_export_has_the_clip_it_was_trained_on(model: CLIPSeg, tokenizer: DalleTokenizer, tmp_path: Path) -> None:
    """Also after CLIP was trained anew."""

    class Shop:
        work = tmp_path
        world = S0

        def clip(self) -> CLIP:
            return CLIP(model.config.clip)

    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "known_words.txt").write_text("cat\nred\n")
    export_segment(Shop())  # type: ignore[arg-type]
    assert not (tmp_path / "export").exists()
    hints = Hints(Shop().clip(), 3, 4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dalle_flow.train.segment.ClipLesson.answers", lambda world: (3, 4))
        (tmp_path / "clip").mkdir()
        torch.save({"ema": hints.state_dict()}, tmp_path / "clip" / CHECKPOINT)
        assert torch.equal(trained_clip(Shop()).visual.proj, hints.clip.visual.proj)  # type: ignore[arg-type]
    (tmp_path / "segment").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dalle_flow.train.segment.clipseg_config", lambda clip: model.config)
        torch.save({"ema": model.state_dict()}, tmp_path / "segment" / CHECKPOINT)
        export_segment(Shop())  # type: ignore[arg-type]
    made = load_ours(tmp_path / "export" / "segment", CLIPSeg, CLIPSegConfig)
    assert made.config == model.config
    assert (made.clip.visual.proj - model.clip.visual.proj).abs().max() < 0.01
    assert (tmp_path / "export" / "segment" / "known_words.txt").read_text().split() == [
        *("cat", "object", "one", "red", "thing")
    ]


def test_the_stage_trains_a_decoder_on_the_runs_clip(
    scenes: Dataset, tokenizer: DalleTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learnt: list[tuple[str, SegmentLesson, CLIPSeg]] = []
    clip = CLIP(clip_config(64, tokenizer.vocab_size, tokenizer.max_length, tokenizer.eos_token_id))
    monkeypatch.setattr("dalle_flow.train.segment.trained_clip", lambda shop: clip)
    monkeypatch.setattr(Workshop, "tokenizer", lambda shop: tokenizer)
    monkeypatch.setattr(Workshop, "dataset", lambda shop, split: scenes)
    monkeypatch.setattr(Workshop, "reconstructed", lambda shop: np.asarray(scenes.images[:5]))
    monkeypatch.setattr(Workshop, "learn", lambda shop, *learns: learnt.append(learns))
    STAGES["segment"](Workshop(tmp_path))
    assert STAGES["segment"] is train_segment
    ((name, lesson, average),) = learnt
    assert name in COURSES
    assert lesson.reconstructed is not None
    assert torch.equal(lesson.model.clip.visual.conv1.weight, clip.visual.conv1.weight)
    assert average.config == lesson.model.config
    trained = {name for name, parameter in lesson.model.named_parameters() if parameter.requires_grad}
    assert trained
    assert not [name for name in trained if name.startswith("clip.")]
