"""SRVGGNetCompact: names, sizes, and that it begins as plain enlargement."""

import pytest
import torch

from dalle_flow.models.srvgg import SRVGG, SRVGGConfig


def test_names_are_those_of_the_published_files() -> None:
    names = list(SRVGG(SRVGGConfig(features=5, convolutions=1)).state_dict())
    layers = ["body.0.weight", "body.0.bias", "body.1.weight", "body.2.weight", "body.2.bias", "body.3.weight"]
    assert names == [*layers, "body.4.weight", "body.4.bias"]


def test_the_published_size() -> None:
    model = SRVGG()
    assert sum(p.numel() for p in model.parameters()) == 621_424
    assert len(model.state_dict()) == 53
    assert model.stages()[0].reach == 18


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_without_details_every_pixel_becomes_a_square(scale: int) -> None:
    model = SRVGG(SRVGGConfig(channels=2, features=4, convolutions=1, scale=scale))
    torch.nn.init.zeros_(model.body[-1].weight)
    torch.nn.init.zeros_(model.body[-1].bias)
    pixels = torch.rand(2, 2, 3, 5)
    wanted = pixels.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    assert torch.equal(model(pixels), wanted)


@pytest.mark.parametrize("name", ["channels", "features", "convolutions", "scale"])
def test_refuses_sizes_below_one(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be 1 or more, got 0"):
        SRVGGConfig(**{name: 0})
