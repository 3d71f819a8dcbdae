"""The upscaler: what it gives for pictures of every kind, its options, tiles as steps, and refusals."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dalle_flow.deep_picture import DeepPicture, from_pixels, to_pixels
from dalle_flow.engine.device import run_slots
from dalle_flow.engine.local import LocalEngine
from dalle_flow.errors import FailureError, OptionError, PictureError, WeightsError
from dalle_flow.executors.base import Done, Progress, Task
from dalle_flow.executors.upscale import UpscaleExecutor
from dalle_flow.models.gfpgan import GFPGAN, GFPGANConfig
from dalle_flow.models.picture_planes import Planes, for_network, from_network, put_together, take_apart
from dalle_flow.models.rrdb import RRDBConfig, RRDBNet
from dalle_flow.models.srvgg import SRVGG, SRVGGConfig
from dalle_flow.models.stages import run_whole
from dalle_flow.models.swinir import SwinIR, SwinIRConfig
from dalle_flow.types import ExecutorPlan, Kind, RoundKind
from dalle_flow.weights.ours import save_ours

NETWORKS = {
    "srvgg": lambda: SRVGG(SRVGGConfig(features=6, convolutions=2)),
    "rrdb": lambda: RRDBNet(RRDBConfig(features=6, blocks=1, growth=3, scale=2)),
    "swinir": lambda: SwinIR(SwinIRConfig(3, 8, (2,), (2,), 4, 12, 3, "pixelshuffledirect", "1conv")),
    "grey": lambda: SwinIR(SwinIRConfig(1, 8, (2,), (2,), 4, 12, 1, "none", "1conv")),
}


def made(name: str, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    model = NETWORKS[name]()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model.eval().requires_grad_(False)


@pytest.fixture
def upscaler() -> UpscaleExecutor:
    return UpscaleExecutor(made("srvgg"), "test")


def noise(height: int = 13, width: int = 19, channels: int = 3, dtype: Any = np.uint8, seed: int = 0) -> Any:
    """Smooth, so that it looks like a picture."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (4, 5, channels), dtype=np.uint8)
    image = [Image.fromarray(coarse[..., i]).resize((width, height), Image.Resampling.BICUBIC) for i in range(channels)]
    pixels = np.stack([np.asarray(channel) for channel in image], -1)
    return pixels if dtype == np.uint8 else pixels.astype(np.uint16) * 257


def upscale(upscaler: UpscaleExecutor, *pictures: Any, **options: Any) -> list[Any]:
    task = Task("", upscaler.Options.parse(options), images=pictures, kind=RoundKind.UPSCALE)
    done = [output for output in run_slots(upscaler, task) if isinstance(output, Done)]
    assert [output.slot.index for output in done] == list(range(len(pictures)))
    return [output.result for output in done]


def test_says_what_it_is(upscaler: UpscaleExecutor) -> None:
    assert upscaler.kind is Kind.UPSCALER
    assert list(upscaler.verbs) == [RoundKind.UPSCALE]
    assert UpscaleExecutor.tiny().model.scale == 4


@pytest.mark.parametrize("name", ["srvgg", "rrdb", "swinir"])
def test_gives_what_the_network_gives(name: str) -> None:
    model, pixels = made(name), noise()
    (found,) = upscale(UpscaleExecutor(model, "test"), from_pixels(pixels))
    planes = take_apart(pixels)
    with torch.inference_mode():
        whole = run_whole(model, planes.colour[None])[0]
    wanted = put_together(type(planes)(whole, None, 255))
    assert np.abs(to_pixels(found).astype(int) - wanted).max() <= 1


@pytest.mark.parametrize("number", [1, 5, 6])
def test_one_picture_for_each(upscaler: UpscaleExecutor, number: int) -> None:
    pictures = [from_pixels(noise(seed=i, width=9 + i)) for i in range(number)]
    found = upscale(upscaler, *pictures)
    assert [picture.size for picture in found] == [(4 * (9 + i), 52) for i in range(number)]
    assert found[-1].tobytes() == upscale(upscaler, pictures[-1])[0].tobytes()


