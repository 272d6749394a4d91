"""Which kind of registry a URI names, and the names and aliases that it takes."""

from __future__ import annotations

import re
from enum import StrEnum

_NAME = re.compile(r"\w(?:[\w .-]*\w)?")
_LEVEL = re.compile(r"[\w-]{1,255}")
_ALIAS = re.compile(r"[\w-]{1,255}")
_URI = re.compile(r"databricks(-uc)?(://\S+)?|(uc:)?https?://\S+")
_TRACKING_OF_DATABRICKS = re.compile(r"databricks(://.*)?")
_LIKE_A_VERSION = re.compile(r"v\d+|latest", re.IGNORECASE)


class RegistryKind(StrEnum):
    """What keeps the registered model."""

    MLFLOW = "mlflow"
    """An MLflow server, a sqlite file, or the registry of a Databricks workspace."""
    UNITY_CATALOG = "unity_catalog"
    """Unity Catalog of Databricks, `databricks-uc` or `databricks-uc://PROFILE`."""
    OPEN_CATALOG = "open_catalog"
    """An open-source Unity Catalog server, `uc:http://HOST:PORT`."""


def kind_of(uri: str) -> RegistryKind:
    """Return what kind of registry a registry URI of MLflow names."""
    scheme = uri.partition(":")[0]
    kinds = {"databricks-uc": RegistryKind.UNITY_CATALOG, "uc": RegistryKind.OPEN_CATALOG}
    return kinds.get(scheme, RegistryKind.MLFLOW)


def check_registry_uri(uri: str, tracking_uri: str) -> None:
    """Raise ValueError for a `mlflow.registry_uri` that is none or may not be empty, and for a `mlflow.tracking_uri`
    that is a registry alone."""
    if uri.startswith("sqlite:"):
        raise ValueError(
            f"mlflow.registry_uri is a sqlite file, {uri!r}: runs and versions are in one file. Leave it empty, and "
            "set mlflow.tracking_uri"
        )
    if kind_of(tracking_uri) is not RegistryKind.MLFLOW:
        raise ValueError(
            f"mlflow.tracking_uri = {tracking_uri!r}: Unity Catalog keeps no runs. Set mlflow.registry_uri to it, and "
            "mlflow.tracking_uri to databricks or an MLflow server"
        )
    if not uri and _TRACKING_OF_DATABRICKS.fullmatch(tracking_uri):
        raise ValueError(
            "mlflow.registry_uri is empty, and a workspace of Databricks has two registries: set it to databricks-uc "
            "(Unity Catalog), or to databricks for the workspace's own"
        )
    if uri and not _URI.fullmatch(uri):
        raise ValueError(
            "mlflow.registry_uri must be databricks-uc, databricks-uc://PROFILE, uc:http://HOST:PORT, databricks or "
            f"the URI of an MLflow server, not {uri!r}"
        )


def check_model_name(name: str, kind: RegistryKind) -> None:
    """Raise ValueError for a `mlflow.model_name` that the registry does not take."""
    if kind is not RegistryKind.MLFLOW:
        levels = name.split(".")
        if len(levels) != 3 or not all(_LEVEL.fullmatch(level) for level in levels):
            raise ValueError(
                "mlflow.model_name must have three levels in Unity Catalog, CATALOG.SCHEMA.MODEL, each of "
                f"letters, digits, _ and -, not {name[:80]!r}"
            )
    elif not _NAME.fullmatch(name) or len(name) > 256:
        raise ValueError(
            "mlflow.model_name must be letters, digits, spaces, _ - and ., at most 256, and begin and end with a "
            f"letter or digit, not {name[:80]!r}: MLflow and its URIs take no others"
        )


def check_alias(key: str, alias: str) -> None:
    """Raise ValueError for an alias that no registry takes; ``key``: the config key that has it."""
    if alias and (not _ALIAS.fullmatch(alias) or _LIKE_A_VERSION.fullmatch(alias)):
        raise ValueError(
            f"{key} must be letters, digits, _ and -, at most 255, and neither 'latest' nor like a version, 'v12': "
            f"registries take no other aliases, not {alias[:80]!r}"
        )
