"""examples/follow_changes.py keeps a table of what readers see, from files that may come twice."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

from catalog_enrichment.delivery import export
from catalog_enrichment.delivery.export import ChangesRequest
from catalog_enrichment.delivery.position import PositionFiles

from .histories import Versions, value

EXAMPLE = Path(__file__).parents[2] / "examples" / "follow_changes.py"


def test_the_example_has_what_readers_see_and_takes_a_file_twice(versions: Versions, tmp_path: Path) -> None:
    positions = PositionFiles(tmp_path / "positions")
    folder = tmp_path / "exchange"

    def export_and_follow() -> None:
        asked = ChangesRequest(output=str(folder), consumer="mirror")
        export.export_changes(versions.catalog, positions, asked, say=lambda _: None)
        follow()

    def follow() -> None:
        subprocess.run([sys.executable, EXAMPLE, folder, tmp_path / "mirror.sqlite"], check=True, capture_output=True)

    def mirrored() -> dict[tuple[str, str], list[str]]:
        with sqlite3.connect(tmp_path / "mirror.sqlite") as database:
            rows = database.execute('SELECT product_id, attribute, "values" FROM seen').fetchall()
        return {(row[0], row[1]): json.loads(row[2]) for row in rows}

    def seen() -> dict[tuple[str, str], list[str]]:
        return {key: row["values"] for key, row in versions.seen().items()}

    versions.show({("a", "color"): value("Red"), ("b", "color"): value("Red")}, "run-1")
    export_and_follow()
    assert mirrored() == seen()
    before = positions.folder / "mirror.json"
    shutil.copy(before, tmp_path / "old.json")
    versions.show({("a", "color"): value("Blue"), ("c", "color"): value("Red")}, "run-2")
    export_and_follow()
    assert mirrored() == seen()
    shutil.copy(tmp_path / "old.json", before)  # killed before the position was moved
    versions.show({("c", "color"): value("Green")}, "run-3")
    export_and_follow()
    assert mirrored() == seen()
    follow()
    assert mirrored() == seen()


def test_the_example_takes_the_snapshot_of_a_catalog_that_was_made_anew(tmp_path: Path) -> None:
    positions, folder = PositionFiles(tmp_path / "positions"), tmp_path / "exchange"

    def export_and_follow(versions: Versions) -> set[str]:
        asked = ChangesRequest(output=str(folder), consumer="mirror")
        export.export_changes(versions.catalog, positions, asked, say=lambda _: None)
        command = [sys.executable, EXAMPLE, folder, tmp_path / "mirror.sqlite"]
        subprocess.run(command, check=True, capture_output=True)
        with sqlite3.connect(tmp_path / "mirror.sqlite") as database:
            return {row[0] for row in database.execute("SELECT product_id FROM seen").fetchall()}

    first = Versions(tmp_path / "first")
    for number in range(4):
        first.show({("a", "color"): value(f"Red {number}")}, f"run-{number}")
        assert export_and_follow(first) == {"a"}
    anew = Versions(tmp_path / "anew")
    anew.show({("b", "color"): value("Blue")}, "run-1")
    assert export_and_follow(anew) == {"b"}
    anew.show({("b", "color"): value("Blue"), ("c", "color"): value("Red")}, "run-2")
    assert export_and_follow(anew) == {"b", "c"}
