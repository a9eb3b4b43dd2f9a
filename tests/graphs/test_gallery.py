"""The gallery that ships, and what is said of a wrong one."""

import hashlib
import io
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from engines.errors import ConfigurationError
from graphs.archive import folder_of
from graphs.download import checksum
from graphs.gallery import GALLERY, Entry, load
from graphs.models import install
from graphs.settings import read_model_file

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared"
YUNET = SHARED / "models/face/yunet/face_detection_yunet_2023mar.onnx"
PACKS = ("buffalo-l", "buffalo-m", "buffalo-s", "buffalo-sc", "antelopev2")
ENGINES = {f"insightface-{pack}": "insightface" for pack in PACKS} | {
    "insightface-opencv": "opencv-zoo",
    "insightface-opencv-int8": "opencv-zoo",
}
VOICES = {"speechbrain-ecapa-tdnn": "speechbrain", "wespeaker-resnet34": "wespeaker"}


def entry(**changes: Any) -> dict[str, Any]:
    """An entry with some keys changed; None leaves a key out."""
    file = {"filename": "net.onnx", "uri": "https://example.org/net.onnx", "sha256": "0" * 64}
    whole = {
        "name": "net",
        "license": "apache-2.0",
        "commercial": True,
        "backend": "fake",
        "known_usecases": ["face_recognition"],
        "options": ["det_thresh:0.5"],
        "files": [file],
    } | changes
    return {key: value for key, value in whole.items() if value is not None}


def written(tmp_path: Path, data: object) -> Path:
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def shipped() -> dict[str, Entry]:
    return load()


def test_the_gallery_lies_in_the_config_directory() -> None:
    assert Path(__file__).resolve().parents[2] / "config" / "gallery.yaml" == GALLERY


def test_the_shipped_gallery_has_every_face_and_voice_model(shipped: dict[str, Entry]) -> None:
    assert [name for name in shipped if not is_piper(shipped[name])] == [*ENGINES, *VOICES]


def is_piper(one: Entry) -> bool:
    return one.backend == "piper"


def test_the_shipped_gallery_has_every_voice_of_piper(shipped: dict[str, Entry], tmp_path: Path) -> None:
    voices = {name: one for name, one in shipped.items() if is_piper(one)}
    assert len(voices) == 80
    assert sum(name.startswith("voice-") for name in voices) == 56
    for name, one in voices.items():
        model = read_model_file(written(tmp_path, one.document()))
        assert (model.name, model.engine, model.capability) == (name, "piper", "tts")
        (file,) = one.files
        folder, *_, weights = Path(model.parameters.model).parts
        assert folder == folder_of(file.filename)
        assert weights.endswith(".onnx")
        assert file.uri.endswith(f"/{file.filename}")
    assert {one.license for one in voices.values() if not one.commercial} == {"cc-by-nc-sa-4.0", "other"}


