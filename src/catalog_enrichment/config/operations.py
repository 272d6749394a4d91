"""The config's sections about what happens around a run: audits, drift, delivery, logs, metrics, lineage."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import parse_qsl, urlsplit

from catalog_enrichment.config.strict import check_folder, check_ranges

_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}")
"""A name in PostgreSQL that is the same with quotes, which a reserved word needs, as without."""

_WEB_URL = re.compile(r"https?://[^/]")

_SECRET = re.compile(r"secret|password|token|credential|sas|account-key", re.IGNORECASE)
"""In the name of a property that holds one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditConfig:
    store: str = "review.sqlite"
    """File with the samples and the verdicts of reviewers. Relative paths start at `root`."""
    uniform: int = 200
    """Values per attribute that a sample has of all written values, each with the same probability: the alarm rests on
    these."""
    near: int = 100
    """Further values per attribute near the threshold, about as many of each value."""
    near_share: float = 0.2
    """The share of an attribute's written values that counts as near the threshold: those with the smallest distance
    between score and threshold."""
    reviewers: int = 2
    """Verdicts of different people that an item needs; where they differ, an adjudicator decides."""

    def __post_init__(self) -> None:
        check_ranges("audit", self, uniform=(1, 1_000_000), near=(0, 1_000_000), near_share=(0, 1), reviewers=(1, 9))


@dataclass(frozen=True, kw_only=True, slots=True)
class DriftConfig:
    """A stratum is an attribute on one modality path, in one language and first-level category. Where a
    number of it differs from the model version's reference by more than the bound, and by more than chance explains,
    the stratum pauses: nothing new is written there until set_switch says otherwise."""

    enabled: bool = True
    """Compare the scores of every run with those that the model version had when it was certified."""
    min_products: int = 200
    """A stratum with fewer products in the run, or in the reference, is not compared."""
    accept_rate_change: float = 0.15
    """Largest difference of the share of products with a score at or above the threshold."""
    histogram_change: float = 0.25
    """Largest population stability index of the top scores, in 20 bins; by custom .1 is small and .25 is large."""
    masked_products: int = 200
    """Products with a picture that a run scores again without it, and once more without the text, at most; 0: none."""

    def __post_init__(self) -> None:
        check_ranges("drift", self, min_products=(1, 2**31), accept_rate_change=(0, 1))
        check_ranges("drift", self, histogram_change=(0, 100), masked_products=(0, 1_000_000))


