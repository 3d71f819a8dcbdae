"""Upscalers from every layout they are published in, and refusals of files that are something else."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from dalle_flow.errors import WeightsError
from dalle_flow.models.clip import CLIP, CLIPConfig
from dalle_flow.models.rrdb import RRDBConfig, RRDBNet
from dalle_flow.models.srvgg import SRVGG, SRVGGConfig
from dalle_flow.models.swinir import SwinIR, SwinIRConfig
from dalle_flow.weights.ours import save_ours
from dalle_flow.weights.upscale import Upscaler, interpolate, load_upscaler, open_upscaler

CONFIGS = {
    "srvgg": SRVGGConfig(features=5, convolutions=2, scale=3),
    "rrdb x4": RRDBConfig(features=6, blocks=2, growth=3),
    "rrdb x2": RRDBConfig(features=6, blocks=1, growth=3, scale=2),
    "rrdb x1": RRDBConfig(features=6, blocks=1, growth=3, scale=1),
    "swinir real large": SwinIRConfig(width=8, depths=(2, 1), heads=(2, 4), mlp_width=12),
    "swinir real x2": SwinIRConfig(width=8, depths=(2,), heads=(2,), mlp_width=12, scale=2, body_conv="1conv"),
    "swinir classical x8": SwinIRConfig(3, 8, (1, 2), (2, 2), 8, 16, 8, "pixelshuffle", "1conv"),
    "swinir classical x3": SwinIRConfig(3, 8, (1,), (2,), 8, 16, 3, "pixelshuffle", "1conv"),
    "swinir lightweight": SwinIRConfig(3, 8, (1,), (2,), 8, 16, 3, "pixelshuffledirect", "1conv"),
    "swinir denoise": SwinIRConfig(1, 8, (1,), (2,), 8, 16, 1, "none", "1conv"),
    "swinir JPEG": SwinIRConfig(1, 8, (2,), (2,), 7, 16, 1, "none", "1conv", 255.0),
}
Config = SRVGGConfig | RRDBConfig | SwinIRConfig


def make(config: Config, seed: int = 0) -> Upscaler:
    torch.manual_seed(seed)
    classes: dict[type, Callable[..., Upscaler]] = {SRVGGConfig: SRVGG, RRDBConfig: RRDBNet, SwinIRConfig: SwinIR}
    model = classes[type(config)](config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model


def state_of(config: Config) -> dict[str, Tensor]:
    return dict(make(config).state_dict())


def published(config: Config) -> dict[str, Tensor]:
    """The state dict as the published files have it: SwinIR's with what could be computed."""
    state = state_of(config)
    if isinstance(config, SwinIRConfig):
        tokens = config.window**2
        for layer, depth in enumerate(config.depths):
            for block in range(depth):
                at = f"layers.{layer}.residual_group.blocks.{block}."
                state[at + "attn.relative_position_index"] = torch.zeros(tokens, tokens, dtype=torch.int64)
                if block % 2:
                    state[at + "attn_mask"] = torch.zeros(4, tokens, tokens)
    return state


def check(path: Path, config: Config) -> None:
    found = load_upscaler(path)
    assert found.config == config
    assert not found.training
    wanted = state_of(config)
    assert list(found.state_dict()) == list(wanted)
    for name, tensor in found.state_dict().items():
        assert torch.equal(tensor, wanted[name])
        assert not tensor.requires_grad


@pytest.mark.parametrize("wrapping", ["params_ema", "params", None])
@pytest.mark.parametrize("name", CONFIGS)
def test_published_files(tmp_path: Path, name: str, wrapping: str | None) -> None:
    state = published(CONFIGS[name])
    torch.save({wrapping: state} if wrapping else state, tmp_path / "a.pth")
    check(tmp_path / "a.pth", CONFIGS[name])
    check(tmp_path, CONFIGS[name])


