"""What an import reads, whatever it is: files, a database or an API. Opened once per import, released and forgotten."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from catalog_enrichment.config.schema import Config
from catalog_enrichment.errors import CatalogEnrichmentError, ConfigError, DataContractError, GateRefused
from catalog_enrichment.failures import recognised
from catalog_enrichment.ingest.source_frame import FileLocation, SourceFrame
from catalog_enrichment.monitoring.stages import Say

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


class RemoteFeed(Protocol):
    """A source that is not files, in one import."""

    @property
    def location(self) -> FileLocation:
        """For messages; its folder is where relative paths of pictures start."""

    def fingerprint(self, imported: str | None) -> str:
        """Equal to that of another import only if both read the same rows. ``imported``: that of the last import."""

    def open(self, wanted: Sequence[str]) -> SourceFrame:
        """The columns of ``wanted`` that exist; to be read before :meth:`release`."""

    def release(self) -> None:
        """The rows are read and stored."""

    def forget(self) -> None:
        """Nothing of the source is needed any more, by a later import either."""


@contextmanager
def remote_feed(spark: SparkSession, config: Config, say: Say) -> Iterator[RemoteFeed | None]:
    """The feed of a source that is a database or an API; None for files.

    Released when the block ends. Forgotten when it ends well or its rows are refused: the next import must look at new
    ones then. After a failure and where the job is killed, what was fetched remains. An error that a task raised for
    the same reason as the driver would is raised as the driver's.
    """
    feed = _opened(spark, config, say)
    if feed is None:
        yield None
        return
    try:
        yield feed
    except (DataContractError, GateRefused):
        feed.forget()
        raise
    except CatalogEnrichmentError:
        raise
    except Exception as problem:
        if known := recognised(problem):
            raise known from problem
        raise
    else:
        feed.forget()
    finally:
        feed.release()


def _opened(spark: SparkSession, config: Config, say: Say) -> RemoteFeed | None:
    source = config.source
    if source is not None and source.format == "postgres":
        from catalog_enrichment.ingest.postgres_source import postgres_feed

        return postgres_feed(spark, source, say)
    if source is not None and source.api is not None:
        from catalog_enrichment.ingest.api_source import api_feed

        if "://" in config.catalog.path and not source.api.pages_folder:
            raise ConfigError("source.api.pages_folder is needed: a folder for pages, as catalog.path is in no folder")
        # where the checkpoints are, too: maintain_catalog removes what nobody comes back for
        pages = config.path(source.api.pages_folder or f"{config.catalog.path}/_staging")
        return api_feed(spark, source, pages, say)
    return None
