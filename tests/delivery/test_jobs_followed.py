"""What real jobs do to a catalog, delivered after each: import, run, rollback, a person's word, upkeep."""

from __future__ import annotations

from typing import Any

import pytest

from catalog_enrichment.delivery import deliver, feed
from catalog_enrichment.operations import maintain, rollback

from ..sample_catalog import SampleCatalog, change, table, values
from .conftest import Database

pytestmark = pytest.mark.slow


def seen(sample: SampleCatalog) -> dict[tuple[str, str], dict[str, Any]]:
    rows = table(sample, "current_values")
    return {(row.pop("product_id"), row.pop("attribute")): row for row in rows}


def test_the_database_follows_what_jobs_do(enriched: SampleCatalog, run: dict[str, Any], database: Database) -> None:
    catalog = enriched.context().catalog

    def delivered() -> dict[str, Any]:
        summary = deliver.deliver_values(catalog, database.config, say=lambda _: None)
        assert database.rows() == seen(enriched)
        return summary

    first = delivered()
    assert first["snapshot"]
    written = {key: row for key, row in seen(enriched).items() if row["run_id"] == run["run_id"]}
    assert written

    undone = rollback.rollback_run(catalog, run["run_id"])
    assert delivered()["deleted"] == len(written)
    rollback.rollback_run(catalog, undone["run_id"])
    again = delivered()
    assert (again["upserted"], again["deleted"], again["snapshot"]) == (len(written), 0, None)
    assert {key: database.rows()[key] for key in written} == written

    product, attribute = min(key for key in written if key[1] == "color")
    number = int(product[1:])
    change(enriched, number, color="Green")  # the feed has only this product: the others are kept
    assert delivered()["upserted"] >= 1
    assert database.rows()[product, attribute]["source"] == "merchant"
    assert values(enriched)[product, attribute] == ("Green",)

    opted_out = min(key[0] for key in written if key[0] != product)
    change(enriched, int(opted_out[1:]), opt_out=True)
    of_product = [key for key in written if key[0] == opted_out]
    assert delivered()["deleted"] == len(of_product)
    import_run = catalog.tables.commits("current_values", catalog.version("current_values") - 1)[0].run_id
    (step,) = feed.steps_of_run(catalog, str(import_run))
    told = [(row["op"], row["product_id"]) for batch in step.changes(catalog) for row in batch.to_pylist()]
    assert told == [("delete", opted_out)] * len(of_product)

    maintain.maintain_catalog(enriched.with_settings("maintenance.compact_files=3").context(), False)
    moved = delivered()
    assert (moved["upserted"], moved["deleted"]) == (0, 0)
