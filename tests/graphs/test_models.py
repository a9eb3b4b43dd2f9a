"""Installing and removing models, from mirrors and from made-up galleries."""

import functools
import hashlib
import io
import shutil
import subprocess
import threading
import zipfile
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from engines.errors import ConfigurationError
from engines.face.insightface_pack import InsightfacePack
from engines.types import EngineOptions
from graphs.download import Reporter
from graphs.gallery import Entry
from graphs.models import DEFAULT_MODELS_DIR, install, installed, remove
from graphs.settings import read_model_file

MINI = Path(__file__).resolve().parents[2] / ".." / "shared/models/face/insightface/models/mini"
NOWHERE = "http://127.0.0.1:9/"
"""A port that nothing listens on: whatever asks it fails."""


class Heard(Reporter):
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.fetched: dict[str, tuple[int, int | None]] = {}

    def message(self, line: str) -> None:
        self.lines.append(line)

    def progress(self, name: str, done: int, total: int | None) -> None:
        self.fetched[name] = done, total


class Quiet(SimpleHTTPRequestHandler):
    """Serves a directory."""

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    path = tmp_path / "mirror"
    path.mkdir()
    return path


@pytest.fixture
def mirror_url(mirror: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=mirror)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    return tmp_path / "models"


def zipped(**files: bytes) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name.replace("__", "/"), data)
    return content.getvalue()


def entry(name: str, files: dict[str, bytes], **more: Any) -> Entry:
    listed = [
        {"filename": path, "uri": f"{NOWHERE}{path}", "sha256": hashlib.sha256(content).hexdigest()}
        for path, content in files.items()
    ]
    whole = {
        "name": name,
        "license": "apache-2.0",
        "commercial": True,
        "backend": "fake",
        "known_usecases": ["face_recognition"],
        "files": listed,
    }
    return Entry.model_validate(whole | more)


def fill(mirror: Path, files: dict[str, bytes], *, by_sum: bool = False) -> None:
    for path, content in files.items():
        name = hashlib.sha256(content).hexdigest() if by_sum else Path(path).name
        (mirror / name).write_bytes(content)


def tree(folder: Path) -> list[str]:
    """Files of the models directory, without the lock."""
    return sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.name != ".lock"
    )


NETS = {"det.onnx": b"detector", "voices/rec.onnx": b"recognizer"}
PACK = {"pack.zip": zipped(a=b"first", deep__b=b"second"), "live.onnx": b"liveness"}


def test_an_installed_model_is_localais_yaml(models_dir: Path, mirror: Path) -> None:
    fill(mirror, NETS)
    options = ["engine:fake", "det_thresh:0.5"]
    one = entry("net", NETS, options=options, parameters={"model": "det.onnx"}, description="d", size="1 MB")
    path = install(one, models_dir, mirror=str(mirror))
    assert yaml.safe_load(path.read_text()) == {
        "name": "net",
        "backend": "fake",
        "known_usecases": ["face_recognition"],
        "parameters": {"model": "det.onnx"},
        "options": options,
        "files": [file.model_dump() for file in one.files],
        "license": "apache-2.0",
        "description": "d",
    }
    assert installed(models_dir) == {models_dir / "net.yaml": read_model_file(path)}
    assert {name: (models_dir / name).read_bytes() for name in NETS} == NETS
    assert tree(models_dir) == ["det.onnx", "net.yaml", "voices/rec.onnx"]


def test_an_archive_is_unpacked_into_a_folder_of_its_name(models_dir: Path, mirror: Path) -> None:
    fill(mirror, PACK)
    install(entry("net", PACK), models_dir, mirror=str(mirror))
    assert tree(models_dir) == [".unpacked/pack.zip.json", "live.onnx", "net.yaml", "pack/a", "pack/deep/b"]
    assert (models_dir / "pack/deep/b").read_bytes() == b"second"


