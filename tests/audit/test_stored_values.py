"""No two values of a dictionary are stored as one, whoever gives them: merchants, people, reviewers (I1)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from catalog_enrichment import dictionary, resources
from catalog_enrichment.audit import consequences, ingest_verdicts, label_studio
from catalog_enrichment.audit.review_records import Answer, Item
from catalog_enrichment.audit.review_store import ReviewStore
from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.dictionary import Attribute, Dictionary, Spellings
from catalog_enrichment.ingest.merchant_values import normalised
from catalog_enrichment.operations.set_value import Correction
from catalog_enrichment.records import Cardinality

from ..catalog.catalog_rows import run_row
from .audit_rows import drawn
from .review_samples import item, sample, verdict

ALIKE = (
    *("A", "A+", "A++", "A+++", "C", "C#", "C++", "-1.50", "+1.50", "1.50", "150", "<5", "≥5", "5", "★★", "★★★"),
    *("कम", "काम", "नि", "नी", "I/O", "1/2", "12", "5'", '5"', "#1", "1", "50%", "50", "$", "€"),
)
"""Values that a comparison of their words alone takes for each other."""

SHIPPED = {file.stem: dictionary.load(file) for file in sorted(resources.folder("schemas").glob("attributes/*.json"))}
WORDS = SHIPPED | {"alike": Dictionary({"grade": Attribute(name="grade", cardinality=Cardinality.ONE, values=ALIKE)})}
LANGUAGES = (None, "en", "de", "tr", "hi")

every_dictionary = pytest.mark.parametrize("words", WORDS.values(), ids=list(WORDS))


def test_there_are_dictionaries() -> None:
    assert len(SHIPPED) >= 8
    for attribute in WORDS["alike"].attributes.values():  # it can be loaded
        dictionary._AttributeRow(name=attribute.name, cardinality="one", values=list(attribute.values))


@every_dictionary
def test_i1_an_import_stores_every_value_as_itself(words: Dictionary) -> None:
    for language in LANGUAGES:
        given = [[(name, [value])] for name, of in words.attributes.items() for value in of.values]
        column = pa.array(given, pa.map_(pa.string(), pa.list_(pa.string())))
        languages = pa.array([language] * len(given), pa.string())
        assert normalised(column, languages, Spellings(words)).to_pylist() == given


@every_dictionary
def test_a_correction_stores_every_value_as_itself(words: Dictionary) -> None:
    for name, attribute in words.attributes.items():
        for value in attribute.values:
            correction = Correction(product_id="p", attribute=name, values=(value,), by="ann")
            correction.check(words)
            assert [correction.canonical_values(attribute, language) for language in LANGUAGES] == [[value]] * 5


def questions(words: Dictionary) -> dict[Item, str]:
    """Return an item per value, which asks about another value -> the right value."""
    found = {}
    for name, attribute in words.attributes.items():
        for number, value in enumerate(attribute.values):
            about = {"attribute": name, "cardinality": attribute.cardinality, "value": attribute.values[number - 1]}
            found[item(number, product_id=f"{name} {number}", **about)] = value
    return found


def by_page(store: ReviewStore, asked: dict[Item, str], *_: Any) -> None:
    for of, right in asked.items():
        store.add_verdict(verdict(of, "Ana", Answer.OTHER, right))


def by_label_studio(store: ReviewStore, asked: dict[Item, str], words: Dictionary, folder: Path) -> None:
    tasks = []
    for of, right in asked.items():
        [choice] = [choice["value"] for choice in _data(of, words)["values"] if choice["value"] == right]
        chosen = {"answer": ["other"], "right_values": [choice]}
        result = [{"from_name": name, "type": "choices", "value": {"choices": of}} for name, of in chosen.items()]
        given = {"completed_by": 1, "result": result, "created_at": "2026-03-02T10:00:00Z"}
        tasks.append({"data": _data(of, words), "annotations": [given]})
    (folder / "results.json").write_text(json.dumps(tasks))
    summary = label_studio.import_results(store, words, folder / "results.json")
    assert summary["annotations"] == {"added": len(asked)}


def _data(of: Item, words: Dictionary) -> dict[str, Any]:
    values = words[of.attribute].values
    return {"item_id": of.item_id, "values": [{"value": value} for value in values if value != of.value]}


@every_dictionary
@pytest.mark.parametrize("judge", [by_page, by_label_studio])
def test_a_verdict_stores_every_value_as_itself(words: Dictionary, judge: Any, tmp_path: Path) -> None:
    asked, catalog = questions(words), Catalog(tmp_path / "catalog")
    names = ("item_id", "sample_id", "product_id", "attribute", "value")
    rows = [drawn(0, **{name: getattr(of, name) for name in names}) for of in asked]
    catalog.append_rows("audits", rows, "sample-1")
    catalog.append_rows("runs", [run_row("sample-1", kind="sample", attempt=1)], "sample-1")
    with ReviewStore(tmp_path / "review.sqlite") as store:
        store.add_sample(sample(reviewers=1), list(asked))
        judge(store, asked, words, tmp_path)
        new = ingest_verdicts.new_verdicts(catalog, store, {})
    plan = consequences.ledger_plan(new.rows, {}, words)
    assert plan.human == {(of.product_id, of.attribute): (right,) for of, right in asked.items()}
    assert plan.refused == {(of.product_id, of.attribute, of.value) for of in asked}
