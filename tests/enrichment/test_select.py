"""Which products a run takes: by the window and the rules, since the last run, and where values wait."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from catalog_enrichment.catalog import ledger
from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.enrichment import select
from catalog_enrichment.enrichment.request import RequestIdentity, RunRequest, Window
from catalog_enrichment.enrichment.select import LastRun, Selection, last_run
from catalog_enrichment.errors import DataContractError
from catalog_enrichment.operations.rollback import rollback_run
from catalog_enrichment.records import Modality
from catalog_enrichment.spark.frames import persisted_frames

from ..catalog.catalog_rows import START, event, prediction, run_row
from ..sample_catalog import SampleCatalog, change, enrich, table, values

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Row = dict[str, Any]


def selection(sample: SampleCatalog, window: Window | None = None) -> tuple[Selection, dict[str, list[str]]]:
    """The selection, and product id -> pending attributes of what it would score."""
    context = sample.context()
    request = RunRequest.of(sample.config, context.dictionary, sample.model(), window or Window())
    with persisted_frames() as persist:
        chosen = select.select_products(context.catalog, request, select.read_ledger(context.catalog), persist)
        rows = chosen.ready.select("product_id", "pending").collect()
    return chosen, {row["product_id"]: row["pending"] for row in rows}


# --- the window and the rules ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_max_products_takes_the_newest_and_the_next_run_takes_what_is_left(sample: SampleCatalog) -> None:
    window = Window(max_products=5)
    run = enrich(sample, window)
    assert (run["predicted"], run["remaining"]) == (5, 18)
    assert {row["product_id"] for row in table(sample, "predictions")} == {f"p{n:03d}" for n in range(19, 24)}
    again = enrich(sample, window)
    assert (again["predicted"], again["remaining"], again["skipped_reasons"]["already_scored"]) == (5, 13, 5)


def test_switching_off_shops_and_categories_takes_effect_at_the_next_run(sample: SampleCatalog) -> None:
    chosen, pending = selection(
        sample.with_settings("enrich.disabled_shops=['shop-1']", "enrich.disabled_categories=['Home']")
    )
    assert chosen.skipped == {"not_applicable": 2, "opted_out": 1, "shop_disabled": 12}
    assert {int(product[1:]) % 2 for product in pending} == {0}


def test_an_empty_catalog_has_nothing_to_enrich(sample: SampleCatalog) -> None:
    shutil.rmtree(sample.folder / "catalog")
    assert enrich(sample)["status"] == "nothing_to_do"


def test_a_catalog_that_fails_its_snapshot_gate_stops_the_run(sample: SampleCatalog, tmp_path: Path) -> None:
    suite = sample.folder / "suite.json"
    suite.write_text(
        '{"name": "strict", "expectations": [{"type": "expect_column_values_to_not_be_null", '
        '"kwargs": {"column": "description"}}, {"type": "expect_column_values_to_be_in_set", '
        '"kwargs": {"column": "category", "value_set": ["Toys"]}}]}'
    )
    with pytest.raises(DataContractError, match="category"):
        enrich(sample.with_settings("enrich.snapshot_suite=suite.json"))
    assert not table(sample, "predictions")
    assert [row["status"] for row in table(sample, "runs") if row["kind"] == "enrich"] == ["failed"]


def test_a_product_that_another_program_added_twice_stops_the_jobs_and_is_named(sample: SampleCatalog) -> None:
    (row,) = [row for row in table(sample, "products") if row["product_id"] == "p001"]
    sample.context().catalog.append_rows("products", [row], "of-another-program")
    before = len(table(sample, "products"))
    for job in (lambda: enrich(sample), sample.import_products):
        with pytest.raises(DataContractError, match=r"/products has several rows of the products \['p001'\].*RUNBOOK"):
            job()
    assert len(table(sample, "products")) == before
    assert not table(sample, "predictions")


# --- values that wait under the provisional cap ----------------------------------------------------------------------

CAPPED = {"p001": 0.91, "p002": 0.99, "p004": 0.95}
"""Products whose colour waits -> its score. The material of p002 is not decided yet, that of the others is."""


@pytest.mark.parametrize(
    ("cap", "pending", "waiting"),
    [
        (2, {"p002": ["color", "material"], "p004": ["color"]}, {"color": 1}),
        (0, {"p002": ["material"]}, {"color": 3}),
    ],
)
def test_values_wait_until_there_is_room_and_the_best_come_first(
    sample: SampleCatalog, cap: int, pending: dict[str, list[str]], waiting: dict[str, int]
) -> None:
    asked = sample.with_settings(f"precision.provisional_cap={cap}")
    model, catalog = asked.model(), asked.context().catalog
    by = {(c.attribute, c.modality): c.certificate_id for c in model.certificates}
    products = {row["product_id"]: row for row in table(asked, "products")}

    def decided(name: str, attribute: str, score: float, reason: str) -> Row:
        row = prediction(name, attribute, "Red", run_id="run-1", score=score, decision="abstain", reason=reason)
        facts = {column: products[name][column] for column in ("content_hash", "category", "language")}
        of_model = {"certificate_id": by[attribute, Modality.BOTH], "model_name": model.name}
        return row | facts | of_model | {"model_version": model.version}

    rows = [decided(name, "color", score, "provisional_cap") for name, score in CAPPED.items()]
    rows += [decided(name, "material", 0.1, "below_threshold") for name in CAPPED if name != "p002"]
    catalog.append_rows("predictions", rows, "run-1")
    catalog.append_rows("runs", [run_row("run-1", attempt=1, model_name=model.name)], "run-1")
    chosen, found = selection(asked, Window(product_ids=tuple(CAPPED)))
    assert (found, chosen.waiting, chosen.rows) == (pending, waiting, len(pending))


# --- since the last run ----------------------------------------------------------------------------------------------

REQUEST = RequestIdentity("m", "1", "config-1", "{}")
LEDGER = 5


def finished(number: int, kind: str = "enrich", **given: Any) -> Row:
    """A succeeded run, the ``number``-th; an enrichment has the request asked for and left nothing open."""
    row = run_row(
        f"{kind}-{number}", attempt=1, kind=kind, finished_at=datetime(2026, 1, 1, tzinfo=UTC), **REQUEST._asdict()
    )
    row |= {"counts": {"left_open": 0}, "table_versions": {"attribute_values": LEDGER}} | given
    return row | {"finished_at": row["finished_at"] + timedelta(days=number)}


def last(*rows: Row) -> LastRun | None:
    return last_run(rows, REQUEST, lambda version: version != LEDGER)


def seen(*rows: Row) -> list[str] | None:
    found = last(*rows)
    return found.imports if found else None


def test_the_imports_before_the_last_run_were_seen_by_it() -> None:
    rows = [finished(4, "import"), finished(3), finished(1, "import"), finished(2, "import"), finished(0, "import")]
    assert seen(*rows) == ["import-0", "import-1", "import-2"]
    assert seen(finished(1), finished(2, "import")) == []
    assert seen(finished(1), finished(2, "maintain")) == []  # it decides nothing
    assert seen() is seen(finished(0, "import")) is None  # there was no run


def test_a_run_tells_whether_it_left_something_open() -> None:
    found = [last(finished(1, counts={"left_open": number})) for number in (0, 3)]
    assert [run and run.left_open for run in found] == [False, True]


@pytest.mark.parametrize(
    "other",
    [
        finished(2, "rollback"),
        finished(2, "backfill"),
        finished(2, model_name="other"),
        finished(2, model_version="2"),
        finished(2, config_hash="config-2"),
        finished(2, window='{"max_products": 5}'),
        finished(2, counts={"left_open": 1, "skipped.over_limit": 1}),
        finished(2, table_versions={"attribute_values": LEDGER - 1}),
    ],
    ids=lambda row: next((f"{k}={v}" for k, v in row.items() if v != finished(2).get(k)), "?"),
)
def test_all_products_are_looked_at_after_another_request_or_a_run_that_left_products_over(other: Row) -> None:
    assert seen(finished(0, "import"), finished(1), other, finished(3, "import")) is None


def among_all(sample: SampleCatalog, monkeypatch: pytest.MonkeyPatch) -> tuple[Selection, dict[str, list[str]]]:
    """The selection of a run that looks at all products."""
    with monkeypatch.context() as patch:
        patch.setattr(select, "incremental_scope", lambda *_: None)
        return selection(sample)


@pytest.mark.slow
def test_a_run_selects_of_the_changed_products_what_it_would_select_of_all(
    enriched: SampleCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another text, pictures, category, merchant values and opt-out, a new product and a product that is sent again."""
    sample = enriched
    change(sample, 1, title="Another thing")
    change(sample, 2, image=None)
    change(sample, 3, category="Other/Thing")
    change(sample, 4, color="Red")
    change(sample, 5, opt_out=True)
    change(sample, 77, title="A new thing")
    change(sample, 6)
    narrow, pending = selection(sample)
    full, all_pending = among_all(sample, monkeypatch)

    assert pending == all_pending
    assert (narrow.run_id, narrow.rows, narrow.retractions) == (full.run_id, full.rows, full.retractions)
    assert narrow.seen == full.seen == 25
    assert narrow.rows >= 4
    assert narrow.retractions >= 1
    assert narrow.skipped["unchanged"] >= 18
    assert "unchanged" not in full.skipped

    catalog = sample.context().catalog  # each import derived the values of the products that it changed
    replayed = ledger.current_values(catalog.read("products"), ledger.active(catalog.read("attribute_values")))
    assert values(sample) == {(row.product_id, row.attribute): tuple(row["values"]) for row in replayed.collect()}


