"""A run looks at what changed since the last one, and selects what it would select among all products."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from catalog_enrichment.catalog import ledger
from catalog_enrichment.enrichment import coverage, select, since_last_run
from catalog_enrichment.enrichment.request import RunRequest, Window
from catalog_enrichment.enrichment.select import Selection
from catalog_enrichment.enrichment.since_last_run import LastRun, RequestIdentity, last_run
from catalog_enrichment.operations.rollback import rollback_run
from catalog_enrichment.spark.frames import persisted_frames

from ..catalog.catalog_rows import run_row
from ..sample_catalog import SampleCatalog, change, enrich, table, values

REQUEST = RequestIdentity("m", "1", "config-1", "{}")
LEDGER = 5
Row = dict[str, Any]


def finished(number: int, kind: str = "enrich", **given: Any) -> Row:
    """A succeeded run, the ``number``-th; an enrichment has the request asked for and left nothing open."""
    row = run_row(
        f"{kind}-{number}", attempt=1, kind=kind, finished_at=datetime(2026, 1, 1, tzinfo=UTC), **REQUEST._asdict()
    )
    row |= {"counts": {"left_open": 0}, "table_versions": {"attribute_values": LEDGER}} | given
    return row | {"finished_at": row["finished_at"] + timedelta(days=number)}


def last(*rows: Row) -> LastRun | None:
    return last_run(rows, REQUEST, LEDGER)


def seen(*rows: Row) -> list[str] | None:
    found = last(*rows)
    return found.imports if found else None


def test_the_imports_before_the_last_run_were_seen_by_it() -> None:
    rows = [finished(4, "import"), finished(3), finished(1, "import"), finished(2, "import"), finished(0, "import")]
    assert seen(*rows) == ["import-0", "import-1", "import-2"]
    assert seen(finished(1), finished(2, "import")) == []
    assert seen(finished(1), finished(2, "maintain")) == []  # it decides nothing


def test_a_run_tells_whether_it_left_something_open() -> None:
    found = [last(finished(1, counts={"left_open": number})) for number in (0, 3)]
    assert [one and one.left_open for one in found] == [False, True]


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
        finished(2, counts={}),
        finished(2, counts=None, table_versions=None),
        finished(2, table_versions={"attribute_values": LEDGER - 1}),
    ],
    ids=lambda row: next((f"{k}={v}" for k, v in row.items() if v != finished(2).get(k)), "?"),
)
def test_all_products_are_looked_at_after_another_request_or_a_run_that_left_products_over(other: Row) -> None:
    assert seen(finished(0, "import"), finished(1), other, finished(3, "import")) is None


def test_all_products_are_looked_at_before_the_first_run() -> None:
    assert seen() is None
    assert seen(finished(0, "import")) is None


def selection(sample: SampleCatalog, window: Window) -> tuple[Selection, set[tuple[str, tuple[str, ...]]]]:
    """The selection, and product id and pending attributes of what it would score."""
    context = sample.context()
    request = RunRequest.of(sample.config, context.dictionary, sample.model(), window)
    with persisted_frames() as persist:
        chosen = select.select_products(context.catalog, request, select.read_ledger(context.catalog), persist)
        rows = chosen.products.select("product_id", "pending").collect()
    return chosen, {(row["product_id"], tuple(row["pending"])) for row in rows}


@pytest.mark.slow
def test_a_run_selects_of_the_changed_products_what_it_would_select_of_all(
    enriched: SampleCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """IncrementalScope text, pictures, category, merchant values and opt-out, a new product and one that is sent again."""
    sample = enriched
    change(sample, 1, title="Another thing")
    change(sample, 2, image=None)
    change(sample, 3, category="Other/Thing")
    change(sample, 4, color="Red")
    change(sample, 5, opt_out=True)
    change(sample, 77, title="A new thing")
    change(sample, 6)
    narrow, pending = selection(sample, Window())
    monkeypatch.setattr(since_last_run, "changed", lambda *_: None)
    full, all_pending = selection(sample, Window())

    assert pending == all_pending
    assert (narrow.run_id, narrow.rows, narrow.withdrawals) == (full.run_id, full.rows, full.withdrawals)
    assert narrow.seen == full.seen == 25
    assert narrow.rows >= 4
    assert narrow.withdrawals >= 1
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
    narrow, pending = selection(capped, Window())
    monkeypatch.setattr(since_last_run, "changed", lambda *_: None)
    full, all_pending = selection(capped, Window())

    assert pending == all_pending
    assert (narrow.run_id, narrow.waiting, narrow.left_open) == (full.run_id, full.waiting, full.left_open)
    assert narrow.waiting["color"] > 5
    assert 0 < narrow.skipped["unchanged"] < full.seen == narrow.seen


@pytest.mark.slow
def test_coverage_that_is_kept_up_to_date_is_that_counted_anew(enriched: SampleCatalog) -> None:
    """Products change their category and merchant values, come and get other values; then a rollback counts all."""
    sample = enriched
    dictionary = sample.context().dictionary

    def counted() -> dict[str, Any]:
        return coverage.count(sample.context().catalog, dictionary).to_dict()

    change(sample, 3, category="Other/Thing")
    change(sample, 4, color="Red")
    change(sample, 77, title="A new thing")
    chosen, _ = selection(sample, Window())
    catalog = sample.context().catalog
    before = coverage.now(catalog, dictionary, chosen.changed)
    assert before.to_dict() == counted()
    assert chosen.changed is not None
    in_window = replace(chosen.changed, window='{"max_products": 3}')
    assert in_window.whole_catalog_since is None

    enrich(sample)
    kept = [row for row in table(sample, "runs") if row["kind"] == "enrich"]
    newest = max(kept, key=lambda row: row["finished_at"])
    assert json.loads(newest["attributes"])["coverage"] == counted()
    assert counted() != before.to_dict()


def test_a_rollback_and_another_window_make_a_run_look_at_all_products(enriched: SampleCatalog) -> None:
    narrow, _ = selection(enriched, Window())
    other_window, _ = selection(enriched, Window(categories=("Apparel",)))
    rollback_run(enriched.context().catalog, _only_run(enriched))
    after, _ = selection(enriched, Window())
    assert "unchanged" in narrow.skipped
    assert "unchanged" not in other_window.skipped | after.skipped


@pytest.mark.slow
def test_what_a_limit_left_over_is_scored_by_the_next_run(sample: SampleCatalog) -> None:
    limited = sample.with_settings("enrich.max_products=5")
    window = Window(max_products=5)
    assert enrich(limited, window)["predicted"] == 5
    again = enrich(limited, window)
    assert (again["predicted"], again["skipped_reasons"]["already_scored"]) == (5, 5)


def _only_run(sample: SampleCatalog) -> str:
    rows = sample.context().catalog.read("attribute_values").select("run_id").distinct().collect()
    [run_id] = [row["run_id"] for row in rows]
    return str(run_id)
