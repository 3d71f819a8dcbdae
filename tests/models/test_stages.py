"""What the upscaling networks share: mirrored borders, stages, pictures of any size."""

import numpy as np
import pytest
import torch

from dalle_flow.models.rrdb import RRDBConfig, RRDBNet
from dalle_flow.models.srvgg import SRVGG, SRVGGConfig
from dalle_flow.models.stages import Network, reflect, run_whole
from dalle_flow.models.swinir import SwinIR, SwinIRConfig

SWINIR = SwinIRConfig(width=12, depths=(2, 3), heads=(2, 3), mlp_width=20, scale=2, body_conv="3conv")
NETWORKS = {
    "srvgg": lambda: SRVGG(SRVGGConfig(features=6, convolutions=3, scale=3)),
    "rrdb x4": lambda: RRDBNet(RRDBConfig(features=6, blocks=2, growth=4)),
    "rrdb x2": lambda: RRDBNet(RRDBConfig(features=6, blocks=1, growth=4, scale=2)),
    "swinir": lambda: SwinIR(SWINIR),
    "swinir 7": lambda: SwinIR(SwinIRConfig(1, 8, (4,), (2,), 7, 12, 1, "none", "1conv", 255.0)),
    "swinir shuffle": lambda: SwinIR(SwinIRConfig(3, 8, (1,), (2,), 4, 12, 8, "pixelshuffle", "1conv")),
    "swinir direct": lambda: SwinIR(SwinIRConfig(3, 8, (2,), (2,), 4, 12, 3, "pixelshuffledirect", "1conv")),
}


@pytest.fixture(params=NETWORKS)
def network(request: pytest.FixtureRequest) -> Network:
    torch.manual_seed(0)
    network = NETWORKS[request.param]()
    for parameter in network.parameters():  # the bias table begins as zeros
        torch.nn.init.normal_(parameter, std=0.3)
    return network.double().requires_grad_(False)


@pytest.mark.parametrize("edge_twice", [False, True])
@pytest.mark.parametrize("size", [(5, 7), (2, 3), (1, 1)])
def test_mirrors_as_numpy_does(size: tuple[int, int], edge_twice: bool) -> None:
    picture = np.arange(size[0] * size[1], dtype=np.float32).reshape(size)
    found = reflect(torch.from_numpy(picture)[None, None], 11, 6, edge_twice=edge_twice)[0, 0]
    wanted = np.pad(picture, ((0, 6), (0, 11)), mode="symmetric" if edge_twice else "reflect")
    assert np.array_equal(found.numpy(), wanted)


def test_stages_say_what_they_give(network: Network) -> None:
    pixels = torch.rand(2, network.channels, 15, 22).double()
    x = network.prepare(pixels)
    for stage in network.stages():
        out = stage.run(x)
        assert out.shape == (2, stage.channels, x.shape[2] * stage.scale, x.shape[3] * stage.scale)
        assert stage.reach % stage.align == 0
        x = out
    assert run_whole(network, pixels).shape == (2, network.channels, 15 * network.scale, 22 * network.scale)


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (3, 1), (9, 17)])
def test_pictures_of_any_size(network: Network, size: tuple[int, int]) -> None:
    out = run_whole(network, torch.rand(1, network.channels, *size).double())
    assert out.shape[2:] == (size[0] * network.scale, size[1] * network.scale)
    assert out.isfinite().all()


def test_a_picture_is_the_same_alone_and_in_a_batch(network: Network) -> None:
    pixels = torch.rand(5, network.channels, 9, 13).double()
    torch.testing.assert_close(run_whole(network, pixels)[3:4], run_whole(network, pixels[3:4]))
