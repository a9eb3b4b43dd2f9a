"""Which model a request means."""

from collections.abc import Mapping
from typing import TypeVar

from engines.errors import ModelDisabled, UnknownModel

DISABLED = "disabled"
"""What a model is for that is there and not served."""

Node = TypeVar("Node")


def refuse_disabled(name: str | None, kinds: Mapping[str, str]) -> None:
    """Raises ModelDisabled for the name of a model that is not served."""
    if name and kinds.get(name) == DISABLED:
        raise ModelDisabled(f'model "{name}" is disabled')


def choose(nodes: Mapping[str, Node], name: str | None, kind: str, kinds: Mapping[str, str]) -> Node:
    """The node of that name, the first one when no name is given.

    kind: what the nodes are for, such as "face". kinds: what every model of the service is for, by name.
    Raises UnknownModel that tells a model of another kind from one that is not there, ModelDisabled.
    """
    refuse_disabled(name, kinds)
    if not nodes:
        raise UnknownModel(f"no {kind} model is installed; install one with `presence models install`")
    if not name:
        return next(iter(nodes.values()))
    if name in nodes:
        return nodes[name]
    if name in kinds:
        raise UnknownModel(f'model "{name}" is a {kinds[name]} model; this route needs a {kind} model')
    raise UnknownModel(f'model "{name}" not found. To see available models, call GET /v1/models')
