"""InsightFace model packs: SCRFD, ArcFace and the gender and age head.

The preprocessing is the library's own: its model classes read it off each network. The packs are for
non-commercial research. Source: https://github.com/deepinsight/insightface/tree/master/model_zoo
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from engines import onnx
from engines.embedding import unit_rows
from engines.errors import ConfigurationError, NothingComputable
from engines.face.alignment import arcface_crop, square_crop
from engines.face.detection import Size, faces, shrink
from engines.options import number, size
from engines.types import Demographics, Embeddings, EngineOptions, Face, Image, Runtime

ARCFACE_THRESHOLD = 0.35
MOBILEFACENET_THRESHOLD = 0.40
STEP = 32


@dataclass(frozen=True, slots=True)
class Pack:
    """The files of a pack, and the cosine distance that tells two people apart by its recognizer."""

    detector: str
    recognizer: str
    genderage: str | None = "genderage.onnx"
    threshold: float = ARCFACE_THRESHOLD
    dim: int | None = 512


PACKS = {
    "buffalo_l": Pack("det_10g.onnx", "w600k_r50.onnx"),
    "buffalo_m": Pack("det_2.5g.onnx", "w600k_r50.onnx"),
    "buffalo_s": Pack("det_500m.onnx", "w600k_mbf.onnx", threshold=MOBILEFACENET_THRESHOLD),
    "buffalo_sc": Pack("det_500m.onnx", "w600k_mbf.onnx", None, MOBILEFACENET_THRESHOLD),
    "antelopev2": Pack("scrfd_10g_bnkps.onnx", "glintr100.onnx"),
}


class InsightfacePack:
    """The engine: options, files, and its parts."""

    known_options: ClassVar[dict[str, str]] = {
        "model_pack": f"{', '.join(PACKS)} or a pack of your own; buffalo_l",
        "root": "another directory where packs are looked up",
        "detector_onnx": "the detector's file in the pack; needed for a pack of your own",
        "recognizer_onnx": "the recognizer's file in the pack; needed for a pack of your own",
        "genderage_onnx": "the gender and age file in the pack",
        "det_size": "WxH: larger pictures are scaled down to this before detection, others are kept; 640x640",
        "det_thresh": "least detection score, 0 to 1; 0.5",
        "verify_threshold": "cosine distance below which two faces are one person; 0.35, MobileFaceNet 0.40",
    }

    def __init__(self, options: EngineOptions) -> None:
        self.pack_name = options.options.get("model_pack") or _pack_name(options.model)
        pack = _pack(self.pack_name, options.options)
        self.dim = pack.dim
        self.has_attributes = pack.genderage is not None
        self.verify_threshold = number(options, "verify_threshold", pack.threshold, 0, 2)
        self.det_size = size(options, "det_size", (640, 640))
        self.det_thresh = number(options, "det_thresh", 0.5, 0, 1)
        names = [name for name in (pack.detector, pack.recognizer, pack.genderage) if name]
        self._files = _find(_folders(self.pack_name, options), names)

    def weights(self) -> list[Path]:
        """Detector, recognizer and, where the pack has it, the gender and age head."""
        return list(self._files)

    def load_detector(self, runtime: Runtime) -> "Scrfd":
        """SCRFD on the GPU or the CPU."""
        return Scrfd(self._files[0], self.det_size, self.det_thresh, runtime)

    def load_recognizer(self, runtime: Runtime) -> "ArcFace":
        """ArcFace on the GPU or the CPU."""
        return ArcFace(self._files[1], runtime)

    def load_attributes(self, runtime: Runtime) -> "GenderAge":
        """Raises NothingComputable where the pack has no such head."""
        if not self.has_attributes:
            raise NothingComputable(f"pack {self.pack_name} has no gender and age head; set genderage_onnx")
        return GenderAge(self._files[2], runtime)

    def align(self, image: Image, face: Face) -> Image:
        """112x112, equal to the library's norm_crop."""
        return arcface_crop(image, face.landmarks)

    def attribute_crops(self, image: Image, face: Face) -> tuple[Image, ...]:
        """96x96 pixels around the face, one and a half times its longer side."""
        return (square_crop(image, face.outline, 96, 1.5),) if self.has_attributes else ()


def _pack_name(model: str) -> str:
    """The pack that `parameters.model` names, as in buffalo_s and insightface-buffalo-s."""
    name = model.removeprefix("insightface-")
    known = name.replace("-", "_")
    return known if known in PACKS else name or "buffalo_l"


def _pack(name: str, options: dict[str, str]) -> Pack:
    """The known pack of that name, or one made of the explicit files, which win where both exist."""
    base = PACKS.get(name, Pack("", "", None, dim=None))
    own = options.get("recognizer_onnx")
    pack = replace(
        base,
        detector=options.get("detector_onnx") or base.detector,
        recognizer=own or base.recognizer,
        genderage=options.get("genderage_onnx") or base.genderage,
        dim=None if own else base.dim,
    )
    if not (pack.detector and pack.recognizer):
        raise ConfigurationError(
            f"model_pack {name!r} is none of {', '.join(PACKS)}: "
            "a pack of your own needs the options detector_onnx and recognizer_onnx"
        )
    return pack


