"""Merging the expositions of several nodes."""

from graphs.metrics import merge

ONE = """# HELP ray_presence_items Items
# TYPE ray_presence_items counter
ray_presence_items{node="a"} 3
# HELP ray_only_a x
# TYPE ray_only_a gauge
ray_only_a 1
"""
TWO = """# HELP ray_presence_items Items
# TYPE ray_presence_items counter
ray_presence_items{node="b"} 4
"""


def test_each_family_is_described_once_with_all_its_samples() -> None:
    merged = merge([ONE, "", TWO]).splitlines()
    assert merged == [
        "# HELP ray_presence_items Items",
        "# TYPE ray_presence_items counter",
        'ray_presence_items{node="a"} 3',
        'ray_presence_items{node="b"} 4',
        "# HELP ray_only_a x",
        "# TYPE ray_only_a gauge",
        "ray_only_a 1",
    ]


def test_nothing_to_merge_is_empty() -> None:
    assert merge([]) == ""
