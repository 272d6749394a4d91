"""An MLflow store on sqlite: a check that it can be used, and where its artifacts are.

MLflow records the absolute place of every artifact when it is made. So a store that was moved or copied is told where
its artifacts are now.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

from catalog_enrichment import failures
from catalog_enrichment.errors import NoModelError, RegistryError

ARTIFACT_PLACES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
)
"""Tables and columns of MLflow's database with places of artifacts."""

_MAGIC = b"SQLite format 3\0"


def check(file: Path, create: bool, timeout_seconds: int) -> None:
    """Raise RegistryError if the file is missing (and not ``create``), is no sqlite database or cannot be read, and
    TemporaryFailure if another process holds it: MLflow's own client would retry for minutes."""
    if not file.exists() and not create:
        raise NoModelError(f"there is no MLflow store at {file}: run train_model first, or set mlflow.tracking_uri")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.exists() and file.stat().st_size:
            with file.open("rb") as stream:
                if stream.read(len(_MAGIC)) != _MAGIC:
                    raise RegistryError(f"{file} is not an sqlite database: check mlflow.tracking_uri")
            with closing(sqlite3.connect(file, timeout=timeout_seconds)) as database:
                database.execute("SELECT count(*) FROM sqlite_master")
    except (OSError, sqlite3.Error) as problem:
        unusable = RegistryError(f"the MLflow store {file} cannot be used: {problem}")
        raise failures.recognised(problem) or unusable from problem


def follow_artifacts(file: Path, artifacts: Path, experiment: str, timeout_seconds: int) -> Path | None:
    """Let the store find its artifacts in ``artifacts`` (`mlflow.artifact_path`) if it was moved or copied.

    Returns where the artifacts of ``experiment`` were before; None where nothing has to be done. Each place below that
    folder is changed, in one transaction, unless its files are there and not in ``artifacts``: after the config got
    another folder, earlier versions stay where they are. Of a copy only the copy is looked at.

    Nothing is changed where ``artifacts`` does not exist and the store has a model: its disk may not be mounted.
    Raises RegistryError, or TemporaryFailure, if the store cannot be changed.
    """
    if not file.exists() or not file.stat().st_size:
        return None
    try:
        with closing(sqlite3.connect(file, timeout=timeout_seconds)) as connection, connection:
            return _follow(connection, artifacts, experiment)
    except (OSError, sqlite3.Error) as problem:
        unusable = RegistryError(f"the MLflow store {file} was moved or copied and cannot be told so: {problem}")
        raise failures.recognised(problem) or unusable from problem


def _follow(connection: sqlite3.Connection, artifacts: Path, experiment: str) -> Path | None:
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if not {table for table, _ in ARTIFACT_PLACES} <= tables:  # no store yet, or another MLflow's, which says so
        return None
    found = connection.execute("SELECT artifact_location FROM experiments WHERE name = ?", (experiment,)).fetchone()
    old = folder_of(found[0]) if found else None
    if old is None or old == artifacts:
        return None
    if not artifacts.is_dir() and connection.execute("SELECT count(*) FROM logged_models").fetchone()[0]:
        return None
    before, after = found[0].rstrip("/"), artifacts.as_uri()
    for table, column in ARTIFACT_PLACES:
        below = f"SELECT rowid, {column} FROM {table} WHERE {column} = ? OR {column} LIKE ? ESCAPE '!'"
        for row, place in connection.execute(below, (before, f"{_escaped(before)}/%")).fetchall():
            moved = after + place.removeprefix(before)
            if table == "experiments" or is_folder(moved) or not is_folder(place):
                connection.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (moved, row))
    return old


def folder_of(location: str) -> Path | None:
    """Return the folder of a place; None for a place that is no local folder."""
    parts = urlsplit(location)
    return Path(unquote(parts.path)) if parts.scheme in ("", "file") else None


def is_folder(location: str) -> bool:
    """Return whether there is a folder at a place; False where it may not be looked at."""
    folder = folder_of(location)
    return folder is not None and os.path.isdir(folder)  # noqa: PTH112  Path.is_dir raises where it may not look


def _escaped(text: str) -> str:
    for sign in "!%_":
        text = text.replace(sign, f"!{sign}")
    return text
