"""A local MLflow store that was moved: MLflow records the absolute place of every artifact when it is made."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

_PLACES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
)
"""Tables and columns of MLflow's database with places of artifacts."""


def follow(database: Path, artifacts: Path, experiment: str, timeout_seconds: int) -> Path | None:
    """Let the store find its artifacts in ``artifacts`` (`mlflow.artifact_path`) if it was moved.

    Returns where those of ``experiment`` were before; None where nothing has to be done.

    It was moved if that folder is gone and ``artifacts`` is there. All places below the old folder are changed in one
    transaction. A copy of a store goes on using the artifacts of the original. A store without any model may be the one
    that `mlflow run` has just made, with a place in the current folder: it gets ``artifacts``, too. Raises
    sqlite3.Error.
    """
    if not database.exists() or not database.stat().st_size:
        return None
    with closing(sqlite3.connect(database, timeout=timeout_seconds)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not {table for table, _ in _PLACES} <= tables:  # no store yet, or of another MLflow, which says so itself
            return None
        found = connection.execute("SELECT artifact_location FROM experiments WHERE name = ?", (experiment,)).fetchone()
        old = _folder(found[0]) if found else None
        if old is None or old == artifacts or old.exists():
            return None
        if not artifacts.is_dir() and connection.execute("SELECT count(*) FROM logged_models").fetchone()[0]:
            return None
        before, after = found[0].rstrip("/"), artifacts.as_uri()
        with connection:
            for table, column in _PLACES:
                connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE {column} = ? OR {column} LIKE ? "
                    "ESCAPE '!'",
                    (after, len(before) + 1, before, f"{_escaped(before)}/%"),
                )
        return old


def _folder(location: str) -> Path | None:
    """The folder of a place; None for one that is no local folder."""
    parts = urlsplit(location)
    if parts.scheme not in ("", "file"):
        return None
    return Path(unquote(parts.path))


def _escaped(text: str) -> str:
    for sign in "!%_":
        text = text.replace(sign, f"!{sign}")
    return text
