"""What can go wrong with a job, and the exit code each kind ends with.

::

    CatalogEnrichmentError            exit 1  (never raised itself)
    ├── ConfigError                   exit 2  the config or the command line is wrong
    ├── DataContractError             exit 2  the data does not keep its contract; nothing was written
    ├── RegistryError                 exit 2  MLflow cannot be reached, or a model or alias is not there
    ├── ModelContractError            exit 2  a model version is damaged or does not fit the dictionary
    └── GateRefused                   exit 3  a gate said no: promotion policy, cap on changes, expected-current,
                                              another job at the same catalog

Anything else that escapes a job is a bug (exit 1, with its traceback). A row never raises: it gets a
:class:`~catalog_enrichment.records.Reason` and goes to quarantine or to the text-only path.

Every message says what happened, where, and what to do about it.
"""

from __future__ import annotations


class CatalogEnrichmentError(Exception):
    """Base of every error this package raises on purpose."""

    exit_code = 1


class ConfigError(CatalogEnrichmentError):
    """The config file, a ``--set`` override or an argument cannot be used."""

    exit_code = 2


class DataContractError(CatalogEnrichmentError):
    """A source, snapshot or table does not keep its data contract. Raised before anything is written."""

    exit_code = 2


class RegistryError(CatalogEnrichmentError):
    """The model registry cannot be reached, or does not hold the model, version or alias asked for."""

    exit_code = 2


class ModelContractError(CatalogEnrichmentError):
    """A model version is incomplete or damaged, or its labels do not match the attribute dictionary."""

    exit_code = 2


class GateRefused(CatalogEnrichmentError):
    """A gate refused: the promotion policy, the cap on changes, an alias that moved, another job that writes."""

    exit_code = 3
