"""docs/api.md, written from the OpenAPI description: `python -m graphs.http.apidoc docs/api.md`."""

import json
import sys
from collections.abc import Iterator
from math import inf
from pathlib import Path
from typing import Any, cast

from fastapi import FastAPI

from graphs.clients.store import Store
from graphs.face import FaceFlow
from graphs.http.application import http_application
from graphs.media import MediaReader, MediaRules
from graphs.services import Services
from graphs.settings import Gateway
from graphs.status import ServeStatus
from graphs.store import Registrations
from graphs.stores import Stores
from graphs.tts import SpeechFlow
from graphs.voice import VoiceFlow
from graphs.voices import VoiceLibrary

REFERENCE = "#/components/schemas/"
ERROR = "ErrorResponse"
HEAD = """# API

Every route, field and error, written from the OpenAPI description by
`python -m graphs.http.apidoc docs/api.md`. The running service shows the same at `/docs` and `/openapi.json`.
Fields without a default are required.
"""
COLUMNS = "| field | type | default | meaning |\n|---|---|---|---|"


def page(app: FastAPI) -> str:
    """The page in Markdown: a table of routes, the errors, then every type."""
    api = app.openapi()
    routes = [
        (f"{method.upper()} {path}", operation)
        for path, methods in api["paths"].items()
        for method, operation in methods.items()
    ]
    types: dict[str, Any] = api["components"]["schemas"]
    parts = [HEAD, _routes(routes), _errors(routes), "## Types\n"]
    return "\n".join([*parts, *(_type(name, schema) for name, schema in types.items())]).rstrip() + "\n"


def _routes(routes: list[tuple[str, dict[str, Any]]]) -> str:
    lines = ["## Routes\n", "| route | takes | answers | errors | |", "|---|---|---|---|---|"]
    for name, operation in routes:
        takes = _content(operation.get("requestBody", {}))
        answers = ", ".join(
            _answer(code, said) for code, said in operation["responses"].items() if code < "300"
        )
        errors = ", ".join(sorted(status for status in operation["responses"] if status >= "300"))
        lines.append(f"| `{name}` | {takes} | {answers} | {errors} | {_cell(operation['description'])} |")
    return "\n".join(lines) + "\n"


def _answer(status: str, response: dict[str, Any]) -> str:
    return _content(response) or status


def _errors(routes: list[tuple[str, dict[str, Any]]]) -> str:
    meanings = {
        status: response["description"]
        for _, operation in routes
        for status, response in operation["responses"].items()
        if _content(response) == _link(ERROR)
    }
    lines = ["## Errors\n", f"The body of each is {_link(ERROR)}.\n", "| status | meaning |", "|---|---|"]
    lines += [f"| {status} | {_cell(meaning)} |" for status, meaning in sorted(meanings.items())]
    return "\n".join(lines) + "\n"


def _type(name: str, schema: dict[str, Any]) -> str:
    lines = [f"### {name}\n", f"{schema.get('description', '')}\n", COLUMNS]
    for field, said in schema.get("properties", {}).items():
        default = "" if field in schema.get("required", ()) else _default(said)
        lines.append(f"| `{field}` | {_kind(said)} | {default} | {_meaning(said)} |")
    return "\n".join(lines) + "\n"


def _content(body: dict[str, Any]) -> str:
    return ", ".join(_kind(content["schema"]) for content in body.get("content", {}).values())


def _default(said: dict[str, Any]) -> str:
    value = said.get("const", said.get("default"))
    return "absent" if value is None else f"`{json.dumps(value)}`"


def _meaning(said: dict[str, Any]) -> str:
    """The description, which an optional field may carry inside its alternative."""
    texts = [one.get("description", "") for one in (said, *said.get("anyOf", ()))]
    return _cell(" ".join(text for text in texts if text))


def _kind(schema: dict[str, Any]) -> str:
    """A JSON schema in a few words, with its bounds."""
    if "$ref" in schema:
        return _link(schema["$ref"].removeprefix(REFERENCE))
    if "anyOf" in schema:
        return " or ".join(_kind(one) for one in schema["anyOf"] if one != {"type": "null"})
    if values := schema.get("enum", [schema["const"]] if "const" in schema else []):
        return " ".join(f"`{json.dumps(value)}`" for value in values)
    if schema.get("type") == "array":
        return f"list of {_kind(schema['items'])}"
    if "additionalProperties" in schema:
        return f"map of {_kind(schema['additionalProperties'])}"
    return " ".join([schema.get("type", "any"), *_bounds(schema)])


def _bounds(schema: dict[str, Any]) -> Iterator[str]:
    if "minimum" in schema or "maximum" in schema:
        yield f"{schema.get('minimum', -inf):g}..{schema.get('maximum', inf):g}"
    if "maxLength" in schema:
        yield f"of at most {schema['maxLength']} characters"


def _link(name: str) -> str:
    return f"[{name}](#{name.lower()})"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|")


def bare_application() -> FastAPI:
    """The routes without models: enough to describe them."""
    media = MediaReader(MediaRules())
    store = cast(Store, None)  # nothing is asked of it
    services = Services(
        settings=Gateway(),
        models=(),
        status=ServeStatus((), ""),
        face=FaceFlow({}, media),
        voice=VoiceFlow({}, media),
        speech=SpeechFlow({}, VoiceLibrary(store)),
        library=VoiceLibrary(store),
        media=media,
        people={kind: Registrations(kind, store) for kind in ("face", "voice")},
        stores=Stores(store),
        started_at=0,
    )
    return http_application(services)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(bare_application()), encoding="utf-8")