@pytest.mark.slow
def test_a_run_looks_again_at_what_the_last_one_left_open(
    sample: SampleCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values wait under the cap, of the first run and of the second; an outage is tried again after a while."""
    capped = sample.with_settings("precision.provisional_cap=5")
    enrich(capped)
    change(capped, 1, title="Another thing")
    second = enrich(capped)
    assert second["skipped_reasons"]["unchanged"] >= 1
    change(capped, 2, color="Red", material="Wool")  # perhaps it had a value: then there is room for another
    narrow, pending = selection(capped)
    full, all_pending = among_all(capped, monkeypatch)

    assert pending == all_pending
    assert (narrow.run_id, narrow.waiting, narrow.left_open) == (full.run_id, full.waiting, full.left_open)
    assert narrow.waiting["color"] > 5
    assert 0 < narrow.skipped["unchanged"] < full.seen == narrow.seen


def test_a_rollback_and_another_window_make_a_run_look_at_all_products(
    enriched: SampleCatalog, run: dict[str, Any]
) -> None:
    narrow, _ = selection(enriched)
    other_window, _ = selection(enriched, Window(categories=("Apparel",)))
    rollback_run(enriched.context().catalog, run["run_id"])
    after, _ = selection(enriched)
    assert "unchanged" in narrow.skipped
    assert "unchanged" not in other_window.skipped | after.skipped


# --- runs that were killed after their commit ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("later", "looked_for"),
    [
        ({}, ["enrich-1"]),
        ({"window": '{"shop_ids": ["s"]}'}, ["enrich-1", "enrich-2"]),
        ({"counts": {"skipped.over_limit": 3}}, ["enrich-1", "enrich-2"]),
        ({"status": "failed"}, ["enrich-1", "enrich-2"]),
        ({"kind": "rollback"}, ["enrich-1", "enrich-2"]),
        ({"finished_at": START}, ["enrich-1", "enrich-2"]),
    ],
)
def test_a_killed_run_is_looked_for_until_a_run_of_its_window_has_succeeded(
    spark: SparkSession, tmp_path: Path, later: Row, looked_for: list[str]
) -> None:
    """To look for a run takes a selection by the values before it, as long as the run's own."""
    catalog = Catalog(tmp_path / "lake", spark)
    for number, run_id in enumerate(["rollback-1", "enrich-2", "enrich-3", "enrich-1"]):  # enrich-3 has succeeded
        written = event(number, run_id=run_id, asserted_at=START + timedelta(minutes=number))
        catalog.append_rows("attribute_values", [written], run_id)
    usual = {"window": "{}", "counts": {}, "attempt": 1}
    rows = [run_row("enrich-3", finished_at=START, **usual | {"window": None}),
            run_row("enrich-4", **usual | {"finished_at": START + timedelta(minutes=2)} | later)]  # fmt: skip
    for row in rows:
        catalog.append_rows("runs", [row], row["run_id"])
    assert select._unfinished(catalog, "{}", select.read_ledger(catalog)) == looked_for
