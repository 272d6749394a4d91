"""The config's `[delivery]` section: the database that values are delivered to, and where positions are kept."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}")
"""A name in PostgreSQL that needs no quotes anywhere."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DeliveryConfig:
    uri: str = ""
    """The PostgreSQL database that deliver_values writes to: `postgresql://ROLE@HOST:PORT/DATABASE`, without password.
    That comes from PGPASSWORD, from ~/.pgpass or from the variable that `login_variable` names."""
    login_variable: str = ""
    """Environment variable with the password of `uri`; empty: PGPASSWORD or ~/.pgpass."""
    migration_uri: str = ""
    """The same database as its owner or administrator, for `deliver_values --migrate`, which makes and changes the
    tables; its password comes from PGPASSWORD or ~/.pgpass. Empty: `uri`."""
    schema: str = "enriched"
    """Schema of the tables in the database; made by the migration."""
    role: str = "catalog_delivery"
    """Role that the migration gives the rights a delivery needs, and none on merchants' values. It must exist."""
    merge_after: int = 20
    """Commits are delivered one by one, each in a transaction. Where more than this wait, only the difference between
    the first and the last is delivered, in one transaction."""
    positions: str = "deliveries"
    """Folder of the positions of export_changes' consumers, a file for each. Relative paths start at `root`."""
    connect_seconds: int = 10
    """How long to wait for a connection."""
    lock_seconds: int = 60
    """How long a statement waits for a lock that another session has on the tables."""

    def __post_init__(self) -> None:
        for name in ("uri", "migration_uri"):
            _check_uri(f"delivery.{name}", getattr(self, name))
        for name in ("schema", "role"):
            if not _NAME.fullmatch(getattr(self, name)):
                raise ValueError(
                    f"delivery.{name} must be lower case letters, digits and underscores, at most 63, not "
                    f"{getattr(self, name)!r}"
                )
        for name, low, high in (("merge_after", 1, 100_000), ("connect_seconds", 2, 3600), ("lock_seconds", 1, 86_400)):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"delivery.{name} must lie in [{low}, {high}], not {getattr(self, name)!r}")
        if "://" in self.positions:
            raise ValueError(f"delivery.positions is a folder, not a URI like {self.positions!r}")


def _check_uri(key: str, uri: str) -> None:
    """Raises ValueError, which does not repeat the URI: it may have a password."""
    if not uri:
        return
    parts = urlsplit(uri)
    if parts.scheme not in ("postgresql", "postgres"):
        raise ValueError(f"{key} must begin with postgresql://")
    named = {name.lower() for name, _ in parse_qsl(parts.query, keep_blank_values=True)}
    if ":" in parts.netloc.rpartition("@")[0] or named & {"password", "sslpassword", "passfile"}:
        raise ValueError(
            f"{key} has a password. Remove it, and give it in PGPASSWORD, in ~/.pgpass or in the variable that "
            "delivery.login_variable names"
        )
