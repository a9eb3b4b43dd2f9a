"""Values of an engine's options: all are text in the model file."""

import math
from collections.abc import Iterable
from pathlib import Path

from engines.errors import ConfigurationError
from engines.types import EngineOptions


def number(options: EngineOptions, name: str, default: float, low: float, high: float) -> float:
    """A number between low and high, both included. Raises ConfigurationError for anything else."""
    text = options.options.get(name)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        raise ConfigurationError(f"option {name}:{text} must be a number between {low:g} and {high:g}")
    return value


def whole(options: EngineOptions, name: str, default: int, low: int, high: int) -> int:
    """A whole number between low and high, both included. Raises ConfigurationError for anything else."""
    value = number(options, name, default, low, high)
    if value != int(value):
        raise ConfigurationError(
            f"option {name}:{options.options[name]} must be a whole number between {low} and {high}"
        )
    return int(value)


def size(options: EngineOptions, name: str, default: tuple[int, int]) -> tuple[int, int]:
    """Width and height, written "640x480"; one number means both. Raises ConfigurationError."""
    text = options.options.get(name)
    if text is None:
        return default
    width, by, height = text.lower().partition("x")
    sides = (width.strip(), height.strip() if by else width.strip())
    if not all(side.isdecimal() and 32 <= int(side) <= 8192 for side in sides):
        raise ConfigurationError(f"option {name}:{text} must be WIDTHxHEIGHT, each between 32 and 8192")
    return int(sides[0]), int(sides[1])


def file(options: EngineOptions, name: str) -> Path:
    """A weight file; a relative name lies under the models directory. Raises ConfigurationError if unset."""
    path = optional_file(options, name)
    if path is None:
        raise ConfigurationError(f"option {name} is missing; name a file of the models directory")
    return path


def optional_file(options: EngineOptions, name: str) -> Path | None:
    """A weight file, or None where the option is unset."""
    text = options.options.get(name)
    return options.models_dir / text if text else None


def refuse_unknown(options: Iterable[str], known: Iterable[str]) -> None:
    """Raises ConfigurationError for an option that is not among the known ones."""
    for option in options:
        if option not in known:
            raise ConfigurationError(f"unknown option {option!r}; known options: {', '.join(sorted(known))}")


def require_files(paths: Iterable[Path], options: EngineOptions) -> None:
    """Raises ConfigurationError that names the weight files that do not exist, with their options."""
    keys = {f"option {name}": text for name, text in options.options.items()}
    keys["parameters.model"] = options.model
    named = {options.models_dir / text: f" ({key})" for key, text in keys.items() if text}
    if missing := [f"{path}{named.get(path, '')}" for path in paths if not path.is_file()]:
        raise ConfigurationError(
            f"missing weights: {', '.join(missing)}; install the model with "
            "`presence models install`, or correct the options that name the files"
        )