@pytest.mark.parametrize("name", CONFIGS)
def test_safetensors_and_our_own_layout(tmp_path: Path, name: str) -> None:
    save_file({k: v.contiguous() for k, v in published(CONFIGS[name]).items()}, tmp_path / "a.safetensors")
    check(tmp_path / "a.safetensors", CONFIGS[name])
    save_ours(make(CONFIGS[name]), tmp_path / "ours")
    check(tmp_path / "ours", CONFIGS[name])


def test_averaged_weights_go_before_those_of_the_last_step(tmp_path: Path) -> None:
    config = CONFIGS["rrdb x4"]
    other = {name: tensor + 1 for name, tensor in state_of(config).items()}
    torch.save({"params": other, "params_ema": state_of(config), "iter": 7}, tmp_path / "a.pth")
    check(tmp_path / "a.pth", config)


def old_name(name: str, blocks: int) -> str:
    outside = {"conv_first": "0", "conv_up1": "3", "conv_up2": "6", "conv_hr": "8", "conv_last": "10"}
    if match := re.fullmatch(r"body\.(\d+)\.rdb(\d)\.conv(\d)\.(\w+)", name):
        return "model.1.sub.{}.RDB{}.conv{}.0.{}".format(*match.groups())
    module, leaf = name.split(".")
    return f"model.1.sub.{blocks}.{leaf}" if module == "conv_body" else f"model.{outside[module]}.{leaf}"


def middle_name(name: str) -> str:
    outside = {"conv_body": "trunk_conv", "conv_up1": "upconv1", "conv_up2": "upconv2", "conv_hr": "HRconv"}
    if match := re.fullmatch(r"body\.(\d+)\.rdb(\d)\.conv(\d)\.(\w+)", name):
        return "RRDB_trunk.{}.RDB{}.conv{}.{}".format(*match.groups())
    module, leaf = name.split(".")
    return f"{outside.get(module, module)}.{leaf}"


def test_older_names_of_esrgan(tmp_path: Path) -> None:
    config = RRDBConfig(features=6, blocks=2, growth=3)
    torch.save({old_name(k, 2): v for k, v in state_of(config).items()}, tmp_path / "old.pth")
    check(tmp_path / "old.pth", config)
    torch.save({middle_name(k): v for k, v in state_of(config).items()}, tmp_path / "middle.pth")
    check(tmp_path / "middle.pth", config)


def test_opening_reads_no_weights(tmp_path: Path) -> None:
    torch.save({"params": published(CONFIGS["srvgg"])}, tmp_path / "a.pth")
    checkpoint = open_upscaler(tmp_path / "a.pth")
    assert all(tensor.is_meta for tensor in checkpoint.model.state_dict().values())
    assert checkpoint.files == (tmp_path / "a.pth",)
    assert {t.dtype for t in checkpoint.load(torch.bfloat16).state_dict().values()} == {torch.bfloat16}


