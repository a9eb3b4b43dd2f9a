"""Checkpoints of transformers: found or fetched, loaded, refused where weights would be made up.

Source: https://huggingface.co/docs/transformers/main_classes/model
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from safetensors import SafetensorError

from engines import hub
from engines.errors import ConfigurationError

logger = logging.getLogger("presence.pretrained")

FAILURES = (
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    OSError,
    RuntimeError,
    SafetensorError,
    TypeError,
    UnpicklingError,
    ValueError,
)
"""What transformers, torch and their like raise for files that are damaged, incomplete or of another kind."""


def directory(source: str, models_dir: Path, patterns: Sequence[str] = ("*.json",)) -> Path:
    """The checkpoint's directory; of a repository safetensors is fetched before pickled weights.

    patterns: the files that are wanted beside the weights. Raises as hub.checkpoint does.
    """
    found = hub.checkpoint(source, models_dir, (*patterns, "model*.safetensors*"))
    if any(found.glob("*.safetensors")):
        return found
    return hub.checkpoint(source, models_dir, (*patterns, "pytorch_model*.bin"))


def network(kind: Any, found: Path) -> Any:
    """The network of a checkpoint, of a class of transformers, ready to compute on the CPU.

    Code that comes with a checkpoint is never run. Raises ConfigurationError for a checkpoint of another
    class, and for one that lacks weights, which transformers would make up at random; FAILURES for files
    that cannot be read.
    """
    net, info = kind.from_pretrained(
        found, output_loading_info=True, local_files_only=True, trust_remote_code=False
    )
    trained = net.config.architectures or [kind.__name__]
    if kind.__name__ not in trained:
        raise ConfigurationError(f"it is a checkpoint of {', '.join(trained)}, not of {kind.__name__}")
    if invented := sorted(info["missing_keys"]):
        raise ConfigurationError(f"it lacks {len(invented)} weights, such as {', '.join(invented[:4])}")
    return net.eval()


@contextmanager
def opening(source: str, kind: str) -> Iterator[None]:
    """Turns what loading a checkpoint raises into ConfigurationError that names it, without a path.

    kind: what was expected, such as "Bark model".
    """
    try:
        yield
    except ConfigurationError as error:
        if error.message.startswith(f"{hub.shown(source)} "):
            raise
        raise ConfigurationError(f"{hub.shown(source)}: {error.message}") from error
    except FAILURES as error:
        logger.warning("%s could not be loaded: %s: %s", source, type(error).__name__, error)
        raise ConfigurationError(
            f"{hub.shown(source)}: its files are incomplete, damaged, or no {kind}"
        ) from error
