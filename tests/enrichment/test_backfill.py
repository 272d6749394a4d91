"""Backfills: slices, chunks, resuming, rolling back."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from catalog_enrichment.catalog import runs
from catalog_enrichment.catalog.delta_tables import files_of
from catalog_enrichment.enrichment import backfill, select, summary
from catalog_enrichment.enrichment.request import RunRequest, Window
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.operations import explain, rollback
from catalog_enrichment.precision.claim import PATHS
from catalog_enrichment.records import Modality
from catalog_enrichment.report import run_report
from catalog_enrichment.spark.frames import persisted_frames

from ..sample_catalog import KilledError, SampleCatalog, build, change, enrich, table, values


@pytest.mark.slow
def test_backfill_takes_the_slice_in_chunks_and_can_be_resumed(sample: SampleCatalog) -> None:
    sliced = sample.with_settings(
        "backfill.categories=['Apparel']", "backfill.updated_from=2026-01-05", "backfill.chunk_products=8"
    )
    window = backfill.window_of(sliced.config)
    expected = backfill.estimate(sliced.context(), sliced.model(), window)
    assert (expected["products"], expected["to_score"], expected["chunks"]) == (17, 16, 3)
    done = backfill.backfill(sliced.context(), sliced.model(), window)
    assert (done["status"], done["predicted"], len(done["chunks"])) == ("succeeded", 16, 3)
    report = run_report.write_backfill_report(sample.context().catalog, sample.config, done["run_id"])
    check_page(sample, report.read_text("utf-8"))
    assert {file.stem for file in report.parent.glob("enrich-*.html")} == {chunk["run_id"] for chunk in done["chunks"]}
    chunks = [row for row in table(sample, "runs") if row["kind"] == "enrich"]
    assert {row["parent_run_id"] for row in chunks} == {done["run_id"]}
    assert sum(dict(row["counts"])["predicted"] for row in chunks) == 16
    check_seconds(sample, done, chunks)
    again = backfill.backfill(sliced.context(), sliced.model(), window)
    assert (again["status"], again["run_id"]) == ("nothing_to_do", done["run_id"])
    assert {row["product_id"] for row in table(sample, "predictions")} == {
        f"p{n:03d}" for n in range(4, 24) if n % 7 and n != 6
    }


def check_page(sample: SampleCatalog, page: str) -> None:
    """What was written under each certificate, over all chunks, with its bound as the precision."""
    text = " ".join(re.sub("<[^>]*>", " ", page).split())
    products: dict[tuple[str, str, str], set[str]] = {}
    for row in table(sample, "predictions"):
        if row["decision"] == "publish":
            key = (row["attribute"], row["modality"], row["certificate_id"])
            products.setdefault(key, set()).add(row["product_id"])
    bounds = {certificate.certificate_id: certificate.lower_bound for certificate in sample.model().certificates}
    for (attribute, modality, certificate_id), written in products.items():
        assert f"{attribute} {PATHS[Modality(modality)]} {len(written)} –" in text
        assert f"≥ {bounds[certificate_id]:.1%}" in text
    assert "<h2>Why values are written or not</h2>" in page


def check_seconds(sample: SampleCatalog, done: dict[str, Any], chunks: list[dict[str, Any]]) -> None:
    """Each chunk has its own seconds, the backfill has their sum, and the next estimate's rate follows from it."""
    for chunk in chunks:
        names = [stage["name"] for stage in chunk["stages"]]
        assert names == ["select", "validate", "score", "decide", "land", "publish"]
        assert dict(chunk["seconds"]) == {stage["name"]: stage["seconds"] for stage in chunk["stages"]}
    total = sum(seconds for chunk in chunks for _, seconds in chunk["seconds"])
    assert sum(done["seconds"].values()) == pytest.approx(total, abs=0.1)
    [parent] = [row for row in table(sample, "runs") if row["kind"] == "backfill"]
    assert dict(parent["seconds"]) == pytest.approx(done["seconds"])
    assert backfill.products_per_second(sample.context().catalog) == pytest.approx(16 / total, rel=0.05)


