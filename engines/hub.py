"""Checkpoints by name: a directory, or a repository of the Hugging Face hub.

Source: https://huggingface.co/docs/huggingface_hub/guides/download
"""

import errno
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from engines.errors import ConfigurationError

logger = logging.getLogger("presence.hub")

CACHE = "huggingface"
"""Folder of the models directory that holds what was downloaded, in the hub library's own layout."""

REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def checkpoint(source: str, models_dir: Path, patterns: Sequence[str]) -> Path:
    """The directory of a checkpoint, downloaded where it is not at hand.

    source: a directory, relative ones under the models directory, or a repository id such as
    "superb/wav2vec2-base-superb-er". patterns: the files that are wanted of a repository. What is downloaded
    stays as it is until its folder under CACHE is deleted. The library reads HF_ENDPOINT, HF_HUB_OFFLINE and
    HF_TOKEN. Raises ConfigurationError with the reason and the remedy, without a path.
    """
    return local(source, models_dir) or _snapshot(source, models_dir / CACHE, patterns)


def local(source: str, models_dir: Path) -> Path | None:
    """The directory that a source names, None for a repository. Raises ConfigurationError for neither."""
    found = models_dir / source
    if source and found.is_dir():
        return found
    if REPOSITORY.fullmatch(source):
        return None
    raise ConfigurationError(
        f"{shown(source)!r} is neither a directory under the models directory nor a repository id such as "
        "owner/name"
    )


def shown(source: str) -> str:
    """A source for messages: a repository id as it is, of a path only its last part."""
    return source if REPOSITORY.fullmatch(source) else Path(source).name


def _snapshot(repository: str, cache: Path, patterns: Sequence[str]) -> Path:
    # A model that is never asked for needs no hub.
    from huggingface_hub import errors, snapshot_download  # noqa: PLC0415 - slow, and few need it

    fetch = partial(snapshot_download, repository, cache_dir=cache, allow_patterns=list(patterns))
    try:
        return Path(fetch(local_files_only=True))
    except errors.LocalEntryNotFoundError:
        logger.info("fetching %s from the hub", repository)
    with downloading(repository):
        return Path(fetch())


@contextmanager
def downloading(name: str) -> Iterator[None]:
    """Turns what a download raises into ConfigurationError with the reason and the remedy, without a path."""
    from httpx2 import HTTPError  # noqa: PLC0415 - see _snapshot

    try:
        yield
    except (OSError, RuntimeError, ValueError, HTTPError) as error:
        logger.warning("%s could not be fetched: %s: %s", name, type(error).__name__, error)
        raise ConfigurationError(f"{name} could not be downloaded: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    from huggingface_hub import errors  # noqa: PLC0415 - slow, and few need it

    if isinstance(error, errors.RepositoryNotFoundError | errors.HFValidationError):
        return "the hub has no such repository, or it is private or gated; check the id, or set HF_TOKEN"
    if isinstance(error, errors.LocalEntryNotFoundError):
        return (
            "it is not at hand, and the hub cannot be reached or HF_HUB_OFFLINE is set; allow the download, "
            "or put the repository's files into a directory of that name under the models directory"
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk of the models directory is full; free some space"
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "the models directory cannot be written; let the service write there"
    return "the download broke off; try again later"
