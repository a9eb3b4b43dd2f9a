"""Values of options: what is read, and what each mistake is told."""

from pathlib import Path

import pytest

from engines.errors import ConfigurationError
from engines.options import file, number, optional_file, size, whole
from engines.types import EngineOptions


def given(**options: str) -> EngineOptions:
    return EngineOptions(options=options, models_dir=Path("/models"))


@pytest.mark.parametrize(
    ("text", "value"), [("0", 0.0), ("1", 1.0), ("0.35", 0.35), (" .5 ", 0.5), ("1e-3", 0.001)]
)
def test_a_number(text: str, value: float) -> None:
    assert number(given(limit=text), "limit", 0.7, 0, 1) == value


def test_unset_options_have_their_default() -> None:
    assert number(given(), "limit", 0.7, 0, 1) == 0.7
    assert whole(given(), "times", 2, 0, 3) == 2
    assert size(given(), "det_size", (640, 480)) == (640, 480)
    assert optional_file(given(), "net") is None


@pytest.mark.parametrize("text", ["", "x", "0,5", "nan", "inf", "-0.1", "1.01", "0.5 0.6"])
def test_a_bad_number_is_named_with_its_range(text: str) -> None:
    with pytest.raises(
        ConfigurationError, match=r"option limit:.* must be a number between 0 and 1$"
    ) as told:
        number(given(limit=text), "limit", 0.7, 0, 1)
    assert f"limit:{text} " in told.value.message


@pytest.mark.parametrize(("text", "value"), [("0", 0), ("2", 2), ("2.0", 2)])
def test_a_whole_number(text: str, value: int) -> None:
    assert whole(given(times=text), "times", 1, 0, 2) == value


@pytest.mark.parametrize("text", ["1.5", "3", "-1", "", "two"])
def test_a_bad_whole_number_is_named(text: str) -> None:
    with pytest.raises(
        ConfigurationError, match=f"option times:{text} must be a (whole )?number between 0 and 2"
    ):
        whole(given(times=text), "times", 1, 0, 2)


@pytest.mark.parametrize(
    ("text", "value"),
    [("640x480", (640, 480)), ("640X480", (640, 480)), (" 640 x 480 ", (640, 480)), ("320", (320, 320))],
)
def test_a_size(text: str, value: tuple[int, int]) -> None:
    assert size(given(det_size=text), "det_size", (1, 1)) == value


@pytest.mark.parametrize(
    "text", ["", "640x", "x640", "640x480x3", "640*480", "-640", "31x640", "640x8193", "1e3"]
)
def test_a_bad_size_is_named_with_its_form(text: str) -> None:
    with pytest.raises(ConfigurationError, match="must be WIDTHxHEIGHT, each between 32 and 8192") as told:
        size(given(det_size=text), "det_size", (640, 640))
    assert f"option det_size:{text} " in told.value.message


def test_relative_files_lie_under_the_models_directory() -> None:
    assert file(given(net="a/b.onnx"), "net") == Path("/models/a/b.onnx")
    assert optional_file(given(net="/elsewhere/b.onnx"), "net") == Path("/elsewhere/b.onnx")


@pytest.mark.parametrize("options", [given(), given(net="")])
def test_a_missing_file_option_is_named(options: EngineOptions) -> None:
    assert optional_file(options, "net") is None
    with pytest.raises(ConfigurationError, match="option net is missing; name a file of"):
        file(options, "net")
