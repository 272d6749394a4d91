"""Which attributes are pending: rules about single products, on a lake with a few rows of predictions and runs."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.dictionary import Attribute
from catalog_enrichment.enrichment.pending import RETRY_AFTER, DecisionScope, with_pending
from catalog_enrichment.proposers.network import NetworkProposer
from catalog_enrichment.reasons import ADMINISTRATIVE, Reason
from catalog_enrichment.records import Cardinality, Modality
from catalog_enrichment.registry.model_registry import ResolvedModel

from .. import sample_catalog
from ..catalog.catalog_rows import frame, prediction, product, run_row
from ..sample_certificate import SCORED_BY

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

COLOR = Attribute(name="color", cardinality=Cardinality.ONE, values=("Red", "Blue"))
CERTIFICATE = sample_catalog.certificate("color", Modality.BOTH, 0.5, SCORED_BY)
CONFIG_HASH = "config-1"
SLICE = {"category": "Apparel/Topwear", "language": "en"}
SEEN_BY_TRYING = {"certificate_mismatch", "picture_outage"}
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)

Row = dict[str, Any]


def model(version: str, name: str = "m") -> ResolvedModel:
    proposer = NetworkProposer(
        folder=Path(), artifact_hash="", heads={}, weights_hash="weights", preprocessing_hash="p"
    )
    return ResolvedModel(
        name=name, version=version, artifact=Path(), artifact_hash="", proposer=proposer, certificates=(CERTIFICATE,)
    )


def decided(product_id: str, reason: str, run: str = "run-1", **given: Any) -> Row:
    """A row of `predictions` about the colour, by version 1 with the certificate in force, unless given otherwise."""
    row = prediction(product_id, "color", "Red", reason=reason, decision="abstain", run_id=run, **SLICE)
    return row | {"certificate_id": CERTIFICATE.certificate_id} | given


def finished(run: str, at: datetime = LONG_AGO, **given: Any) -> Row:
    """A row of `runs`; the config is that of the request."""
    return run_row(run, attempt=1, model_name="m", finished_at=at, config_hash=CONFIG_HASH, **given)


def rolled_back(run: str, at: datetime, name: str = "undo", attribute: str | None = None) -> Row:
    """A row of `runs`: the rollback ``name`` of a run, or of one attribute of it."""
    window = json.dumps({"run_id": run, "attribute": attribute})
    return finished(name, at, parent_run_id=run, window=window) | {"kind": "rollback"}


def pending(
    spark: SparkSession,
    folder: Path,
    predictions: Sequence[Row],
    runs: Sequence[Row],
    products: Sequence[Row],
    version: str = "1",
    config_hash: str = CONFIG_HASH,
    taken_back: Collection[str] = (),
    name: str = "m",
) -> set[str]:
    """The products whose colour is pending. Where a decision says that a person's value stands it does; not of those
    products that are in ``taken_back``."""
    catalog = Catalog(folder / "catalog", spark)
    catalog.append_rows("predictions", predictions, "test")
    human_owned = [row["product_id"] for row in predictions if row["reason"] == "human_value_stands"]
    if said := [event for name in human_owned for event in human_assertions(name, name in taken_back)]:
        catalog.append_rows("attribute_values", said, "people")
    catalog.append_rows("runs", runs, "test")
    frame_of_products = frame(spark, "products", [SLICE | row for row in products])
    rows = with_pending(catalog, frame_of_products, DecisionScope([COLOR], model(version, name), config_hash))
    found = rows.select("product_id", "pending", "tried_again").collect()
    assert not [row for row in found if row["pending"] and row["tried_again"]], "what is decided now is not left open"
    return {row["product_id"] for row in found if row["pending"]}


def human_assertions(product_id: str, taken_back: bool) -> list[Row]:
    """The ledger's events: what the person said, and a model's value."""
    said = {"event_id": f"{product_id}/said", "op": "assert", "product_id": product_id, "attribute": "color",
            "value": "Red", "source": "human", "run_id": "set_value-1", "asserted_at": LONG_AGO}  # fmt: skip
    by_model = said | {"event_id": f"{product_id}/model", "source": "model", "run_id": "run-0"}
    undone = {"event_id": f"{product_id}/undone", "op": "retract", "run_id": "rollback-1", "asserted_at": later(1)}
    of_said = dict.fromkeys(("refers_to", "undoes"), said["event_id"])
    return [by_model, said, said | undone | of_said] if taken_back else [by_model, said]


NOTHING_CHANGED = [
    "certified",
    "below_threshold",
    "near_miss",
    "value_removed",
    "human_value_stands",
    *sorted(ADMINISTRATIVE),
]


def test_a_decided_attribute_is_not_pending_while_nothing_changes_i5(spark: SparkSession, tmp_path: Path) -> None:
    predictions = [decided(reason, reason) for reason in NOTHING_CHANGED]
    products = [product(name) for name in (*NOTHING_CHANGED, "new")]
    assert pending(spark, tmp_path, predictions, [finished("run-1", datetime.now(UTC))], products) == {"new"}


CHANGES: dict[str, tuple[Row, set[str]]] = {
    "another certificate": ({"certificate_id": "other"}, set(ADMINISTRATIVE)),
    "a first certificate": ({"certificate_id": None}, set(ADMINISTRATIVE)),
    "no certificate any more": ({"modality": "text_only"}, set(ADMINISTRATIVE)),
    "category": ({"category": "Home"}, ADMINISTRATIVE | {"certified"}),
    "language": ({"language": None}, ADMINISTRATIVE | {"certified"}),
    "content": ({"content_hash": "content-0"}, set(NOTHING_CHANGED)),
}
"""What the decision had instead of today's value -> the reasons that are open again by it."""


