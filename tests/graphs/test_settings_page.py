"""The page of settings is what the code says."""

import re
from pathlib import Path

from graphs.nulls import NullsAbsent
from graphs.settings import Gateway, Index, Media, ModelFile, OnDemand, Replicas, Speech, Store
from graphs.settings_page import page

ROOT = Path(__file__).resolve().parents[2]
REFRESH = "python -m graphs.settings_page docs/settings.md"


def test_the_page_is_up_to_date() -> None:
    kept = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert page() == kept, f"docs/settings.md is out of date; run: {REFRESH}"


def test_every_setting_has_a_row_that_says_what_it_is() -> None:
    told = page()
    for kind in (Gateway, Media, Speech, OnDemand, Store, Index, Replicas, ModelFile):
        for name, field in kind.model_fields.items():
            inner = field.annotation
            if not (isinstance(inner, type) and issubclass(inner, NullsAbsent)) or inner is Replicas:
                assert re.search(rf"^\| `{name}` \| .* \| \S.* \|$", told, re.MULTILINE), name


def test_options_that_no_engine_reads_have_rows_too() -> None:
    assert re.search(r"^\| `face_selection` \| .*largest.* \|$", page(), re.MULTILINE)
