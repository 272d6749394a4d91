"""Row rules: the first rule that is true gives the reason; good rows have none."""

from __future__ import annotations

import json
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from catalog_enrichment import resources
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.reasons import Reason
from catalog_enrichment.validation.rows import flag_rows, load_rules

COLUMNS = {
    **dict.fromkeys(("product_id", "title", "description", "parse_error", "payload", "content_hash"), "string"),
    **dict.fromkeys(("shop_id", "category", "language"), "string"),
    "updated_at": "timestamp",
    "deleted": "boolean",
    "images": "array<struct<uri: string>>",
    "merchant_attributes": "map<string, array<string>>",
}
SCHEMA = ", ".join(f"{name} {of}" for name, of in COLUMNS.items())
OLD, NEW = datetime(2026, 1, 1), datetime(2026, 1, 2)


def _row(product_id: str | None, title: str | None = "t", **other: Any) -> tuple[Any, ...]:
    values = {"product_id": product_id, "title": title, "payload": f"{product_id}{title}", "deleted": False} | other
    return tuple(values.get(name) for name in COLUMNS)


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


def _address(characters: int) -> tuple[str]:
    return ("x" * characters,)


LIMITS: dict[str, tuple[dict[str, Any], dict[str, Any], Reason, str]] = {
    "product id": (
        {"product_id": "x" * 500}, {"product_id": "x" * 501}, Reason.TEXT_TOO_LONG,
        "the product id has 501 characters (at most 500)",
    ),
    "shop": (
        {"shop_id": "x" * 500}, {"shop_id": "x" * 3000}, Reason.TEXT_TOO_LONG,
        "the shop has 3000 characters (at most 500)",
    ),
    "title": (
        {"title": "x" * 2000}, {"title": "x" * 2001}, Reason.TEXT_TOO_LONG,
        "the title has 2001 characters (at most 2000)",
    ),
    "description": (
        {"description": "x" * 200_000}, {"description": "x" * 200_001}, Reason.TEXT_TOO_LONG,
        "the description has 200001 characters (at most 200000)",
    ),
    "category": (
        {"category": "ä" * 2000}, {"category": "a/" * 2_500_000}, Reason.TEXT_TOO_LONG,
        "the category has 5000000 characters (at most 2000)",
    ),
    "language": (
        {"language": "x" * 500}, {"language": "x" * 501}, Reason.TEXT_TOO_LONG,
        "the language has 501 characters (at most 500)",
    ),
    "an address": (
        {"images": [_address(4000), (None,)]}, {"images": [_address(1), _address(4001)]}, Reason.TEXT_TOO_LONG,
        "an address of a picture has 4001 characters (at most 4000)",
    ),
    "pictures": (
        {"images": [_address(9)] * 500}, {"images": [_address(9)] * 501}, Reason.TOO_MANY_VALUES,
        "501 pictures (at most 500)",
    ),
    "values": (
        {"merchant_attributes": {"a": ["x" * 100_000], "b": ["x" * 100_000]}},
        {"merchant_attributes": {"a": ["x" * 100_000], "b": ["x" * 99_999, "xy"]}}, Reason.TEXT_TOO_LONG,
        "the values of the attributes have 200001 characters together (at most 200000)",
    ),
    "number of values": (
        {"merchant_attributes": {"a": ["x"] * 999, "b": ["y"]}},
        {"merchant_attributes": {"a": ["x"] * 999, "b": ["y", "z"]}}, Reason.TOO_MANY_VALUES,
        "1001 values of attributes (at most 1000)",
    ),
}  # fmt: skip
"""What is limited -> a row at the limit, a row beyond it, and why that is refused."""


def test_texts_and_lists_that_others_give_have_limits(spark: Any) -> None:
    rows = [
        _row(values.pop("product_id", f"{name} {number}"), values.pop("title", "t"), **values, payload=name)
        for name, (*given, _, _) in LIMITS.items()
        for number, values in enumerate(map(dict, given))
    ]
    flagged = flag_rows(spark.createDataFrame(rows, SCHEMA), _shipped()).collect()
    found = {(row.payload, row.reason): row.detail for row in flagged}
    assert found == {(name, None): None for name in LIMITS} | {
        (name, reason): detail for name, (_, _, reason, detail) in LIMITS.items()
    }


def test_the_same_copy_is_kept_in_any_order_of_the_rows(spark: Any) -> None:
    rows = [_row("1", title, updated_at=OLD) for title in "abcdef"]
    kept = [
        flag_rows(spark.createDataFrame(order, SCHEMA), _shipped()).where("reason is null").collect()
        for order in (rows, rows[::-1])
    ]
    assert kept[0] == kept[1]
    assert len(kept[0]) == 1


def test_of_a_row_that_deletes_its_product_only_the_id_is_checked_and_the_product_goes_first(spark: Any) -> None:
    rows = [
        _row("1", None, deleted=True),
        _row(None, deleted=True),
        _row("2", deleted=True, parse_error="cut off"),
        *[_row("3", "x" * 3000, deleted=True, payload=str(number)) for number in range(9)],
        *[_row("4", deleted=deleted, updated_at=OLD, payload=f"{deleted}") for deleted in (True, False)],
        *[_row("5", deleted=deleted, updated_at=NEW if deleted else OLD) for deleted in (True, False)],
    ]
    flagged = flag_rows(spark.createDataFrame(rows, SCHEMA), _shipped()).collect()
    found = Counter((row.product_id, row.deleted, row.reason) for row in flagged)
    assert found == {
        ("1", True, None): 1, (None, True, "missing_id"): 1, ("2", True, "unparseable_row"): 1, ("3", True, None): 1,
        ("3", True, "duplicate_id"): 8, ("4", False, None): 1, ("4", True, "duplicate_id"): 1, ("5", True, None): 1,
        ("5", False, "duplicate_id"): 1,
    }  # fmt: skip


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
