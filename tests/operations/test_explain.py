"""Who wrote a value, why, and the way back."""

from __future__ import annotations

from typing import Any

import pytest

from catalog_enrichment.errors import ConfigError
from catalog_enrichment.operations import explain

from ..sample_catalog import SampleCatalog


def explained(sample: SampleCatalog, product_id: str, attribute: str) -> dict[str, Any]:
    context = sample.context()
    return explain.explain_value(context.catalog, context.dictionary, product_id, attribute)


def test_explain_names_writer_certificate_history_and_the_way_back(
    enriched: SampleCatalog, run: dict[str, Any]
) -> None:
    told = explained(enriched, "p001", "color")
    assert told["current"]["source"] == "model"
    assert told["current"]["run_id"] == run["run_id"]
    assert told["certificate"]["certificate_id"] == told["current"]["certificate_id"]
    assert [event["op"] for event in told["history"]] == ["assert"]
    assert run["run_id"] in told["undo"]
    merchants = explained(enriched, "p003", "color")
    assert merchants["current"]["source"] == "merchant"
    assert merchants["undo"] is None
    with pytest.raises(ConfigError, match="nosuch"):
        explained(enriched, "nosuch", "color")
    with pytest.raises(ConfigError, match="size"):
        explained(enriched, "p001", "size")
