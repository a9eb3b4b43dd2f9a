"""Archives: what is unpacked, and what is refused."""

import hashlib
import io
import itertools
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from engines.errors import ConfigurationError
from graphs.archive import folder_of, unpack

CONTENT = {"det.onnx": b"detector" * 100, "deep/er/rec.onnx": b"recognizer", "empty.txt": b""}


def zip_of(path: Path, *members: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def tar_of(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:bz2" if path.name.endswith("bz2") else "w:gz") as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def zip_member(name: str, kind: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = (kind | 0o644) << 16
    return info


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "out"
    made.mkdir()
    return made


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz", "a.tgz", "a.tar.bz2"])
def test_unpacks_files_and_tells_their_checksums(name: str, tmp_path: Path, folder: Path) -> None:
    if name.endswith(".zip"):
        archive = zip_of(tmp_path / name, ("deep/", b""), *CONTENT.items())
    else:
        files = [(member(path), content) for path, content in CONTENT.items()]
        archive = tar_of(tmp_path / name, (member("./deep", tarfile.DIRTYPE), b""), *files)
    sums = unpack(archive, folder)
    assert sums == {path: hashlib.sha256(content).hexdigest() for path, content in CONTENT.items()}
    assert {path: (folder / path).read_bytes() for path in CONTENT} == CONTENT
    assert all(stat.S_IMODE((folder / path).stat().st_mode) & 0o111 == 0 for path in CONTENT)


@pytest.mark.parametrize(
    ("filename", "folder_name"),
    [
        ("buffalo_l.zip", "buffalo_l"),
        ("voices/amy.low.tar.gz", "voices/amy.low"),
        ("v.tar.bz2", "v"),
        ("det.onnx", None),
        (".zip", None),
    ],
)
def test_folder_is_named_after_the_archive(filename: str, folder_name: str | None) -> None:
    assert folder_of(filename) == folder_name


EVIL = ["../evil", "a/../../evil", "/evil", "..\\evil", "a\nb", ".."]


@pytest.mark.parametrize("name", EVIL)
@pytest.mark.parametrize("suffix", ["zip", "tar.gz"])
def test_paths_that_lead_outside_are_refused(name: str, suffix: str, tmp_path: Path, folder: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    archive = zip_of(path, (name, b"x")) if suffix == "zip" else tar_of(path, (member(name), b"x"))
    with pytest.raises(
        ConfigurationError, match=r"a\.(zip|tar\.gz) was not unpacked: the path .* leads outside"
    ):
        unpack(archive, folder)
    assert not any(folder.iterdir())
    assert sorted(found.name for found in tmp_path.iterdir()) == sorted([path.name, "out"])


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        (tarfile.SYMTYPE, "/etc/passwd"),
        (tarfile.SYMTYPE, "../../outside"),
        (tarfile.LNKTYPE, "/etc/passwd"),
        (tarfile.CHRTYPE, ""),
        (tarfile.BLKTYPE, ""),
        (tarfile.FIFOTYPE, ""),
    ],
)
def test_links_and_devices_of_a_tar_are_refused(
    kind: bytes, target: str, tmp_path: Path, folder: Path
) -> None:
    archive = tar_of(tmp_path / "a.tar.gz", (member("link", kind, target), b""))
    with pytest.raises(ConfigurationError, match="'link' is a link or a device"):
        unpack(archive, folder)
    assert not any(folder.iterdir())


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
def test_links_and_devices_of_a_zip_are_refused(kind: int, tmp_path: Path, folder: Path) -> None:
    archive = zip_of(tmp_path / "a.zip", (zip_member("link", kind), b"/etc/passwd"))
    with pytest.raises(ConfigurationError, match="'link' is a link or a device"):
        unpack(archive, folder)
    assert not any(folder.iterdir())


def test_a_file_through_a_link_of_the_same_archive_stays_inside(tmp_path: Path, folder: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    link = member("way", tarfile.SYMTYPE, str(outside))
    archive = tar_of(tmp_path / "a.tar.gz", (link, b""), (member("way/evil"), b"x"))
    with pytest.raises(ConfigurationError, match="link"):
        unpack(archive, folder)
    assert not any(outside.iterdir())


@pytest.mark.parametrize("suffix", ["zip", "tar.gz", "tar.bz2"])
def test_a_bomb_stops_at_the_limit(suffix: str, tmp_path: Path, folder: Path) -> None:
    zeros, path = bytes(8 * 2**20), tmp_path / f"a.{suffix}"
    archive = zip_of(path, ("0", zeros)) if suffix == "zip" else tar_of(path, (member("0"), zeros))
    assert archive.stat().st_size < 2**16
    with pytest.raises(ConfigurationError, match="larger than the limit"):
        unpack(archive, folder, max_bytes=3 * 2**20)
    assert sum(found.stat().st_size for found in folder.iterdir()) <= 3 * 2**20


def test_the_limit_counts_all_files_together(tmp_path: Path, folder: Path) -> None:
    archive = zip_of(tmp_path / "a.zip", ("a", bytes(600)), ("b", bytes(600)))
    with pytest.raises(ConfigurationError, match="larger than the limit"):
        unpack(archive, folder, max_bytes=1000)
    archive = zip_of(tmp_path / "b.zip", ("c", bytes(600)), ("d", bytes(400)))
    assert set(unpack(archive, folder, max_bytes=1000)) == {"c", "d"}


def test_too_many_members_are_refused(tmp_path: Path, folder: Path) -> None:
    members = [(member(f"d{number}", tarfile.DIRTYPE), b"") for number in range(12)]
    with pytest.raises(ConfigurationError, match="more than 11 files"):
        unpack(tar_of(tmp_path / "a.tar.gz", *members), folder, max_members=11)
    assert unpack(tar_of(tmp_path / "b.tar.gz", *members), folder, max_members=12) == {}


@pytest.mark.parametrize("names", [("a", "a"), ("a", "./a"), ("a", "a/b"), ("a/b", "a")])
def test_the_same_path_twice_is_refused(names: tuple[str, str], tmp_path: Path, folder: Path) -> None:
    archive = tar_of(tmp_path / "a.tar.gz", *((member(name), b"x") for name in names))
    with pytest.raises(ConfigurationError, match="twice"):
        unpack(archive, folder)


def broken_middle(data: bytes) -> bytes:
    half = len(data) // 2
    return data[:half] + bytes(byte ^ 0x5A for byte in data[half : half + 40]) + data[half + 40 :]


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def no_archive(_: bytes) -> bytes:
    return b"<html>sign in first</html>"


@pytest.mark.parametrize("damage", [broken_middle, cut, no_archive])
@pytest.mark.parametrize("suffix", ["zip", "tar.gz", "tar.bz2"])
def test_a_damaged_archive_is_told(
    suffix: str, damage: Callable[[bytes], bytes], tmp_path: Path, folder: Path
) -> None:
    noise = b"".join(hashlib.sha256(bytes([number])).digest() for number in range(256)) * 4
    path = tmp_path / f"a.{suffix}"
    archive = zip_of(path, ("n", noise)) if suffix == "zip" else tar_of(path, (member("n"), noise))
    archive.write_bytes(damage(archive.read_bytes()))
    with pytest.raises(ConfigurationError, match=r"was not unpacked: it is damaged"):
        unpack(archive, folder)


@pytest.mark.parametrize("suffix", ["zip", "tar.gz", "tar.bz2"])
def test_a_changed_byte_anywhere_is_no_crash(suffix: str, tmp_path: Path, folder: Path) -> None:
    path, noise = tmp_path / f"a.{suffix}", hashlib.sha256(b"n").digest() * 20
    archive = zip_of(path, ("dé/n", noise)) if suffix == "zip" else tar_of(path, (member("dé/n"), noise))
    whole, refusals = archive.read_bytes(), list[str]()
    for place, change in itertools.product(range(len(whole)), (0x01, 0x80)):
        archive.write_bytes(whole[:place] + bytes([whole[place] ^ change]) + whole[place + 1 :])
        out = folder / f"{place}-{change}"
        out.mkdir()
        try:
            unpack(archive, out, max_bytes=2**16)
        except ConfigurationError as refusal:
            refusals.append(refusal.message)
    assert len(refusals) > len(whole) // 10
    assert all(message.startswith(f"{path.name} was not unpacked: ") for message in refusals)


def test_a_bzip2_stream_that_breaks_late_is_told(tmp_path: Path, folder: Path) -> None:
    noise = b"".join(hashlib.sha256(number.to_bytes(4, "big")).digest() for number in range(60_000))
    archive = tar_of(tmp_path / "a.tar.bz2", (member("n"), noise))
    data = archive.read_bytes()
    archive.write_bytes(data[:-200_000] + bytes(100) + data[-199_900:])
    with pytest.raises(ConfigurationError, match="it is damaged"):
        unpack(archive, folder)


def test_an_encrypted_zip_is_told(tmp_path: Path, folder: Path) -> None:
    archive = zip_of(tmp_path / "a.zip", ("n", b"content"))
    data = bytearray(archive.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    data[6] |= 1
    archive.write_bytes(data)
    with pytest.raises(ConfigurationError, match="'n' is encrypted"):
        unpack(archive, folder)


def test_a_name_too_long_for_the_disk_is_an_error_of_the_disk(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(OSError, match="File name too long"):
        unpack(zip_of(tmp_path / "a.zip", ("n" * 300, b"x")), folder)
