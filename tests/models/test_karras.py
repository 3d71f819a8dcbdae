"""The samplers on a problem whose answer is known: data of one Gaussian, where the best prediction is a formula."""

import math
from itertools import pairwise
from typing import get_args

import pytest
import torch

from dalle_flow.errors import FailureError, OptionError, WeightsError
from dalle_flow.models.karras import (
    SAMPLERS,
    SamplerName,
    ancestral_step,
    evaluations,
    multistep_weights,
)
from dalle_flow.models.sigmas import SIGMA_MAX, SIGMA_MIN, Noiser, SigmaTable, after_strength

NAMES = get_args(SamplerName)
ANCESTRAL = [name for name in NAMES if name.endswith("ancestral")]
WITHOUT_NOISE = [name for name in NAMES if name not in ANCESTRAL]
SHAPE = (3, 5, 7)
MEAN, SPREAD = 2.0, 0.5  # of the data
# Largest error allowed with 20 steps, where the data are spread by 0.5.
ERRORS = {
    "euler": 0.22, "dpmpp_2m": 0.24, "dpm2": 0.08, "heun": 0.02, "k_lms": 0.005, "dpm_fast": 0.005,
    "dpm_adaptive": 0.05,
}  # fmt: skip


def clean(x, sigma):
    """The mean of all data that could have become `x`."""
    return MEAN + SPREAD**2 / (SPREAD**2 + sigma**2) * (x - MEAN)


def exact(x, sigma, after):
    """Where the noise-free path from `x` at sigma arrives."""
    return MEAN + (x - MEAN) * math.sqrt((SPREAD**2 + after**2) / (SPREAD**2 + sigma**2))


def run(sampler, predict=clean):
    """The finished latents and how often the model was asked."""
    asked = 0
    x, sigma = next(sampler)
    while True:
        asked += 1
        assert sigma > 0
        try:
            x, sigma = sampler.send(predict(x, sigma))
        except StopIteration as finished:
            return finished.value, asked


def start(sigmas, seed=0):
    generator = torch.Generator().manual_seed(seed)
    noise = lambda: torch.randn(SHAPE, generator=generator, dtype=torch.float64)  # noqa: E731
    return sigmas[0] * noise(), noise


def error(name, steps):
    sigmas = SigmaTable.of().sigmas(steps)
    x, noise = start(sigmas)
    end = round(sigmas[-2], 4) if name in ("dpm_fast", "dpm_adaptive") else 0.0
    return float((run(SAMPLERS[name](x, sigmas, noise))[0] - exact(x, sigmas[0], end)).abs().max())


@pytest.mark.parametrize("name", WITHOUT_NOISE)
def test_arrives_where_the_exact_path_does(name):
    assert error(name, 20) < ERRORS[name]


@pytest.mark.parametrize("name", [name for name in WITHOUT_NOISE if name != "dpm_adaptive"])
def test_more_steps_arrive_nearer(name):
    """Four times the steps: a quarter of the error, where the order is one; less where it is higher."""
    assert error(name, 80) < error(name, 20) / (3 if name == "euler" else 6)


@pytest.mark.parametrize("name", ANCESTRAL)
def test_with_noise_the_data_comes_out(name):
    """Mean and spread of many pictures, whatever noise they began with."""
    sigmas = SigmaTable.of().sigmas(60)
    drawn = []
    for seed in range(40):
        x, noise = start(sigmas, seed)
        drawn.append(run(SAMPLERS[name](x, sigmas, noise))[0])
    values = torch.stack(drawn)  # (40, C, h, w)
    assert float(values.mean()) == pytest.approx(MEAN, abs=0.05)
    assert float(values.std()) == pytest.approx(SPREAD, abs=0.06)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 6, 11])
def test_asks_as_often_as_it_says(name, steps):
    sigmas = SigmaTable.of().sigmas(steps)
    x, noise = start(sigmas)
    result, asked = run(SAMPLERS[name](x, sigmas, noise))
    assert result.shape == SHAPE
    assert result.isfinite().all()
    if name == "dpm_adaptive":
        assert asked == 1 if steps == 1 else asked % 3 == 0
    else:
        assert asked == evaluations(name, steps)


@pytest.mark.parametrize("name", NAMES)
def test_one_step_from_noise_is_the_prediction(name):
    """Every table of one step leads to sigma 0 at once."""
    sigmas = SigmaTable.of().sigmas(1)
    x, noise = start(sigmas)
    torch.testing.assert_close(run(SAMPLERS[name](x, sigmas, noise))[0], clean(x, sigmas[0]))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("noiser", [None, *get_args(Noiser)])
@pytest.mark.parametrize("strength", [0.01, 0.5, 1.0])
def test_every_table_from_every_place(name, noiser, strength):
    sigmas = after_strength(SigmaTable.of().sigmas(7, noiser), strength)
    x, noise = start(sigmas)
    assert run(SAMPLERS[name](x, sigmas, noise))[0].isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_draws_noise_only_where_it_is_used(name):
    sigmas = SigmaTable.of().sigmas(5)
    x, noise = start(sigmas)
    draws = []
    run(SAMPLERS[name](x, sigmas, lambda: draws.append(noise()) or draws[-1]))
    assert len(draws) == (4 if name in ANCESTRAL else 0)  # none after the last step


