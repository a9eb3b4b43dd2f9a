"""The gallery: models that can be installed, each with its files, their checksums and their licence."""

from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, Field, ValidationError, model_validator

import graphs
from engines import registry
from engines.errors import ConfigurationError
from graphs.download import locate
from graphs.explain import explain, unreadable
from graphs.settings import ModelFile, Parameters, Settings

GALLERY = Path(graphs.__file__).parent.parent / "config" / "gallery.yaml"


def inside(filename: str) -> str:
    """The file name, when it stays inside the directory that it is taken relative to. Else ValueError."""
    path = PurePosixPath(filename)
    hidden = any(part.startswith(".") for part in path.parts)
    if not path.parts or path.is_absolute() or hidden or "\\" in filename or not filename.isprintable():
        raise ValueError(f"{filename!r} is no path inside the models directory")
    return filename


def _weights(filename: str) -> str:
    if filename.endswith((".yaml", ".yml", ".part", ".part.json")):
        raise ValueError(f"{filename!r} would be taken for a model file or for an unfinished download")
    return inside(filename)


def _locatable(uri: str) -> str:
    try:
        locate(uri)
    except ConfigurationError as error:
        raise ValueError(error.message) from None
    return uri


class GalleryFile(Settings):
    """A file of an entry."""

    filename: Annotated[str, AfterValidator(_weights)] = Field(description="path in the models directory")
    uri: Annotated[str, AfterValidator(_locatable)] = Field(
        description="http, https, file, huggingface or hf"
    )
    sha256: str = Field(
        pattern="^[0-9a-f]{64}$", description="checksum of the file, of an archive as it comes"
    )


class Entry(Settings):
    """A model that can be installed."""

    name: str = Field(description="what requests call `model`")
    description: str = Field("", description="what it is, for people")
    license: str = Field(min_length=1, description="licence of the weights")
    commercial: bool = Field(description="whether that licence allows commercial use")
    size: str = Field("", description="of the weights on the disk, for people")
    backend: str = Field(description="engine")
    known_usecases: tuple[str, ...] = Field(description="capabilities, LocalAI's words")
    parameters: Parameters = Parameters()
    options: tuple[str, ...] = Field((), description="key:value, for the engine")
    files: tuple[GalleryFile, ...] = Field((), description="what is downloaded")

    @model_validator(mode="after")
    def _is_a_model(self) -> "Entry":
        names = [file.filename for file in self.files]
        if repeated := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"files: {repeated[0]} is there twice")
        try:
            registry.capability(ModelFile.model_validate(self.document()).engine)
        except ValidationError as error:
            raise ValueError(explain(error)) from None
        except ConfigurationError as error:
            raise ValueError(error.message) from None
        return self

    def document(self) -> dict[str, Any]:
        """The model file that is installed: LocalAI's model YAML, keys in its usual order."""
        keys = (
            "name",
            "backend",
            "known_usecases",
            "parameters",
            "options",
            "files",
            "license",
            "description",
        )
        data = self.model_dump(mode="json", exclude_defaults=True)
        return {key: data[key] for key in keys if key in data}


def load(path: Path = GALLERY) -> dict[str, Entry]:
    """The entries of a gallery by name, in its order.

    Raises ConfigurationError that names the file, the entry and the key.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigurationError(f"{path}: not readable as YAML: {unreadable(error)}") from error
    if not isinstance(data, list):
        raise ConfigurationError(f"{path}: a gallery is a list of entries")
    entries: dict[str, Entry] = {}
    for number, item in enumerate(data, 1):
        entry = _entry(item, f"{path}: entry {_label(item, number)}")
        if entry.name in entries:
            raise ConfigurationError(f"{path}: two entries are named {entry.name}; rename one of them")
        entries[entry.name] = entry
    return entries


def _label(item: object, number: int) -> str:
    return str(item["name"]) if isinstance(item, dict) and "name" in item else f"number {number}"


def _entry(item: object, where: str) -> Entry:
    try:
        return Entry.model_validate(item)
    except ValidationError as error:
        raise ConfigurationError(f"{where}: {explain(error)}") from None
