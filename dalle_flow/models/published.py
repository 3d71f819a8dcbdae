"""Read the config.json that lies beside published weights: every size taken from it, every unknown switch refused."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import WeightsError

# What transformers writes into any config.json that says nothing about the network.
BOOKKEEPING = [
    *("architectures", "dtype", "is_encoder_decoder", "model_type", "torch_dtype", "transformers_version", "use_cache"),
]


def read_sizes(
    model: str,
    published: Mapping[str, Any],
    fields: Mapping[str, str],
    switches: Mapping[str, Any],
    besides: Sequence[str],
) -> dict[str, Any]:
    """Sizes of a published config by the names of our dataclass.

    Args:
        fields: published key -> our field; all must be there. Lists become tuples.
        switches: published key -> the one value that we build; the key may be absent.
        besides: other keys that are allowed with any value.

    Raises:
        WeightsError: a size is missing or no positive whole number, or a key asks for a network we do not build.
            A key we have never heard of is let pass while it is off (false, null, zero or empty).
    """
    if missing := sorted(fields.keys() - published.keys()):
        raise WeightsError(f"{model} config lacks {', '.join(missing)}")
    for key, value in published.items():
        if key in switches and value != switches[key]:
            raise WeightsError(f"{model} config: {key}={value!r} is not supported, only {switches[key]!r}", field=key)
        known = key in fields or key in switches or key in besides or key in BOOKKEEPING or key.startswith("_")
        if value and not known:
            raise WeightsError(f"{model} config: unknown key {key!r} with value {value!r}", field=key)
    sizes = {field: published[key] for key, field in fields.items()}
    for key, field in fields.items():
        numbers = sizes[field] = tuple(published[key]) if isinstance(published[key], list | tuple) else published[key]
        for number in numbers if isinstance(numbers, tuple) else (numbers,):
            if type(number) is not int or number < 1:
                raise WeightsError(f"{model} config: {key} must be a positive whole number, got {number!r}", field=key)
    return sizes
