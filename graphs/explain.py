"""Errors of libraries in the words of somebody who writes a YAML file: one line, the key, what to do."""

from pydantic import ValidationError

NAME_PATTERN = "A-Za-z0-9"
REMEDIES = {
    "extra_forbidden": "remove it or correct its spelling",
    "missing": "add it",
    "string_type": "put quotes around it",
}
"""What to do about a kind of error whose message does not say it."""

LIST = ("tuple_type", "list_type")


def explain(error: ValidationError) -> str:
    """A validation error in one line for all fields: each key, what is wrong, and what to do."""
    lines = []
    for item in error.errors():
        kind, wrong = item["type"], item["msg"]
        key = ".".join(str(part) for part in item["loc"]) or "the file"
        remedy = REMEDIES.get(kind)
        if kind == "extra_forbidden":
            wrong = "unknown key"
        elif kind in LIST:
            wrong, remedy = "a list is expected", "write [one, two], or a line with a dash for each"
        elif kind == "string_pattern_mismatch" and NAME_PATTERN in item["ctx"]["pattern"]:
            remedy = "take letters, digits, dot, dash and underscore, a letter or digit first"
        lines.append(f"{key}: {wrong}; {remedy}" if remedy else f"{key}: {wrong}")
    return "; ".join(lines)


def unreadable(error: Exception) -> str:
    """An error of reading a YAML file in one line, without the excerpt."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return " ".join(str(error).split())
    return f"line {mark.line + 1}, column {mark.column + 1}: {getattr(error, 'problem', None) or 'no YAML'}"
