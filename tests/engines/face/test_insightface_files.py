"""Which files, threshold and dimension an InsightFace pack has, and where it is looked up."""

from pathlib import Path

import pytest

from engines.errors import ConfigurationError, NothingComputable
from engines.face.insightface_pack import InsightfacePack
from engines.types import EngineOptions, Runtime


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.mark.parametrize(
    ("pack", "files", "threshold"),
    [
        ("buffalo_l", ["det_10g.onnx", "w600k_r50.onnx", "genderage.onnx"], 0.35),
        ("buffalo_m", ["det_2.5g.onnx", "w600k_r50.onnx", "genderage.onnx"], 0.35),
        ("buffalo_s", ["det_500m.onnx", "w600k_mbf.onnx", "genderage.onnx"], 0.40),
        ("buffalo_sc", ["det_500m.onnx", "w600k_mbf.onnx"], 0.40),
        ("antelopev2", ["scrfd_10g_bnkps.onnx", "glintr100.onnx", "genderage.onnx"], 0.35),
    ],
)
def test_a_known_pack_needs_no_more_than_its_name(
    tmp_path: Path, pack: str, files: list[str], threshold: float
) -> None:
    engine = InsightfacePack(EngineOptions(options={"model_pack": pack}, models_dir=tmp_path))
    assert engine.weights() == [tmp_path / pack / name for name in files]
    assert engine.verify_threshold == threshold
    assert engine.dim == 512
    assert engine.has_attributes is (len(files) == 3)


@pytest.mark.parametrize(
    ("model", "options", "pack"),
    [
        ("", {}, "buffalo_l"),
        ("buffalo_s", {}, "buffalo_s"),
        ("insightface-antelopev2", {}, "antelopev2"),
        ("insightface-buffalo-m", {}, "buffalo_m"),
        ("insightface-buffalo-l", {"model_pack": "buffalo_sc"}, "buffalo_sc"),
    ],
)
def test_the_pack_is_named_by_the_option_or_the_model(model: str, options: dict[str, str], pack: str) -> None:
    assert InsightfacePack(EngineOptions(model, options)).pack_name == pack


@pytest.mark.parametrize("place", ["buffalo_sc", "models/buffalo_sc", ".", "buffalo_sc/buffalo_sc"])
def test_a_pack_is_found_in_each_usual_place(tmp_path: Path, place: str) -> None:
    touch(tmp_path / place / "det_500m.onnx", tmp_path / place / "w600k_mbf.onnx")
    engine = InsightfacePack(EngineOptions(options={"model_pack": "buffalo_sc"}, models_dir=tmp_path))
    assert engine.weights() == [tmp_path / place / "det_500m.onnx", tmp_path / place / "w600k_mbf.onnx"]


@pytest.mark.parametrize("place", ["buffalo_sc", "models/buffalo_sc", "."])
def test_a_pack_is_found_under_another_root(tmp_path: Path, place: str) -> None:
    other = tmp_path / "elsewhere"
    touch(other / place / "det_500m.onnx", other / place / "w600k_mbf.onnx")
    options = {"model_pack": "buffalo_sc", "root": str(other)}
    engine = InsightfacePack(EngineOptions(options=options, models_dir=tmp_path / "models"))
    assert engine.weights() == [other / place / "det_500m.onnx", other / place / "w600k_mbf.onnx"]


def test_the_models_directory_comes_before_the_other_root(tmp_path: Path) -> None:
    for place in ("here", "there"):
        touch(tmp_path / place / "det_500m.onnx", tmp_path / place / "w600k_mbf.onnx")
    options = {"model_pack": "buffalo_sc", "root": str(tmp_path / "there")}
    engine = InsightfacePack(EngineOptions(options=options, models_dir=tmp_path / "here"))
    assert engine.weights()[0] == tmp_path / "here" / "det_500m.onnx"


def test_a_pack_is_never_a_mixture_of_two_folders(tmp_path: Path) -> None:
    touch(
        tmp_path / "genderage.onnx",
        tmp_path / "buffalo_s/det_500m.onnx",
        tmp_path / "buffalo_s/w600k_mbf.onnx",
    )
    engine = InsightfacePack(EngineOptions(options={"model_pack": "buffalo_s"}, models_dir=tmp_path))
    assert {path.parent for path in engine.weights()} == {tmp_path / "buffalo_s"}


@pytest.mark.parametrize("given", [{}, {"detector_onnx": "a.onnx"}, {"recognizer_onnx": "b.onnx"}])
def test_a_pack_of_ones_own_needs_its_files_named(given: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match=r"'mine'.*buffalo_l.*detector_onnx and recognizer_onnx"):
        InsightfacePack(EngineOptions(options={"model_pack": "mine"} | given))


def test_a_pack_of_ones_own(tmp_path: Path) -> None:
    given = {"model_pack": "mine", "detector_onnx": "a.onnx", "recognizer_onnx": "b.onnx"}
    engine = InsightfacePack(EngineOptions(options=given, models_dir=tmp_path))
    assert engine.weights() == [tmp_path / "mine/a.onnx", tmp_path / "mine/b.onnx"]
    assert engine.dim is None
    assert not engine.has_attributes
    with pytest.raises(NothingComputable, match="genderage_onnx"):
        engine.load_attributes(Runtime())


def test_an_explicit_file_replaces_one_of_a_known_pack(tmp_path: Path) -> None:
    given = {"model_pack": "buffalo_l", "recognizer_onnx": "own.onnx"}
    engine = InsightfacePack(EngineOptions(options=given, models_dir=tmp_path))
    assert [path.name for path in engine.weights()] == ["det_10g.onnx", "own.onnx", "genderage.onnx"]
    assert engine.dim is None


def test_thresholds_are_read() -> None:
    engine = InsightfacePack(EngineOptions(options={"verify_threshold": "0.3", "det_thresh": "0.6"}))
    assert (engine.verify_threshold, engine.det_thresh) == (0.3, 0.6)
