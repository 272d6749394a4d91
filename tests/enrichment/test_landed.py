"""Whether decisions that a killed run has landed may still be published when it is started again (I2)."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from catalog_enrichment.catalog import ledger
from catalog_enrichment.catalog.lake import LakeCatalog
from catalog_enrichment.enrichment import landed
from catalog_enrichment.enrichment.provisional_cap import ProvisionalCap

from ..catalog.catalog_rows import START, frame, prediction, stamp
from ..sample_certificate import certificate

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

NOW = datetime.now(UTC)
VALID = certificate(issued_at=NOW, expires_at=NOW + timedelta(days=1))
EXPIRED = replace(VALID, attribute="size", expires_at=NOW - timedelta(seconds=1))
ROOM = ProvisionalCap(10, frozenset())


def row(product_id: str, by: Any, **given: Any) -> dict[str, Any]:
    return prediction(product_id, "color", "Red", certificate_id=by.certificate_id, **given)


@pytest.fixture
def catalog(spark: SparkSession, tmp_path: Path) -> LakeCatalog:
    return LakeCatalog(tmp_path / "catalog", spark)


def void(spark: SparkSession, catalog: LakeCatalog, cap: ProvisionalCap = ROOM, stands: str = "") -> bool:
    """``stands``: products that have a value of another run."""
    rows = frame(spark, "predictions", [prediction(name, "color", "Blue") for name in stands])
    active = ledger.assertions(rows, stamp("run-0", 0))
    return landed.void(catalog, "run-1", [VALID, EXPIRED], active, cap)


def test_what_has_not_landed_or_is_committed_is_not_void(spark: SparkSession, catalog: LakeCatalog) -> None:
    assert landed.read(catalog, "run-1") is None
    assert void(spark, catalog) is False
    catalog.append_rows("predictions", [row("a", EXPIRED)], "run-1")
    assert void(spark, catalog) is True
    event = {"event_id": "1", "op": "assert", "product_id": "a", "attribute": "color", "value": "Red"}
    known = {"source": "model", "run_id": "run-1", "asserted_at": START}
    catalog.append_rows("attribute_values", [event | known], "run-1")
    assert void(spark, catalog) is False


def test_only_values_to_publish_under_an_expired_certificate_are_void(
    spark: SparkSession, catalog: LakeCatalog
) -> None:
    rows = [row("a", VALID), row("b", EXPIRED, decision="abstain", reason="below_threshold")]
    catalog.append_rows("predictions", rows, "run-1")
    catalog.append_rows("predictions", [row("c", EXPIRED, run_id="run-2")], "run-2")
    assert void(spark, catalog) is False


def test_values_for_which_there_is_no_room_any_more_are_void(spark: SparkSession, catalog: LakeCatalog) -> None:
    rows = [row("a", VALID), row("b", VALID, score=0.95), row("c", VALID, decision="abstain", reason="unseen_slice")]
    catalog.append_rows("predictions", rows, "run-1")
    two = ProvisionalCap(2, frozenset())
    assert void(spark, catalog, two) is False
    assert void(spark, catalog, two, stands="ab") is False  # they replace what is there
    assert void(spark, catalog, two, stands="xy") is True
    assert void(spark, catalog, ProvisionalCap(1, frozenset())) is True