@pytest.mark.parametrize(
    ("mode", "result"),
    [("L", "L"), ("1", "L"), ("LA", "LA"), ("RGB", "RGB"), ("RGBA", "RGBA"), ("P", "RGB"), ("CMYK", "RGB")],
)
def test_kinds_of_pictures(upscaler: UpscaleExecutor, mode: str, result: str) -> None:
    image = Image.fromarray(noise(channels=4)).convert(mode)
    (found,) = upscale(upscaler, image)
    assert (found.mode, found.size) == (result, (76, 52))


@pytest.mark.parametrize(("channels", "mode"), [(1, "I;16"), (2, "LA;16"), (3, "RGB;16"), (4, "RGBA;16")])
def test_16_bits_stay(upscaler: UpscaleExecutor, channels: int, mode: str) -> None:
    pixels = noise(channels=channels, dtype=np.uint16)
    (found,) = upscale(upscaler, from_pixels(pixels))
    assert found.mode == mode
    (rough,) = upscale(upscaler, from_pixels((pixels // 257).astype(np.uint8)))
    fine = to_pixels(found)
    assert np.abs(fine / 257 - to_pixels(rough)).max() < 0.51
    assert len(np.unique(fine)) > 2 * len(np.unique(to_pixels(rough)))
    (resized,) = upscale(upscaler, from_pixels(pixels), scale=2.5)
    assert to_pixels(resized).dtype == np.uint16


def test_grey_is_as_its_colours(upscaler: UpscaleExecutor) -> None:
    grey = Image.fromarray(noise(channels=1)[..., 0])
    (found,), (coloured,) = upscale(upscaler, grey), upscale(upscaler, grey.convert("RGB"))
    luma = (np.asarray(coloured) * np.array([0.299, 0.587, 0.114])).sum(-1)
    assert np.abs(np.asarray(found) - luma).max() <= 1


@pytest.mark.parametrize("alpha", ["network", "bilinear"])
def test_alpha_that_is_the_same_everywhere_stays(upscaler: UpscaleExecutor, alpha: str) -> None:
    pixels = noise(channels=4)
    for value in (255, 128, 0):
        pixels[..., 3] = value
        found = to_pixels(upscale(upscaler, from_pixels(pixels), alpha=alpha)[0])
        assert set(found[..., 3].flatten()) == {value}
        plain = to_pixels(upscale(upscaler, from_pixels(pixels[..., :3]))[0])
        assert np.array_equal(found[..., :3], plain)


def test_alpha_by_the_network_or_bilinear(upscaler: UpscaleExecutor) -> None:
    pixels = noise(channels=4)
    network, bilinear = (
        to_pixels(upscale(upscaler, from_pixels(pixels), alpha=alpha)[0])[..., 3] for alpha in ("network", "bilinear")
    )
    as_grey = to_pixels(upscale(upscaler, from_pixels(pixels[..., 3:]))[0])[..., 0]
    assert np.array_equal(network, as_grey)
    wanted = Image.fromarray(pixels[..., 3]).resize((76, 52), Image.Resampling.BILINEAR)
    assert np.abs(bilinear.astype(int) - np.asarray(wanted)).max() <= 1
    assert not np.array_equal(network, bilinear)


@pytest.mark.parametrize(
    ("scale", "size"),
    [(None, (76, 52)), (4, (76, 52)), (1, (19, 13)), (2.5, (47, 32)), (0.1, (1, 1)), (7.99, (151, 103))],
)
def test_scale(upscaler: UpscaleExecutor, scale: float | None, size: tuple[int, int]) -> None:
    (found,) = upscale(upscaler, from_pixels(noise()), scale=scale)
    assert found.size == size


@pytest.mark.parametrize("name", ["srvgg", "rrdb", "swinir"])
@pytest.mark.parametrize("tile", [1, 8, 16, 100])
def test_tiles_make_no_difference(name: str, tile: int) -> None:
    executor, pixels = UpscaleExecutor(made(name), "test"), noise(21, 35, 4)
    if tile == 1:
        pixels = pixels[:6, :7]
    (whole,), (tiled,) = (upscale(executor, from_pixels(pixels), **options) for options in ({}, {"tile": tile}))
    assert np.abs(to_pixels(whole).astype(int) - to_pixels(tiled)).max() <= 1


def test_a_given_overlap(upscaler: UpscaleExecutor) -> None:
    """As far as the network sees: no difference. Less: some, and the whole picture is not kept in between."""
    picture = from_pixels(noise(60, 60))
    whole, exact, rough = (
        to_pixels(upscale(upscaler, picture, **options)[0]).astype(int)
        for options in ({}, {"tile": 16, "tile_overlap": 4}, {"tile": 16, "tile_overlap": 0})
    )
    assert np.abs(whole - exact).max() <= 1
    assert np.abs(whole - rough).max() > 1


def test_steps_are_tiles(upscaler: UpscaleExecutor) -> None:
    options = upscaler.Options.parse({"tile": 8})
    (slot,) = upscaler.admit(Task("", options, images=(from_pixels(noise(16, 24, 4)),)))
    assert slot.of == 2 * 2 * 3  # colour and alpha, each of 2 x 3 tiles
    for step in range(1, slot.of + 1):
        outputs = list(upscaler.step([slot]))
        assert slot.step == step
        assert len(outputs) == (step == slot.of)
    assert slot.work is None
    assert not slot.found


def test_progress_and_cancelling(upscaler: UpscaleExecutor) -> None:
    pictures = tuple(from_pixels(noise(16, 24, seed=i)) for i in range(3))
    task = Task("", upscaler.Options.parse({"tile": 8}), images=pictures)
    told = [(o.step, o.of) for o in run_slots(upscaler, task) if isinstance(o, Progress)]
    assert told == [(i, 18) for i in range(1, 19)]
    running = run_slots(upscaler, task)
    next(running)
    running.close()  # type: ignore[attr-defined]
    assert upscale(upscaler, pictures[0])[0].size == (96, 64)


def test_denoising_mixes_two_networks() -> None:
    one, other = made("srvgg", 1), made("srvgg", 2)
    executor, picture = UpscaleExecutor(one, "test", other), from_pixels(noise())
    found = [to_pixels(upscale(executor, picture, denoise_strength=s)[0]) for s in (1.0, 0.5, 0.0, 1.0)]
    assert np.array_equal(found[0], found[3])  # the first weights were not changed by the mixing
    assert np.array_equal(found[0], to_pixels(upscale(UpscaleExecutor(one, "test"), picture)[0]))
    alone = to_pixels(upscale(UpscaleExecutor(other, "test"), picture)[0])
    assert np.abs(found[2].astype(int) - alone).max() <= 1
    assert len({array.tobytes() for array in found}) == 3


def test_half_precision_is_near(upscaler: UpscaleExecutor) -> None:
    picture = from_pixels(noise())
    full, half = (to_pixels(upscale(upscaler, picture, dtype=d)[0]).astype(int) for d in ("float32", "bfloat16"))
    assert 0 < np.abs(full - half).max() <= 8
    assert np.array_equal(full, to_pixels(upscale(upscaler, picture)[0]))  # auto, on a CPU


def test_grey_weights_take_grey_pictures_alone() -> None:
    executor = UpscaleExecutor(made("grey"), "test")
    assert upscale(executor, from_pixels(noise(channels=2)))[0].mode == "LA"
    with pytest.raises(PictureError, match="for grey pictures, and the picture is in colour"):
        upscale(executor, from_pixels(noise()))


def test_refuses_what_it_cannot_do(upscaler: UpscaleExecutor) -> None:
    picture = from_pixels(noise())
    with pytest.raises(OptionError, match="realesr-general-wdn-x4v3; give its weights with wdn=PATH") as caught:
        upscale(upscaler, picture, denoise_strength=0.5)
    assert caught.value.field == "denoise_strength"
    with pytest.raises(OptionError, match=r"scale 0.05 leaves no pixel of a picture of 19 x 13"):
        upscale(upscaler, picture, scale=0.05)
    with pytest.raises(PictureError, match="mode 'F' is not read here"):
        upscale(upscaler, Image.new("F", (4, 4)))


@pytest.mark.parametrize(
    ("size", "scale", "says"),
    [
        ((2049, 2049), None, r"these weights make it 8196 x 8196; .* such as those of a picture of 2048 x 2048"),
        ((2048, 1024), 8, r"scale 8.0 makes it 16384 x 8192; .* of 1024 x 1024"),
    ],
)
def test_refuses_pictures_that_would_be_too_large(
    upscaler: UpscaleExecutor, size: tuple[int, int], scale: float | None, says: str
) -> None:
    with pytest.raises(PictureError, match=says):
        upscale(upscaler, Image.new("L", size), scale=scale)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("scale", 0), ("scale", -1), ("scale", 8.5), ("scale", "2"), ("scale", True), ("scale", float("nan"))),
        *(("tile", -1), ("tile", 1.5), ("tile", None), ("tile_overlap", -1), ("tile_overlap", 2000)),
        *(("denoise_strength", 1.1), ("denoise_strength", -0.1), ("alpha", "bicubic"), ("dtype", "float16")),
    ],
)
def test_refuses_options_out_of_range(upscaler: UpscaleExecutor, option: str, value: Any) -> None:
    with pytest.raises(OptionError) as caught:
        upscaler.Options.parse({option: value})
    assert caught.value.field == option