def test_what_a_reason_rests_on_opens_it_again(spark: SparkSession, tmp_path: Path) -> None:
    cases = [(what, reason) for what in CHANGES for reason in NOTHING_CHANGED]
    predictions = [decided(f"{what}/{reason}", reason, **CHANGES[what][0]) for what, reason in cases]
    products = [product(f"{what}/{reason}") for what, reason in cases]
    found = pending(spark, tmp_path, predictions, [finished("run-1", datetime.now(UTC))], products)
    assert found == {f"{what}/{reason}" for what, (_, reasons) in CHANGES.items() for reason in reasons}


@pytest.mark.parametrize(
    ("asked", "age", "open_again"),
    [
        ({"version": "2"}, timedelta(0), set(NOTHING_CHANGED)),
        ({"name": "another model"}, timedelta(0), set(NOTHING_CHANGED)),
        ({"config_hash": "config-2"}, timedelta(0), SEEN_BY_TRYING | {Reason.PAUSED, Reason.VALUE_REMOVED}),
        ({}, RETRY_AFTER, SEEN_BY_TRYING | {Reason.NO_ANSWER}),
        ({}, -RETRY_AFTER, SEEN_BY_TRYING | {Reason.NO_ANSWER}),  # the clock has been set back since
    ],
)
def test_which_reasons_another_version_another_config_and_time_open_again(
    spark: SparkSession, tmp_path: Path, asked: dict[str, str], age: timedelta, open_again: set[str]
) -> None:
    predictions = [decided(reason, reason) for reason in NOTHING_CHANGED]
    products = [product(reason) for reason in NOTHING_CHANGED]
    run = finished("run-1", datetime.now(UTC) - age * 1.01)
    assert pending(spark, tmp_path, predictions, [run], products, **asked) == open_again


def test_what_had_no_answer_is_open_when_there_is_one(spark: SparkSession, tmp_path: Path) -> None:
    """About this attribute and content; and what a proposer reads beside the content opens its decisions."""
    names = ["answered", "other content", "other attribute", "decided", "moved"]
    predictions = [decided(name, "below_threshold" if name in ("decided", "moved") else "no_answer") for name in names]
    predictions[-1] |= {"category": "Home"}
    catalog = Catalog(tmp_path / "catalog", spark)
    catalog.append_rows("predictions", predictions, "test")
    catalog.append_rows("runs", [finished("run-1", datetime.now(UTC))], "test")
    products = frame(spark, "products", [SLICE | product(name) for name in names])
    answers = [(name, "content-1", ["color"]) for name in ("answered", "decided", "moved")]
    answers += [("other content", "content-0", ["color"]), ("other attribute", "content-1", ["material"])]
    schema = "product_id string, content_hash string, answered array<string>"
    for reads, expected in ((("product_id",), {"answered"}), (("category",), {"answered", "moved"})):
        proposer = SimpleNamespace(reads=reads, answers=lambda _: spark.createDataFrame(answers, schema))
        scope = DecisionScope([COLOR], replace(model("1"), proposer=proposer), CONFIG_HASH)  # type: ignore[arg-type]
        rows = with_pending(catalog, products, scope)
        assert {row["product_id"] for row in rows.where("size(pending) > 0").collect()} == expected


