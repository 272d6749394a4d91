"""The config's `[catalog]` section: where the catalog is, and how its object store is reached."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field

from catalog_enrichment.config.strict import check_ranges

CATALOG_STORES = {"s3": "aws_", "gs": "google_", "az": "azure_"}
"""Scheme of a catalog in an object store -> prefix of the names of its settings."""

CLIENT_SETTINGS = frozenset({"allow_http", "allow_invalid_certificates", "connect_timeout", "proxy_url", "timeout"})
"""Settings of the connection, for every object store."""

_ENVIRONMENT: dict[str, dict[str, tuple[str, ...]]] = {
    "s3": {
        "aws_access_key_id": ("AWS_ACCESS_KEY_ID",),
        "aws_secret_access_key": ("AWS_SECRET_ACCESS_KEY",),
        "aws_session_token": ("AWS_SESSION_TOKEN",),
        "aws_region": ("AWS_REGION", "AWS_DEFAULT_REGION"),
        "aws_endpoint": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
    },
    "gs": {
        "google_service_account": ("GOOGLE_SERVICE_ACCOUNT",),
        "google_service_account_key": ("GOOGLE_SERVICE_ACCOUNT_KEY",),
        "google_application_credentials": ("GOOGLE_APPLICATION_CREDENTIALS",),
    },
    "az": {
        "azure_storage_account_name": ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT"),
        "azure_storage_account_key": ("AZURE_STORAGE_ACCOUNT_KEY",),
        "azure_storage_sas_key": ("AZURE_STORAGE_SAS_KEY", "AZURE_STORAGE_SAS_TOKEN"),
        "azure_storage_tenant_id": ("AZURE_TENANT_ID",),
        "azure_storage_client_id": ("AZURE_CLIENT_ID",),
        "azure_storage_client_secret": ("AZURE_CLIENT_SECRET",),
    },
}
"""Setting -> the environment variables that are read, in this order, where the config does not give the setting."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CatalogConfig:
    path: str
    """Folder of the lake catalog's Delta tables, which all executors share, or a place in an object store:
    `s3://BUCKET/PATH`, `gs://...`, `az://CONTAINER/PATH`. Relative paths start at the config file's `root`."""
    dictionary: str
    """The attribute dictionary: `schemas:attributes/NAME.json` for a shipped file, or a path."""
    storage: dict[str, str] = field(default_factory=dict)
    """Settings of the object store, by the names of obstore and deltalake: `aws_endpoint`, `aws_region`,
    `azure_storage_account_name`, `allow_http`, `timeout`, ... Credentials are better in the environment of the job
    (`AWS_ACCESS_KEY_ID`, ...), which sends them to the executors."""
    lease_seconds: int = 60
    """In an object store, a job whose last sign of life is older than this is taken for dead, and another job may
    write. Until then the other job waits."""

    def __post_init__(self) -> None:
        check_ranges("catalog", self, lease_seconds=(2, 3600))
        scheme, separator, rest = self.path.partition("://")
        if not separator:
            if self.storage:
                raise ValueError("catalog.storage is for a catalog.path in an object store, not for a folder")
            return
        if scheme not in CATALOG_STORES:
            hint = {"s3a": "; write s3://", "s3n": "; write s3://", "gcs": "; write gs://"}.get(scheme, "")
            allowed = ", ".join(f"{name}://" for name in CATALOG_STORES)
            raise ValueError(f"catalog.path is a folder or begins with {allowed}, not with {scheme}://{hint}")
        if not re.fullmatch(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._=-]+)*/?", rest) or ".." in rest.split("/"):
            raise ValueError(
                f"catalog.path must be {scheme}://BUCKET or {scheme}://BUCKET/PATH with letters, digits and . _ - = "
                "only, and with credentials in the environment or in catalog.storage"
            )
        prefix = CATALOG_STORES[scheme]
        known = (name.lower().startswith(prefix) or name.lower() in CLIENT_SETTINGS for name in self.storage)
        if not all(known):
            raise ValueError(
                f"catalog.storage: the names for {scheme}:// begin with {prefix}, or are of {sorted(CLIENT_SETTINGS)}; "
                f"it has {sorted(self.storage)}"
            )

    def store_settings(self) -> tuple[tuple[str, str], ...]:
        """Return settings and credentials of the object store: `storage`, completed from this process's environment.

        Only for the driver: tasks get the settings with their work. They must never be printed.
        """
        given = {name.lower(): value for name, value in self.storage.items()}
        found: dict[str, str] = {}
        for name, variables in _ENVIRONMENT[self.path.partition("://")[0]].items():
            values = [os.environ[variable] for variable in variables if os.environ.get(variable)]
            found |= {name: values[0]} if values else {}
        settings = found | given
        if settings.get("aws_endpoint", "").startswith("http://"):
            settings.setdefault("allow_http", "true")
        return tuple(sorted(settings.items()))
