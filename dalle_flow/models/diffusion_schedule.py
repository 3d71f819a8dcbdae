"""How much noise a latent holds at each timestep, and which timesteps a run of fewer steps visits.

Source: the linear-in-root schedule of Rombach et al. 2022 (arXiv:2112.10752), shared by GLID-3 XL and Stable Diffusion;
respacing as in openai/guided-diffusion. float64 throughout, as there.
Parity: tests/parity/test_glid3.py; equal timesteps, equal numbers.
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from ..errors import OptionError

TIMESTEPS = 1000
BETA_START, BETA_END = 0.00085, 0.012


def alphas_cumprod() -> Tensor:
    """(1000,) float64, falling: the share of the signal's variance that is left at each timestep."""
    betas = torch.linspace(BETA_START**0.5, BETA_END**0.5, TIMESTEPS, dtype=torch.float64) ** 2
    return (1 - betas).cumprod(0)


def spread_timesteps(steps: int) -> list[int]:
    """`steps` timesteps from 0 to 999, both ends among them; the running sum is rounded as Python rounds."""
    _check(steps)
    stride = (TIMESTEPS - 1) / max(1, steps - 1)
    timesteps, at = [], 0.0
    for _ in range(steps):
        timesteps.append(round(at))
        at += stride
    return timesteps


def ddim_timesteps(steps: int) -> list[int]:
    """`steps` timesteps from 0 in equal whole strides. OptionError where no stride gives exactly that many."""
    _check(steps)
    for stride in range(1, TIMESTEPS + 1):
        if len(range(0, TIMESTEPS, stride)) == steps:
            return list(range(0, TIMESTEPS, stride))
    near = next(n for n in range(steps, 0, -1) if any(-(-TIMESTEPS // s) == n for s in range(1, TIMESTEPS + 1)))
    raise OptionError(
        f"ddim cannot take {steps} steps: no whole stride through {TIMESTEPS} gives them; {near} would do, and the "
        "sampler plms takes any number",
        field="num_inference_steps",
    )


def _check(steps: int) -> None:
    if not 1 <= steps <= TIMESTEPS:
        raise OptionError(f"num_inference_steps must be 1 to {TIMESTEPS}, got {steps}", field="num_inference_steps")


@dataclass(frozen=True)
class Schedule:
    """The timesteps of one run, rising, and the signal left at each; index i is step i counted from the clean end."""

    timesteps: tuple[float, ...]
    signal: tuple[float, ...]  # alphas_cumprod at each

    @classmethod
    def of(cls, timesteps: list[int]) -> Self:
        every = alphas_cumprod()
        return cls(tuple(map(float, timesteps)), tuple(float(every[t]) for t in timesteps))

    def __len__(self) -> int:
        return len(self.timesteps)

    def at(self, index: float) -> tuple[float, float]:
        """Timestep and signal at an index, also between two of them (interpolated linearly)."""
        low = int(index)
        share = index - low
        if not share:
            return self.timesteps[low], self.signal[low]
        low_t, high_t = self.timesteps[low : low + 2]
        low_s, high_s = self.signal[low : low + 2]
        return low_t + share * (high_t - low_t), low_s + share * (high_s - low_s)
