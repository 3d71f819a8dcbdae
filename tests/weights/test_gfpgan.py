"""GFPGAN from its published layout and from ours, and refusals."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from dalle_flow.errors import WeightsError
from dalle_flow.models.gfpgan import GFPGAN, GFPGANConfig
from dalle_flow.models.srvgg import SRVGG, SRVGGConfig
from dalle_flow.weights.gfpgan import load_gfpgan
from dalle_flow.weights.ours import save_ours

TINY = GFPGANConfig(16, 8, (6, 4, 3), (8, 6, 4))


def state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return dict(GFPGAN(TINY).state_dict())


@pytest.mark.parametrize("wrapping", ["params_ema", None])
def test_published_files(tmp_path: Path, wrapping: str | None) -> None:
    published = state() | {"stylegan_decoder.style_mlp.1.weight": torch.ones(8, 8)}
    torch.save({wrapping: published} if wrapping else published, tmp_path / "a.pth")
    found = load_gfpgan(tmp_path / "a.pth")
    assert found.config == TINY
    assert not found.training
    for name, tensor in state().items():
        assert torch.equal(found.state_dict()[name], tensor)


def test_our_own_layout(tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_ours(GFPGAN(TINY), tmp_path)
    assert torch.equal(load_gfpgan(tmp_path).final_linear.weight, state()["final_linear.weight"])


@pytest.mark.parametrize(
    "name", ["final_linear.bias", "conv_body_up.1.conv2.weight", "stylegan_decoder.noises.noise2", "toRGB.0.bias"]
)
@pytest.mark.parametrize("kind", ["missing", "another shape", "unknown"])
def test_refuses_what_does_not_fit(tmp_path: Path, name: str, kind: str) -> None:
    broken = state()
    if kind == "missing":
        del broken[name]
    elif kind == "another shape":
        broken[name] = torch.ones(*(size + 1 for size in broken[name].shape))
    else:
        broken[name + "_more"] = torch.ones(1)
    torch.save({"params_ema": broken}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=r"a\.pth"):
        load_gfpgan(tmp_path / "a.pth")


def test_refuses_other_models(tmp_path: Path) -> None:
    torch.save({"params": SRVGG(SRVGGConfig(features=4, convolutions=1)).state_dict()}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=r"holds no GFPGAN of the clean kind .*its tensors: body\.0\.bias"):
        load_gfpgan(tmp_path / "a.pth")
    save_ours(SRVGG(SRVGGConfig(features=4, convolutions=1)), tmp_path / "ours")
    with pytest.raises(WeightsError, match="holds a SRVGG, expected a GFPGAN"):
        load_gfpgan(tmp_path / "ours")
    with pytest.raises(WeightsError, match="no such file"):
        load_gfpgan(tmp_path / "nowhere.pth")


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    torch.save({"params_ema": state()}, tmp_path / "whole.pth")
    data = (tmp_path / "whole.pth").read_bytes()
    for end in range(0, len(data), len(data) // 9):
        (tmp_path / "cut.pth").write_bytes(data[:end])
        with pytest.raises(WeightsError, match=r"cut\.pth"):
            load_gfpgan(tmp_path / "cut.pth")
