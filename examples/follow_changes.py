"""Keeps an SQLite table of what readers see, from the files of export_changes. Every change is applied once.

    export_changes --config shop/config.toml --consumer mirror --output exchange/
    python examples/follow_changes.py exchange/ mirror.sqlite

Run both as often as you like, and kill them when you like: the position up to which the table is complete is stored in
the same transaction as the rows. Where the catalog was made anew, its snapshot replaces everything, and files of the
catalog before it are left alone. A search index or a warehouse does the same with its own tables.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TABLES = """
CREATE TABLE IF NOT EXISTS seen (product_id TEXT, attribute TEXT, "values" TEXT, source TEXT, run_id TEXT,
    PRIMARY KEY (product_id, attribute));
CREATE TABLE IF NOT EXISTS position (catalog TEXT NOT NULL, version INTEGER NOT NULL);
"""


def rows_of(file: Path) -> Iterator[dict[str, Any]]:
    with file.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def last_version(file: Path) -> int:
    """The version up to which ``file`` goes, from its name."""
    return int(file.stem.rpartition("-")[2])


def catalog_of(file: Path) -> str:
    """The catalog that ``file`` is about, from its last row."""
    *_, last = rows_of(file)
    if last["op"] != "end":
        raise SystemExit(f"{file} is not complete: copy it again")
    return last["position"].rpartition(":")[0]


def apply(file: Path, catalog: str, database: sqlite3.Connection) -> int:
    """Apply what the table has not had of ``file``, in one transaction; returns the number of changes."""
    changes, complete = 0, False
    with database:
        known = database.execute("SELECT version FROM position WHERE catalog = ?", [catalog]).fetchone()
        have = known[0] if known else -1
        for row in rows_of(file):
            if row["op"] == "reset" and row["version"] > have:
                database.execute("DELETE FROM seen")
            elif row["op"] == "end":
                complete = True
                database.execute("DELETE FROM position")
                database.execute("INSERT INTO position VALUES (?, ?)", [catalog, max(have, row["version"])])
            elif row["version"] > have:
                key = (row["product_id"], row["attribute"])
                database.execute("DELETE FROM seen WHERE product_id = ? AND attribute = ?", key)
                if row["op"] == "upsert":
                    values = (json.dumps(row["values"]), row["source"], row.get("run_id"))
                    database.execute("INSERT INTO seen VALUES (?, ?, ?, ?, ?)", [*key, *values])
                changes += 1
        if not complete:
            raise SystemExit(f"{file} is not complete: copy it again")
    return changes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where export_changes writes")
    parser.add_argument("database", type=Path, help="SQLite file, made if it is not there")
    args = parser.parse_args()
    database = sqlite3.connect(args.database)
    database.executescript(TABLES)
    files = {file: catalog_of(file) for file in args.folder.glob("*.jsonl")}
    if files:
        newest = files[max(files, key=lambda file: file.stat().st_mtime_ns)]
        for file in sorted((file for file in files if files[file] == newest), key=last_version):
            print(f"{file.name}: {apply(file, newest, database)} changes")
    ((count,),) = database.execute("SELECT count(*) FROM seen")
    print(f"{count} values are seen")
    database.close()


if __name__ == "__main__":
    main()
