"""What answers leave out, and what requests do not guess."""

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from graphs.http.wire.face import DetectionRequest, FaceReport, IdentifyRequest, Region, VerifyRequest
from graphs.http.wire.stores import FindRequest, SetRequest
from graphs.http.wire.voice import VoiceSegment

REGION = Region(x=0, y=0, w=1, h=1)


@pytest.mark.parametrize(("years", "told"), [(0.0, None), (None, None), (0.5, 0.5), (41.0, 41.0)])
def test_an_age_of_nothing_is_left_out(years: float | None, told: float | None) -> None:
    face = FaceReport(region=REGION, face_confidence=1, age=years)
    voice = VoiceSegment(start=0, end=1, age=years)
    for report in (face, voice):
        assert report.age == told
        assert ("age" in report.model_dump(exclude_none=True)) == (told is not None)


PICTURES = {"img1": "a", "img2": "b"}


@pytest.mark.parametrize(
    ("kind", "given", "field", "values"),
    [
        (VerifyRequest, PICTURES, "threshold", [True, "0.5", "1e-3", [0.5]]),
        (VerifyRequest, PICTURES, "anti_spoofing", ["no", "true", 1, 0]),
        (DetectionRequest, {"image": "a"}, "threshold", [True, "0.5"]),
        (IdentifyRequest, {"img": "a"}, "top_k", [True, "5", 5.5]),
        (IdentifyRequest, {"img": "a"}, "best_per_name", ["yes", 1]),
        (FindRequest, {"key": [1.0]}, "topk", [True, "1"]),
        (SetRequest, {"values": ["a"]}, "keys", [[[True]], [["1"]]]),
    ],
    ids=lambda value: value if isinstance(value, str) else getattr(value, "__name__", ""),
)
def test_a_value_of_another_type_is_refused(
    kind: type[BaseModel], given: dict[str, Any], field: str, values: list[object]
) -> None:
    for value in values:
        with pytest.raises(ValidationError):
            kind.model_validate({**given, field: value})


@pytest.mark.parametrize("threshold", [1, 0, 0.5, None])
def test_a_whole_number_is_a_threshold_too(threshold: float | None) -> None:
    assert VerifyRequest.model_validate({**PICTURES, "threshold": threshold}).threshold == threshold