def test_installing_again_fetches_nothing(models_dir: Path, mirror: Path) -> None:
    fill(mirror, PACK)
    install(entry("net", PACK), models_dir, mirror=str(mirror))
    heard = Heard()
    install(entry("net", PACK), models_dir, report=heard)
    assert heard.lines == ["pack.zip: in place", "live.onnx: in place", "net.yaml: in place"]
    assert heard.fetched == {}


@pytest.mark.parametrize("damaged", ["live.onnx", "pack/a", "pack/deep/b"])
@pytest.mark.parametrize("missing", [True, False])
def test_installing_again_mends_what_is_damaged(
    damaged: str, missing: bool, models_dir: Path, mirror: Path
) -> None:
    fill(mirror, PACK)
    install(entry("net", PACK), models_dir, mirror=str(mirror))
    before = {name: (models_dir / name).read_bytes() for name in tree(models_dir)}
    if missing:
        (models_dir / damaged).unlink()
    else:
        (models_dir / damaged).write_bytes(b"flipped")
    heard = Heard()
    install(entry("net", PACK), models_dir, mirror=str(mirror), report=heard)
    assert {name: (models_dir / name).read_bytes() for name in tree(models_dir)} == before
    assert set(heard.fetched) == {"live.onnx" if damaged == "live.onnx" else "pack.zip"}


def test_another_version_of_an_archive_replaces_the_folder(models_dir: Path, mirror: Path) -> None:
    fill(mirror, PACK)
    install(entry("net", PACK), models_dir, mirror=str(mirror))
    newer = {"pack.zip": zipped(c=b"third")}
    fill(mirror, newer)
    install(entry("net", newer), models_dir, mirror=str(mirror))
    assert [name for name in tree(models_dir) if name.startswith("pack/")] == ["pack/c"]


def test_a_folder_of_somebody_else_is_left_alone(models_dir: Path, mirror: Path) -> None:
    fill(mirror, PACK)
    (models_dir / "pack").mkdir(parents=True)
    (models_dir / "pack/mine").write_bytes(b"mine")
    with pytest.raises(ConfigurationError, match="move it away and install again"):
        install(entry("net", PACK), models_dir, mirror=str(mirror))
    assert installed(models_dir) == {}
    assert (models_dir / "pack/mine").read_bytes() == b"mine"
    shutil.rmtree(models_dir / "pack")
    install(entry("net", PACK), models_dir, mirror=str(mirror))
    assert "pack/a" in tree(models_dir)


def test_what_a_killed_unpacking_left_is_cleared(models_dir: Path, mirror: Path) -> None:
    fill(mirror, PACK)
    left = models_dir / ".unpacking-abc" / "fresh"
    left.mkdir(parents=True)
    (left / "a").write_bytes(b"fir")
    install(entry("net", PACK), models_dir, mirror=str(mirror))
    assert not left.parent.exists()


def test_an_evil_archive_leaves_nothing_listed(models_dir: Path, mirror: Path) -> None:
    evil = {"pack.zip": zipped(ok=b"fine", **{"..__..__evil": b"x"})}
    fill(mirror, evil)
    with pytest.raises(ConfigurationError, match="leads outside"):
        install(entry("net", evil), models_dir, mirror=str(mirror))
    assert tree(models_dir) == ["pack.zip"]
    assert not list(models_dir.glob(".unpacking-*"))


def test_an_edited_model_file_stays_as_it_is(models_dir: Path, mirror: Path) -> None:
    fill(mirror, NETS)
    path = install(entry("net", NETS), models_dir, mirror=str(mirror))
    path = path.rename(path.with_name("mine.yaml"))
    text = path.read_text() + "deployment: {detector: {num_cpus: 2}}\n"
    path.write_text(text)
    assert install(entry("net", NETS), models_dir) == path
    assert path.read_text() == text
    assert tree(models_dir) == ["det.onnx", "mine.yaml", "voices/rec.onnx"]


def test_a_file_name_taken_by_another_model_is_told_before_the_download(models_dir: Path) -> None:
    models_dir.mkdir()
    (models_dir / "net.yaml").write_text("{name: other, backend: fake}")
    with pytest.raises(ConfigurationError, match="names its model 'other'; rename that file"):
        install(entry("net", NETS), models_dir)