@pytest.mark.parametrize("name", ["srvgg", "rrdb x4", "swinir real large"])
@pytest.mark.parametrize("kind", ["missing", "unknown", "another shape", "whole numbers"])
def test_refuses_what_does_not_fit(tmp_path: Path, name: str, kind: str) -> None:
    """Any tensor: none is left out, none is left over."""
    state = published(CONFIGS[name])
    used = [key for key in state if "attn_mask" not in key and "_index" not in key]
    for key in [used[len(used) // 2], used[-1]]:
        broken = dict(state)
        if kind == "missing":
            del broken[key]
        elif kind == "unknown":
            broken["layers.0.extra" if "layers" in key else "body_extra.weight"] = torch.ones(2)
        elif kind == "another shape":
            broken[key] = torch.ones(*(size + 1 for size in state[key].shape))
        else:
            broken[key] = state[key].to(torch.int32)
        torch.save({"params": broken}, tmp_path / "a.pth")
        with pytest.raises(WeightsError, match=r"a\.pth"):
            load_upscaler(tmp_path / "a.pth")


def test_only_known_buffers_are_passed_over(tmp_path: Path) -> None:
    state = published(CONFIGS["swinir real x2"])
    state["layers.0.residual_group.blocks.0.attn.logit_scale"] = torch.ones(2)
    torch.save({"params_ema": state}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match="logit_scale"):
        load_upscaler(tmp_path / "a.pth")


def test_refuses_activations_without_weights(tmp_path: Path) -> None:
    state = {name: tensor for name, tensor in state_of(CONFIGS["srvgg"]).items() if "1" not in name.split(".")[1]}
    torch.save({"params": {k: v for k, v in state.items() if int(k.split(".")[1]) % 2 == 0}}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match="only networks with PReLU are known"):
        load_upscaler(tmp_path / "a.pth")


def test_refuses_other_models(tmp_path: Path) -> None:
    torch.save({"params_ema": {"stylegan_decoder.style_conv1.weight": torch.ones(1)}}, tmp_path / "face.pth")
    with pytest.raises(WeightsError, match=r"holds a GFPGAN.*face=PATH"):
        load_upscaler(tmp_path / "face.pth")
    torch.save({"layer.weight": torch.ones(1)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=r"no upscaler that we know .*its tensors: layer.weight"):
        load_upscaler(tmp_path / "other.pth")
    clip = CLIPConfig(
        embed_dim=8, image_size=8, patch_size=4, vision_width=8, vision_layers=1, text_width=8, text_layers=1,
        vocab_size=9, head_width=4,
    )  # fmt: skip
    save_ours(CLIP(clip), tmp_path / "clip")
    with pytest.raises(WeightsError, match="holds a CLIP, expected one of SwinIR, RRDBNet, SRVGG"):
        load_upscaler(tmp_path / "clip")


def test_refuses_what_is_no_file_of_weights(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no such file or folder"):
        load_upscaler(tmp_path / "nowhere.pth")
    with pytest.raises(WeightsError, match="holds no upscaler weights"):
        load_upscaler(tmp_path)
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(WeightsError, match=r"in files of these kinds: \.safetensors, \.pth"):
        load_upscaler(tmp_path / "a.txt")
    for name in ("a.pth", "b.pth"):
        torch.save(state_of(CONFIGS["srvgg"]), tmp_path / name)
    with pytest.raises(WeightsError, match="holds 2 such files"):
        load_upscaler(tmp_path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_damaged_files_are_refused_wherever_they_end(tmp_path: Path, suffix: str) -> None:
    whole, cut = tmp_path / f"whole{suffix}", tmp_path / f"cut{suffix}"
    state = state_of(CONFIGS["srvgg"])
    torch.save({"params": state}, whole) if suffix == ".pth" else save_file(state, whole)
    data = whole.read_bytes()
    for end in [0, 1, 9, *range(50, len(data), len(data) // 23), len(data) - 1]:
        cut.write_bytes(data[:end])
        with pytest.raises(WeightsError, match="cut"):
            load_upscaler(cut)


def test_numbers_in_names_do_not_make_huge_networks(tmp_path: Path) -> None:
    state = state_of(CONFIGS["srvgg"]) | {"body.9999.weight": torch.ones(3, 5, 3, 3)}
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match="not numbered"):
        load_upscaler(tmp_path / "a.pth")


def test_interpolation_of_two_networks() -> None:
    config = CONFIGS["srvgg"]
    one, other = make(config, 1), make(config, 2)
    mine, theirs = ({k: v.clone() for k, v in model.state_dict().items()} for model in (one, other))
    mixed = interpolate(one, other, 0.25).state_dict()
    for name in mine:
        torch.testing.assert_close(mixed[name], 0.25 * mine[name] + 0.75 * theirs[name])
    with pytest.raises(WeightsError, match="both must be of one pair"):
        interpolate(one, make(CONFIGS["rrdb x4"]), 0.5)
