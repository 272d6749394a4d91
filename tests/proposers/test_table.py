"""Imported answers as a proposer: on real tables, the same candidates as other proposers give."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.catalog.value_names import Event, Names
from catalog_enrichment.config.images import StoredImagesConfig
from catalog_enrichment.inference import udf
from catalog_enrichment.models.spec import Head
from catalog_enrichment.precision.units import NOTHING, Candidate, as_scores
from catalog_enrichment.proposers import given
from catalog_enrichment.proposers.answers import Proposal
from catalog_enrichment.proposers.given import Calibration
from catalog_enrichment.proposers.protocol import Asked
from catalog_enrichment.proposers.table import TableProposer, labels_by_name, scored_row
from catalog_enrichment.records import Cardinality

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

HEADS = {
    "material": Head(Cardinality.MANY, ("Wool", "Silk", "Cotton")),
    "color": Head(Cardinality.ONE, ("Red", "Blue")),
}
CURVE = Calibration(1.7, -0.3)
PROPOSER = TableProposer(proposer="llm", version="1", heads=HEADS, calibrations={"color": CURVE}, forms=("f/1",))
IMPORTED = datetime(2026, 1, 2, tzinfo=UTC)


def stored(*values: tuple[str, float] | tuple[str, float, str]) -> list[dict[str, Any]]:
    return [
        {"value": value, "score": float(as_scores(score)), "rank": rank, "evidence": more[0] if more else None}
        for rank, (value, score, *more) in enumerate(values, start=1)
    ]


def scored(attribute: str, *values: tuple[str, float], names: Names | None = None) -> list[tuple[str, int, float]]:
    labels = {name: labels_by_name(name, head, names or Names()) for name, head in HEADS.items()}
    row = scored_row([{"attribute": attribute, "candidates": stored(*values)}], True, labels, {"color": CURVE})
    assert {found.attribute for found in row.candidates} == {attribute}
    return [(found.value, found.rank, found.score) for found in row.candidates]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([("Wool", 0.75), ("Silk", 0.5)], [("Wool", 1, 0.75), ("Silk", 2, 0.5)]),
        ([("Linen", 0.75), ("Silk", 0.5)], [("Silk", 1, 0.5)]),
        ([("Wool", 0.75), ("Silk", 0.0)], [("Wool", 1, 0.75)]),
        ([("Wool", 1.0)], [("Wool", 1, 1.0)]),
        ([("Linen", 0.75)], [(NOTHING, 1, 0.0)]),
        ([("Wool", 0.0)], [(NOTHING, 1, 0.0)]),
        ([], [(NOTHING, 1, 0.0)]),
    ],
)
def test_candidates_are_labels_with_a_score(values: list[Any], expected: list[Any]) -> None:
    assert scored("material", *values) == expected


@pytest.mark.parametrize("score", [0.1, 0.5, 0.123456789, 1.0])
def test_scores_are_calibrated_to_the_same_bits_as_those_of_other_proposers(score: float) -> None:
    candidate = Candidate("Red", float(as_scores(score)), 1)
    [expected] = given.candidates("color", [Proposal(candidate)], CURVE)
    assert scored("color", ("Red", score)) == [("Red", 1, expected.score)]
    assert (expected.score == candidate.score) == (score == 1.0)


def test_without_an_answer_about_an_attribute_nothing_is_said() -> None:
    labels = {name: labels_by_name(name, head, Names()) for name, head in HEADS.items()}
    assert scored_row(None, False, labels, {}).candidates == []
    other = {"attribute": "color", "candidates": stored(("Red", 0.5))}
    assert [found.attribute for found in scored_row([other], False, labels, {}).candidates] == ["color"]


def test_an_answer_and_a_label_with_the_same_name_in_force_are_one_value() -> None:
    later = Names().with_events([Event("material", "Wool", "Lana"), Event("color", "Wool", "Lana")])
    assert scored("material", ("Lana", 0.75), ("Wool", 0.5), names=later) == [("Wool", 1, 0.75)]
    earlier = Names().with_events([Event("material", "Old wool", "Wool")])
    assert scored("material", ("Old wool", 0.5), names=earlier) == [("Wool", 1, 0.5)]
    merged = Names().with_events([Event("material", "Silk", "Wool")])
    assert scored("material", ("Silk", 0.5), ("Wool", 0.25), names=merged) == [("Silk", 1, 0.5), ("Wool", 2, 0.25)]
    other = Names().with_events([Event("color", "Old wool", "Wool")])
    assert scored("material", ("Old wool", 0.5), names=other) == [(NOTHING, 1, 0.0)]


def test_the_hash_is_that_of_the_proposer_and_its_scores() -> None:
    others = [
        replace(PROPOSER, proposer="other"),
        replace(PROPOSER, version="2"),
        replace(PROPOSER, heads={"color": HEADS["color"]}),
        replace(PROPOSER, heads=HEADS | {"color": Head(Cardinality.ONE, ("Blue", "Red"))}),
        replace(PROPOSER, heads=HEADS | {"color": Head(Cardinality.MANY, ("Red", "Blue"))}),
        replace(PROPOSER, calibrations={}),
        replace(PROPOSER, forms=("f/1", "f/2")),
        replace(PROPOSER, calibrations={"color": Calibration(1.7, -0.4)}),
        replace(PROPOSER, calibrations={"material": CURVE}),
    ]
    assert len({PROPOSER.weights_hash, *(other.weights_hash for other in others)}) == len(others) + 1
    assert replace(PROPOSER).weights_hash == PROPOSER.weights_hash
    assert PROPOSER.name == "answers of llm 1"


def test_the_answers_of_a_catalog_are_proposed(tmp_path: Path, spark: SparkSession) -> None:
    catalog = Catalog(tmp_path / "catalog", spark)
    picture = [{"bytes": b"...", "uri": None, "version": "1"}]
    catalog.append_rows(
        "products",
        [
            {"product_id": name, "content_hash": f"hash-{name}", "title": name, "images": images, "opt_out": False,
             "updated_at": IMPORTED, "merchant_attributes": {"color": [name]}}
            for name, images in (("a", picture), ("b", []), ("c", None))
        ],
        "products",
    )  # fmt: skip
    facts = {"proposer": "llm", "version": "1", "answered_at": IMPORTED, "run_id": "r", "form": "f/1"}
    answers = [
        ("a", "hash-a", "color", stored(("Red", 0.5, "a red shirt")), {}),
        ("a", "hash-a", "material", stored(), {}),
        ("a", "hash-a", "size", stored(("36", 0.5)), {}),
        ("a", "hash-a", "color", stored(("Blue", 0.5)), {"version": "2"}),
        ("b", "hash-b", "color", stored(("Blue", 0.5)), {"form": "f/3"}),  # a share of three votes is another score
        ("b", "hash-a", "color", stored(("Blue", 0.5)), {}),
        ("b", "hash-b", "color", stored(("Blue", 0.5)), {"proposer": "another"}),
        ("c", "hash-c", "material", stored(("Silk", 0.5), ("Linen", 0.25)), {}),
    ]
    columns = ("product_id", "content_hash", "attribute", "candidates")
    rows = [facts | dict(zip(columns, row[:4], strict=True)) | row[4] for row in answers]
    catalog.append_rows("proposals", rows, "r")

    products = catalog.read("products")
    asked = Asked(catalog=catalog, images=StoredImagesConfig())
    found = PROPOSER.propose(products, asked)
    without_pictures = [name for name in products.columns if name != "images"]
    like = spark.createDataFrame([], f"scored {udf.SCORED_TYPE}").select("scored.*")
    assert found.columns == without_pictures + like.columns
    assert [field.dataType.simpleString() for field in found.schema][-len(like.columns) :] == [
        field.dataType.simpleString() for field in like.schema
    ]
    got = {row["product_id"]: row.asDict(recursive=True) for row in found.collect()}
    candidates = {
        name: [(c["attribute"], c["value"], c["rank"], c["score"], c["evidence"]) for c in row["candidates"]]
        for name, row in got.items()
    }
    assert candidates == {
        "a": [("material", NOTHING, 1, 0.0, None), ("color", "Red", 1, CURVE(0.5), "a red shirt")],
        "b": [],
        "c": [("material", "Silk", 1, 0.5, None)],
    }
    assert {name: row["modality"] for name, row in got.items()} == {"a": "both", "b": "text_only", "c": "text_only"}
    assert {(row["error"], row["detail"], row["image_reason"]) for row in got.values()} == {(None, None, None)}
    rest = products.select(without_pictures).collect()
    assert {row["product_id"]: row.asDict(recursive=True) for row in rest} == {
        name: {column: row[column] for column in without_pictures} for name, row in got.items()
    }
    assert {row["compute_type"] for row in got.values()} == {"given"}

    known = {tuple(row)[:2]: sorted(row["answered"]) for row in PROPOSER.answers(catalog).collect()}
    assert known == {("a", "hash-a"): ["color", "material"], ("b", "hash-a"): ["color"], ("c", "hash-c"): ["material"]}
