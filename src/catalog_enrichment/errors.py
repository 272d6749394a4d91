"""The exceptions that jobs raise on purpose, and the exit code of each.

::

    CatalogEnrichmentError            exit 1  (base class, never raised itself)
    ├── ConfigError                   exit 2  the config or the command line is wrong
    ├── DataContractError             exit 2  the data violates its contract; nothing was written
    │   └── MissingFileError          exit 2  a file of a table's version is not there
    ├── RegistryError                 exit 2  the MLflow store is damaged, or the model or alias does not exist
    │   └── NoModelError              exit 2  there is no such model, version or alias, or no store yet
    ├── ModelContractError            exit 2  a model version is damaged or does not fit the dictionary
    ├── GateRefused                   exit 3  a check refused: promotion policy, cap on changes, expected champion,
    │                                         unusable pictures, another job is writing to the same catalog
    └── TemporaryFailure              exit 4  the surroundings failed (a full disk, a locked or unreachable MLflow
                                              store, a lost JVM or worker): run the job again when that is mended

Any other exception is a bug (exit 1, with its traceback), unless :mod:`catalog_enrichment.failures` recognises its
cause. A bad row raises nothing: it gets a :class:`~catalog_enrichment.reasons.Reason` and goes to quarantine or is
scored on text alone.

Every message says what happened, where, and what to do about it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class CatalogEnrichmentError(Exception):
    """Base of every error this package raises on purpose."""

    exit_code = 1


class ConfigError(CatalogEnrichmentError):
    """The config file, a ``--set`` override or an argument cannot be used."""

    exit_code = 2


class DataContractError(CatalogEnrichmentError):
    """A source, snapshot or table violates its data contract. Raised before anything is written."""

    exit_code = 2


class MissingFileError(DataContractError):
    """A data file or log entry of a table's version is not there: upkeep deletes those of superseded versions."""


class RegistryError(CatalogEnrichmentError):
    """The model registry is damaged, or does not have the requested model, version or alias."""

    exit_code = 2


class NoModelError(RegistryError):
    """The registry, which can be asked, does not have the requested model, version or alias."""


class ModelContractError(CatalogEnrichmentError):
    """A model version is incomplete or damaged, or its labels do not match the attribute dictionary."""

    exit_code = 2


class GateRefused(CatalogEnrichmentError):
    """The promotion policy, the cap on changes, an alias that moved, or another writing job forbids the change."""

    exit_code = 3

    def __init__(self, message: str, summary: Mapping[str, Any] | None = None) -> None:
        """Take the message and, for the job's JSON summary, what the gate found."""
        super().__init__(message)
        self.summary = dict(summary or {})


class TemporaryFailure(CatalogEnrichmentError):
    """The disk is full, a store does not answer or is locked, or Spark's JVM has ended: the job can succeed later."""

    exit_code = 4
