"""Serve config files, and the settings of the application in them."""

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

import graphs
from engines.errors import ConfigurationError
from graphs.explain import explain, unreadable
from graphs.settings import AppArgs

CONFIG_DIR = Path(graphs.__file__).parent.parent / "config"
APPLICATION = "presence"


def read_config(path: Path) -> dict[str, Any]:
    """A Serve config file: by its path, or `NAME` or `config/NAME` of those that come with presence."""
    bundled = not path.is_file() and path.parent in (Path(), Path("config"))
    found = CONFIG_DIR / path.name if bundled else path
    try:
        data = yaml.safe_load(found.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigurationError(f"{path}: not readable: {unreadable(error)}") from error
    if not isinstance(data, dict) or not data.get("applications"):
        raise ConfigurationError(f"{path}: applications: missing; see config/local.yaml for an example")
    return data


def application_args(data: dict[str, Any], models_dir: Path | None, path: Path) -> AppArgs:
    """The checked `args` of the presence application; models_dir, when given, goes before theirs.

    path: the config's, for errors.
    """
    match data["applications"]:
        case [{"name": "presence"} as application]:
            arguments = application.get("args") or {}
        case _:
            raise ConfigurationError(
                f"{path}: applications: one is expected, named {APPLICATION}; others need `serve run`"
            )
    if "deployments" in application:
        raise ConfigurationError(
            f"{path}: applications.deployments: say it in the `deployment` of the model instead"
        )
    if models_dir is not None and isinstance(arguments, dict):
        arguments = {**arguments, "models_dir": str(models_dir.resolve())}
    try:
        return AppArgs.model_validate(arguments)
    except ValidationError as error:
        raise ConfigurationError(f"{path}: applications.{APPLICATION}.args: {explain(error)}") from None