@pytest.mark.slow
def test_a_backfill_killed_between_its_chunks_and_after_them_is_recorded_whole_i5(sample: SampleCatalog) -> None:
    """Its row in `runs` counts the chunks of all attempts, and is written also where nothing is left to do."""
    chunked = sample.with_settings("backfill.product_ids=['p001', 'p002', 'p004', 'p005']", "backfill.chunk_products=2")
    window = backfill.window_of(chunked.config)
    for _ in range(2):  # after the first chunk, and after the second
        with killed_after_rows(1):
            backfill.backfill(chunked.context(), chunked.model(), window)
    done = backfill.backfill(chunked.context(), chunked.model(), window)
    assert (done["status"], done["predicted"]) == ("succeeded", 0)
    rows = [row for row in table(sample, "runs") if row["kind"] != "import"]
    assert [row["kind"] for row in rows].count("enrich") == 2
    [parent] = [row for row in rows if row["kind"] == "backfill"]
    assert dict(parent["counts"]) == {"products": 4, "predicted": 4, "skipped": 0}
    chunks = [dict(row["seconds"]) for row in rows if row["kind"] == "enrich"]
    assert dict(parent["seconds"])["score"] == pytest.approx(sum(seconds["score"] for seconds in chunks), abs=0.02)


@contextmanager
def killed_after_rows(count: int) -> Iterator[None]:
    """Whatever runs inside dies when it would write a row after the ``count``-th row to `runs`."""
    write, rows = runs.write, []

    def write_or_die(*arguments: Any) -> None:
        if len(rows) == count:
            raise KilledError
        rows.append(write(*arguments))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "write", write_or_die)
        with pytest.raises(KilledError):
            yield


@pytest.mark.slow
def test_a_backfill_is_rolled_back_by_its_own_id(sample: SampleCatalog) -> None:
    before = values(sample)
    chunked = sample.with_settings("backfill.chunk_products=12")
    done = backfill.backfill(chunked.context(), chunked.model(), backfill.window_of(chunked.config))
    assert values(sample) != before
    reports = chunked.config.path(chunked.config.report.path)
    reports.mkdir(parents=True, exist_ok=True)
    for chunk in done["chunks"]:
        (reports / f"{chunk['run_id']}.html").touch()  # those that are there are not written again
    page = run_report.write_backfill_report(sample.context().catalog, chunked.config, done["run_id"]).read_text()
    assert [f'<a href="{chunk["run_id"]}.html">' in page for chunk in done["chunks"]] == [True, True]
    names = ("written", "values_written", "retracted")
    numbers = [sum(of[name] for of in done["attributes"].values()) for name in names]
    line, *_ = re.findall(r"<b>color</b>.*?</tr>", page.partition('<div class="scroll">')[2], re.DOTALL)
    assert f'<td class="n">{done["attributes"]["color"]["written"]}</td>' in line
    index = " ".join(re.sub("<[^>]*>", " ", (reports / "index.html").read_text()).split())
    assert f"{done['run_id']} 2 chunks succeeded" in index
    assert " ".join(map(str, numbers)) in index
    assert not any((reports / f"{chunk['run_id']}.html").stat().st_size for chunk in done["chunks"])
    assert rollback.rollback_run(sample.context().catalog, done["run_id"])["status"] == "succeeded"
    assert values(sample) == before


@pytest.mark.slow
def test_a_backfill_of_content_that_changed_back_is_another_backfill(enriched: SampleCatalog) -> None:
    sliced = enriched.with_settings("backfill.product_ids=['p001']")
    window = backfill.window_of(sliced.config)
    done, seen = [], []
    for title in ("Another thing altogether", "Shirt number 1 red", "Another thing altogether"):
        change(enriched, 1, title=title)
        done.append(backfill.backfill(sliced.context(), sliced.model(), window))
        seen.append(table(enriched, "current_values"))
    assert [summary["status"] for summary in done] == ["succeeded"] * 3
    assert len({summary["run_id"] for summary in done}) == 3
    rollback.rollback_run(enriched.context().catalog, done[2]["run_id"])
    assert {row["run_id"] for row in table(enriched, "current_values")} == {row["run_id"] for row in seen[1]}


def test_a_misspelled_category_and_unknown_product_ids_are_refused(sample: SampleCatalog) -> None:
    sliced = sample.with_settings("backfill.categories=['Apparel', 'Aparel']")
    with pytest.raises(ConfigError, match=r"no product is in \['Aparel'\]. Did you mean 'Apparel'"):
        backfill.backfill(sliced.context(), sliced.model(), backfill.window_of(sliced.config))
    [row] = [row for row in table(sample, "runs") if row["kind"] == "backfill"]
    assert (row["status"], "Did you mean 'Apparel'" in row["error"]) == ("failed", True)
    assert json.loads(row["window"])["categories"] == ["Apparel", "Aparel"]
    named = sample.with_settings("backfill.product_ids=['nosuch', 'P001']")
    with pytest.raises(ConfigError, match="none of the 2 products asked for, for example 'nosuch'"):
        backfill.estimate(named.context(), named.model(), backfill.window_of(named.config))