class TestFaces:
    @pytest.fixture
    def executor(self) -> UpscaleExecutor:
        torch.manual_seed(0)
        face = GFPGAN(GFPGANConfig(16, 8, (6, 4, 3), (8, 6, 4))).eval().requires_grad_(False)
        return UpscaleExecutor(made("srvgg"), "test", face=face)

    @pytest.mark.parametrize("channels", [1, 3, 4])
    def test_an_aligned_face_is_restored_and_enlarged(self, executor: UpscaleExecutor, channels: int) -> None:
        pixels = noise(16, 16, channels)
        (found,) = upscale(executor, from_pixels(pixels), face_enhance=True)
        planes = take_apart(pixels)
        assert executor.face is not None
        with torch.inference_mode():
            restored = executor.face.restore(for_network(planes.colour, 3))
            face = Planes(from_network(restored, planes.colour), planes.alpha, 65535)  # not rounded to 8 bits between
        (wanted,) = upscale(executor, from_pixels(put_together(face)))
        assert np.abs(to_pixels(found) - to_pixels(wanted) / 257).max() <= 1
        assert found.tobytes() != upscale(executor, from_pixels(pixels))[0].tobytes()

    def test_it_is_a_step_of_its_own(self, executor: UpscaleExecutor) -> None:
        options = executor.Options.parse({"face_enhance": True})
        (slot,) = executor.admit(Task("", options, images=(from_pixels(noise(16, 16)),)))
        assert slot.of == 2
        assert [len(list(executor.step([slot]))) for _ in range(2)] == [0, 1]

    def test_faces_are_not_searched_for(self, executor: UpscaleExecutor) -> None:
        says = r"fills a picture of 16 x 16.* 19 x 13.*detection_Resnet50_Final\.pth.*parsing_parsenet\.pth"
        with pytest.raises(OptionError, match=says) as caught:
            upscale(executor, from_pixels(noise()), face_enhance=True)
        assert caught.value.field == "face_enhance"

    def test_without_weights(self, upscaler: UpscaleExecutor) -> None:
        with pytest.raises(OptionError, match=r"needs the weights of GFPGAN \(GFPGANv1\.4\.pth\).*face=PATH"):
            upscale(upscaler, from_pixels(noise(16, 16)), face_enhance=True)

    def test_loading(self, tmp_path: Path, executor: UpscaleExecutor) -> None:
        assert executor.face is not None
        save_ours(executor.face, tmp_path / "face")
        save_ours(made("srvgg"), tmp_path / "up")
        loaded = UpscaleExecutor.load({"upscaler": tmp_path / "up", "face": tmp_path / "face"}, "cpu")
        picture = from_pixels(noise(16, 16))
        both = [upscale(e, picture, face_enhance=True)[0].tobytes() for e in (executor, loaded)]
        assert both[0] == both[1]
        with pytest.raises(WeightsError, match="holds a SRVGG, expected a GFPGAN"):
            UpscaleExecutor.load({"upscaler": tmp_path / "up", "face": tmp_path / "up"}, "cpu")


