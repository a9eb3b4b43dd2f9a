"""How a generative model draws its next token: options of the model file, which a request may change."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from engines.errors import ConfigurationError, InvalidInput
from engines.options import number, whole
from engines.types import EngineOptions

OPTIONS = {
    "do_sample": "true: tokens are drawn at random; false: always the likeliest; the checkpoint's own",
    "temperature": "how evenly tokens are drawn, 0.01 to 2; the checkpoint's own",
    "top_k": "only so many of the likeliest tokens are drawn, 0 for all; the checkpoint's own",
    "seed": "0 to 4294967295; the same seed and text give the same sound; none: each time another",
}

WORDS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}

Read = TypeVar("Read")


@dataclass(frozen=True, slots=True)
class Sampling:
    """None: as the checkpoint says; of the seed: none."""

    do_sample: bool | None = None
    temperature: float | None = None
    top_k: int | None = None
    seed: int | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        """What `generate` of transformers is to be told."""
        named = {"do_sample": self.do_sample, "temperature": self.temperature, "top_k": self.top_k}
        return {name: value for name, value in named.items() if value is not None}


def read(options: EngineOptions) -> Sampling:
    """Raises ConfigurationError that names the option whose value is wrong."""
    given = options.options
    return Sampling(
        truth(options, "do_sample"),
        number(options, "temperature", 1, 0.01, 2) if "temperature" in given else None,
        whole(options, "top_k", 0, 0, 100_000) if "top_k" in given else None,
        whole(options, "seed", 0, 0, 2**32 - 1) if "seed" in given else None,
    )


def truth(options: EngineOptions, name: str) -> bool | None:
    """True or false, None where the option is unset. Raises ConfigurationError for anything else."""
    text = options.options.get(name)
    if text is None:
        return None
    try:
        return WORDS[text.strip().lower()]
    except KeyError:
        raise ConfigurationError(f"option {name}:{text} must be true or false") from None


def requested(
    options: EngineOptions, params: Mapping[str, str], reader: Callable[[EngineOptions], Read]
) -> Read:
    """The options of the model file, changed by what a request gives under the same names.

    Raises InvalidInput where a value of the request is wrong.
    """
    try:
        return reader(replace(options, options={**options.options, **params}))
    except ConfigurationError as error:
        raise InvalidInput(error.message) from error