def test_adaptive_takes_more_steps_where_it_is_harder():
    sigmas = SigmaTable.of().sigmas(8)
    x, noise = start(sigmas)
    easy = run(SAMPLERS["dpm_adaptive"](x, sigmas, noise), lambda x, sigma: torch.full_like(x, MEAN))[1]
    hard = run(SAMPLERS["dpm_adaptive"](x, sigmas, noise), lambda x, sigma: clean(x, sigma) + torch.sin(9 * x))[1]
    assert easy < hard


def test_adaptive_does_not_run_for_ever():
    sigmas = SigmaTable.of().sigmas(8)
    x, noise = start(sigmas)
    with pytest.raises(FailureError, match="dpm_adaptive did not arrive"):
        run(SAMPLERS["dpm_adaptive"](x, sigmas, noise), lambda x, sigma: x * math.nan)


class TestTables:
    table = SigmaTable.of()

    @pytest.mark.parametrize("noiser", [None, *get_args(Noiser)])
    @pytest.mark.parametrize("steps", [1, 2, 50, 250])
    def test_they_fall_to_zero(self, noiser, steps):
        sigmas = self.table.sigmas(steps, noiser)
        assert len(sigmas) == steps + 1
        assert sigmas[-1] == 0
        assert all(a > b for a, b in pairwise(sigmas))

    def test_ends(self):
        sigmas = self.table.sigmas(9)
        assert (round(sigmas[0], 4), round(sigmas[-2], 4)) == (SIGMA_MAX, SIGMA_MIN)

    def test_timesteps_are_where_their_sigmas_are(self):
        for timestep, sigma in zip((999, 749.25, 499.5, 249.75, 0), self.table.sigmas(5), strict=False):
            assert self.table.timestep(sigma) == pytest.approx(timestep, abs=1e-9)
        assert self.table.timestep(1e9) == 999
        assert self.table.timestep(1e-9) == 0

    @pytest.mark.parametrize(("noiser", "message"), [("cosine", "no noiser 'cosine'"), ("", "no noiser ''")])
    def test_refuses_what_it_does_not_know(self, noiser, message):
        with pytest.raises(OptionError, match=message):
            self.table.sigmas(5, noiser)
        with pytest.raises(OptionError, match="must be 1 or more, got 0"):
            self.table.sigmas(0)

    @pytest.mark.parametrize("shares", [[0.9, 0.5, 0.0], [1.0, 0.5], [0.5, 0.6], [0.5], [0.9, math.nan]])
    def test_refuses_schedules_that_end_in_noise_alone(self, shares):
        with pytest.raises(WeightsError, match="noise schedule"):
            SigmaTable.of(torch.tensor(shares))

    @pytest.mark.parametrize(("strength", "left"), [(0.01, 1), (0.124, 1), (0.125, 2), (0.75, 7), (0.999, 8), (1.0, 8)])
    def test_strength_leaves_the_end_of_a_table(self, strength, left):
        sigmas = self.table.sigmas(8)
        assert after_strength(sigmas, strength) == sigmas[8 - left :]

    def test_a_sampler_over_sigmas_becomes_one_over_timesteps(self):
        """What is asked has the variance of the model's inputs; answered with noise, it takes the same way."""
        sigmas = self.table.sigmas(6)
        x, noise = start(sigmas)
        queries = self.table.queries(SAMPLERS["heun"](x, sigmas, noise))
        query = next(queries)
        assert query.timestep == pytest.approx(999)
        assert float(query.latents.std()) == pytest.approx(1, abs=0.15)
        asked = 0
        while True:
            asked += 1
            sigma = ((1 - query.signal) / query.signal) ** 0.5
            whole = query.latents * (1 + sigma**2) ** 0.5
            try:
                query = queries.send((whole - clean(whole, sigma)) / sigma)
            except StopIteration as finished:
                result = finished.value
                break
        assert asked == evaluations("heun", 6)
        torch.testing.assert_close(result, run(SAMPLERS["heun"](x, sigmas, noise))[0], atol=1e-9, rtol=1e-9)


def test_ancestral_steps_keep_the_variance():
    for sigma, after in [(14.6, 9.0), (1.0, 0.99), (0.03, 0.001)]:
        down, up = ancestral_step(sigma, after)
        assert math.hypot(down, up) == pytest.approx(after)
    assert ancestral_step(1.0, 0.0) == (0.0, 0.0)


@pytest.mark.parametrize("known", [(3.0,), (3.0, 5.0), (3.0, 5.0, 6.0), (3.0, 5.0, 6.0, 9.0)])
def test_multistep_weights_integrate_polynomials_exactly(known):
    for power in range(len(known)):
        weights = multistep_weights(known, 1.0)
        total = sum(weight * at**power for weight, at in zip(weights, known, strict=True))
        assert total == pytest.approx((1.0 ** (power + 1) - known[0] ** (power + 1)) / (power + 1))
