"""docs/settings.md, written from the settings: `python -m graphs.settings_page docs/settings.md`."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from engines import registry
from engines.face.expression import Expression
from engines.face.minifasnet import MiniFasNet
from engines.voice.attributes import AttributeHeads
from graphs.nulls import NullsAbsent
from graphs.settings import AppArgs, ModelFile, Replicas
from graphs.wiring.face import SELECTION_OPTION

HEAD = """# Settings

Everything that may stand under `args` of the application in a config (`config/local.yaml` is one), in a
model file, and in its `options`. A key that is not here is refused, an empty one means its default; LocalAI's
keys that mean nothing here are accepted. This page is written from the code:
`python -m graphs.settings_page docs/settings.md`.
"""

DEPLOYMENT = "What Ray gives each part of a model (`deployment` in its file), the store and speech on demand."


def page() -> str:
    """The whole page."""
    parts = [HEAD, *_sections("`args`", "", AppArgs, "The application's own.")]
    parts += _sections("A model file", "", ModelFile, "[models.md](models.md) tells how they are used.")
    parts += _sections("Replicas", "", Replicas, DEPLOYMENT)
    return "\n".join([*parts, *_engines()])


def _engines() -> Iterator[str]:
    """The options of each engine, and those that all engines of a kind share."""
    yield "## Options of engines\n\nWith their defaults behind the semicolon, where there are any.\n"
    shared = {
        "face": {**SELECTION_OPTION, **MiniFasNet.known_options, **Expression.known_options},
        "voice": AttributeHeads.known_options,
        "tts": {},
    }
    for noun, engines in registry.ENGINES.items():
        if shared[noun]:
            yield from _options(f"every {noun} engine", shared[noun])
        for name in engines:
            if not name.startswith("fake"):
                yield from _options(f"`{name}`", registry.load(noun, name).known_options)


def _options(title: str, options: Mapping[str, str]) -> Iterator[str]:
    yield f"### {title}\n\n| option | |\n|---|---|"
    yield "".join(f"| `{name}` | {words} |\n" for name, words in options.items())


def _sections(title: str, path: str, kind: type[NullsAbsent], words: str) -> Iterator[str]:
    """A table of the plain settings, then the sections of those that have settings of their own.

    path: of the keys that lead to this one.
    """
    rows, nested = [], []
    for name, field in kind.model_fields.items():
        key, inner = field.alias or name, field.annotation
        if inner is Replicas:
            rows.append(_row(key, field, "see [Replicas](#replicas)"))
        elif isinstance(inner, type) and issubclass(inner, NullsAbsent):
            nested.append((key, inner, field.description))
        else:
            rows.append(_row(key, field, _default(field)))
    yield f"## {title}\n\n{words}\n"
    yield "| key | default | |\n|---|---|---|"
    yield "\n".join(rows) + "\n"
    for key, inner, description in nested:
        told = description or (inner.__doc__ or "").partition("\n")[0]
        yield from _sections(f"`{path}{key}`", f"{path}{key}.", inner, told)


def _row(key: str, field: FieldInfo, default: str) -> str:
    return f"| `{key}` | {default} | {field.description or ''} |"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value: Any = field.get_default(call_default_factory=True, validated_data={})
    if value is None or value in ("", (), {}):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
