"""Clips of equal length, which a network can take together without padding."""

from collections.abc import Iterator, Sequence


def equal(lengths: Sequence[int], most: int) -> Iterator[list[int]]:
    """Every position once: together those of one length, at most `most` at a time."""
    places: dict[int, list[int]] = {}
    for place, length in enumerate(lengths):
        places.setdefault(length, []).append(place)
    for group in places.values():
        yield from (group[start : start + most] for start in range(0, len(group), most))