def test_a_licence_without_commercial_use_must_be_accepted(models_dir: Path, mirror: Path) -> None:
    fill(mirror, NETS)
    one = entry("net", NETS, license="research-only-1.0", commercial=False)
    with pytest.raises(ConfigurationError, match=r"research-only-1\.0 .* --accept-license"):
        install(one, models_dir, mirror=str(mirror))
    assert not models_dir.exists()
    install(one, models_dir, mirror=str(mirror), accept_license=True)
    assert [model.license for model in installed(models_dir).values()] == ["research-only-1.0"]


@pytest.mark.parametrize("by_sum", [False, True])
@pytest.mark.parametrize("kind", ["directory", "file URL", "http"])
def test_a_mirror_has_files_by_name_or_checksum(
    kind: str, by_sum: bool, models_dir: Path, mirror: Path, mirror_url: str
) -> None:
    fill(mirror, NETS, by_sum=by_sum)
    place = {"directory": str(mirror), "file URL": mirror.as_uri(), "http": f"{mirror_url}?token=1"}[kind]
    install(entry("net", NETS), models_dir, mirror=place)
    assert {name: (models_dir / name).read_bytes() for name in NETS} == NETS


def test_a_mirror_may_keep_the_folders_of_the_models_directory(models_dir: Path, mirror: Path) -> None:
    for path, content in NETS.items():
        (mirror / path).parent.mkdir(exist_ok=True)
        (mirror / path).write_bytes(content)
    install(entry("net", NETS), models_dir, mirror=str(mirror))
    assert {name: (models_dir / name).read_bytes() for name in NETS} == NETS


@pytest.mark.parametrize("kind", ["directory", "http"])
def test_what_a_mirror_lacks_is_not_taken_from_elsewhere(
    kind: str, models_dir: Path, mirror: Path, mirror_url: str
) -> None:
    fill(mirror, {"det.onnx": NETS["det.onnx"]})
    place = str(mirror) if kind == "directory" else f"{mirror_url}?token=secret"
    (mirror / "elsewhere").write_bytes(NETS["voices/rec.onnx"])
    one = entry("net", NETS)
    files = [file.model_copy(update={"uri": (mirror / "elsewhere").as_uri()}) for file in one.files]
    with pytest.raises(ConfigurationError, match=r"the mirror .* has no file of that name") as caught:
        install(one.model_copy(update={"files": tuple(files)}), models_dir, mirror=place)
    assert "secret" not in caught.value.message
    assert installed(models_dir) == {}


def test_a_mirror_with_wrong_bytes_is_told(models_dir: Path, mirror: Path) -> None:
    fill(mirror, {"det.onnx": b"something else"})
    with pytest.raises(ConfigurationError, match=r"det\.onnx: wrong checksum"):
        install(entry("net", NETS), models_dir, mirror=str(mirror))
    assert tree(models_dir) == []


def test_without_a_mirror_the_source_of_the_gallery_is_asked(models_dir: Path) -> None:
    with pytest.raises(ConfigurationError, match=rf"det\.onnx: {NOWHERE}det\.onnx: "):
        install(entry("net", NETS), models_dir)
    assert installed(models_dir) == {}


def test_removing_keeps_what_other_models_name(models_dir: Path, mirror: Path) -> None:
    other = {"other.zip": zipped(z=b"zz"), "live.onnx": PACK["live.onnx"]}
    fill(mirror, PACK | other)
    install(entry("one", PACK), models_dir, mirror=str(mirror))
    install(entry("two", other), models_dir, mirror=str(mirror))
    removed = remove("one", models_dir)
    assert removed == [models_dir / name for name in ("one.yaml", "pack/a", "pack/deep/b")]
    assert tree(models_dir) == [".unpacked/other.zip.json", "live.onnx", "other/z", "two.yaml"]
    assert not (models_dir / "pack").exists()
    remove("two", models_dir)
    assert [path.name for path in models_dir.iterdir()] == [".lock"]


