"""After an import removed products, a run looks at the changed products alone, and a product that is back is new."""

from __future__ import annotations

import json

import pytest

from catalog_enrichment.enrichment import coverage

from ..sample_catalog import SampleCatalog, enrich, values
from .test_select import selection


@pytest.mark.slow
def test_a_run_after_products_went_counts_coverage_anew_and_decides_a_product_that_is_back(
    enriched: SampleCatalog,
) -> None:
    complete = enriched.with_settings(
        "source.complete=true", "source.absent_imports=1", "source.min_volume_ratio=0", "source.min_attribute_ratio=0"
    )
    written = values(enriched, "model")
    gone = set(sorted({key[0] for key in written})[:2])
    feed = (enriched.folder / "feed" / "products.jsonl").read_text().splitlines()
    complete.feed([line for line in feed if json.loads(line)["product_id"] not in gone])
    assert complete.import_products()["gone"] == len(gone)
    assert not gone & {key[0] for key in values(enriched)}
    chosen, pending = selection(enriched)
    assert chosen.scope is not None, "the import's retractions are not somebody else's"
    assert pending == {}
    context = enriched.context()
    kept = coverage.now(context.catalog, context.dictionary, chosen.scope).numbers()
    assert kept == coverage.count(context.catalog, context.dictionary).numbers()
    assert kept["color"]["applicable"] == 24 - len(gone)

    complete.feed(feed)
    assert complete.import_products()["new"] == len(gone)
    assert not gone & {key[0] for key in values(enriched, "model")}, "no old value is seen"
    _, pending = selection(enriched)
    assert {(name, attribute) for name, attributes in pending.items() for attribute in attributes} >= {
        key for key in written if key[0] in gone
    }
    enrich(enriched)
    assert values(enriched, "model") == written
