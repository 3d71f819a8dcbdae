"""From logits to the next code: guidance, filters, and one stream of random numbers per picture.

Source: borisdayma/dalle-mini `generate` over transformers' Flax warpers; min-dalle's sampler.
Parity: tests/parity/test_dalle_sampling.py; all filter cases equal, all replayed sequences equal.
Differs: ids that are no codes can be masked, where the original would fill the rest of a picture with padding; logits
equal to the last one kept are kept too, as in min-dalle (the Flax warper keeps those of lower id).

The order is the original's: guide, mask, temperature, top_k, top_p, draw. Rows of different requests go together, each
with its own settings, and a row's result does not depend on the other rows.

Shapes: N rows, one per picture; V vocabulary.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

NOISE_STEPS = 16  # steps of noise drawn at once, for speed; the numbers do not depend on it
LEAST_UNIFORM = 2**-25  # torch.rand gives multiples of 2^-24; zero would make the noise infinite


def guide(uncond: Tensor, cond: Tensor, condition_scale: Tensor | float) -> Tensor:
    """Logits (N, V), pushed away from the unconditional ones by a number or (N, 1) numbers; 1 leaves `cond`."""
    return uncond + condition_scale * (cond - uncond)


def mask_non_codes(logits: Tensor, num_codes: int) -> Tensor:
    """Logits (N, V) with -inf for the ids from `num_codes` on: the start token, padding, rows never trained."""
    if num_codes >= logits.shape[-1]:
        return logits
    ids = torch.arange(logits.shape[-1], device=logits.device)  # (V,)
    return logits.masked_fill(ids >= num_codes, float("-inf"))


def sample(logits: Tensor, gumbel: Tensor) -> Tensor:
    """Draw one id per row: logits and Gumbel noise (N, V) -> (N,) int64. Zero noise gives the greedy choice."""
    return (logits + gumbel).argmax(-1)


@dataclass(frozen=True, eq=False)
class Filters:
    """Temperature, top_k and top_p of N rows. Make it with `of` when the set of rows changes; call it at every step."""

    temperature: Tensor  # (N, 1)
    top_k: Tensor  # (N, 1) int64; 0 is off
    top_p: Tensor  # (N, 1); infinite is off
    depth: int  # how many of the largest logits decide; 0: nothing is filtered

    @classmethod
    def of(
        cls,
        temperature: Sequence[float],
        top_k: Sequence[int],
        top_p: Sequence[float],
        device: str | torch.device = "cpu",
    ) -> "Filters":
        """One value per row each. temperature above 0; top_k 0 (off) or more; top_p in (0, 1], 1 is off.

        Raises:
            ValueError: a value outside these.
        """
        if not (all(t > 0 for t in temperature) and min(top_k) >= 0 and all(0 < p <= 1 for p in top_p)):
            allowed = "temperature must be above 0, top_k at least 0, top_p above 0 and at most 1"
            raise ValueError(f"{allowed}; got {list(temperature)}, {list(top_k)}, {list(top_p)}")
        whole = any(k == 0 and p < 1 for k, p in zip(top_k, top_p, strict=True))
        limits = [float("inf") if p == 1 else p for p in top_p]
        return cls(
            torch.tensor(temperature, dtype=torch.float32, device=device)[:, None],
            torch.tensor(top_k, device=device)[:, None],
            torch.tensor(limits, dtype=torch.float32, device=device)[:, None],
            depth=2**31 if whole else max(top_k),
        )

    def __call__(self, logits: Tensor) -> Tensor:
        """Logits (N, V) over temperature, with -inf for those that top_k, and top_p on what that left, take out.

        top_p keeps the largest while their probabilities sum to less than it, and the next one.
        """
        logits = logits / self.temperature
        depth = min(self.depth, logits.shape[-1])
        if not depth:
            return logits
        largest = logits.topk(depth).values  # (N, depth), descending
        kept = torch.where(self.top_k > 0, self.top_k, depth).clamp_max(depth)  # (N, 1)
        ranks = torch.arange(depth, device=logits.device)
        sums = largest.masked_fill(ranks >= kept, float("-inf")).softmax(-1).cumsum(-1)  # (N, depth)
        nucleus = (sums < self.top_p).sum(-1, keepdim=True) + 1  # (N, 1)
        least = largest.gather(-1, torch.minimum(kept, nucleus) - 1)  # (N, 1)
        unfiltered = (self.top_k == 0) & self.top_p.isinf()
        return logits.masked_fill((logits < least) & ~unfiltered, float("-inf"))


class NoiseStream(Iterator[Tensor]):
    """The Gumbel noise (V,) of one picture, a new one at each step, from a generator of its own on the CPU.

    So a seed means one picture, alone or in any batch, on any device. `start` steps are skipped, to go on from there.
    """

    def __init__(self, seed: int, vocab_size: int, start: int = 0):
        self.vocab_size = vocab_size
        self.generator = torch.Generator().manual_seed(seed)
        self.drawn: Iterator[Tensor] = iter(())
        for _ in range(start):
            next(self)

    def __next__(self) -> Tensor:
        noise = next(self.drawn, None)
        if noise is None:
            uniform = torch.rand(NOISE_STEPS, self.vocab_size, generator=self.generator).clamp_min_(LEAST_UNIFORM)
            self.drawn = iter(uniform.log_().neg_().log_().neg_().unbind(0))
            noise = next(self.drawn)
        return noise


def next_noise(streams: Iterable[Iterator[Tensor]], device: str | torch.device = "cpu") -> Tensor:
    """The next noise of each stream, (N, V). Any iterator over (V,) tensors will do, such as recorded noise."""
    return torch.stack([next(stream) for stream in streams]).to(device)
