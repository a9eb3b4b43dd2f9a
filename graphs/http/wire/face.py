"""Requests and responses of the face routes: LocalAI's fields and rules of presence."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from engines.types import Box
from graphs.http.wire.registrations import Age, Enrolment, ModelRequest, Probe, Threshold

Picture = Annotated[str, Field(description="URL, data URI or base64 of a picture")]


class VerifyRequest(ModelRequest):
    """Two pictures to compare."""

    img1: Picture
    img2: Picture
    threshold: Threshold | None = None
    anti_spoofing: bool = Field(False, description="also check that both faces are alive")


class Region(BaseModel):
    """A rectangle inside the picture, in pixels: top-left corner and size."""

    x: float
    y: float
    w: float
    h: float

    @classmethod
    def of(cls, box: Box) -> "Region":
        """From the engines' box."""
        return cls(x=box.x, y=box.y, w=box.w, h=box.h)


class VerifyResponse(BaseModel):
    """The verdict. The liveness fields are there only when anti_spoofing was asked for."""

    verified: bool
    distance: float = Field(description="cosine distance, 0..2")
    threshold: float = Field(description="the threshold that was used")
    confidence: float = Field(description="0..100; 0 at the threshold and beyond")
    model: str
    img1_area: Region
    img2_area: Region
    img1_is_real: bool | None = None
    img1_antispoof_score: float | None = Field(None, description="probability of a living face, 0..1")
    img2_is_real: bool | None = None
    img2_antispoof_score: float | None = None
    processing_time_ms: float


class AnalyzeRequest(ModelRequest):
    """A picture whose faces are to be described."""

    img: Picture
    actions: list[Literal["age", "gender", "emotion", "race"]] = Field(
        default_factory=list, max_length=16, description="what to compute; empty: all that the model supports"
    )
    anti_spoofing: bool = Field(False, description="also check that each face is alive")


class FaceReport(BaseModel):
    """One face. Fields that the model cannot tell, or that were not asked for, are absent."""

    region: Region
    face_confidence: float = Field(description="the detector's score, 0..1")
    age: Age = None
    dominant_gender: str | None = None
    gender: dict[str, float] | None = None
    dominant_emotion: str | None = None
    emotion: dict[str, float] | None = None
    is_real: bool | None = None
    antispoof_score: float | None = None


class AnalyzeResponse(BaseModel):
    """Every face, best score first; empty when there is none."""

    faces: list[FaceReport]


class EmbedRequest(ModelRequest):
    """A picture whose meant face is to be embedded."""

    img: Picture


class EmbedResponse(BaseModel):
    """The L2-normalised embedding."""

    embedding: list[float]
    dim: int
    model: str


class RegisterRequest(Enrolment):
    """A face to enrol."""

    img: Picture


class IdentifyRequest(Probe):
    """A face to look for among the registrations made with the same model."""

    img: Picture


class DetectionRequest(ModelRequest):
    """A picture to find faces in. prompt, points and boxes belong to other detectors."""

    image: Picture
    threshold: float | None = Field(None, ge=0, le=1, description="least score; 0 or absent: the model's own")
    prompt: str = ""
    points: list[float] = Field(default_factory=list)
    boxes: list[float] = Field(default_factory=list)


class Detection(BaseModel):
    """One face: top-left corner and size in pixels."""

    x: float
    y: float
    width: float
    height: float
    class_name: Literal["face"] = "face"
    confidence: float


class DetectionResponse(BaseModel):
    """Every face, best score first; empty when there is none."""

    detections: list[Detection]