@pytest.mark.parametrize(
    "words",
    [
        {"options": ["model_pack:pack", "recognizer_onnx:live.onnx"]},
        {"options": ["detector_onnx:pack/a"], "parameters": {"model": "live.onnx"}},
    ],
)
def test_removing_keeps_what_a_dropped_in_model_names_in_its_options(
    words: dict[str, Any], models_dir: Path, mirror: Path
) -> None:
    fill(mirror, PACK)
    install(entry("one", PACK), models_dir, mirror=str(mirror))
    (models_dir / "own.yaml").write_text(yaml.safe_dump({"name": "own", "backend": "fake"} | words))
    assert remove("one", models_dir) == [models_dir / "one.yaml"]
    assert {"pack/a", "pack/deep/b", "live.onnx"} <= set(tree(models_dir))


def test_removing_keeps_what_somebody_put_into_the_folder(models_dir: Path, mirror: Path) -> None:
    fill(mirror, PACK)
    install(entry("one", PACK), models_dir, mirror=str(mirror))
    (models_dir / "pack/notes.txt").write_text("mine")
    remove("one", models_dir)
    assert tree(models_dir) == ["pack/notes.txt"]


def test_removing_touches_nothing_outside(models_dir: Path, tmp_path: Path) -> None:
    models_dir.mkdir()
    outside = tmp_path / "precious"
    outside.write_text("precious")
    files = [{"filename": "../precious"}, {"filename": str(outside)}]
    (models_dir / "evil.yaml").write_text(yaml.safe_dump({"name": "evil", "backend": "fake", "files": files}))
    assert remove("evil", models_dir) == [models_dir / "evil.yaml"]
    assert outside.read_text() == "precious"


def test_removing_what_is_not_installed_is_told(models_dir: Path, mirror: Path) -> None:
    with pytest.raises(ConfigurationError, match="does not exist"):
        remove("net", models_dir)
    fill(mirror, NETS)
    install(entry("net", NETS), models_dir, mirror=str(mirror))
    with pytest.raises(ConfigurationError, match=r"no model 'nett' is installed in .*; installed: net"):
        remove("nett", models_dir)
    assert len(tree(models_dir)) == 3


def test_a_models_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match=r"file/models: Not a directory"):
        install(entry("net", NETS), tmp_path / "file" / "models")


def test_the_default_directory_is_in_the_home() -> None:
    assert Path.home() / ".presence" / "models" == DEFAULT_MODELS_DIR


def test_a_disk_that_fills_while_unpacking_keeps_the_archive_only(small_disk: Path, mirror: Path) -> None:
    large = {"pack.zip": zipped(a=bytes(2**20))}
    fill(mirror, large)
    with pytest.raises(ConfigurationError, match="the disk is full"):
        install(entry("net", large), small_disk, mirror=str(mirror))
    assert tree(small_disk) == ["pack.zip"]
    assert not list(small_disk.glob(".unpacking-*"))
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    install(entry("net", large), small_disk)
    assert tree(small_disk) == [".unpacked/pack.zip.json", "net.yaml", "pack/a"]


def test_the_engine_finds_an_installed_pack(models_dir: Path, mirror: Path) -> None:
    if not MINI.is_dir():
        pytest.skip("the shared test data is not there")
    pack = {"mini.zip": zipped(**{path.name: path.read_bytes() for path in MINI.iterdir()})}
    fill(mirror, pack)
    names = ["detector_onnx:det_500m_bnkps.onnx", "recognizer_onnx:w_mobilefacenet_128d.onnx"]
    options = ["engine:insightface", "model_pack:mini", *names]
    install(entry("mini", pack, backend="insightface", options=options), models_dir, mirror=str(mirror))
    (model,) = installed(models_dir).values()
    engine = InsightfacePack(EngineOptions(model.parameters.model, model.options, models_dir))
    assert [path.parent for path in engine.weights()] == [models_dir / "mini"] * 2
    assert all(path.read_bytes() == (MINI / path.name).read_bytes() for path in engine.weights())
