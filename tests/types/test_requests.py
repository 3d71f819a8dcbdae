"""Requests refuse what cannot be done, each with the field that is wrong."""

import dataclasses
from typing import Any

import pytest
from PIL import Image

from dalle_flow.errors import DalleFlowError, OptionError, PictureError
from dalle_flow.types import (
    MAX_IMAGES,
    MAX_PROMPT_CHARACTERS,
    MAX_SEED,
    GenerateRequest,
    InpaintRequest,
    InterpolateRequest,
    RefineRequest,
    Request,
    RoundKind,
    SegmentRequest,
    UpscaleRequest,
)

PICTURE = Image.new("RGB", (4, 3), "red")
HOLE = Image.new("RGBA", (4, 3), (255, 0, 0, 255))
HOLE.putpixel((1, 1), (0, 0, 0, 0))
WHITE = Image.new("L", (4, 3), 255)

ALL: dict[type[Request], dict[str, Any]] = {
    GenerateRequest: {"prompt": "a cat"},
    RefineRequest: {"picture": PICTURE, "prompt": "a cat"},
    InpaintRequest: {"picture": PICTURE, "prompt": "a cat", "mask": WHITE},
    InterpolateRequest: {"prompt": "a cat", "prompt_to": "a dog"},
    UpscaleRequest: {"picture": PICTURE},
    SegmentRequest: {"picture": PICTURE, "prompt": "a cat"},
}


class TestGenerateRequest:
    def test_is_frozen(self) -> None:
        with pytest.raises(dataclasses.FrozenInstanceError):
            GenerateRequest("a cat").seed = 3  # type: ignore[misc]

    def test_takes_the_limits(self) -> None:
        GenerateRequest("x" * MAX_PROMPT_CHARACTERS, MAX_IMAGES, MAX_SEED - MAX_IMAGES)

    @pytest.mark.parametrize(
        ("values", "field", "allowed"),
        [
            ({"prompt": ""}, "prompt", "empty"),
            ({"prompt": " \n\t\u3000"}, "prompt", "empty"),
            ({"prompt": "x" * 10_000}, "prompt", str(MAX_PROMPT_CHARACTERS)),
            ({"num_images": 0}, "num_images", "1 to 1000, got 0"),
            ({"num_images": -1}, "num_images", "1 to 1000, got -1"),
            ({"num_images": 5000}, "num_images", "1 to 1000, got 5000"),
            ({"seed": -1}, "seed", "0 to"),
            ({"seed": MAX_SEED}, "seed", "0 to"),
            ({"prompt": "half a letter \ud800"}, "prompt", "Unicode"),
            ({"executors": ("dalle", "dalle")}, "executors", "'dalle' twice"),
        ],
    )
    def test_refuses(self, values: dict[str, Any], field: str, allowed: str) -> None:
        with pytest.raises(OptionError, match=allowed) as caught:
            GenerateRequest(**{"prompt": "a cat", **values})
        assert caught.value.field == field


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"prompt": None}, "prompt"),
        ({"num_images": 2.5}, "num_images"),
        ({"num_images": True}, "num_images"),
        ({"seed": 1.5}, "seed"),
        ({"executors": "dalle"}, "executors"),
    ],
)
def test_a_request_of_the_wrong_types_is_refused(values: dict[str, object], field: str) -> None:
    with pytest.raises(OptionError) as caught:
        GenerateRequest(**{"prompt": "a cat", **values})  # type: ignore[arg-type]
    assert caught.value.field == field


def test_there_is_a_request_for_every_kind_of_round() -> None:
    assert {cls.kind for cls in ALL} == set(RoundKind)


@pytest.mark.parametrize("cls", ALL)
class TestEveryRequest:
    def test_names_its_executors(self, cls: type[Request]) -> None:
        made = cls(**ALL[cls])
        assert made.named == ()
        done = made.done_by(("dalle",), {"dalle": {"top_k": 3}})
        assert done.named == ("dalle",)
        assert done.options_by_name(("dalle",)) == {"dalle": {"top_k": 3}}
        assert done.done_by(("dalle",), {"dalle": {"top_k": 9, "x": 1}}).options_by_name(("dalle",)) == {
            "dalle": {"top_k": 3, "x": 1}
        }

    def test_refuses_executors_of_another_type(self, cls: type[Request]) -> None:
        several = "executors" in {f.name for f in dataclasses.fields(cls)}
        with pytest.raises(OptionError, match="executor"):
            cls(**ALL[cls], **({"executors": ["dalle"]} if several else {"executor": 3}))


@pytest.mark.parametrize("cls", ALL)
@pytest.mark.parametrize("wrong", [" ", 3, "x" * 3000, "\ud800"])
def test_refuses_prompts(cls: type[Request], wrong: object) -> None:
    with pytest.raises(OptionError) as caught:
        cls(**{**ALL[cls], "prompt": wrong})
    assert caught.value.field == "prompt"


@pytest.mark.parametrize("cls", [cls for cls, values in ALL.items() if "picture" in values])
@pytest.mark.parametrize("wrong", [None, "picture.png", b"", Image.new("RGB", (0, 3))])
def test_refuses_what_is_no_picture(cls: type[Request], wrong: object) -> None:
    with pytest.raises(OptionError) as caught:
        cls(**{**ALL[cls], "picture": wrong})
    assert caught.value.field == "picture"


class TestInpaintRequest:
    def test_what_is_transparent_is_made_new(self) -> None:
        part = InpaintRequest(HOLE, "a cat").part
        assert part.mode == "L"
        assert [part.getpixel((x, 1)) for x in range(4)] == [0, 255, 0, 0]

    def test_a_mask_goes_before_transparency(self) -> None:
        assert InpaintRequest(HOLE, "a cat", WHITE).part is WHITE

    @pytest.mark.parametrize(
        ("picture", "mask", "message"),
        [
            (PICTURE, None, "no part of the picture is transparent; give a mask"),
            (HOLE.convert("RGB").convert("RGBA"), None, "no part of the picture is transparent"),
            (PICTURE, Image.new("L", (3, 4), 255), "the mask is 3 x 4 and the picture 4 x 3"),
            (PICTURE, Image.new("L", (4, 3), 0), "nothing to make new"),
            (PICTURE, Image.new("L", (4, 3), 127), "nothing to make new"),
            (Image.new("RGBA", (4, 3), (0, 0, 0, 200)), None, "no pixel of the picture is transparent enough"),
            (PICTURE, HOLE, "the mask is transparent in places"),
            (PICTURE, "mask.png", "mask must be a PIL picture"),
        ],
    )
    def test_refuses(self, picture: Image.Image, mask: Any, message: str) -> None:
        with pytest.raises(DalleFlowError, match=message) as caught:
            InpaintRequest(picture, "a cat", mask)
        assert isinstance(caught.value, OptionError | PictureError)
        assert caught.value.field == "mask"


def test_the_second_prompt_is_named_when_it_is_wrong() -> None:
    with pytest.raises(OptionError, match="the second prompt is empty") as caught:
        InterpolateRequest("a cat", " ")
    assert caught.value.field == "prompt_to"