class TestLoading:
    def test_from_files(self, tmp_path: Path) -> None:
        save_ours(made("srvgg"), tmp_path / "ours")
        torch.save({"params": made("srvgg", 1).state_dict()}, tmp_path / "wdn.pth")
        executor = UpscaleExecutor.load({"upscaler": tmp_path / "ours", "wdn": tmp_path / "wdn.pth"}, "cpu")
        assert executor.model.config == made("srvgg").config
        assert executor.wdn is not None
        alone = UpscaleExecutor.load({"upscaler": tmp_path / "ours"}, "cpu")
        assert alone.weights_id != executor.weights_id
        picture = from_pixels(noise())
        assert upscale(alone, picture)[0].tobytes() == upscale(executor, picture)[0].tobytes()

    def test_the_second_weights_must_be_of_the_same_network(self, tmp_path: Path) -> None:
        save_ours(made("srvgg"), tmp_path / "one")
        save_ours(made("rrdb"), tmp_path / "two")
        with pytest.raises(WeightsError, match="both must be of one pair"):
            UpscaleExecutor.load({"upscaler": tmp_path / "one", "wdn": tmp_path / "two"}, "cpu")

    def test_roles_of_a_flow(self, tmp_path: Path) -> None:
        save_ours(made("srvgg"), tmp_path / "ours")

        def engine(**weights: Path) -> LocalEngine:
            return LocalEngine({"up": ExecutorPlan("up", "upscale", weights)})

        engine(upscaler=tmp_path / "ours").check("up")
        engine(upscaler=tmp_path / "ours", wdn=tmp_path / "ours").check("up")
        with pytest.raises(WeightsError, match="no weights given for upscaler"):
            engine().check("up")
        with pytest.raises(OptionError, match="no weights role 'nope'"):
            engine(upscaler=tmp_path / "ours", nope=tmp_path).check("up")

    def test_weights_of_another_kind(self, tmp_path: Path) -> None:
        torch.save({"params_ema": {"stylegan_decoder.x": torch.ones(1)}}, tmp_path / "face.pth")
        with pytest.raises(WeightsError, match="holds a GFPGAN"):
            UpscaleExecutor.load({"upscaler": tmp_path / "face.pth"}, "cpu")


