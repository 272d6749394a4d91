"""The tables of drawn rows, verdicts and confirmations: which rows count. Without Spark."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from catalog_enrichment.catalog import human_labels, review_tables
from catalog_enrichment.catalog.lake import Catalog

from ..audit.audit_rows import START, drawn, said
from .catalog_rows import run_row


def test_what_a_rolled_back_run_ingested_does_not_count_and_is_not_ingested_again(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path / "catalog")
    rows = [said(1, "no"), said(2, "no"), said(3, "other", "green", attribute="size")]
    first = said(2, "yes", settled_at=START, run_id="ingest-0")
    catalog.append_rows("verdicts", [first, *(row | {"run_id": "ingest-1"} for row in rows)], "verdicts")
    confirmed = {"lower_bound": 0.96, "rows": 300, "wrong": 2, "alpha": 0.05, "confirmed_at": START}
    confirmed |= {"certificate_id": "c1", "attribute": "color", "run_id": "ingest-1"}
    catalog.append_rows("confirmations", [confirmed], "confirmations")
    times = [{"finished_at": START + timedelta(hours=hour), "attempt": 1} for hour in range(3)]
    ingests = [run_row(f"ingest-{number}", kind="audit", **times[number]) for number in (0, 1)]
    catalog.append_rows("runs", ingests, "ingests")
    assert set(review_tables.newest(catalog)) == {"i1", "i2", "i3"}
    assert review_tables.confirmed(catalog) == {"c1"}
    window = '{"run_id": "ingest-1", "attribute": "color"}'
    back = run_row("back", kind="rollback", parent_run_id="ingest-1", window=window, **times[2])
    catalog.append_rows("runs", [back], "back")
    assert {item: row["answer"] for item, row in review_tables.newest(catalog).items()} == {"i2": "yes", "i3": "other"}
    assert {item: row["answer"] for item, row in review_tables.ingested(catalog).items()} == {
        "i1": "no", "i2": "no", "i3": "other"
    }  # fmt: skip
    assert review_tables.refused(catalog) == {("p3", "size", "red")}
    assert set(human_labels.labels(catalog)) == {"p2", "p3"}
    assert review_tables.confirmed(catalog) == frozenset()


def test_only_samples_that_are_asked_for_and_complete_are_read_in_the_order_of_the_draw(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path / "catalog")
    runs = [
        run_row(f"sample-{number}", kind="sample", finished_at=START + timedelta(hours=number)) for number in (1, 2)
    ]
    catalog.append_rows("runs", runs, "runs")
    rows = [
        drawn(5, run_id="sample-2", sample_id="b", draw_order=0),
        *[drawn(n, draw_order=3 - n) for n in (1, 2)],
        drawn(9, run_id="killed", sample_id="c", draw_order=0),
    ]
    catalog.append_rows("audits", rows, "audits")
    assert [row["item_id"] for row in review_tables.drawn(catalog)] == ["i2", "i1", "i5"]
    assert [row["item_id"] for row in review_tables.drawn(catalog, {"s"})] == ["i2", "i1"]
    assert review_tables.drawn(catalog, set()) == []


def test_written_values_that_were_drawn_uniformly_count_once_per_product_with_their_last_verdict(
    tmp_path: Path,
) -> None:
    catalog = Catalog(tmp_path / "catalog")
    assert review_tables.judged_values(catalog) == {}
    times = [{"finished_at": START + timedelta(hours=hour), "attempt": 1} for hour in range(2)]
    kinds = {"sample-1": "sample", "ingest-0": "audit"}
    ended = [run_row(name, kind=kind, **at) for (name, kind), at in zip(kinds.items(), times, strict=True)]
    catalog.append_rows("runs", ended, "runs")
    rows = [
        *[drawn(n) for n in (1, 2, 3, 4)],
        drawn(5, product_id="p1", draw_order=9),  # the same value of the same product again
        drawn(6, stratum="near_threshold"), drawn(7, purpose="proposals"), drawn(8, certificate_id="c2"), drawn(9),
    ]  # fmt: skip
    catalog.append_rows("audits", [row | {"run_id": "sample-1"} for row in rows], "audits")
    answers = {1: "yes", 2: "no", 3: "cannot_tell", 5: "none", 6: "no", 7: "no", 8: "yes", 4: "yes"}
    verdicts = [said(n, answer, run_id="ingest-0") for n, answer in answers.items()]
    catalog.append_rows("verdicts", verdicts, "verdicts")
    assert review_tables.judged_values(catalog) == {("c1", "color", "red"): (3, 2), ("c2", "color", "red"): (1, 0)}
