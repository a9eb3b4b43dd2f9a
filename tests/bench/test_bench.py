"""How a run is put together: pictures, requests, sums over rounds, the service's configuration."""

import base64
import json
import os
import subprocess
import sys
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # ships no types
import pytest

from bench.__main__ import CONCURRENCIES, KINDS, Point, carried
from bench.engine import Loop
from bench.face import photographs
from bench.load import Load
from bench.service import Service, kind, model_entries, write_config
from bench.voice import recordings
from engines.audio import decode
from graphs.serve_config import application_args, read_config

ROOT = Path(__file__).resolve().parents[2]


def test_pictures_come_from_a_package_where_there_is_no_test_data(tmp_path: Path) -> None:
    assert [one[:4] for one in photographs(tmp_path)] == [b"\x89PNG", b"\xff\xd8\xff\xe0"]


def test_pictures_come_from_the_test_data(shared: Path) -> None:
    assert len(photographs(shared)) == 20


def test_verify_carries_two_pictures_and_the_others_one() -> None:
    assert carried("verify", [b"a", b"b", b"c"]) == ((b"a", b"c"), (b"b", b"a"), (b"c", b"b"))
    assert carried("embed", [b"a", b"b"]) == ((b"a",), (b"b",))


def test_recordings_are_of_many_speakers_or_noise(shared: Path, tmp_path: Path) -> None:
    clips = recordings(shared)
    assert len(clips) == len(set(clips)) == 20
    noise = recordings(tmp_path)
    assert [round(decode(clip, 16_000, 300).seconds) for clip in noise] == [3, 6, 9, 12]


@pytest.mark.parametrize(
    ("noun", "route", "names"),
    [
        ("face", "verify", ["img1", "img2"]),
        ("face", "analyze", ["img"]),
        ("voice", "verify", ["audio1", "audio2"]),
        ("voice", "embed", ["audio"]),
    ],
)
def test_requests_carry_the_samples_as_base64(noun: str, route: str, names: list[str]) -> None:
    [request] = KINDS[noun].encoded("mini", route, [(b"one", b"two")[: len(names)]])
    head, _, body = request.partition(b"\r\n\r\n")
    sent = json.loads(body)
    assert head.startswith(f"POST /v1/{noun}/{route} HTTP/1.1".encode())
    assert sent.pop("model") == "mini"
    assert {name: base64.b64decode(value) for name, value in sent.items()} == dict(
        zip(names, (b"one", b"two"), strict=False)
    )


def test_rounds_are_summed() -> None:
    point = Point("m", "verify")
    point.alone = [Loop((10.0, 30.0), 4, 0.04, 0.03), Loop((20.0,), 2, 0.02, 0.03)]
    point.together = [[Loop((20.0,) * 10, 20, 1.0, 0.2)] * 2, [Loop((20.0,) * 20, 40, 1.0, 0.4)] * 2]
    point.loads = {8: [Load((1.0, 2.0), {"503": 1}, 0.5, 0.1), Load((3.0,), {}, 1.5, 0.1)]}
    point.cpu = {8: [{"Gateway": 0.1, "idle": 0.0}, {"Gateway": 0.1, "haproxy": 0.2}]}
    bare, [row] = point.bare(), point.served()
    assert (bare.median_ms, bare.processes, bare.requests) == (20.0, 2, 63)
    assert bare.requests_per_s == pytest.approx(30)
    assert bare.items_per_s == pytest.approx(60)
    assert bare.cpu_ms == pytest.approx(20)
    assert bare.cores == pytest.approx(0.6)
    assert bare.quiet is False
    assert row.cores == pytest.approx(0.3)
    assert (row.concurrency, row.requests, row.errors) == (8, 3, {"503": 1})
    assert row.requests_per_s == pytest.approx(1.5)
    assert row.items_per_s == pytest.approx(3)
    assert (row.p50_ms, row.p95_ms) == (2.0, 3.0)
    assert row.cpu_ms == pytest.approx(100)
    assert row.client_cpu == pytest.approx(0.1)
    assert row.cpu_by_process == pytest.approx({"Gateway": 50, "haproxy": 50})