def test_weights_that_give_no_numbers(upscaler: UpscaleExecutor) -> None:
    upscaler.model.body[0].bias.fill_(torch.nan)  # type: ignore[union-attr, index]
    with pytest.raises(FailureError, match="not finite"):
        upscale(upscaler, from_pixels(noise()))


def test_too_little_memory_says_what_helps(upscaler: UpscaleExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> Callable[..., Any]:
        raise torch.OutOfMemoryError

    monkeypatch.setattr("dalle_flow.models.tiling.Enlargement._tile", full)
    with pytest.raises(FailureError, match="cpu has not enough memory for a tile; make tiles smaller"):
        upscale(upscaler, from_pixels(noise()))


def test_a_picture_of_16_bits_is_given_back_as_one(upscaler: UpscaleExecutor) -> None:
    (found,) = upscale(upscaler, from_pixels(noise(dtype=np.uint16)))
    assert isinstance(found, DeepPicture)


def test_the_embedded_upscaler_is_sharper_than_bicubic(embedded: Path) -> None:
    """A disc, drawn large, made small, and made large again."""
    executor = UpscaleExecutor.load({"upscaler": embedded / "upscale"}, "cpu")
    drawn = np.full((512, 512, 3), 230, np.uint8)
    y, x = np.mgrid[:512, :512]
    drawn[(x - 240) ** 2 + (y - 266) ** 2 < 160**2] = (200, 40, 30)
    picture = Image.fromarray(drawn).reduce(4)
    large, small = np.asarray(picture, float), picture.reduce(4)
    ours = to_pixels(upscale(executor, small)[0]).astype(float)
    bicubic = np.asarray(small.resize((128, 128), Image.Resampling.BICUBIC), float)
    assert np.square(ours - large).mean() < 0.75 * np.square(bicubic - large).mean()


@pytest.mark.parametrize(("name", "least"), [("rrdb", 2), ("swinir", 4)])
def test_tiles_smaller_than_the_network_s_grid_are_refused_where_they_would_show(name: str, least: int) -> None:
    """They were once made larger without a word."""
    executor, picture = UpscaleExecutor(made(name), "test"), from_pixels(noise(20, 20))
    with pytest.raises(OptionError, match=f"at least {least} for this network"):
        upscale(executor, picture, tile=1, tile_overlap=0)
    upscale(executor, picture, tile=least, tile_overlap=0)
