"""What the commits of a Delta table between two versions changed, by its log. No Spark.

The log says which files a commit added and removed, and whether their rows are new (``dataChange``): OPTIMIZE only
writes stored rows into other files. Where the table keeps a change data feed, its files have the changed rows alone.
https://github.com/delta-io/delta/blob/master/PROTOCOL.md
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from catalog_enrichment.ingest.source_frame import AllNeeded, Position
from catalog_enrichment.records import stable_hash

if TYPE_CHECKING:
    import pyarrow as pa
    from deltalake import DeltaTable

FEED = "delta.enableChangeDataFeed"
"""The table's property with which its writers keep the change data feed."""

FEED_BYTES = 64 * 2**20
"""Most bytes of a change data feed that an import reads: it is held in the driver's memory."""

_LIVE = ("insert", "update_postimage")
"""Kinds of the feed's rows that are in the table after their commit; the others were in it before."""


def position_of(table: DeltaTable) -> Position:
    """Return where the table is now: its id, version and columns, and whether it keeps a change data feed."""
    facts = table.metadata()
    columns = _columns_hash(json.loads(table.schema().to_json()), facts.partition_columns)
    return {
        "table": str(facts.id),
        "version": int(table.version()),
        "columns": columns,
        "feed": _is_on(facts.configuration),
    }


@dataclass(slots=True)
class LogChanges:
    """What the commits after a version changed."""

    feed: bool
    """True if every commit wrote to the change data feed."""
    files: set[str] = field(default_factory=set)
    """Paths, as the log has them, of the files that hold a row which is new or changed since, and of the table now."""
    feed_bytes: int = 0
    """Bytes of the files that hold the change data feed."""

    def add(self, actions: list[dict[str, Any]]) -> None:
        """Take the actions of the next commit into account."""
        added, removed, feed = (
            [action[kind] for action in actions if kind in action] for kind in ("add", "remove", "cdc")
        )
        # a rewritten file may hold rows of a file that is new since
        moved = any(not action.get("dataChange") and action["path"] in self.files for action in removed)
        self.files -= {action["path"] for action in removed}
        self.files |= {action["path"] for action in added if action.get("dataChange") or moved}
        changed = feed or [action for action in (*added, *removed) if action.get("dataChange")]
        self.feed_bytes += sum(action.get("size") or 0 for action in changed)


def changes_since(table: DeltaTable, position: Position, path: str) -> LogChanges:
    """Return what the commits after ``position`` changed. Raises AllNeeded where the log does not say it."""
    now = position_of(table)
    if now["table"] != position["table"]:
        raise AllNeeded("another table has taken the place of the one that was imported")
    if now["version"] < position["version"]:
        raise AllNeeded(f"the table is at version {now['version']}, before version {position['version']}")
    changes = LogChanges(position["feed"])
    for version in range(position["version"] + 1, now["version"] + 1):
        actions = list(_actions(path, version))
        for facts in (action["metaData"] for action in actions if "metaData" in action):
            if facts["id"] != position["table"]:
                raise AllNeeded(f"the table was replaced in version {version}")
            if _columns_hash(json.loads(facts["schemaString"]), facts["partitionColumns"]) != position["columns"]:
                raise AllNeeded(f"its columns changed in version {version}")
            changes.feed &= _is_on(facts.get("configuration") or {})
        changes.add(actions)
    return changes


def uris_of(table: DeltaTable, paths: set[str]) -> list[str]:
    """Return the URIs of the files that the log calls ``paths``. Raises AllNeeded where they are all files, or not
    known."""
    wanted, known = {_decoded(path) for path in paths}, table.file_uris()
    found = [uri for uri in known if not wanted.isdisjoint(_ends(_decoded(uri)))]
    if len(found) != len(wanted):
        raise AllNeeded("its log names files that the table does not have")
    if len(found) == len(known):
        raise AllNeeded("all of its files are new")
    return found


