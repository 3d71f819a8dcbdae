"""The verdict on a perfect sight: what the scene says is right, and a changed scene is wrong."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dalle_flow.train.captions import changed_scene
from dalle_flow.train.dice import Dice
from dalle_flow.train.judge import Judge, JudgeConfig, Sight, perceptual_distance
from dalle_flow.train.render import Atlas, render
from dalle_flow.train.scenes import Scene, scene_at
from dalle_flow.train.targets import targets
from dalle_flow.train.verdict import scores, verdicts
from dalle_flow.train.world import S0

NUMBER = 300


def perfect_sight(scenes: list[Scene], atlas: Atlas) -> Sight:
    """The ground truth as the logits of a judge that is never wrong."""
    config = JudgeConfig.of(S0)
    found = [targets(s, render(s, atlas, 64)[1], S0) for s in scenes]

    def grid(values: list[np.ndarray], answers: int) -> torch.Tensor:
        return F.one_hot(torch.from_numpy(np.stack(values)).long(), answers).permute(0, 3, 1, 2).float() * 20

    def whole(column: int, answers: int) -> torch.Tensor:
        return F.one_hot(torch.tensor([int(t.facts[column]) for t in found]), answers).float() * 20

    return Sight(
        kind=grid([t.kinds for t in found], config.kinds),
        colour=grid([t.colors for t in found], config.colours),
        style=whole(0, config.styles),
        background=whole(1, config.backgrounds),
        background_colour=whole(2, config.background_colours),
        count=whole(3, config.counts),
    )


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [scene_at(S0, 5, "val", i) for i in range(NUMBER)]


@pytest.fixture(scope="module")
def sight(scenes: list[Scene], atlas: Atlas) -> Sight:
    return perfect_sight(scenes, atlas)


def test_a_perfect_sight_finds_everything(scenes: list[Scene], sight: Sight) -> None:
    found = scores(verdicts(sight, scenes, S0))
    assert found["style"] == found["background"] == found["count"] == 1
    assert found["object"] > 0.99
    assert found["colour"] > 0.99
    assert found["relation"] > 0.9  # what is worn or ridden may be hidden to its middle


@pytest.mark.parametrize(
    ("change", "fact"),
    [("kind", "object"), ("color", "colour"), ("relation", "relation"), ("style", "style"), ("count", "count")],
)
def test_a_changed_scene_is_wrong_in_what_was_changed(
    scenes: list[Scene], sight: Sight, change: str, fact: str
) -> None:
    dice = Dice(np.random.default_rng(0))
    changed = [changed_scene(s, S0, change, dice) for s in scenes]
    pairs = [(i, s) for i, s in enumerate(changed) if s is not None]
    if fact == "relation":
        pairs = [(i, s) for i, s in pairs if s.things[0].kind != s.things[1].kind and s.relation != scenes[i].relation]
        pairs = [(i, s) for i, s in pairs if scenes[i].relation not in ("riding", "wearing")]
    if fact == "count":
        pairs = [(i, s) for i, s in pairs if s.layout == "count"]
    rows = torch.tensor([i for i, _ in pairs])
    part = Sight(*(getattr(sight, name)[rows] for name in Sight.__dataclass_fields__))
    answers = [getattr(v, fact) for v in verdicts(part, [s for _, s in pairs], S0)]
    wrong = [not all(a) if isinstance(a, list) else a is False for a in answers]
    assert len(wrong) > 10
    assert np.mean(wrong) > 0.95


def test_a_fact_that_is_not_stated_is_not_scored(scenes: list[Scene], sight: Sight) -> None:
    plain = replace(scenes[0], relation=None, layout="single", things=(replace(scenes[0].things[0], color=None),))
    part = Sight(*(getattr(sight, name)[:1] for name in Sight.__dataclass_fields__))
    verdict = verdicts(part, [plain], S0)[0]
    assert verdict.relation is None
    assert verdict.count is None
    assert verdict.colour == []


def test_judge_reads_any_size_and_is_differentiable() -> None:
    torch.manual_seed(0)
    judge = Judge(JudgeConfig.of(S0)).eval()
    for side in (64, 96):
        sight = judge(torch.rand(2, 3, side, side))
        assert sight.kind.shape == (2, 36, 16, 16)
        assert sight.count.shape == (2, 5)
    ours = torch.rand(2, 3, 64, 64, requires_grad=True)
    theirs = torch.rand(2, 3, 64, 64)
    perceptual_distance(judge, ours, theirs).backward()
    assert ours.grad is not None
    assert ours.grad.abs().sum() > 0
    assert float(perceptual_distance(judge, theirs, theirs).detach()) == pytest.approx(0, abs=1e-6)
