"""Row rules: the first rule that is true gives the reason; good rows have none."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from catalog_enrichment import resources
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.reasons import Reason
from catalog_enrichment.validation.rows import flag_rows, load_rules

SCHEMA = (
    "product_id string, title string, description string, parse_error string, updated_at timestamp, "
    "payload string, content_hash string"
)
OLD, NEW = datetime(2026, 1, 1), datetime(2026, 1, 2)


def _row(product_id: str | None, title: str | None = "t", **other: Any) -> tuple[Any, ...]:
    values = {"product_id": product_id, "title": title, "payload": f"{product_id}{title}"} | other
    return tuple(values.get(part.split()[0]) for part in SCHEMA.split(", "))


def _shipped() -> Any:
    return load_rules(resources.locate("schemas:expectations/row_rules.v1.json"))


def test_every_bad_row_gets_its_reason_and_good_rows_none(spark: Any) -> None:
    rows = [
        _row("good", description=None),
        _row("emoji", "👗"),
        _row("rtl", "\u202eقميص"),
        _row("nul", "a\0b"),
        _row("long enough", "x" * 2000, description="y" * 200_000),
        _row("unparseable", None, parse_error="cut off"),
        _row(None),
        _row("no title", None),
        _row("blank title", " \u00a0\t\u200b\0"),
        _row("long title", "x" * 2001),
        _row("long description", description="y" * 1_000_000),
        _row("twice", "old", updated_at=OLD),
        _row("twice", "new", updated_at=NEW),
        _row("twice", "undated"),
        _row("twice", "", updated_at=datetime(2026, 1, 3)),
    ]
    flagged = flag_rows(spark.createDataFrame(rows, SCHEMA), _shipped()).collect()
    reasons = {(row.product_id, row.title): row.reason for row in flagged}
    assert len(reasons) == len(flagged) == len(rows)
    assert {key[0] for key, reason in reasons.items() if reason is None} == {
        *("good", "emoji", "rtl", "nul", "long enough", "twice")
    }
    assert reasons["unparseable", None] == Reason.UNPARSEABLE_ROW
    assert reasons[None, "t"] == Reason.MISSING_ID
    assert reasons["no title", None] == reasons["blank title", " \u00a0\t\u200b\0"] == Reason.EMPTY_TITLE
    assert reasons["long title", "x" * 2001] == reasons["long description", "t"] == Reason.TEXT_TOO_LONG
    # the newest row of an id with a title is kept, although a row without a title is newer
    assert reasons["twice", "new"] is None
    assert reasons["twice", "old"] == reasons["twice", "undated"] == Reason.DUPLICATE_ID
    assert reasons["twice", ""] == Reason.EMPTY_TITLE
    assert all((row.detail is None) == (row.reason is None) for row in flagged)
    details = {row.reason: row.detail for row in flagged}
    assert details[Reason.UNPARSEABLE_ROW] == "cut off"
    assert details[Reason.DUPLICATE_ID].startswith("copy ")


def test_the_same_copy_is_kept_in_any_order_of_the_rows(spark: Any) -> None:
    rows = [_row("1", title, updated_at=OLD) for title in "abcdef"]
    kept = [
        flag_rows(spark.createDataFrame(order, SCHEMA), _shipped()).where("reason is null").collect()
        for order in (rows, rows[::-1])
    ]
    assert kept[0] == kept[1]
    assert len(kept[0]) == 1


@pytest.mark.parametrize(
    ("rule", "complaint"),
    [
        ({"reason": "ugly", "when": "true", "detail": "''"}, "unknown reason 'ugly'; the reasons are"),
        ({"reason": "missing_id", "if": "true", "detail": "''"}, "has the keys"),
        ({"reason": "missing_id", "when": "true"}, "has the keys"),
    ],
)
def test_an_unknown_reason_or_key_is_a_config_error(rule: dict[str, str], complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "rules.json"
    path.write_text(json.dumps({"rules": [rule]}))
    with pytest.raises(ConfigError, match=complaint):
        load_rules(path)
    path.write_text("{")
    with pytest.raises(ConfigError, match="not a usable list of row rules"):
        load_rules(path)


@pytest.mark.parametrize("when", ["no_such_column is null", "title is is null"])
def test_a_rule_that_is_not_sql_over_the_columns_is_a_config_error(when: str, spark: Any, tmp_path: Path) -> None:
    path = tmp_path / "rules.json"
    path.write_text(json.dumps({"rules": [{"reason": "missing_id", "when": when, "detail": "''"}]}))
    with pytest.raises(ConfigError, match="row rule is not valid"):
        flag_rows(spark.createDataFrame([_row("1")], SCHEMA), load_rules(path))
