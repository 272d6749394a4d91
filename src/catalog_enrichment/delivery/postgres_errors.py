"""Errors of PostgreSQL as this program's: what an administrator mends (exit 2), what passes by itself (exit 4).

Told apart by the SQLSTATE, and where a connection was refused, which has none, by the server's English text.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from catalog_enrichment.errors import CatalogEnrichmentError, ConfigError, DataContractError, TemporaryFailure
from catalog_enrichment.masking import masked

if TYPE_CHECKING:
    import psycopg

_PASSWORD = ("password authentication failed", "no password supplied", "authentication failed for user")
_FORBIDDEN = ("no pg_hba.conf entry", "is not permitted to log in", "permission denied for database")
_UNKNOWN = ("does not exist",)
_URI = ("invalid connection option", "invalid URI query parameter", "invalid sslmode value", "missing key/value")


@contextmanager
def answering(uri: str, secrets: tuple[str, ...] = ()) -> Iterator[None]:
    """A block in which errors of PostgreSQL are raised as this program's. ``secrets`` are masked in their messages."""
    import psycopg

    try:
        yield
    except psycopg.Error as problem:
        raise translated(problem, uri, secrets) from None  # the original may repeat a row


def translated(problem: psycopg.Error, uri: str, secrets: tuple[str, ...] = ()) -> CatalogEnrichmentError:
    """The error to raise instead of ``problem``; its message names the server and no password."""
    lines = [line for line in str(problem).splitlines() if line.strip()]
    said = masked(lines[0] if lines else type(problem).__name__, [one for one in secrets if one])[:300]
    what = f"PostgreSQL at {server(uri)}: {said}"
    return _by_state(problem.sqlstate or "", what) if problem.sqlstate else _without_state(problem, what)


def server(uri: str) -> str:
    """Host, port and database of ``uri``, without user and password."""
    parts = urlsplit(uri)
    return f"{parts.netloc.rpartition('@')[2] or 'the local socket'}{parts.path}"


def _by_state(state: str, what: str) -> CatalogEnrichmentError:
    if state == "42501":
        return ConfigError(
            f"{what}. The role of delivery.uri lacks a right: name it in delivery.role and run deliver_values --migrate"
        )
    if state in ("42P01", "42703", "3F000", "42704"):
        return DataContractError(f"{what}. The tables are not those of this program: run deliver_values --migrate")
    if state.startswith("28") or state == "3D000":
        return ConfigError(f"{what}. Check delivery.uri, and the password in PGPASSWORD, ~/.pgpass or login_variable")
    if state in ("53100", "53200"):
        return TemporaryFailure(f"{what}. The database server has no room; make room and run again")
    if state == "55P03":
        return TemporaryFailure(f"{what}. Another session holds a lock on the tables for longer than lock_seconds")
    if state == "25006":
        return TemporaryFailure(f"{what}. The server is read-only (a standby?); run again when it takes writes")
    if state[:2] in ("08", "53", "57", "58", "40", "25"):
        return TemporaryFailure(f"{what}. Nothing of this step was applied, or all of it; run again")
    return DataContractError(f"{what} (SQLSTATE {state}). Nothing of this step was applied")


def _without_state(problem: psycopg.Error, what: str) -> CatalogEnrichmentError:
    text = str(problem)
    if any(part in text for part in _PASSWORD):
        return ConfigError(f"{what}. Give the password in PGPASSWORD, ~/.pgpass or the variable of login_variable")
    if any(part in text for part in _URI):
        return ConfigError(f"{what}. Correct delivery.uri")
    if any(part in text for part in _FORBIDDEN) or ("FATAL" in text and any(part in text for part in _UNKNOWN)):
        return ConfigError(f"{what}. Create the role and the database of delivery.uri, and let the role connect")
    return TemporaryFailure(
        f"{what}. The connection failed or was lost; what was committed is kept. Run again when the server answers"
    )
