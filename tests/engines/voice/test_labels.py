"""What the labels of classifiers found in the wild mean."""

import pytest

from engines.errors import ConfigurationError
from engines.voice import labels


def test_short_forms_become_the_documented_emotions() -> None:
    told = labels.emotions(["neu", "hap", "ang", "sad"], [0.1, 0.2, 0.3, 0.4])
    assert told == {"neutral": 0.1, "happy": 0.2, "angry": 0.3, "sad": 0.4}


def test_other_emotions_keep_their_name_in_lower_case_and_equal_ones_are_added_up() -> None:
    told = labels.emotions(["Calm", "neu", "Neutral"], [0.5, 0.25, 0.25])
    assert told == {"calm": 0.5, "neutral": 0.5}


@pytest.mark.parametrize(
    ("label", "middle"),
    [
        ("20-29", 24.5),
        ("20_29", 24.5),
        ("20 to 30", 25.0),
        ("20\u201330", 25.0),
        ("twenties", 24.5),
        ("Fourties", 44.5),
        ("teens", 16.0),
        ("60+", 64.5),
        ("70s", 74.5),
        ("more than 60 and over", 64.5),
        (">80", 84.5),
        ("<20", 10.0),
        ("under 18", 9.0),
        ("25", 25.0),
        ("age 25", 25.0),
        ("female_30-39", 34.5),
        ("LABEL_0", None),
        ("male", None),
        ("adult", None),
    ],
)
def test_the_middle_of_a_bin_of_ages(label: str, middle: float | None) -> None:
    assert labels.years(label) == middle


def test_age_is_what_is_to_be_expected() -> None:
    assert labels.age(["twenties", "40-49"], [0.75, 0.25]) == pytest.approx(0.75 * 24.5 + 0.25 * 44.5)
    assert labels.age(["twenties", "male"], [0.75, 0.25]) is None


@pytest.mark.parametrize(
    ("label", "gender"),
    [("male", "male"), ("Female", "female"), ("F", "female"), ("child", "child"), ("male_20-29", "male")],
)
def test_genders_have_documented_names(label: str, gender: str) -> None:
    assert labels.gender(label) == gender


def test_labels_of_both_tell_both() -> None:
    names, shares = ["female_20-29", "female_60+", "male_20-29"], [0.5, 0.25, 0.25]
    labels.require_meaning(names)
    assert labels.genders(names, shares) == {"female": 0.75, "male": 0.25}
    assert labels.age(names, shares) == pytest.approx(0.75 * 24.5 + 0.25 * 64.5)


def test_labels_of_age_alone_tell_no_gender() -> None:
    labels.require_meaning(["twenties", "thirties"])
    assert labels.genders(["twenties", "thirties"], [0.5, 0.5]) is None


@pytest.mark.parametrize("names", [["LABEL_0", "LABEL_1"], ["male", "twenties"], ["young", "old"]])
def test_labels_that_say_nothing_are_refused(names: list[str]) -> None:
    with pytest.raises(ConfigurationError, match="name neither genders nor ages; write what they mean"):
        labels.require_meaning(names)
