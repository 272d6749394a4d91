"""Who wrote a value, why, and the way back."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from catalog_enrichment.errors import ConfigError
from catalog_enrichment.operations import explain

from ..sample_catalog import SampleCatalog, values


def explained(sample: SampleCatalog, product_id: str, attribute: str) -> dict[str, Any]:
    context = sample.context()
    return explain.explain_value(context, product_id, attribute)


def test_explain_names_writer_certificate_history_and_the_way_back(
    enriched: SampleCatalog, run: dict[str, Any]
) -> None:
    told = explained(enriched, "p001", "color")
    assert told["current"]["source"] == "model"
    assert told["current"]["run_id"] == run["run_id"]
    assert told["certificate"]["certificate_id"] == told["current"]["certificate_id"]
    assert [event["op"] for event in told["history"]] == ["assert"]
    assert told["undo"] == "set_value --config FILE --remove p001 color"
    visible = [key for key in values(enriched, "model") if key != ("p001", "color")]
    colors = len([key for key in visible if key[1] == "color"])
    told_others = {(way["other_values"], way["other_products"]) for way in told["undo_options"]}
    number_of_products = len({product_id for product_id, _ in visible})
    number_of_values = sum(len(values(enriched)[key]) for key in visible)
    assert told_others == {(0, 0), (colors, colors), (number_of_values, number_of_products)}
    assert told["undo_options"][-1]["command"] == f"rollback_run --config FILE --run-id {run['run_id']}"
    assert "is written: its score" in told["why"]
    assert {"N", "K", "G"} <= {number["name"] for number in told["certificate_numbers"]}
    merchants = explained(enriched, "p003", "color")
    assert merchants["current"]["source"] == "merchant"
    assert (merchants["undo"], merchants["undo_options"]) == (None, [])
    with pytest.raises(ConfigError, match="nosuch"):
        explained(enriched, "nosuch", "color")
    with pytest.raises(ConfigError, match="size"):
        explained(enriched, "p001", "size")


def test_a_row_that_its_import_refused_is_explained(sample: SampleCatalog) -> None:
    catalog = sample.context().catalog
    row = {"product_id": "p030", "stage": "import", "reason": "empty_title", "run_id": "import-1"}
    catalog.append_rows("quarantine", [row | {"quarantined_at": datetime.now(UTC)}], "import-1")
    with pytest.raises(ConfigError, match="the row is in quarantine: its title is empty"):
        explained(sample, "p030", "color")
