"""A round is JSON for machines and a sheet for people."""

import json

import pytest
from PIL import Image

from dalle_flow.types import (
    Candidate,
    GenerateRequest,
    InpaintRequest,
    InterpolateRequest,
    Recipe,
    RefineRequest,
    Request,
    Round,
    RoundKind,
    Score,
    SegmentRequest,
    UpscaleRequest,
    picture_id,
)

RECIPE = Recipe("dalle", "0123abcd", "a cat", 7, {"top_k": 64}, versions={"torch": "2.13.0"})
PICTURE = Image.new("RGB", (3, 2), "red")


def test_a_round_is_json() -> None:
    candidate = Candidate("f00d", PICTURE, RECIPE, Score(0.25, 0.5))
    finished = Round("abcd", GenerateRequest("a cat", 1, 7), (candidate,), "rank", ("careful",))
    data = json.loads(json.dumps(finished.to_dict()))
    assert data["kind"] == "generate"
    assert data["candidates"][0]["score"] == {"cosine": 0.25, "probability": 0.5}
    assert Recipe(**data["candidates"][0]["recipe"]) == RECIPE
    assert data["request"]["prompt"] == "a cat"


@pytest.mark.parametrize(
    "request_",
    [
        GenerateRequest("a cat", executors=("dalle",), options={"dalle": {"top_k": 3}}),
        RefineRequest(PICTURE, "a cat"),
        InpaintRequest(PICTURE, "a cat", Image.new("L", (3, 2), 255)),
        InterpolateRequest("a cat", "a dog"),
        UpscaleRequest(PICTURE),
        SegmentRequest(PICTURE, "the cat"),
    ],
)
def test_every_request_is_json_with_ids_for_pictures(request_: Request) -> None:
    data = json.loads(json.dumps(Round("abcd", request_, ()).to_dict()))
    assert data["kind"] == data["request"]["kind"] == request_.kind
    assert RoundKind(data["kind"]) is request_.kind
    if request_.kind not in (RoundKind.GENERATE, RoundKind.INTERPOLATE):
        assert data["request"]["picture"] == picture_id(PICTURE)
    if request_.kind is RoundKind.INPAINT:
        assert data["request"]["mask"] == picture_id(Image.new("L", (3, 2), 255))
    if request_.kind is RoundKind.GENERATE:
        assert data["request"]["options"] == {"dalle": {"top_k": 3}}
        assert data["request"]["executors"] == ["dalle"]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_a_round_shows_its_sheet_in_a_notebook(mode: str) -> None:
    candidate = Candidate("f00d", Image.new(mode, (3, 2)), RECIPE)
    png = Round("abcd", GenerateRequest("a cat"), (candidate,))._repr_png_()
    assert png.startswith(b"\x89PNG\r\n")
