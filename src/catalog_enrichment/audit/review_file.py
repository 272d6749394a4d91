"""The file of the review store: a SQLite database in write-ahead mode with a version, and its rows as records."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, get_args, get_origin, get_type_hints

from catalog_enrichment.audit.review_records import ChangeRequest, Item, ReviewSample, Verdict
from catalog_enrichment.errors import DataContractError, TemporaryFailure

Record = ReviewSample | Item | Verdict | ChangeRequest
R = TypeVar("R", ReviewSample, Item, Verdict, ChangeRequest)

SCHEMA_VERSION = 1
APPLICATION_ID = 0x43455256
"""The number in the file's header ("CERV") that tells a review store from other SQLite files."""
WAIT_SECONDS = 30.0
"""The time that a write waits for another process's write."""
_MODE = 0o600
"""The file's mode: it has people's names, and whoever writes to it changes the catalog."""

_SCHEMA = """
CREATE TABLE samples (
    sample_id TEXT PRIMARY KEY, purpose TEXT NOT NULL, drawn_at TEXT NOT NULL, reviewers INTEGER NOT NULL,
    title TEXT NOT NULL
);
CREATE TABLE items (
    item_id TEXT PRIMARY KEY, sample_id TEXT NOT NULL REFERENCES samples, position INTEGER NOT NULL,
    product_id TEXT NOT NULL, shop_id TEXT NOT NULL, title TEXT NOT NULL, description TEXT NOT NULL,
    category TEXT NOT NULL, language TEXT NOT NULL, images TEXT NOT NULL, attribute TEXT NOT NULL,
    cardinality TEXT NOT NULL, value TEXT NOT NULL, evidence TEXT NOT NULL
);
CREATE INDEX items_of_sample ON items (sample_id, position);
CREATE TABLE verdicts (
    verdict_id INTEGER PRIMARY KEY AUTOINCREMENT, item_id TEXT NOT NULL REFERENCES items, reviewer TEXT NOT NULL,
    person TEXT NOT NULL, answer TEXT NOT NULL, right_values TEXT NOT NULL, adjudicates INTEGER NOT NULL,
    answered_at TEXT NOT NULL, seconds REAL NOT NULL, withdrawn_at TEXT
);
CREATE INDEX verdicts_of_item ON verdicts (item_id, person, adjudicates);
CREATE VIEW counting AS SELECT * FROM verdicts WHERE verdict_id IN (
    SELECT max(verdict_id) FROM verdicts WHERE withdrawn_at IS NULL GROUP BY item_id, person, adjudicates
);
CREATE TABLE requests (
    request_id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, product_id TEXT NOT NULL,
    attribute TEXT NOT NULL, "values" TEXT NOT NULL, run_id TEXT NOT NULL, "by" TEXT NOT NULL, reason TEXT NOT NULL,
    asked_at TEXT NOT NULL, item_id TEXT NOT NULL, state TEXT NOT NULL, outcome TEXT NOT NULL, ended_at TEXT
);
CREATE INDEX requests_of_product ON requests (product_id, attribute);
"""


class ReviewFile:
    """The file ``path``, made with its folder if it is not there. For several threads and processes of a machine.

    Raises DataContractError for a file that is no review store or has another version, and TemporaryFailure where the
    file is locked, the disk is full or the storage does not answer.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._lock = threading.RLock()
        with _explained(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):  # SQLite gives its -wal and -shm files the mode of this file
                os.close(os.open(self.path, os.O_CREAT | os.O_EXCL, _MODE))
            self._connection = sqlite3.connect(
                self.path, timeout=WAIT_SECONDS, isolation_level=None, check_same_thread=False
            )
        try:
            self._prepare()
        except BaseException:
            self._connection.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def _rows(self, query: str, *values: Any) -> list[dict[str, Any]]:
        with self._lock, _explained(self.path):
            cursor = self._connection.execute(query, values)
            names = [column[0] for column in cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in cursor]

    def _insert(self, table: str, row: Mapping[str, Any]) -> int:
        """Add a row, given as column -> value. Return its number."""
        names = ", ".join(f'"{name}"' for name in row)
        places = ", ".join("?" * len(row))
        cursor = self._connection.execute(f"INSERT INTO {table} ({names}) VALUES ({places})", tuple(row.values()))
        return int(cursor.lastrowid or 0)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Commit the block as a whole or, after an exception, not at all; blocks can be nested."""
        with self._lock, _explained(self.path):
            if self._connection.in_transaction:
                yield
                return
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def _prepare(self) -> None:
        self._check_kind()
        with _explained(self.path):
            if self.path.stat().st_mode & 0o077:
                self.path.chmod(_MODE)
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")  # a verdict that was kept survives a power failure
            self._connection.execute("PRAGMA foreign_keys = ON")
        with self._writing():
            if self._pragma("application_id") == APPLICATION_ID:  # another process may have made it since
                return
            for statement in _SCHEMA.split(";\n"):
                self._connection.execute(statement)
            self._connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            self._connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def _check_kind(self) -> None:
        """Check, before anything is changed, that the file is empty or a review store of this version."""
        with self._writing():
            application, version = self._pragma("application_id"), self._pragma("user_version")
            if application != APPLICATION_ID and (application or self._rows("SELECT 1 FROM sqlite_master")):
                raise DataContractError(f"{self.path} is an SQLite file, but no review store. Name another file")
            if application == APPLICATION_ID and version != SCHEMA_VERSION:
                raise DataContractError(
                    f"{self.path} is a review store of version {version}, this program reads version {SCHEMA_VERSION}: "
                    "use the program's version that wrote it, or another file"
                )

    def _pragma(self, name: str) -> int:
        return int(self._rows(f"PRAGMA {name}")[0][name])


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.OperationalError, OSError) as problem:
        raise TemporaryFailure(
            f"the review store {path} cannot be used: {problem}. Check that its folder is on a local disk, can be "
            "written to and has space, and try again"
        ) from problem
    except sqlite3.DatabaseError as problem:
        raise DataContractError(f"{path} is no review store, or is damaged: {problem}. Name another file") from problem


# --- rows -----------------------------------------------------------------------------------------------------------


def as_text(time: datetime) -> str:
    """Return ``time`` in ISO 8601, in UTC, with microseconds, so that texts sort as times do.

    Raises ValueError for a time without a time zone.
    """
    if time.tzinfo is None:
        raise ValueError(f"a time in the review store needs a time zone, {time!r} has none")
    return time.astimezone(UTC).isoformat(timespec="microseconds")


def to_row(record: Record) -> dict[str, Any]:
    """Return the fields of a record as columns: tuples as JSON, times as text, enumerations by value."""
    return {name: _plain(getattr(record, name)) for name in record.__dataclass_fields__}


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return as_text(value)
    if isinstance(value, tuple):
        return json.dumps(value, ensure_ascii=False)
    return value.value if isinstance(value, Enum) else value


def read(kind: type[R], row: Mapping[str, Any]) -> R:
    """Return the record of a row; columns that are no fields of ``kind`` are left out."""
    return kind(**{name: _typed(hint, row[name]) for name, hint in get_type_hints(kind).items()})


def _typed(hint: Any, value: Any) -> Any:
    if get_origin(hint) is tuple:
        return tuple(tuple(part) if isinstance(part, list) else part for part in json.loads(value))
    if datetime in (hint, *get_args(hint)):
        return None if value is None else datetime.fromisoformat(value)
    return hint(value) if isinstance(hint, type) and issubclass(hint, (Enum, bool)) else value
