"""The ten samplers of Stable Diffusion programs of 2022, by their names there, each for one picture.

A sampler is a generator: it yields `(latents, sigma)`, is sent the model's clean latents for them, and returns the
finished latents. Noise comes from a callable, so the picture's own stream decides it.

Source: Karras et al. 2022 (arXiv:2206.00364) for Euler, Heun and dpm2; Lu et al. 2022 (arXiv:2211.01095) for dpmpp;
linear multistep as Liu et al. 2022 (arXiv:2202.09778); names and details as crowsonkb/k-diffusion.
dpm_fast and dpm_adaptive are in `karras_adaptive.py`.
Parity: tests/parity/test_sd1.py, whole trajectories within 1e-5 of their largest value.
Differs: sums of sigmas in float64; the integrals of linear multistep exactly (two Gauss points), not by quadrature.

Shapes: every latent is (C, h, w), of one picture.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Literal, get_args

from torch import Tensor

from .karras_adaptive import dpm_adaptive, dpm_fast
from .samplers import Noise
from .sigmas import SigmaSampler

SamplerName = Literal[
    "k_lms",
    "dpm2",
    "dpm2_ancestral",
    "heun",
    "euler",
    "euler_ancestral",
    "dpm_fast",
    "dpm_adaptive",
    "dpmpp_2s_ancestral",
    "dpmpp_2m",
]
ORDER = 4  # of linear multistep: how many slopes it looks back
ADAPTIVE_ESTIMATE = 120  # evaluations of dpm_adaptive with the weights of version 1; any number is possible


def evaluations(sampler: SamplerName, steps: int) -> int:
    """How often a sampler asks the model in `steps` steps.

    Of dpm_adaptive it is an estimate: that one takes as many as its tolerance wants, whatever the steps.
    """
    if sampler in ("k_lms", "euler", "euler_ancestral", "dpm_fast", "dpmpp_2m"):
        return steps
    if sampler == "dpm_adaptive":
        return ADAPTIVE_ESTIMATE
    return 2 * steps - 1  # the last step, to sigma 0, is a plain one


def euler(x: Tensor, sigmas: Sequence[float], noise: Noise) -> SigmaSampler:
    for sigma, after in pairwise(sigmas):
        clean = yield x, sigma
        x = x + (after - sigma) * _slope(x, sigma, clean)
    return x


def euler_ancestral(x: Tensor, sigmas: Sequence[float], noise: Noise) -> SigmaSampler:
    for sigma, after in pairwise(sigmas):
        clean = yield x, sigma
        down, up = ancestral_step(sigma, after)
        x = x + (down - sigma) * _slope(x, sigma, clean)
        if up:
            x = x + up * noise()
    return x


def heun(x: Tensor, sigmas: Sequence[float], noise: Noise) -> SigmaSampler:
    """Euler, with the mean of the slopes at both ends of a step."""
    for sigma, after in pairwise(sigmas):
        clean = yield x, sigma
        slope = _slope(x, sigma, clean)
        end = x + (after - sigma) * slope
        if after:
            clean = yield end, after
            end = x + (after - sigma) * (slope + _slope(end, after, clean)) / 2
        x = end
    return x


def dpm2(x: Tensor, sigmas: Sequence[float], noise: Noise) -> SigmaSampler:
    """The slope in the middle of a step, where log(sigma) is in the middle."""
    for sigma, after in pairwise(sigmas):
        x = yield from _midpoint_step(x, sigma, after)
    return x


def dpm2_ancestral(x: Tensor, sigmas: Sequence[float], noise: Noise) -> SigmaSampler:
    for sigma, after in pairwise(sigmas):
        down, up = ancestral_step(sigma, after)
        x = yield from _midpoint_step(x, sigma, down)
        if up:
            x = x + up * noise()
    return x


def k_lms(x: Tensor, sigmas: Sequence[float], noise: Noise) -> SigmaSampler:
    """Linear multistep: the slopes of the last four steps, extrapolated over this one."""
    slopes: list[Tensor] = []  # latest first
    for i in range(len(sigmas) - 1):
        clean = yield x, sigmas[i]
        slopes = [_slope(x, sigmas[i], clean), *slopes][:ORDER]
        known = sigmas[i + 1 - len(slopes) : i + 1][::-1]  # where the slopes were taken, latest first
        for slope, weight in zip(slopes, multistep_weights(known, sigmas[i + 1]), strict=True):
            x = x + weight * slope
    return x


def dpmpp_2s_ancestral(x: Tensor, sigmas: Sequence[float], noise: Noise) -> SigmaSampler:
    """DPM-Solver++ of second order in single steps, with fresh noise after each."""
    for sigma, after in pairwise(sigmas):
        clean = yield x, sigma
        down, up = ancestral_step(sigma, after)
        if down:
            middle = math.sqrt(sigma * down)
            clean = yield _towards(x, sigma, middle, clean), middle
        x = _towards(x, sigma, down, clean)
        if up:
            x = x + up * noise()
    return x


def dpmpp_2m(x: Tensor, sigmas: Sequence[float], noise: Noise) -> SigmaSampler:
    """DPM-Solver++ of second order, from this step's clean latents and the last one's."""
    before: Tensor | None = None
    for i in range(len(sigmas) - 1):
        clean = yield x, sigmas[i]
        aim = clean
        if before is not None and sigmas[i + 1]:
            step, last = math.log(sigmas[i] / sigmas[i + 1]), math.log(sigmas[i - 1] / sigmas[i])
            share = step / (2 * last)
            aim = (1 + share) * clean - share * before
        x = _towards(x, sigmas[i], sigmas[i + 1], aim)
        before = clean
    return x


SAMPLERS: Mapping[SamplerName, Callable[[Tensor, Sequence[float], Noise], SigmaSampler]] = {
    "k_lms": k_lms,
    "dpm2": dpm2,
    "dpm2_ancestral": dpm2_ancestral,
    "heun": heun,
    "euler": euler,
    "euler_ancestral": euler_ancestral,
    "dpm_fast": dpm_fast,
    "dpm_adaptive": dpm_adaptive,
    "dpmpp_2s_ancestral": dpmpp_2s_ancestral,
    "dpmpp_2m": dpmpp_2m,
}
assert set(SAMPLERS) == set(get_args(SamplerName))


def ancestral_step(sigma: float, after: float) -> tuple[float, float]:
    """Sigma to go down to without noise, and how much fresh noise then leads up to `after`."""
    up = min(after, math.sqrt(after**2 * (sigma**2 - after**2) / sigma**2))
    return math.sqrt(after**2 - up**2), up


def multistep_weights(known: Sequence[float], after: float) -> list[float]:
    """Weights of slopes known at `known` (latest first), such that their sum leads from known[0] to `after`.

    They are the integrals of Lagrange's polynomials through the known points: of degree 3 at most, for which two
    Gauss points are exact.
    """
    middle, half = (known[0] + after) / 2, (after - known[0]) / 2
    points = (middle - half / math.sqrt(3), middle + half / math.sqrt(3))

    def lagrange(j: int, at: float) -> float:
        return math.prod((at - other) / (known[j] - other) for k, other in enumerate(known) if k != j)

    return [half * sum(lagrange(j, at) for at in points) for j in range(len(known))]


def _slope(x: Tensor, sigma: float, clean: Tensor) -> Tensor:
    """How the latents change with sigma: the noise in them."""
    return (x - clean) / sigma


def _towards(x: Tensor, sigma: float, after: float, clean: Tensor) -> Tensor:
    """Latents at a smaller sigma, on the line to the clean ones."""
    share = after / sigma
    return share * x + (1 - share) * clean


def _midpoint_step(x: Tensor, sigma: float, after: float) -> SigmaSampler:
    clean = yield x, sigma
    slope = _slope(x, sigma, clean)
    if after:
        middle = math.sqrt(sigma * after)
        halfway = x + (middle - sigma) * slope
        clean = yield halfway, middle
        slope = _slope(halfway, middle, clean)
    return x + (after - sigma) * slope