def test_a_floor_is_quiet_when_every_loop_had_its_core() -> None:
    point = Point("m", "embed", alone=[Loop((10.0,), 1, 1.0, 0.96)], together=[[Loop((10.0,), 1, 1.0, 1.0)]])
    assert point.bare().quiet is True


def test_a_service_that_answers_nothing_is_reported_too() -> None:
    point = Point("m", "embed")
    point.alone = [Loop((10.0,), 1, 0.01, 0.01)]
    point.together = [[Loop((10.0,), 1, 0.01, 0.01)]]
    point.loads = {1: [Load((), {"connection": 5}, 1.0, 0.1)]}
    point.cpu = {1: [{}]}
    [row] = point.served()
    assert row.requests_per_s == 0
    assert row.p50_ms != row.p50_ms


def test_the_service_is_the_default_profile_with_more_models(shared: Path, tmp_path: Path) -> None:
    entries = model_entries(shared)
    names = ["dlib-resnet", "dlib-resnet-fused", "mini", "mini-fused", "resemblyzer-ge2e"]
    assert list(entries) == names
    write_config(tmp_path / "config.yaml", list(entries.values()))
    data = read_config(tmp_path / "config.yaml")
    assert [model.name for model in application_args(data, None, tmp_path).models] == names
    assert data["http_options"]["host"] == "127.0.0.1"


def test_without_test_data_the_default_profile_remains(tmp_path: Path) -> None:
    assert list(model_entries(tmp_path)) == ["dlib-resnet", "dlib-resnet-fused", "resemblyzer-ge2e"]


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (["ray::ServeReplica:presence:dlib-resnet.recognizer"], "dlib-resnet.recognizer"),
        (["ray::ServeController.listen_for_change"], "ServeController"),
        (["/x/bin/python", "-u", "/x/ray/log_monitor.py"], "log_monitor.py"),
        (["/x/bin/python", "/x/bin/presence", "serve"], "presence"),
        (["/x/bin/haproxy", "-f", "y"], "haproxy"),
        (["python"], "python"),
    ],
)
def test_processes_are_told_by_what_they_do(command: list[str], name: str) -> None:
    assert kind(command) == name


def test_a_paused_service_stands_still() -> None:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        service = Service(0, psutil.Process(process.pid))
        try:
            with service.paused():
                os.waitid(os.P_PID, process.pid, os.WSTOPPED)
                before = service.cpu()
                assert service.processes()[0].status() == psutil.STATUS_STOPPED
                assert sum(service.spent(before).values()) == 0
            os.waitid(os.P_PID, process.pid, os.WCONTINUED)
            while not sum(service.spent(before).values()):
                os.sched_yield()
        finally:
            process.kill()


def test_a_whole_run_measures_every_route_beside_the_bare_loop(shared: Path, tmp_path: Path) -> None:
    assert (shared / "models").is_dir()
    quick = ["--models", "mini-fused", "--seconds", "0.3", "--rounds", "1", "--out", str(tmp_path)]
    command = [sys.executable, "-m", "bench", *quick]
    ran = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=600)
    assert "Against what is wanted" in ran.stdout
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")
    told = json.loads((tmp_path / "bench.json").read_text(encoding="utf-8"))
    routes = ("verify", "embed", "analyze")
    measured = {(row["route"], row["concurrency"]): row for row in told["service"]}
    assert set(measured) == {(route, many) for route in routes for many in CONCURRENCIES}
    for row in measured.values():
        assert row["errors"] == {}
        assert 0 < row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"]
    bare = {row["route"]: row["requests_per_s"] for row in told["bare"]}
    for verdict in told["verdicts"]:
        at_16 = measured[verdict["route"], 16]["requests_per_s"]
        assert verdict["ratios"]["16"] == pytest.approx(at_16 / bare[verdict["route"]])
    assert [verdict["route"] for verdict in told["verdicts"]] == list(routes)
