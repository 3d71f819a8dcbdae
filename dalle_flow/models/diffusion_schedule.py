"""How much noise a latent holds at each timestep, and which timesteps a run of fewer steps visits.

Source: the linear-in-root schedule of Rombach et al. 2022 (arXiv:2112.10752), shared by GLID-3 XL and Stable Diffusion;
respacing as in openai/guided-diffusion. float64 throughout, as there.
Parity: tests/models/test_diffusion_schedule.py, equal to the original's numbers.
"""

import torch
from torch import Tensor

TIMESTEPS = 1000
BETA_START, BETA_END = 0.00085, 0.012


def alphas_cumprod() -> Tensor:
    """(1000,) float64, falling: the share of the signal's variance that is left at each timestep."""
    betas = torch.linspace(BETA_START**0.5, BETA_END**0.5, TIMESTEPS, dtype=torch.float64) ** 2
    return (1 - betas).cumprod(0)
