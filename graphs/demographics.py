"""Age, gender and emotion: what was asked for, and what of it is told."""

from collections.abc import Sequence

from engines.types import Demographics


def only(told: Demographics, actions: Sequence[str]) -> Demographics:
    """What was asked for, of what one head computed together; no actions: all of it."""
    if not actions:
        return told
    return Demographics(
        age=told.age if "age" in actions else None,
        gender=told.gender if "gender" in actions else None,
        emotion=told.emotion if "emotion" in actions else None,
    )


def dominant(shares: dict[str, float] | None) -> str | None:
    """The most probable label."""
    return max(shares, key=lambda label: shares[label]) if shares else None