@dataclass(frozen=True, kw_only=True, slots=True)
class IcebergConfig:
    """The Iceberg table of `delivery.sink = "iceberg"`. Needs the extra `iceberg`. Credentials of the store with the
    table's files come from the catalog, or from the environment as the store's own tools read them."""

    uri: str = ""
    """The catalog of the table: the address of a REST catalog, `https://HOST/PATH`, or `sqlite:////FILE`, a catalog in
    a file of this machine, under the name `catalog_enrichment`. Without password."""
    warehouse: str = ""
    """A REST catalog's warehouse, where it has several, such as the catalog's name in Unity Catalog. With sqlite the
    folder or the URI below which tables are made."""
    table: str = "enriched.delivered_values"
    """Namespace and name of the table; made by the migration."""
    login_variable: str = ""
    """Environment variable with a REST catalog's token, or CLIENT:SECRET of its OAuth server; empty: none."""
    properties: dict[str, str] = field(default_factory=dict)
    """Further properties of pyiceberg's catalog, such as `s3.endpoint`; no secrets."""

    def __post_init__(self) -> None:
        parts = urlsplit(self.uri)
        if self.uri and not (_WEB_URL.match(self.uri) or self.uri.startswith("sqlite:////")):
            raise ValueError("delivery.iceberg.uri must be http(s)://HOST/PATH or sqlite:////FILE, an absolute path")
        if parts.password or any(_SECRET.search(name) for name in self.properties):
            raise ValueError(
                "delivery.iceberg has a password. Remove it from uri and properties, and give it in the variable that "
                "delivery.iceberg.login_variable names; a store's in the variables that its own tools read"
            )
        if parts.scheme == "sqlite" and not self.warehouse:
            raise ValueError(
                "delivery.iceberg.warehouse is empty: a sqlite catalog needs a folder or URI for its tables"
            )
        if not all(_NAME.fullmatch(name) for name in self.table.split(".")) or "." not in self.table:
            raise ValueError(
                "delivery.iceberg.table must be NAMESPACE.TABLE of lower case letters, digits and underscores, not "
                f"{self.table!r}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class DeliveryConfig:
    sink: Literal["postgres", "iceberg"] = "postgres"
    """Where deliver_values writes to: the database `uri`, or the table of `[delivery.iceberg]`. A catalog with both is
    delivered to each in its own call, by `--set delivery.sink='"iceberg"'`."""
    iceberg: IcebergConfig = field(default_factory=IcebergConfig)
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
    """Commits are delivered in order, each in a transaction. Where more than this wait, only the difference between
    the first and the last is delivered, in one transaction."""
    positions: str = "deliveries"
    """Folder of the positions of export_changes' consumers, a file for each. Relative paths start at `root`."""
    connect_seconds: int = 10
    """How long to wait for a connection."""
    lock_seconds: int = 60
    """How long a statement waits for a lock that another session has on the tables."""

    def __post_init__(self) -> None:
        for name in ("uri", "migration_uri"):
            _check_database(f"delivery.{name}", getattr(self, name))
        for name in ("schema", "role"):
            if not _NAME.fullmatch(getattr(self, name)):
                raise ValueError(
                    f"delivery.{name} must be lower case letters, digits and underscores, at most 63, not "
                    f"{getattr(self, name)!r}"
                )
        check_ranges("delivery", self, merge_after=(1, 100_000), connect_seconds=(2, 3600), lock_seconds=(1, 86_400))
        check_folder("delivery.positions", self.positions)


def _check_database(key: str, uri: str) -> None:
    """Raise ValueError for a URI that cannot be used, without repeating it: it may have a password."""
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


@dataclass(frozen=True, kw_only=True, slots=True)
class LogsConfig:
    """The lines on stderr. The last line of stdout is always the JSON summary."""

    format: Literal["auto", "text", "json"] = "auto"
    """text: time, level, run id and message; json: an object per line. auto: text, in a terminal without the run id."""
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Lines below it are left out. Libraries' lines are left out below WARNING."""
    progress_seconds: int = 30
    """A stage that takes longer says how far it is, this often; 0: never. In a terminal there is a bar instead."""

    def __post_init__(self) -> None:
        check_ranges("logs", self, progress_seconds=(0, 86_400))


@dataclass(frozen=True, kw_only=True, slots=True)
class MetricsConfig:
    """The numbers of a job's last attempt. What cannot be written is a warning; the exit code stays."""

    folder: str = ""
    """Folder of node_exporter's textfile collector; every job writes a file of its own into it. Relative paths start at
    `root`. Empty: no files."""
    push_url: str = ""
    """`http://HOST:PORT` of a Prometheus Pushgateway; empty: nothing is pushed."""
    catalog: str = ""
    """Label `catalog` of every metric and part of the file names; empty: `mlflow.model_name`."""

    def __post_init__(self) -> None:
        if self.push_url and not _WEB_URL.match(self.push_url):
            raise ValueError(f"metrics.push_url must be http://HOST:PORT or https://HOST:PORT, not {self.push_url!r}")


@dataclass(frozen=True, kw_only=True, slots=True)
class LineageConfig:
    """OpenLineage events: what a run read and wrote. What cannot be sent is a warning; the exit code stays."""

    file: str = ""
    """File that gets one JSON line per run. Relative paths start at `root`. Empty: no file."""
    url: str = ""
    """OpenLineage endpoint that events are posted to, for example `http://marquez:5000/api/v1/lineage`; empty: none."""
    namespace: str = "catalog-enrichment"
    """Namespace of the jobs in the events."""
    seconds: int = 10
    """How long to wait for the endpoint."""

    def __post_init__(self) -> None:
        if self.url and not _WEB_URL.match(self.url):
            raise ValueError(f"lineage.url must be an http or https URL, not {self.url!r}")
        check_ranges("lineage", self, seconds=(1, 3600))
