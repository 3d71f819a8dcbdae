"""Guidance, filters and noise: what each leaves, rows with different settings, one stream per picture."""

import math

import pytest
import torch

from dalle_flow.models.sampling import Filters, NoiseStream, guide, mask_non_codes, next_noise, sample

LOGITS = torch.tensor([[2.0, 1.0, 1.0, 0.0, -5.0]])


def kept(top_k: int, top_p: float, temperature: float = 1.0, logits: torch.Tensor = LOGITS) -> list[int]:
    return Filters.of([temperature], [top_k], [top_p])(logits)[0].isfinite().nonzero().flatten().tolist()


def test_guidance_moves_away_from_the_unconditional() -> None:
    uncond, cond = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 1.0]])
    assert torch.equal(guide(uncond, cond, 1.0), cond)
    assert torch.equal(guide(uncond, cond, 0.0), uncond)
    assert torch.equal(guide(uncond, cond, 10.0), torch.tensor([[21.0, -8.0]]))
    scales = torch.tensor([[1.0], [10.0]])
    assert torch.equal(guide(uncond.expand(2, 2), cond.expand(2, 2), scales)[1], torch.tensor([21.0, -8.0]))


def test_ids_that_are_no_codes_are_never_drawn() -> None:
    masked = mask_non_codes(LOGITS, 3)
    assert masked[0].isfinite().tolist() == [True, True, True, False, False]
    assert mask_non_codes(LOGITS, 5) is LOGITS
    assert sample(masked, torch.tensor([[0.0, 0.0, 0.0, 100.0, 100.0]])).tolist() == [0]


def test_top_k() -> None:
    assert kept(0, 1) == [0, 1, 2, 3, 4]
    assert kept(1, 1) == [0]
    assert kept(4, 1) == [0, 1, 2, 3]
    assert kept(1000, 1) == [0, 1, 2, 3, 4]
    assert kept(2, 1) == [0, 1, 2]  # the second and third are equal: both stay


def test_top_p_keeps_the_one_that_crosses_it_and_always_one() -> None:
    first = float(LOGITS.softmax(-1)[0, 0])
    assert kept(0, 1e-6) == [0]
    assert kept(0, first - 1e-3) == [0]
    assert kept(0, first + 1e-3) == [0, 1, 2]
    assert kept(0, 0.999) == [0, 1, 2, 3]


def test_top_p_counts_what_top_k_left() -> None:
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()[None]
    assert kept(0, 0.6, logits=logits) == [0, 1]
    assert kept(2, 0.6, logits=logits) == [0]  # .5 of .8 is more than .6


def test_temperature_comes_before_top_p() -> None:
    logits = torch.tensor([0.5, 0.3, 0.2]).log()[None]
    assert kept(0, 0.7, 1.0, logits) == [0, 1]
    assert kept(0, 0.7, 0.25, logits) == [0]
    assert torch.equal(Filters.of([0.5], [0], [1.0])(logits), logits * 2)


def test_each_row_has_its_own_settings() -> None:
    torch.manual_seed(0)
    rows = torch.randn(6, 50)
    asked = ([1.0, 0.5, 2.0, 1.0, 0.9, 1.3], [0, 3, 50, 0, 7, 1], [1.0, 1.0, 0.9, 0.4, 0.8, 1.0])
    together = Filters.of(*asked)(rows)
    for i, one in enumerate(zip(*asked, strict=True)):
        assert torch.equal(Filters.of(*([value] for value in one))(rows[i : i + 1])[0], together[i])


@pytest.mark.parametrize("wrong", [(0.0, 0, 1.0), (1.0, -1, 1.0), (1.0, 0, 0.0), (1.0, 0, 1.1), (math.nan, 0, 1.0)])
def test_settings_without_meaning_are_refused(wrong: tuple[float, int, float]) -> None:
    temperature, top_k, top_p = wrong
    with pytest.raises(ValueError, match="temperature must be above 0"):
        Filters.of([1.0, temperature], [5, top_k], [1.0, top_p])


def test_a_stream_is_its_seed_alone() -> None:
    first, second, again = NoiseStream(1, 7), NoiseStream(2, 7), NoiseStream(1, 7)
    together = [next_noise([first, second]) for _ in range(40)]
    torch.manual_seed(123)  # the global generator has no say
    assert all(torch.equal(next(again), rows[0]) for rows in together)
    assert not torch.equal(together[0][0], together[0][1])
    assert torch.equal(next(NoiseStream(2, 7, start=33)), together[33][1])


def test_draws_follow_the_probabilities() -> None:
    count = 4000
    stream = NoiseStream(5, 5)
    drawn = torch.stack([sample(LOGITS, next_noise([stream])) for _ in range(count)])
    share = torch.bincount(drawn.flatten(), minlength=5) / count
    assert (share - LOGITS.softmax(-1)[0]).abs().max() < 0.03


def test_recorded_noise_can_stand_in() -> None:
    noise = [iter(torch.tensor([[0.0, 9.0, 0.0, 0.0, 0.0], [0.0] * 5]))]
    assert sample(LOGITS, next_noise(noise)).tolist() == [1]
    assert sample(LOGITS, next_noise(noise)).tolist() == [0]