def test_without_the_merchants_value_a_decision_about_it_is_open_again(spark: SparkSession, tmp_path: Path) -> None:
    """Also where other values of the same decision were below the threshold."""
    predictions = [
        decided("agrees", "agrees_with_merchant"),
        decided("disagrees", "disagrees_with_merchant"),
        decided("mixed", "below_threshold"),
        decided("mixed", "agrees_with_merchant", value="Blue", rank=2),
        decided("kept", "agrees_with_merchant"),
        decided("empty", "agrees_with_merchant"),
    ]
    given = {"kept": {"color": ["Red"]}, "empty": {"color": []}, "mixed": None}
    names = ["agrees", "disagrees", "mixed", "kept", "empty"]
    products = [product(name, merchant_attributes=given.get(name, {"size": ["M"]})) for name in names]
    found = pending(spark, tmp_path, predictions, [finished("run-1")], products)
    assert found == {"agrees", "disagrees", "mixed", "empty"}


def test_what_a_person_took_back_opens_what_was_left_to_them(spark: SparkSession, tmp_path: Path) -> None:
    names = ["stands", "taken back", "decided otherwise"]
    reasons = dict.fromkeys(names[:2], "human_value_stands")
    predictions = [decided(name, reasons.get(name, "near_miss")) for name in names]
    products = [product(name) for name in names]
    found = pending(spark, tmp_path, predictions, [finished("run-1")], products, taken_back=["taken back"])
    assert found == {"taken back"}


def later(number: int) -> datetime:
    return LONG_AGO + timedelta(hours=number)


def test_the_newest_decision_counts_whichever_version_made_it(spark: SparkSession, tmp_path: Path) -> None:
    predictions = [
        decided("back to A", "certified", "run-1"),
        decided("back to A", "certified", "run-2", content_hash="content-2"),
        decided("version back", "certified", "run-1"),
        decided("version back", "certified", "run-2", model_version="2"),
        decided("again", "certified", "run-2", content_hash="content-2"),
        decided("again", "certified", "run-3"),
        decided("other attribute", "certified", "run-1"),
        decided("other attribute", "certified", "run-2", attribute="size", content_hash="content-2"),
        decided("killed", "certified", "run-1"),
        decided("killed", "certified", "never finished", content_hash="content-2"),
    ]
    names = ["back to A", "version back", "again", "other attribute", "killed"]
    runs = [finished(f"run-{number}", later(number)) for number in (3, 1, 2)]
    found = pending(spark, tmp_path, predictions, runs, [product(name) for name in names])
    assert found == {"back to A", "version back"}


ROLLBACKS: dict[str, tuple[list[tuple[str, str, str | None]], bool]] = {
    "none": ([], True),
    "whole": ([("undo", "run", None)], False),
    "this attribute": ([("undo", "run", "color")], False),
    "another attribute": ([("undo", "run", "size")], True),
    "taken back": ([("undo", "run", None), ("redo", "undo", None)], True),
    "taken back for another": ([("undo", "run", None), ("redo", "undo", "size")], False),
    "again": ([("undo", "run", None), ("redo", "undo", None), ("undo again", "redo", None)], False),
}
"""Rollbacks (name, of which run, of which attribute) in order -> whether the decision of the run `run` counts."""


def test_a_decision_of_another_version_counts_unless_it_was_rolled_back(spark: SparkSession, tmp_path: Path) -> None:
    """Where it does not, this version's own decision is the newest again, and nothing is scored anew."""
    predictions, runs = [], [finished("run-1", later(1))]
    for case, (rollbacks, _) in ROLLBACKS.items():
        predictions.append(decided(case, "certified", "run-1"))
        predictions.append(decided(case, "certified", f"{case}/run", model_version="2"))
        runs.append(finished(f"{case}/run", later(2)))
        for number, (name, undone, attribute) in enumerate(rollbacks, start=3):
            runs.append(rolled_back(f"{case}/{undone}", later(number), f"{case}/{name}", attribute))
    found = pending(spark, tmp_path, predictions, runs, [product(case) for case in ROLLBACKS])
    assert found == {case for case, (_, counts) in ROLLBACKS.items() if counts}


def test_content_that_this_version_could_not_score_is_refused_once(spark: SparkSession, tmp_path: Path) -> None:
    catalog = Catalog(tmp_path / "catalog", spark)
    cases = {
        "refused": {}, "refused twice": {}, "other version": {"model_version": "2"},
        "other content": {"content_hash": "content-0"}, "of an import": {"model_version": None},
        "killed": {"run_id": "x"}, "other model": {"run_id": "of n"},
    }  # fmt: skip
    usual = {"stage": "predict", "reason": "scoring_failed", "content_hash": "content-1", "model_version": "1"}
    at = {"run_id": "run-1", "quarantined_at": LONG_AGO}
    rows = [usual | at | {"product_id": name} | given for name, given in cases.items()]
    catalog.append_rows("quarantine", [*rows, rows[1]], "run-1")
    catalog.append_rows("runs", [finished("run-1"), finished("of n") | {"model_name": "n"}], "run-1")
    products = frame(spark, "products", [SLICE | product(name) for name in cases])
    found = with_pending(catalog, products, DecisionScope([COLOR], model("1"), CONFIG_HASH))
    found = found.select("product_id", "refused").collect()
    assert len(found) == len(cases)
    assert {row["product_id"] for row in found if row["refused"]} == {"refused", "refused twice"}