def test_the_file_of_product_ids_may_be_what_a_spreadsheet_writes(tmp_path: Path) -> None:
    sample = build(tmp_path / "sample")
    named = sample.with_settings("backfill.product_ids_file=ids.txt").config
    (sample.folder / "ids.txt").write_bytes(b"\xef\xbb\xbfA-1\r\nA-2\r\n")
    assert backfill.window_of(named).product_ids == ("A-1", "A-2")
    (sample.folder / "ids.txt").write_bytes("A-1\nA-2\n".encode("utf-16"))
    with pytest.raises(ConfigError, match=r"ids\.txt is not UTF-8"):
        backfill.window_of(named)


@pytest.mark.slow
def test_backfill_by_product_ids(sample: SampleCatalog) -> None:
    (sample.folder / "ids.txt").write_text("p001\n\np002\nnosuch\n")
    named = sample.with_settings("backfill.product_ids=['p003']", "backfill.product_ids_file=ids.txt")
    said: list[str] = []
    context = replace(named.context(), say=said.append)
    done = backfill.backfill(context, named.model(), backfill.window_of(named.config))
    assert "warning: 1 of the 4 product ids are not in the catalog" in said
    assert {row["product_id"] for row in table(sample, "predictions")} == {"p001", "p002", "p003"}
    assert done["products"] == 3


@pytest.mark.slow
def test_a_chunk_opens_only_the_predictions_of_its_products(sample: SampleCatalog) -> None:
    for half in (Window(before_id="p020"), Window(first_id="p020")):
        enrich(sample, half)
    change(sample, 3, title="A red cotton shirt")
    catalog = sample.context().catalog
    of_others = [file.name for file in files_of(catalog.tables.open("predictions")) if file.ids[0] >= "p020"]
    for name in of_others:
        file = catalog.storage.below("predictions").folder / name
        file.write_bytes(b"x" * file.stat().st_size)
    assert of_others

    def to_score(window: Window) -> int:
        request = RunRequest.of(sample.config, sample.context().dictionary, sample.model(), window)
        with persisted_frames() as persist:
            return select.select_products(catalog, request, select.read_ledger(catalog), persist).rows

    assert to_score(Window(before_id="p020", chunk=(0, 2))) == 1
    with pytest.raises(Exception, match="is damaged"):
        to_score(Window(first_id="p020", chunk=(1, 2)))


@pytest.mark.slow
def test_a_chunk_that_failed_after_its_commit_is_rolled_back_with_its_backfill(sample: SampleCatalog) -> None:
    before = values(sample)
    chunked = sample.with_settings("backfill.chunk_products=100")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(summary, "add_coverage", failing)
        with pytest.raises(OSError, match="disk full"):
            backfill.backfill(chunked.context(), chunked.model(), backfill.window_of(chunked.config))
    rows = {row["kind"]: row for row in table(sample, "runs") if row["kind"] != "import"}
    assert {kind: row["status"] for kind, row in rows.items()} == {"enrich": "failed", "backfill": "failed"}
    assert "disk full" in rows["backfill"]["error"]
    assert values(sample) != before
    context = sample.context()
    written = next(key for key, value in values(sample, "model").items() if value)
    assert explain.explain_value(context, *written)["decisions"], "what a failed run published is explained, too"
    assert rollback.rollback_run(sample.context().catalog, rows["backfill"]["run_id"])["status"] == "succeeded"
    assert values(sample) == before


def failing(*_: Any) -> None:
    raise OSError("disk full")


@pytest.mark.parametrize(
    ("given", "first"),
    [
        ("2026-01-31", "2026-01-31"), ("20260131", "2026-01-31"), ("2026-W05", "2026-01-26"),
        ("20260131T0000", "2026-01-31"), ("2026-01-31T02:00:00+02:00", "2026-01-31"),
    ],
)  # fmt: skip
def test_every_iso_form_of_a_date_selects_the_same_products(spark: Any, given: str, first: str, tmp_path: Path) -> None:
    """Python reads forms of ISO 8601 that Spark's cast refuses, with an error that was reported as a bug."""
    window = backfill.window_of(build(tmp_path / "sample").with_settings(f"backfill.updated_from={given!r}").config)
    days = spark.sql("SELECT explode(sequence(date'2026-01-20', date'2026-02-05')) AS day")
    selected = window.select(days.selectExpr("cast(day AS timestamp) AS updated_at"))
    assert str(selected.selectExpr("cast(min(updated_at) AS string)").first()[0])[:10] == first
    assert window.updated_from == f"{first}T00:00:00+00:00"
