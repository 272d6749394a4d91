"""The context of a job that works on the catalog: config, Spark session, catalog and dictionary."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from catalog_enrichment import dictionary, resources
from catalog_enrichment.catalog import renames, runs, value_names
from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.catalog.runs import RunRecord
from catalog_enrichment.catalog.value_names import Followed
from catalog_enrichment.config.schema import Config
from catalog_enrichment.dictionary import Dictionary
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.inputs.stored_pictures import StoredPictures
from catalog_enrichment.monitoring.stages import Say, to_stderr
from catalog_enrichment.records import RunKind
from catalog_enrichment.spark import session

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_NO_FOLDER = {errno.EEXIST, errno.ENOTDIR, errno.ENAMETOOLONG}


@dataclass(frozen=True)
class Context:
    config: Config
    spark: SparkSession
    catalog: Catalog
    dictionary: Dictionary
    say: Say = to_stderr
    """Prints a line of progress."""


def load_dictionary(config: Config) -> Dictionary:
    """Return the attribute dictionary that the config names."""
    return dictionary.load(resources.locate(config.catalog.dictionary, config.path(".")))


def open_context(config: Config, app_name: str, catalog: Catalog | None = None) -> Context:
    """Start Spark and open the catalog, or use ``catalog``, whose write lock the job holds.

    Callers check before what can be wrong with config and registry.
    """
    catalog = catalog or Catalog.of(config)
    followed = follow_dictionary(config, catalog)
    spark = session.start(config, app_name)
    return Context(config, spark, catalog.on(spark), followed.dictionary)


def follow_dictionary(config: Config, catalog: Catalog) -> Followed:
    """Return what the config's dictionary means in ``catalog``, which from now on calls renamed values by their new
    names, also before a job has written the renames, and knows the kinds of its values."""
    followed = value_names.follow(renames.events(catalog), load_dictionary(config))
    catalog.names, catalog.dictionary = followed.names, followed.dictionary
    return followed


@contextmanager
def open_for_writing(config: Config, app_name: str, dry_run: bool = False) -> Iterator[Context]:
    """Do as :func:`open_context` for the jobs that change the catalog, which run one at a time.

    What the dictionary has renamed is written first, as a run of its own, but for a dry run.
    Raises GateRefused, before Spark starts, if another job is writing to the same catalog, and ConfigError if
    `catalog.path` cannot be a folder or `images.store` is another catalog's.
    """
    load_dictionary(config)  # a config that cannot be used makes no folder for the lock
    catalog = Catalog.of(config)
    if folder := catalog.storage.folder:
        _make_folder(folder)
    with catalog.writing():
        StoredPictures.of(config.pictures()).claim(folder or catalog.storage.uri)
        context = open_context(config, app_name, catalog)
        if not dry_run:
            renames.write_pending(context.catalog, follow_dictionary(config, context.catalog), context.say)
        yield context


@contextmanager
def recording_refusals(config: Config, kind: RunKind, unless: bool = False) -> Iterator[None]:
    """Run checks that a run makes before it takes the write lock: if they raise, a row in `runs` says why.

    ``unless``: write no row, as for a dry run. No row is written either where there is no catalog yet, the dictionary
    cannot be loaded, or another job has the lock.
    """
    load_dictionary(config)
    record = RunRecord(kind=kind, config=config.without_secrets(), secrets=config.secrets())
    try:
        yield
    except Exception as problem:
        if not unless:
            _record_refusal(config, record, problem)
        raise


def _record_refusal(config: Config, record: RunRecord, problem: Exception) -> None:
    try:
        catalog = Catalog.of(config)
        folder = catalog.storage.folder
        if not (folder.is_dir() if folder else next(catalog.storage.files(), None)):
            return  # there is no catalog yet
        with catalog.writing():
            runs.write_unsuccessful(catalog, record, problem)
    except Exception as unrecorded:  # the first error is to be reported
        problem.add_note(f"This attempt has no row in the table runs: {unrecorded}")


def _make_folder(path: Path) -> None:
    """Make the catalog's folder, if it is not there. Raises ConfigError for a path that no folder can have."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        if problem.errno not in _NO_FOLDER:
            raise
        reason = os.strerror(problem.errno or 0)
        raise ConfigError(f"catalog.path = {path} is no folder, and no folder can be made there: {reason}") from problem
