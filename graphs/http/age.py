"""The header `Age` of an answer from memory (RFC 9111, section 5.1)."""

import math

from fastapi import Response


def tell_age(response: Response, age_s: float) -> None:
    """Whole seconds, rounded up; an answer of this moment has no such header."""
    if age_s:
        response.headers["Age"] = str(math.ceil(age_s))
