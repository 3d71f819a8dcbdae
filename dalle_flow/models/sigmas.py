"""Noise levels as sigmas: latents of a model are `clean + sigma * noise`, from sigma 14.6 (noise) down to 0 (clean).

A run of `n` steps visits n sigmas and then 0. Which ones is the spacing ("noiser" in 2022): even in timesteps, or by
Karras et al., exponential, or that of variance-preserving diffusion.

Source: Karras et al. 2022 (arXiv:2206.00364), appendix C and table 1; crowsonkb/k-diffusion for the tables that
programs of 2022 used with Stable Diffusion version 1. Computed in float64.
Parity: tests/parity/test_sd1.py, every table within 2e-5 of each value (the reference is in float32).
"""

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Literal, Self, get_args

import numpy as np
from torch import Tensor

from ..errors import OptionError, WeightsError
from .diffusion_schedule import alphas_cumprod
from .samplers import Query, Sampler

Noiser = Literal["karras", "exponential", "vp"]
SigmaSampler = Generator[tuple[Tensor, float], Tensor, Tensor]  # yields (latents, sigma), is sent the clean latents

SIGMA_MIN, SIGMA_MAX = 0.0292, 14.6146  # ends of two of the tables: those of version 1, rounded as in 2022
RHO = 7.0  # Karras: how much more densely small sigmas are visited
BETA_RANGE, BETA_MIN, LAST_TIME = 19.9, 0.1, 1e-3  # of variance-preserving diffusion


@dataclass(frozen=True, eq=False)
class SigmaTable:
    """The sigma of every timestep that a model was trained on; between two of them log(sigma) is linear."""

    logs: np.ndarray  # (timesteps,) float64, rising

    @classmethod
    def of(cls, signal: Tensor | None = None) -> Self:
        """From the share of signal left at each timestep (alphas_cumprod); None: that of Stable Diffusion version 1.

        Raises:
            WeightsError: the shares do not fall from below 1 to above 0.
        """
        shares = (alphas_cumprod() if signal is None else signal.double()).numpy()
        if len(shares) < 2 or not (shares[0] < 1 and shares[-1] > 0 and (np.diff(shares) < 0).all()):
            raise WeightsError(
                "this noise schedule does not fall from below 1 to above 0, or not everywhere; the samplers here "
                "need a model that never sees noise alone (zero terminal SNR is not supported)"
            )
        return cls(0.5 * np.log((1 - shares) / shares))

    def timestep(self, sigma: float) -> float:
        """0 to the last timestep; sigmas outside the table have its ends."""
        return float(np.interp(math.log(sigma), self.logs, np.arange(len(self.logs))))

    def sigmas(self, steps: int, noiser: Noiser | None = None) -> list[float]:
        """`steps` sigmas, falling, and 0."""
        if steps < 1:
            raise OptionError(f"num_inference_steps must be 1 or more, got {steps}", field="num_inference_steps")
        if noiser not in (None, *get_args(Noiser)):
            allowed = ", ".join(get_args(Noiser))
            raise OptionError(f"no noiser {noiser!r}; allowed: null, {allowed}", field="noiser")
        if noiser is None:
            timesteps = np.linspace(len(self.logs) - 1, 0, steps)
            sigmas = np.exp(np.interp(timesteps, np.arange(len(self.logs)), self.logs))
        elif noiser == "karras":
            sigmas = np.linspace(SIGMA_MAX ** (1 / RHO), SIGMA_MIN ** (1 / RHO), steps) ** RHO
        elif noiser == "exponential":
            sigmas = np.exp(np.linspace(math.log(SIGMA_MAX), math.log(SIGMA_MIN), steps))
        else:
            time = np.linspace(1, LAST_TIME, steps)
            sigmas = np.expm1(BETA_RANGE * time**2 / 2 + BETA_MIN * time) ** 0.5
        return [*map(float, sigmas), 0.0]

    def queries(self, sampler: SigmaSampler) -> Sampler:
        """A sampler over sigmas as one over timesteps: what is asked is scaled to variance 1, and so is the answer."""
        latents, sigma = next(sampler)
        while True:
            query = Query(latents / (1 + sigma**2) ** 0.5, self.timestep(sigma), 1 / (1 + sigma**2))
            eps = yield query
            try:
                latents, sigma = sampler.send(query.clean(eps))
            except StopIteration as finished:
                return finished.value  # type: ignore[no-any-return]


def after_strength(sigmas: Sequence[float], strength: float) -> list[float]:
    """The end of a table that a picture goes through when it is changed by `strength`, in (0, 1].

    As in 2022 `floor(strength * steps) + 1` steps are left, at most all of them.
    """
    steps = len(sigmas) - 1
    left = min(steps, math.floor(strength * steps) + 1)
    return list(sigmas[steps - left :])
