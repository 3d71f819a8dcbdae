"""DPM-Solver with steps of its own choice: dpm_fast spends a given number of evaluations, dpm_adaptive as many as its
tolerance asks for.

Source: Lu et al. 2022 (arXiv:2206.00927), algorithms 1 and 2 and appendix C; the step size controller as in
crowsonkb/k-diffusion (Hairer and Wanner's, with the limiter of Söderlind and Wang 2006). No noise is added.
Parity: tests/parity/test_sd1.py; dpm_fast within 1e-5 of its largest value, dpm_adaptive within 5e-3, because its steps
    depend on its own rounding: a change of 1e-6 in the noise moves the result by 2e-3.
Differs: the error that decides over a step is that of one picture, where the original took that of the whole batch, so
    a picture does not depend on those beside it. dpm_adaptive that does not arrive is an error, not endless.

Of a table of sigmas only the first and the last above 0 count, rounded to four places as in 2022; where they are one,
the result is the model's clean latents.

Time here is -log(sigma), so it rises from noise to picture. Shapes: every latent is (C, h, w), of one picture.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import FailureError
from .samplers import Noise
from .sigmas import SigmaSampler

RELATIVE, ABSOLUTE = 0.05, 0.0078  # tolerance
FIRST_STEP = 0.05
ACCEPTED = 0.81  # a step is taken when the next may be this share of it or longer
ORDER = 3
MOST_TRIES = 1000  # about 40 are usual; with a model that gives nonsense it would never end


def dpm_fast(x: Tensor, sigmas: Sequence[float], noise: Noise) -> SigmaSampler:
    """Equal steps in time, of third order while the evaluations last: as many as the table has steps."""
    budget = len(sigmas) - 1
    start, end = _times(sigmas)
    if start == end:
        return (yield x, sigmas[0])
    steps = budget // 3 + 1
    orders = [ORDER] * (steps - 2) + [2, 1] if budget % 3 == 0 else [ORDER] * (steps - 1) + [budget % 3]
    for i, order in enumerate(orders):
        time = start + (end - start) * i / steps
        after = start + (end - start) * (i + 1) / steps
        eps = yield from _noise_in(x, time)
        if order == 1:
            x = _first_order(x, eps, time, after)
        elif order == 2:
            halfway = yield from _noise_on_the_way(x, eps, time, after, 1 / 2)
            x = _second_order(x, eps, halfway, time, after, 1 / 2)
        else:
            third = yield from _noise_on_the_way(x, eps, time, after, 1 / 3)
            x = yield from _third_order(x, eps, third, time, after)
    return x


def dpm_adaptive(x: Tensor, sigmas: Sequence[float], noise: Noise) -> SigmaSampler:
    """Steps of third order; one is taken when a step of second order agrees, and tried again shorter when not."""
    time, end = _times(sigmas)
    if time == end:
        return (yield x, sigmas[0])
    before, step = x, FIRST_STEP
    for _ in range(MOST_TRIES):
        after = min(end, time + step)
        eps = yield from _noise_in(x, time)
        third = yield from _noise_on_the_way(x, eps, time, after, 1 / 3)
        low = _second_order(x, eps, third, time, after, 1 / 3)
        high = yield from _third_order(x, eps, third, time, after)
        allowed = (RELATIVE * torch.maximum(low.abs(), before.abs())).clamp(min=ABSOLUTE)
        error = float(((low - high) / allowed).square().mean().sqrt())
        factor = 1 + math.atan((1 / (error + 1e-8)) ** (1 / ORDER) - 1)
        if factor >= ACCEPTED:
            before, x, time = low, high, after
        if time >= end - 1e-5:
            return x
        step *= factor
    raise FailureError(
        f"dpm_adaptive did not arrive within {MOST_TRIES} steps: the model's predictions are not finite, or jump; "
        "take another sampler"
    )


def _times(sigmas: Sequence[float]) -> tuple[float, float]:
    """The time at the first sigma, and at the last one above 0."""
    return -math.log(round(sigmas[0], 4)), -math.log(round(sigmas[-2], 4))


def _noise_in(x: Tensor, time: float) -> SigmaSampler:
    """What the model takes for noise in the latents."""
    sigma = math.exp(-time)
    clean = yield x, sigma
    return (x - clean) / sigma


def _noise_on_the_way(x: Tensor, eps: Tensor, time: float, after: float, share: float) -> SigmaSampler:
    """The noise at `share` of a step, reached by first order."""
    part = time + share * (after - time)
    return (yield from _noise_in(_first_order(x, eps, time, part), part))


def _first_order(x: Tensor, eps: Tensor, time: float, after: float) -> Tensor:
    return x - math.exp(-after) * math.expm1(after - time) * eps


def _second_order(x: Tensor, eps: Tensor, inner: Tensor, time: float, after: float, share: float) -> Tensor:
    weight = math.exp(-after) / (2 * share) * math.expm1(after - time)
    return _first_order(x, eps, time, after) - weight * (inner - eps)


def _third_order(x: Tensor, eps: Tensor, third: Tensor, time: float, after: float) -> SigmaSampler:
    """From the noise here and at a third of the step; asks for it at two thirds."""
    h, share = after - time, 2 / 3
    part = time + share * h
    bend = math.exp(-part) * 2 * (math.expm1(share * h) / (share * h) - 1)
    inner = yield from _noise_in(_first_order(x, eps, time, part) - bend * (third - eps), part)
    weight = math.exp(-after) / share * (math.expm1(h) / h - 1)
    return _first_order(x, eps, time, after) - weight * (inner - eps)