def _folders(pack: str, options: EngineOptions) -> list[Path]:
    """Where the pack may lie, in order of preference. Some archives unpack into a folder of their own."""
    here = options.models_dir
    folders = [here / pack, here / "models" / pack, here, here / pack / pack]
    if root := options.options.get("root"):
        there = here / Path(root).expanduser()
        folders += [there / pack, there / "models" / pack, there]
    return folders


def _find(folders: list[Path], names: list[str]) -> list[Path]:
    """The files in the folder that holds most of them: never a mixture of two packs."""
    folder = max(folders, key=lambda place: sum((place / name).is_file() for name in names))
    return [folder / name for name in names]


class Scrfd:
    """The detector. Source: SCRFD, https://arxiv.org/abs/2105.04714

    Threads share it without a lock: ONNX Runtime allows it, and the library's two caches (anchor centres,
    the session of each input size) are filled once a key under the interpreter lock.
    """

    def __init__(self, path: Path, bound: Size, threshold: float, runtime: Runtime) -> None:
        from insightface.model_zoo.scrfd import SCRFD  # noqa: PLC0415 - takes over a second

        # Without this the library builds one more session, with its memory, for each input size.
        self._net: Any = SCRFD(session=onnx.session(path, runtime), static_shape_sessions=False)
        if not self._net.use_kps:
            raise ConfigurationError(f"{path} finds no landmarks: a detector with key points is needed")
        self._bound: Size = self._net.static_input_size or bound
        self._threshold = threshold

    def detect(self, image: Image, threshold: float | None = None) -> list[Face]:
        """Faces with 5 landmarks: eyes, nose, corners of the mouth; left in the picture first."""
        small, scale = shrink(image, self._bound)
        least = self._threshold if threshold is None else threshold
        scores, boxes, points = (
            np.concatenate(part) for part in self._net.forward(self._canvas(small), least)
        )
        table = np.hstack([boxes, scores]).astype(np.float32)
        keep = self._net.nms(table)
        picture = image.shape[1], image.shape[0]
        return faces(table[keep, :4], table[keep, 4], points[keep], scale, picture)

    def _canvas(self, image: Image) -> Image:
        """The picture at the top left of a black one whose sides are multiples of 32.

        The library's own `detect` would scale some sizes down by one row, where width * (height / width)
        is rounded below the height.
        """
        height, width = image.shape[:2]
        across, down = self._net.static_input_size or (-(-width // STEP) * STEP, -(-height // STEP) * STEP)
        canvas = np.zeros((down, across, 3), np.uint8)
        canvas[:height, :width] = image
        return canvas


class ArcFace:
    """The recognizer. Source: ArcFace, https://arxiv.org/abs/1801.07698"""

    def __init__(self, path: Path, runtime: Runtime) -> None:
        from insightface.model_zoo.arcface_onnx import ArcFaceONNX  # noqa: PLC0415 - takes over a second

        self._net: Any = ArcFaceONNX(str(path), onnx.session(path, runtime))

    def embed(self, crops: Sequence[Image]) -> Embeddings:
        """Shape (len(crops), dim)."""
        if not crops:
            return np.empty((0, self._net.output_shape[1]), np.float32)
        return unit_rows(_run(self._net, crops))


class GenderAge:
    """Age in years, and gender as LocalAI tells it: 1.0 for the likelier of Man and Woman."""

    def __init__(self, path: Path, runtime: Runtime) -> None:
        from insightface.model_zoo.attribute import Attribute  # noqa: PLC0415 - takes over a second

        self._net: Any = Attribute(str(path), onnx.session(path, runtime))
        if self._net.taskname != "genderage":
            raise ConfigurationError(f"{path} is no gender and age head: it has not 3 outputs")

    def analyze(self, crops: Sequence[tuple[Image, ...]]) -> list[Demographics]:
        """Of the three numbers for each face, two weigh woman and man, the third is age / 100."""
        if not crops:
            return []
        return [_demographics(row) for row in _run(self._net, [crop for (crop,) in crops])]


def _demographics(row: NDArray[np.float32]) -> Demographics:
    man = float(np.argmax(row[:2]))
    age = min(max(float(row[2]) * 100, 0.0), 100.0)
    return Demographics(age=age, gender={"Man": man, "Woman": 1.0 - man})


def _run(model: Any, crops: Sequence[Image]) -> NDArray[np.float32]:
    """The model's session on all crops, prepared as its class found in the graph."""
    mean = (model.input_mean,) * 3
    blob = cv2.dnn.blobFromImages(list(crops), 1 / model.input_std, model.input_size, mean, swapRB=True)
    return onnx.run(model.session, np.asarray(blob, np.float32))