def test_an_installed_voice_of_piper_is_one_that_serves(
    shipped: dict[str, Entry], origin: Any, tmp_path: Path
) -> None:
    """The archive holds NAME.onnx and NAME.onnx.json, as those of the releases do."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for name in ("./it-riccardo_fasol-x-low.onnx", "./it-riccardo_fasol-x-low.onnx.json"):
            info = tarfile.TarInfo(name)
            info.size = 2
            tar.addfile(info, io.BytesIO(b"{}"))
    entry = shipped["voice-it-riccardo_fasol-x-low"]
    (file,) = entry.files
    resource = origin.put(f"/{file.filename}", archive.getvalue())
    digest = hashlib.sha256(archive.getvalue()).hexdigest()
    local = file.model_copy(update={"uri": resource.url, "sha256": digest})
    path = install(entry.model_copy(update={"files": (local,)}), tmp_path)
    model = read_model_file(path)
    assert (tmp_path / model.parameters.model).is_file()
    assert (tmp_path / f"{model.parameters.model}.json").is_file()


@pytest.mark.parametrize("name", VOICES)
def test_every_shipped_voice_is_localais_entry(name: str, shipped: dict[str, Entry], tmp_path: Path) -> None:
    model = read_model_file(written(tmp_path, shipped[name].document()))
    assert (model.name, model.engine, model.capability) == (name, VOICES[name], "voice")
    assert model.backend == "speaker-recognition"
    assert model.known_usecases == ("speaker_recognition",)
    assert model.options.get("model_path", "") == "".join(file.filename for file in model.files)
    assert shipped[name].commercial


@pytest.mark.parametrize("name", ENGINES)
def test_every_shipped_entry_makes_a_model_file(name: str, shipped: dict[str, Entry], tmp_path: Path) -> None:
    path = written(tmp_path, shipped[name].document())
    document, model = yaml.safe_load(path.read_text()), read_model_file(path)
    keys = {"name", "backend", "known_usecases", "parameters", "options", "files", "license", "description"}
    assert set(document) == keys
    assert (model.name, model.engine, model.capability) == (name, ENGINES[name], "face")
    assert document["backend"] == "insightface"
    assert document["known_usecases"] == ["face_recognition"]
    assert document["options"] == list(shipped[name].options)


@pytest.mark.parametrize("name", ENGINES)
def test_every_shipped_entry_brings_liveness_and_what_its_options_name(
    name: str, shipped: dict[str, Entry]
) -> None:
    files = {file.filename for file in shipped[name].files}
    options = dict(option.split(":", 1) for option in shipped[name].options)
    assert {options["antispoof_v2_onnx"], options["antispoof_v1se_onnx"]} <= files
    named = {value for key, value in options.items() if key.endswith("_onnx")}
    pack = {f"{options['model_pack']}.zip"} if "model_pack" in options else set()
    assert files == named | pack
    assert all(
        file.uri.startswith("https://") and file.uri.endswith(file.filename) for file in shipped[name].files
    )


def test_of_the_face_models_only_opencvs_are_for_commercial_use(shipped: dict[str, Entry]) -> None:
    assert {name for name in ENGINES if shipped[name].commercial} == {
        "insightface-opencv",
        "insightface-opencv-int8",
    }
    assert {shipped[name].license for name in ENGINES if not shipped[name].commercial} == {
        "insightface-non-commercial"
    }


def test_the_checksum_of_yunet_is_that_of_the_real_file(shipped: dict[str, Entry]) -> None:
    if not YUNET.is_file():
        pytest.skip("the shared test data is not there")
    sums = {file.filename: file.sha256 for file in shipped["insightface-opencv"].files}
    assert sums["face_detection_yunet_2023mar.onnx"] == checksum(YUNET)


def test_checksums_are_those_of_localais_gallery(shipped: dict[str, Entry]) -> None:
    facts = SHARED / "reference" / "localai.md"
    if not facts.is_file():
        pytest.skip("the shared test data is not there")
    lines = [line for line in facts.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    told = [file for entry in shipped.values() for file in entry.files]
    assert len(told) > 80
    assert not [
        file.filename
        for file in told
        if not any(file.sha256 in line and Path(file.filename).name in line for line in lines)
    ]


def test_a_gallery_of_ones_own(tmp_path: Path) -> None:
    found = load(written(tmp_path, [entry(), entry(name="other", size="1 MB", commercial=False)]))
    assert list(found) == ["net", "other"]
    assert (found["other"].size, found["other"].commercial) == ("1 MB", False)
    assert "size" not in found["other"].document()


FILE = {"filename": "net.onnx", "uri": "https://example.org/net.onnx", "sha256": "0" * 64}


@pytest.mark.parametrize(
    ("changes", "key", "problem"),
    [
        ({"licence": "mit"}, "licence", "unknown key"),
        ({"license": None}, "license", "required"),
        ({"license": ""}, "license", "at least 1"),
        ({"commercial": None}, "commercial", "required"),
        ({"backend": "no-such-engine"}, "backend", "unknown backend 'no-such-engine'; known backends"),
        ({"name": "a/b"}, "name", "should match pattern"),
        ({"options": ["no colon"]}, "options", "not of the form key:value"),
        ({"files": [FILE, FILE]}, "files", "net.onnx is there twice"),
        ({"files": [FILE | {"sha1": "0"}]}, "files.0.sha1", "unknown key"),
        ({"files": [FILE | {"sha256": "0" * 63}]}, "files.0.sha256", "should match pattern"),
        ({"files": [FILE | {"sha256": "A" * 64}]}, "files.0.sha256", "should match pattern"),
        ({"files": [FILE | {"uri": "ftp://example.org/x"}]}, "files.0.uri", "not understood"),
        ({"files": [FILE | {"filename": "../net.onnx"}]}, "files.0.filename", "no path inside"),
        ({"files": [FILE | {"filename": "/etc/net.onnx"}]}, "files.0.filename", "no path inside"),
        ({"files": [FILE | {"filename": "a/../../b"}]}, "files.0.filename", "no path inside"),
        ({"files": [FILE | {"filename": ".lock"}]}, "files.0.filename", "no path inside"),
        ({"files": [FILE | {"filename": ""}]}, "files.0.filename", "no path inside"),
        ({"files": [FILE | {"filename": "net.yaml"}]}, "files.0.filename", "taken for a model file"),
        ({"files": [FILE | {"filename": "net.part"}]}, "files.0.filename", "taken for a model file"),
    ],
)
def test_a_wrong_entry_is_told_by_file_entry_and_key(
    changes: dict[str, Any], key: str, problem: str, tmp_path: Path
) -> None:
    path = written(tmp_path, [entry(name="good"), entry(**changes)])
    with pytest.raises(ConfigurationError) as caught:
        load(path)
    assert caught.value.message.startswith(f"{path}: entry {changes.get('name', 'net')}: ")
    assert key in caught.value.message
    assert problem in caught.value.message


def test_an_entry_without_a_name_is_told_by_its_number(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"entry number 2: name: .*required"):
        load(written(tmp_path, [entry(), entry(name=None)]))
    with pytest.raises(ConfigurationError, match=r"entry number 1: the file: .*dictionary"):
        load(written(tmp_path, ["net"]))


def test_two_entries_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="two entries are named net; rename one of them"):
        load(written(tmp_path, [entry(), entry()]))


@pytest.mark.parametrize("content", [b"{", b"name: net", b"", b"\xff\xfe\x00"])
def test_a_file_that_is_no_gallery_is_told(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"own\.yaml: (not readable as YAML|a gallery is a list)"):
        load(path)


def test_a_gallery_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"none\.yaml: not readable"):
        load(tmp_path / "none.yaml")


def test_the_document_names_every_model_and_its_example_gallery_loads(tmp_path: Path) -> None:
    text = (GALLERY.parent.parent / "docs" / "models.md").read_text(encoding="utf-8")
    assert "80 voices of piper" in text
    for name, one in load().items():
        if is_piper(one):
            continue
        (row,) = [line for line in text.splitlines() if line.startswith(f"| {name} |")]
        assert row.endswith("| yes |" if one.commercial else "| no |")
    model, own = (block.partition("```")[0] for block in text.split("```yaml\n")[1:])
    (tmp_path / "model.yaml").write_text(model)
    assert read_model_file(tmp_path / "model.yaml").engine == "insightface"
    (tmp_path / "own.yaml").write_text(own)
    assert list(load(tmp_path / "own.yaml")) == ["our-faces"]
