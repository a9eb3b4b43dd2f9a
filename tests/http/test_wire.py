"""What answers leave out."""

import pytest

from graphs.http.wire.face import FaceReport, Region
from graphs.http.wire.voice import VoiceSegment

REGION = Region(x=0, y=0, w=1, h=1)


@pytest.mark.parametrize(("years", "told"), [(0.0, None), (None, None), (0.5, 0.5), (41.0, 41.0)])
def test_an_age_of_nothing_is_left_out(years: float | None, told: float | None) -> None:
    face = FaceReport(region=REGION, face_confidence=1, age=years)
    voice = VoiceSegment(start=0, end=1, age=years)
    for report in (face, voice):
        assert report.age == told
        assert ("age" in report.model_dump(exclude_none=True)) == (told is not None)