def test_what_a_person_took_back_is_not_written_again_by_the_same_version(spark: SparkSession, tmp_path: Path) -> None:
    runs = [finished("run-1", later(1)), rolled_back("run-1", later(2))]
    assert pending(spark, tmp_path, [decided("a", "certified")], runs, [product("a")]) == set()


def test_what_was_retracted_since_its_decision_is_pending(spark: SparkSession, tmp_path: Path) -> None:
    hours = {"run-0": 1, "run-1": 1, "off-1": 2, "off-2": 2, "run-3": 3}
    runs = [finished(name, later(hour)) for name, hour in hours.items()]
    runs += [rolled_back("off-2", later(9)), rolled_back("run-0", later(9), "undo-1")]
    cases = {
        "switched off": ("run-1", "off-1", "switched_off", None),
        "refused content": ("run-1", "off-1", "content_changed", None),
        "superseded": ("run-1", "off-1", "superseded", None),
        "by a rollback": ("run-1", "off-1", "switched_off", "event"),
        "rolled back": ("run-1", "off-2", "switched_off", None),
        "never finished": ("run-1", "killed", "switched_off", None),
        "gone, never finished": ("run-1", "killed", "product_gone", None),
        "gone before": ("run-3", "killed", "product_gone", None),
        "decided since": ("run-3", "off-1", "switched_off", None),
        "with a decision": ("run-3", "run-3", "content_changed", None),
        "taken back by a person": ("run-0", "off-1", "switched_off", None),
    }
    predictions = [decided(name, "certified", run) for name, (run, *_) in cases.items()]
    events = [
        {"event_id": name, "product_id": name, "attribute": "color", "value": "Red", "op": "retract", "run_id": run}
        | {"reason": reason, "undoes": undoes, "source": "model", "asserted_at": later(2)}
        for name, (_, run, reason, undoes) in cases.items()
    ]
    catalog = Catalog(tmp_path / "catalog", spark)
    catalog.append("attribute_values", frame(spark, "attribute_values", events), "test")
    products = [product(name) for name in cases]
    found = pending(spark, tmp_path, predictions, runs, products)
    assert found == {"switched off", "refused content", "gone, never finished"}


def capped(product_id: str, run: str = "run-1", **given: Any) -> dict[str, Any]:
    return decided(product_id, **({"reason": "provisional_cap", "run": run} | given))


def test_what_waits_and_with_which_score(spark: SparkSession, tmp_path: Path) -> None:
    predictions = [
        capped("single"),
        capped("two", score=0.95), capped("two", value="Blue", rank=2, score=0.91),
        capped("two", value="Green", rank=3, score=0.2, reason="below_threshold"),
        capped("earlier", score=0.5), capped("earlier", value="Blue", rank=2, score=0.4),
        capped("earlier", "run-2", score=0.8),
        capped("published since"), decided("published since", "certified", "run-2"),
        capped("merchant"),
        capped("not applicable", category="Home"),
        capped("other content", content_hash="content-0"),
        capped("other certificate", certificate_id="other"),
        capped("rolled back", "run-3"),
        decided("published and rolled back", "certified", "run-3"),
    ]  # fmt: skip
    runs = [finished(f"run-{n}", later(n)) for n in (1, 2, 3)]
    catalog = Catalog(tmp_path / "catalog", spark)
    catalog.append_rows("predictions", predictions, "test")
    catalog.append_rows("runs", [*runs, rolled_back("run-3", later(4))], "test")
    given = {"merchant": {"color": ["Red"]}}
    names = {row["product_id"] for row in predictions} - {"not applicable"} | {"new"}
    products = [SLICE | product(name, merchant_attributes=given.get(name)) for name in names]
    products += [SLICE | product("not applicable", category="Home")]
    of_apparel = replace(COLOR, categories=("Apparel",))

    found = with_pending(
        catalog, frame(spark, "products", products), DecisionScope([of_apparel], model("1"), CONFIG_HASH)
    )

    rows = {row["product_id"]: row for row in found.select("product_id", "pending", "waiting").collect()}
    waiting = {name: [tuple(values) for values in row["waiting"]] for name, row in rows.items() if row["waiting"]}
    assert waiting == {
        "single": [("color", 1, 0.99)], "two": [("color", 2, 0.91)], "earlier": [("color", 1, 0.8)]
    }  # fmt: skip
    pending = {name for name, row in rows.items() if row["pending"]}
    assert pending == {"new", "other content", "other certificate"}
