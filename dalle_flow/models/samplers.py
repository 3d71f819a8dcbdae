"""From noise to latents, step by step: the samplers of GLID-3 XL, each for one picture.

A sampler is a generator: it yields what it wants to know (`Query`), is sent the model's guided noise estimate for it,
and returns the finished latents. So each picture stands in its own place of its own schedule, and whoever owns the
model answers the queries of all pictures in one batch.

Source: PLMS as Liu et al. 2022 (arXiv:2202.09778), with the warm-up of Jack000/glid-3-xl; DDIM as Song et al. 2020
(arXiv:2010.02502); DDPM as Ho et al. 2020 (arXiv:2006.11239) with the variances of openai/guided-diffusion.
Parity: tests/parity/test_glid3.py, whole trajectories within 1e-5 of their largest value.
Differs: the original's warm-up steps below the first timestep when few steps are left, which gives NaN; here the last
step is a plain one.

Shapes: every latent is (C, h, w), of one picture.
"""

from collections.abc import Callable, Generator
from typing import NamedTuple

from torch import Tensor

from .diffusion_schedule import Schedule

Noise = Callable[[], Tensor]  # the next (C, h, w) normal numbers of the picture's own stream


class Query(NamedTuple):
    """What the model is asked: which noise is in these latents?"""

    latents: Tensor  # (C, h, w)
    timestep: float  # 0 to 999; may lie between two
    signal: float  # share of the variance that is signal there

    def clean(self, eps: Tensor) -> Tensor:
        """The latents without the noise `eps`: how the picture looks from here."""
        return (self.latents - float((1 - self.signal) ** 0.5) * eps) / float(self.signal**0.5)


Sampler = Generator[Query, Tensor, Tensor]


def add_noise(latents: Tensor, noise: Tensor, signal: float) -> Tensor:
    """Latents as they are where `signal` of their variance is left."""
    return float(signal**0.5) * latents + float((1 - signal) ** 0.5) * noise


def ddim(latents: Tensor, schedule: Schedule, start: int, noise: Noise, eta: float = 0.0) -> Sampler:
    """One query a step, from index `start` down. eta 0: no noise is added on the way; 1: as much as DDPM adds."""
    clean = latents
    for index in range(start, -1, -1):
        query = Query(latents, *schedule.at(index))
        eps = yield query
        clean = query.clean(eps)
        if index == 0:
            break
        before = schedule.signal[index - 1]
        spread = eta * ((1 - before) / (1 - query.signal) * (1 - query.signal / before)) ** 0.5
        latents = before**0.5 * clean + (1 - before - spread**2) ** 0.5 * eps
        if eta:
            latents = latents + spread * noise()
    return clean


def ddpm(latents: Tensor, schedule: Schedule, start: int, noise: Noise) -> Sampler:
    """One query a step; the posterior's mean, and noise of the larger of the two variances that bound it."""
    clean = latents
    for index in range(start, -1, -1):
        query = Query(latents, *schedule.at(index))
        eps = yield query
        clean = query.clean(eps)
        if index == 0:
            break
        before = schedule.signal[index - 1]
        beta = 1 - query.signal / before
        mean = (before**0.5 * beta * clean + (1 - beta) ** 0.5 * (1 - before) * latents) / (1 - query.signal)
        latents = mean + beta**0.5 * noise()
    return clean


WARM_UP = 3  # Runge-Kutta steps before there are four estimates to extrapolate from
ADAMS_BASHFORTH = (55 / 24, -59 / 24, 37 / 24, -9 / 24)  # latest first


def plms(latents: Tensor, schedule: Schedule, start: int) -> Sampler:
    """Linear multistep: one query a step, four in each of the first three steps."""
    history: list[Tensor] = []  # the last noise estimates, latest first
    for index in range(start, -1, -1):
        query = Query(latents, *schedule.at(index))
        eps = yield query
        if index == 0:
            return query.clean(eps)
        if len(history) < WARM_UP:
            eps = estimate = yield from _runge_kutta(query, eps, schedule, index)
        else:
            estimate = _extrapolate([eps, *history])
        history = [eps, *history][:WARM_UP]
        latents = _moved(query, estimate, schedule.signal[index - 1])
    return latents


def plms_queries(start: int) -> int:
    """How many queries `plms` makes from index `start`."""
    return start + 1 + 3 * min(WARM_UP, start)


def _extrapolate(history: list[Tensor]) -> Tensor:
    first, second, third, fourth = history[:4]
    a, b, c, d = ADAMS_BASHFORTH
    return a * first + b * second + c * third + d * fourth


def _runge_kutta(query: Query, eps: Tensor, schedule: Schedule, index: int) -> Generator[Query, Tensor, Tensor]:
    """The mean of four estimates: here, twice half a step further, a whole step further."""
    half, whole = schedule.at(index - 0.5), schedule.at(index - 1)
    second = yield Query(_moved(query, eps, half[1]), *half)
    third = yield Query(_moved(query, second, half[1]), *half)
    fourth = yield Query(_moved(query, third, whole[1]), *whole)
    return (eps + 2 * second + 2 * third + fourth) / 6


def _moved(query: Query, eps: Tensor, signal: float) -> Tensor:
    """The query's latents where `signal` is left, the noise `eps` staying what it is."""
    return add_noise(query.clean(eps), eps, signal)
