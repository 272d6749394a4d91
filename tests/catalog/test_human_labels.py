"""Answers to gold samples are labels that certify and train nothing."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from catalog_enrichment.catalog import human_labels, ledger
from catalog_enrichment.catalog.human_labels import GoldLabel
from catalog_enrichment.catalog.lake import Catalog

from ..open_words import OPEN_WORDS
from .catalog_rows import run_row

START = datetime(2026, 5, 1, tzinfo=UTC)


def item(product: str, attribute: str = "color", **given: Any) -> dict[str, Any]:
    usual = {
        "item_id": f"{product}-{attribute}", "sample_id": "s", "purpose": "gold", "stratum": "uniform", "draw_order": 0,
        "probability": 0.1, "population": 9, "weight": 1.0, "highest_weight": 1.0, "product_id": product,
        "attribute": attribute, "value": "", "content_hash": f"content-{product}", "drawn_at": START, "run_id": "draw",
    }  # fmt: skip
    return usual | given


def verdict(of: dict[str, Any], answer: str, *right: str, minutes: int = 1, run: str = "ingest-1") -> dict[str, Any]:
    names = ("item_id", "sample_id", "purpose", "product_id", "attribute", "value")
    said = {"answer": answer, "right_values": list(right), "reviewers": ["ann"], "run_id": run}
    return {name: of[name] for name in names} | said | {"settled_at": START + timedelta(minutes=minutes)}


PERFUME, SHIRT, WOOL, BLURRED, KILLED, BACK = (
    item("perfume"), item("shirt"), item("shirt", "material"), item("blurred"), item("killed"), item("back"),
)  # fmt: skip
AUDITED = item("audited", purpose="audit", value="red")
WITHOUT = item("audited", "material", purpose="audit", value="cotton")
"""It was written, and people said that the product has no material: it teaches no other material."""
SUGGESTED = item("perfume", purpose="suggestions", value="red", item_id="suggested")


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    lake = Catalog(tmp_path / "catalog")
    again = item("shirt", item_id="shirt-again", content_hash="content-new", drawn_at=START + timedelta(days=1))
    lake.append_rows("audits", [PERFUME, SHIRT, WOOL, BLURRED, KILLED, BACK, AUDITED, again], "draw")
    rows = [
        verdict(PERFUME, "none"),
        verdict(again, "other", "blue", minutes=9),
        verdict(SHIRT, "other", "red", minutes=2),
        verdict(WOOL, "other", "wool", "cotton"),
        verdict(BLURRED, "cannot_tell"),
        verdict(KILLED, "none", run="ingest-killed"),
        verdict(BACK, "none", run="ingest-back"),
        verdict(AUDITED, "other", "green"),
        verdict(SUGGESTED, "yes"),
        verdict(WITHOUT, "none"),
    ]
    lake.append_rows("verdicts", rows, "rows")
    window = '{"run_id": "ingest-back", "attribute": null}'
    lake.append_rows(
        "runs",
        [
            run_row("draw", kind="sample"),
            run_row("ingest-1", kind="audit", attempt=1),
            run_row("ingest-back", kind="audit", attempt=1),
            run_row("undo", kind="rollback", attempt=1, parent_run_id="ingest-back", window=window),
        ],
        "runs",
    )
    return lake


def test_the_newest_settled_answer_of_a_finished_ingest_is_the_label(catalog: Catalog) -> None:
    later = START + timedelta(days=1)
    assert human_labels.gold_labels(catalog) == {
        "perfume": {"color": GoldLabel((), "none", "content-perfume", START)},
        "shirt": {
            "color": GoldLabel(("blue",), "value", "content-new", later),
            "material": GoldLabel(("cotton", "wool"), "value", "content-shirt", START),
        },
        "blurred": {"color": GoldLabel((), "cannot_tell", "content-blurred", START)},
    }
    assert human_labels.gold_counts(human_labels.gold_labels(catalog)) == {
        "color": {"cannot_tell": 1, "none": 1, "value": 1},
        "material": {"value": 1},
    }


def test_a_product_has_its_labels_as_long_as_its_content_is_the_drawn_one(catalog: Catalog) -> None:
    ids = ["perfume", "shirt", "blurred", "other"]
    contents = ["content-perfume", "content-shirt", "content-changed", "content-other"]
    batch = pa.record_batch({"product_id": ids, "content_hash": contents})
    (found,) = human_labels.with_gold_labels(catalog, [batch])
    perfume, shirt, changed, without = found.column("gold_labels").to_pylist()
    assert json.loads(perfume) == {"color": {"answer": "none", "values": []}}
    assert json.loads(shirt) == {"material": {"answer": "value", "values": ["cotton", "wool"]}}
    assert (changed, without) == (None, None)


def test_gold_answers_and_what_follows_from_them_train_nothing(catalog: Catalog) -> None:
    def said(run: str, product: str, attribute: str, value: str) -> list[dict[str, Any]]:
        stamp = ledger.RunStamp(run, None, None, START + timedelta(minutes=30))
        return ledger.human_assertions({"product_id": product, "content_hash": "c"}, attribute, [value], stamp)

    events = [
        *said("ingest-1", "shirt", "color", "blue"),
        *said("set_value-1", "blurred", "color", "green"),
        *said("set_value-2", "back", "color", "red"),
        *said("set_value-3", "perfume", "material", "cotton"),
    ]
    catalog.append_rows("attribute_values", events, "events")
    labels = human_labels.labels(catalog)
    assert {(product, name) for product, of in labels.items() for name in of} == {
        ("audited", "color"),
        ("back", "color"),  # the ingest of its gold answer was rolled back
        ("perfume", "material"),
    }


def test_a_catalog_without_samples_has_no_gold_labels(tmp_path: Path) -> None:
    assert human_labels.gold_labels(Catalog(tmp_path / "catalog")) == {}


def rows_of(count: int, sample: str = "s1", population: int = 1000, first: int = 0) -> list[dict[str, Any]]:
    """Drawn rows of a gold sample, in the order of the draw."""
    return [
        item(f"{sample}-{number}", item_id=f"{sample}-{number}", sample_id=sample, population=population)
        for number in range(first, first + count)
    ]


def answered(rows: list[dict[str, Any]]) -> dict[str, dict[str, GoldLabel]]:
    return human_labels.gold_labels_of(rows, [verdict(row, "none") for row in rows])


def test_answers_behind_an_item_without_one_do_not_certify() -> None:
    """Reviewers agree at once on what is easy: what they have not settled counts against what comes after it."""
    rows = rows_of(6)
    known = answered([row for row in rows if row["product_id"] != "s1-3"])
    assert human_labels.certifying(rows, known) == {(f"s1-{number}", "color") for number in range(3)}
    assert len(human_labels.certifying(rows, answered(rows))) == 6


def test_a_sample_of_a_much_smaller_population_does_not_certify_beside_a_newer_one() -> None:
    older, newer = rows_of(3, "old", 1000), rows_of(2, "new", 1100)
    known = answered([*older, *newer])
    assert len(human_labels.certifying([*older, *newer], known)) == 5
    grown = [row | {"population": 5000} for row in newer]
    assert {product for product, _ in human_labels.certifying([*older, *grown], known)} == {"new-0", "new-1"}
    assert human_labels.certifying([*older, *rows_of(1, "unjudged", 5000)], known) == set()


def test_a_newer_answer_about_the_same_number_or_text_counts(tmp_path: Path) -> None:
    lake = Catalog(tmp_path / "catalog")
    lake.dictionary = OPEN_WORDS
    named = {"purpose": "audit"}
    items = [
        item("lifted", "width", value="109 cm", **named), item("lifted", "width", value="1.09 m", **named),
        item("refused", "brand", value="HP", **named), item("refused", "brand", value="hewlett packard", **named),
        item("right", "width", value="100 cm", **named), item("right", "width", value="50 cm", **named),
    ]  # fmt: skip
    for number, row in enumerate(items):
        row["item_id"] = str(number)
    lake.append_rows("audits", items, "draw")
    said = [("no", 1), ("yes", 2), ("yes", 1), ("no", 2), ("no", 1), ("other", 2)]
    rows = [verdict(row, answer, minutes=at) for row, (answer, at) in zip(items, said, strict=True)]
    rows[-1]["right_values"] = ["101 cm"]
    lake.append_rows("verdicts", rows, "rows")
    lake.append_rows("runs", [run_row("draw", kind="sample"), run_row("ingest-1", kind="audit", attempt=1)], "runs")
    found = {name: label for of in human_labels.labels(lake).values() for name, label in of.items() if name == "brand"}
    assert (found["brand"].right, found["brand"].wrong) == ((), ("hewlett packard",))
    widths = {product: of["width"] for product, of in human_labels.labels(lake).items() if "width" in of}
    assert (widths["lifted"].right, widths["lifted"].wrong) == (("1.09 m",), ())
    assert (widths["right"].right, widths["right"].wrong) == (("101 cm",), ("50 cm",))