def feed_rows(
    table: DeltaTable, after: int, columns: list[str], key: set[str], schema: pa.Schema, deleted: str
) -> pa.Table:
    """Return the newest row of every product in the change data feed after a version, with the column ``deleted``: true
    where the product is not in the table any more.

    Where the feed deletes one of several rows of a product, the others are returned, as they are in the table now.
    ``key``: the columns that the product id is made of; ``columns``, of ``schema``: those that are read, with the key.
    Raises AllNeeded where the feed cannot be read, for example because its files are vacuumed.
    """
    import pyarrow as pa
    from deltalake.exceptions import DeltaError

    asked = [*columns, "_change_type", "_commit_version"]
    try:
        reader = table.load_cdf(after + 1, int(table.version()), columns=asked)
        found = pa.table(reader).select(asked)
        kinds, versions = found["_change_type"].to_pylist(), found["_commit_version"].to_pylist()
        rows = found.select(columns).cast(schema)
    except (DeltaError, pa.ArrowException, OSError, ValueError) as problem:
        raise AllNeeded(f"its change data feed cannot be read ({str(problem).splitlines()[0]})") from None
    keys = _keys(rows, key)
    newest: dict[str | None, tuple[int, bool]] = {}
    marks = [(version, kind in _LIVE) for version, kind in zip(versions, kinds, strict=True)]
    for name, mark in zip(keys, marks, strict=True):
        newest[name] = max(mark, newest.get(name, mark))
    # a row without a key goes to quarantine, and deletes nothing
    kept = [mark == newest[name] if name is not None else mark[1] for name, mark in zip(keys, marks, strict=True)]
    gone = [each and not is_live for each, (_, is_live) in zip(kept, marks, strict=True)]
    others = _rows_now(table, rows.filter(pa.array(gone, pa.bool_())), key)
    still = set(_keys(others, key))
    kept = [each and not (out and name in still) for each, out, name in zip(kept, gone, keys, strict=True)]
    found = rows.append_column(deleted, pa.array(gone, pa.bool_())).filter(pa.array(kept, pa.bool_()))
    return pa.concat_tables([found, others.append_column(deleted, pa.array([False] * len(others), pa.bool_()))])


def _keys(rows: pa.Table, key: set[str]) -> list[str | None]:
    """Return a text per row that tells its product from others; None for a row without a key."""
    named = [rows[name].to_pylist() for name in rows.column_names if name in key]
    return [repr(cells) if any(cell is not None for cell in cells) else None for cells in zip(*named, strict=True)]


def _rows_now(table: DeltaTable, deleted: pa.Table, key: set[str]) -> pa.Table:
    """Return the rows of the table, with the columns of ``deleted``, that have the key of one of its rows.

    Raises AllNeeded where the table cannot be asked.
    """
    import pyarrow as pa
    from deltalake.exceptions import DeltaError

    key = key & set(deleted.column_names)
    try:
        # the columns of the key alone, as hardly ever a product has another row
        if not len(deleted) or not len(_with_keys_of(deleted, table, key, key)):
            return deleted.slice(0, 0)
        return _with_keys_of(deleted, table, key, set(deleted.column_names))
    except (DeltaError, pa.ArrowException, OSError, ValueError) as problem:
        raise AllNeeded(f"its rows cannot be looked up ({str(problem).splitlines()[0]})") from None


def _with_keys_of(deleted: pa.Table, table: DeltaTable, key: set[str], columns: set[str]) -> pa.Table:
    """Return the ``columns`` of the rows of the table that have the key of one of the rows of ``deleted``."""
    import pyarrow as pa
    import pyarrow.compute as pc

    keys, schema = set(_keys(deleted, key)), deleted.select([n for n in deleted.column_names if n in columns]).schema
    plain = {name: deleted[name].unique() for name in key if not pa.types.is_nested(schema.field(name).type)}
    found = [schema.empty_table()]
    # no filter of the dataset: the files' statistics can have another Arrow type than the column, which is an error
    for batch in table.to_pyarrow_dataset().to_batches(columns=schema.names):
        rows = pa.table(batch).cast(schema)
        for name, given in plain.items():
            rows = rows.filter(pc.is_in(rows[name], given))
        found.append(rows.filter(pa.array([name in keys for name in _keys(rows, key)], pa.bool_())))
    return pa.concat_tables(found)


def _actions(path: str, version: int) -> Iterator[dict[str, Any]]:
    """Yield the actions of a commit of the table at ``path``. Raises AllNeeded where the log has lost it."""
    from deltalake.fs import DeltaStorageHandler
    from pyarrow.fs import PyFileSystem

    try:
        with PyFileSystem(DeltaStorageHandler(path)).open_input_stream(f"_delta_log/{version:020d}.json") as stream:
            lines = stream.read().decode().splitlines()
    except FileNotFoundError:
        raise AllNeeded(f"its log does not have version {version} any more") from None
    for line in lines:
        action = json.loads(line)
        action.get("add", {}).pop("stats", None)
        yield action


def _columns_hash(schema: dict[str, Any], partitions: list[str]) -> str:
    columns = [(field["name"], field["type"]) for field in schema["fields"]]
    return stable_hash(columns, partitions)


def _is_on(properties: dict[str, Any]) -> bool:
    return str(properties.get(FEED, "")).lower() == "true"


def _decoded(path: str) -> str:
    """Return a path without the encoding of URIs, which paths of partitions have twice."""
    return unquote(unquote(path))


def _ends(path: str) -> Iterator[str]:
    """Yield ``path`` and its parts after each slash."""
    parts = path.split("/")
    return ("/".join(parts[first:]) for first in range(len(parts)))
