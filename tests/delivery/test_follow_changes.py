"""examples/follow_changes.py keeps a table of what readers see, from files that may come twice."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

from catalog_enrichment.delivery.export_changes import ChangesRequest, PositionFiles, export_changes

from .histories import Versions, value

EXAMPLE = Path(__file__).parents[2] / "examples" / "follow_changes.py"


def export(versions: Versions, folder: Path) -> None:
    request = ChangesRequest(output=str(folder / "exchange"), consumer="mirror")
    export_changes(versions.catalog, PositionFiles(folder / "positions"), request, say=lambda _: None)


def assert_followed(versions: Versions, folder: Path) -> None:
    """Run the example: its table then has what readers see."""
    database = folder / "mirror.sqlite"
    subprocess.run([sys.executable, EXAMPLE, folder / "exchange", database], check=True, capture_output=True)
    with sqlite3.connect(database) as connection:
        rows = connection.execute('SELECT product_id, attribute, "values" FROM seen').fetchall()
    mirrored = {(product, attribute): json.loads(values) for product, attribute, values in rows}
    assert mirrored == {key: row["values"] for key, row in versions.seen().items()}


def test_the_example_has_what_readers_see_and_takes_a_file_twice(versions: Versions, tmp_path: Path) -> None:
    versions.show({("a", "color"): value("Red"), ("b", "color"): value("Red")}, "run-1")
    export(versions, tmp_path)
    assert_followed(versions, tmp_path)
    position = tmp_path / "positions" / "mirror.json"
    shutil.copy(position, tmp_path / "old.json")
    versions.show({("a", "color"): value("Blue"), ("c", "color"): value("Red")}, "run-2")
    export(versions, tmp_path)
    assert_followed(versions, tmp_path)
    shutil.copy(tmp_path / "old.json", position)  # killed before the position was moved
    versions.show({("c", "color"): value("Green")}, "run-3")
    export(versions, tmp_path)
    for _ in range(2):
        assert_followed(versions, tmp_path)


def test_the_example_takes_the_snapshot_of_a_catalog_that_was_made_anew(tmp_path: Path) -> None:
    first, anew = Versions(tmp_path / "first"), Versions(tmp_path / "anew")
    for number in range(4):
        first.show({("a", "color"): value(f"Red {number}")}, f"run-{number}")
        export(first, tmp_path)
        assert_followed(first, tmp_path)
    for products in ("b", "bc"):
        anew.show({(product, "color"): value("Blue") for product in products}, f"run-{products}")
        export(anew, tmp_path)
        assert_followed(anew, tmp_path)
