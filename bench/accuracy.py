"""How well each face engine tells people apart, and how fast: `python -m bench.accuracy`.

The data is a directory with one folder a person. Every pair of pictures is compared once.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from engines import registry
from engines.face import Detector, FaceEngine
from engines.image import decode
from engines.types import Box, EngineOptions, Face, Image, Runtime
from engines.verification import Accuracy, accuracy, all_pairs

SHARED = Path(__file__).resolve().parents[1] / ".." / "shared"
SELECTIONS: dict[str, Callable[[Face], float]] = {
    "largest": lambda face: face.box.area,
    "score": lambda face: face.score,
}


@dataclass(frozen=True, slots=True)
class Case:
    """An engine with its options. enlarge: scale each picture to this many pixels before detection."""

    name: str
    engine: str
    options: EngineOptions
    enlarge: int | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the report. detect_ms: a picture; embed_ms: a face."""

    engine: str
    selection: str
    pictures: int
    no_face: int
    detect_ms: float
    embed_ms: float
    accuracy: Accuracy


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture, and the name of the person whom it shows."""

    person: str
    image: Image


def pictures(data: Path) -> list[Picture]:
    """Every picture of every folder."""
    paths = sorted(path for path in data.glob("*/*") if path.suffix.lower() in {".jpg", ".jpeg", ".png"})
    return [Picture(path.parent.name, decode(path.read_bytes())) for path in paths]


def cases(models: Path, sface: Path | None) -> Iterator[Case]:
    """Every engine whose weights are at hand."""
    yield Case("dlib-resnet", "dlib-resnet", EngineOptions())
    root = models / "face" / "insightface"
    if root.is_dir():
        mini = {
            "model_pack": "mini",
            "detector_onnx": "det_500m_bnkps.onnx",
            "recognizer_onnx": "w_mobilefacenet_128d.onnx",
        }
        yield Case("insightface mini", "insightface", EngineOptions(options=mini, models_dir=root))
        yield Case("insightface mini, 640", "insightface", EngineOptions(options=mini, models_dir=root), 640)
    if sface is not None:
        yunet = models / "face" / "yunet" / "face_detection_yunet_2023mar.onnx"
        files = {"detector_onnx": str(yunet.resolve()), "recognizer_onnx": str(sface.resolve())}
        yield Case("opencv-zoo", "opencv-zoo", EngineOptions(options=files))


def measure(case: Case, gallery: Sequence[Picture], threads: int) -> Iterator[Row]:
    """One row for each way to choose among several faces."""
    engine: FaceEngine = registry.load("face", case.engine)(case.options)
    detector = engine.load_detector(Runtime(threads))
    recognizer = engine.load_recognizer(Runtime(threads))
    detector.detect(gallery[0].image)  # the first call allocates
    start = perf_counter()
    found = [_detect(detector, one.image, case.enlarge) for one in gallery]
    detect_ms = _milliseconds(start) / len(gallery)
    for selection, weight in SELECTIONS.items():
        chosen = [(one, max(faces, key=weight)) for one, faces in zip(gallery, found, strict=True) if faces]
        crops = [engine.align(one.image, face) for one, face in chosen]
        start = perf_counter()
        embeddings = np.concatenate([recognizer.embed([crop]) for crop in crops])
        embed_ms = _milliseconds(start) / len(crops)
        pairs = all_pairs(embeddings, [one.person for one, _ in chosen])
        yield Row(
            engine=case.name,
            selection=selection,
            pictures=len(gallery),
            no_face=len(gallery) - len(chosen),
            detect_ms=detect_ms,
            embed_ms=embed_ms,
            accuracy=accuracy(pairs, engine.verify_threshold),
        )


def _detect(detector: Detector, image: Image, enlarge: int | None) -> list[Face]:
    """Faces in the pixels of the picture, also where detection sees it enlarged."""
    if enlarge is None:
        return detector.detect(image)
    factor = enlarge / max(image.shape[:2])
    large = cv2.resize(image, None, fx=factor, fy=factor)
    return [
        replace(
            face,
            box=Box(face.box.x / factor, face.box.y / factor, face.box.w / factor, face.box.h / factor),
            landmarks=(face.landmarks / factor).astype(np.float32),
            drawn=None,
        )
        for face in detector.detect(np.asarray(large, np.uint8))
    ]


def _milliseconds(start: float) -> float:
    return (perf_counter() - start) * 1000


def table(rows: Sequence[Row]) -> Table:
    """The report for people."""
    made = Table(title="Face verification, all pairs")
    for name in ("engine", "face chosen", "no face"):
        made.add_column(name, no_wrap=True)
    for name in ("EER", "best accuracy", "at distance", "default accuracy", "at distance"):
        made.add_column(name, justify="right")
    for name in ("TAR at default", "FAR at default", "TAR at FAR 1 %", "detect ms", "embed ms"):
        made.add_column(name, justify="right")
    for row in rows:
        found = row.accuracy
        made.add_row(
            row.engine,
            row.selection,
            f"{row.no_face} of {row.pictures}",
            f"{found.eer:.2%}",
            f"{found.best_accuracy:.2%}",
            f"{found.best_threshold:.3f}",
            f"{found.accuracy:.2%}",
            f"{found.threshold:.3f}",
            f"{found.tar:.2%}",
            f"{found.far:.2%}",
            f"{found.tar_at_far_1:.2%}",
            f"{row.detect_ms:.1f}",
            f"{row.embed_ms:.1f}",
        )
    return made


def main() -> None:
    """Measures, prints, and writes the figures where asked."""
    parser = argparse.ArgumentParser(prog="python -m bench.accuracy", description=__doc__)
    parser.add_argument("--data", type=Path, default=SHARED / "media" / "faces" / "lfw")
    parser.add_argument("--models", type=Path, default=SHARED / "models", help="where face/ lies")
    parser.add_argument("--sface", type=Path, help="SFace's ONNX file: adds opencv-zoo to the report")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads for one inference")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    given = parser.parse_args()
    gallery = pictures(given.data)
    if not gallery:
        parser.error(f"no pictures in {given.data}: one folder a person is expected")
    rows = [row for case in cases(given.models, given.sface) for row in measure(case, gallery, given.threads)]
    Console(width=200).print(table(rows))
    if given.json is not None:
        given.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")


if __name__ == "__main__":
    main()
