"""What is read of a real Delta table as a source, and what is said of the rows that it deleted. Without Spark."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from catalog_enrichment.config.source import SourceConfig
from catalog_enrichment.ingest import delta_log
from catalog_enrichment.ingest.changes import LastImport, Reading, reading_of
from catalog_enrichment.ingest.delta_source import DeltaSource
from catalog_enrichment.ingest.source_frame import Location

NOW = datetime(2026, 2, 8, tzinfo=UTC)
NOT_SEEN = "rows deleted since the last import are not seen"


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "table")


def write(path: str, *ids: str, feed: bool = True) -> None:
    configuration = {delta_log.FEED: "true"} if feed else None
    write_deltalake(path, pa.table({"product_id": list(ids)}), mode="append", configuration=configuration)


def read(path: str, position: dict[str, Any], why_all: str = "") -> Reading:
    """What an import reads after another one that left ``position``. ``why_all``: why it reads all rows, if it does."""
    spark: Any = None  # asked for when the rows are read
    source = DeltaSource(spark, Location(path, path), frozenset({"product_id"}))
    window = {"read": "all", "position": position, "compared": {"at": NOW.isoformat()}}
    last = LastImport(row={"window": json.dumps(window)})
    config = SourceConfig(format="delta", path=path, read_changes=True)
    return reading_of(source, config, last, ["product_id"], NOW, why_all)


def position(path: str) -> dict[str, Any]:
    return delta_log.position_of(DeltaTable(path))


def test_all_rows_are_read_with_what_the_feed_deleted(path: str) -> None:
    write(path, "a", "b")
    before = position(path)
    assert read(path, before, "--full").why == "--full"
    DeltaTable(path).delete("product_id = 'a'")
    whole = read(path, before, "--full")
    assert (whole.part, whole.why) == (None, "--full, and 1 rows that the change data feed deletes")
    assert whole.deletions is not None


def test_it_is_said_where_deletions_are_not_seen(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(path, "a", "b")
    write(path, "d")
    before = position(path)
    write(path, "c")
    DeltaTable(path).delete("product_id = 'a'")
    with monkeypatch.context() as patched:
        patched.setattr(delta_log, "FEED_BYTES", 10)
        assert read(path, before).why.endswith("(the change data feed has 0 MiB; rows that it deletes are not seen)")
        assert read(path, before, "--full").why == f"--full; {NOT_SEEN} (the change data feed has 0 MiB)"
    for file in (tmp_path / "table" / "_change_data").iterdir():
        file.unlink()
    assert "; rows that it deletes are not seen)" in read(path, before).why
    assert f"--full; {NOT_SEEN} (its change data feed cannot be read" in read(path, before, "--full").why
    DeltaTable(path).create_checkpoint()
    (tmp_path / "table" / "_delta_log" / f"{2:020d}.json").unlink()
    assert read(path, before).why == f"its log does not have version 2 any more; {NOT_SEEN}"


def test_a_table_without_a_feed_tells_no_deletions(path: str) -> None:
    write(path, "a", "b", feed=False)
    before = position(path)
    DeltaTable(path).delete("product_id = 'a'")
    whole = read(path, before, "--full")
    assert (whole.deletions, whole.why) == (None, "--full")
    DeltaTable(path).alter.set_table_properties({delta_log.FEED: "true"})
    on = position(path)
    DeltaTable(path).alter.set_table_properties({delta_log.FEED: "false"})
    whole = read(path, on, "--full")
    assert whole.why == f"--full; {NOT_SEEN} (the table did not keep its change data feed all the time)"
