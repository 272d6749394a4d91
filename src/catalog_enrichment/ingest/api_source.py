"""Products from an HTTP API as a source: fetches its pages by Spark's Python data source, then reads the kept pages.

The first page is fetched by the driver. Where the API gives the number of products and pages are asked for by number or
offset, the others are fetched by several tasks; otherwise one task fetches one after the other. A task gives no error
to Spark, which would repeat it: it gives a row that says what happened, and the driver raises it.
"""

from __future__ import annotations

import math
import os
import shutil
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import count, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog_enrichment import errors
from catalog_enrichment.config.remote_source import ApiConfig
from catalog_enrichment.config.source import SourceConfig
from catalog_enrichment.errors import CatalogEnrichmentError, ConfigError
from catalog_enrichment.ingest.api_client import ApiClient, ApiRequest, fetch_onwards, is_last, page_url
from catalog_enrichment.ingest.api_pages import KeptPages, PageHead, check_pages, fingerprint
from catalog_enrichment.ingest.json_documents import open_documents
from catalog_enrichment.ingest.source_frame import FileLocation, SourceFrame
from catalog_enrichment.monitoring.stages import Say
from catalog_enrichment.records import stable_hash

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.datasource import DataSource

_FORMAT = "catalog_enrichment_api_pages"
_OUTCOME = "page int, items int, error string, message string"


@dataclass(frozen=True, slots=True)
class ApiFeed:
    """One source that is an API, in one import."""

    spark: SparkSession
    request: ApiRequest
    say: Say

    @property
    def location(self) -> FileLocation:
        url = self.request.shown
        return FileLocation(url, url.rsplit("/", 1)[0] if url.count("/") > 2 else url)

    def fingerprint(self, imported: str | None) -> str:
        """Fetch the pages that are not kept yet; the hash of all their items.

        ``imported``: that of the last import. If it is that of pages which were complete before, an import was killed
        after it had finished with them: all are fetched anew.
        """
        if fetch_all(self.spark, self.request, self.say) == 0 and self._hash() == imported:
            self.say("the kept pages were imported before: all pages are fetched anew")
            self.forget()
            fetch_all(self.spark, self.request, self.say)
        heads = self._heads()
        check_pages(heads, self.request.shown)
        return self._hash()

    def open(self, wanted: Sequence[str]) -> SourceFrame:
        fetch_all(self.spark, self.request, self.say)  # nothing, where the fingerprint was asked for
        return open_documents(_items(self.spark, self.request, [head.number for head in self._heads()]), wanted)

    def release(self) -> None:
        """Nothing is held open."""

    def forget(self) -> None:
        """Remove the kept pages: they are imported, or cannot be."""
        discard(Path(self.request.folder))

    def _heads(self) -> list[PageHead]:
        """In order."""
        return list(self.request.pages.heads().values())

    def _hash(self) -> str:
        return fingerprint(self._heads())


def api_feed(spark: SparkSession, source: SourceConfig, folder: Path, say: Say) -> ApiFeed:
    """``folder``: where pages are kept, in a folder per source. Pages that are too old are removed.

    Raises ConfigError if the environment variable with the token is not set.
    """
    api = source.api
    if api is None:
        raise ConfigError('source.format = "http_api" needs a section [source.api]')
    key = stable_hash(source.path, api.content_keys(), api.auth_env, api.auth_header)[:20]  # a token has its own pages
    request = ApiRequest(url=source.path, api=api, folder=str(folder / f"pages-{key}"), token=_token(api))
    age = request.pages.age_hours()
    if age > api.keep_hours or (age and not api.keep_hours):
        say(f"the pages that an interrupted import left are older than {api.keep_hours:g} hours: all are fetched anew")
        discard(Path(request.folder))
    for name in ("pace", "pace.lock"):  # the times of an earlier import, perhaps by another clock
        with suppress(FileNotFoundError):
            (Path(request.folder) / name).unlink()
    return ApiFeed(spark, replace(request, stop_at=time.time() + api.seconds), say)


def _token(api: ApiConfig) -> str:
    if not api.auth_env:
        return ""
    token = os.environ.get(api.auth_env, "").strip()
    if not token:
        raise ConfigError(f"source.api.auth_env: the environment variable {api.auth_env} is not set")
    if not token.isascii() or not token.isprintable():
        raise ConfigError(f"source.api.auth_env: the value of {api.auth_env} cannot be a header: printable ASCII only")
    return token


def discard(folder: Path) -> None:
    """Remove a folder of pages, at once for those who look for it."""
    gone = folder.with_name(f"_gone-{uuid.uuid4()}")
    with suppress(FileNotFoundError):
        folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def fetch_all(spark: SparkSession, request: ApiRequest, say: Say) -> int:
    """Fetch and keep every page that is not kept yet; returns how many were fetched. Raises as :class:`ApiClient`."""
    kept = request.pages.heads()
    if kept:
        say(f"{len(kept):,} pages of an interrupted import are kept, {sum(h.items for h in kept.values()):,} products")
    fetched = 0
    first = kept.get(1)
    if first is None:
        first = ApiClient(request).fetch(1, page_url(request, 1, None, 0))
        fetched = 1
    missing = _missing(request.api, first, kept) if first else []
    if missing:
        lanes = [missing[lane :: request.api.tasks] for lane in range(min(request.api.tasks, len(missing)))]
        fetched += _in_tasks(spark, request, lanes)
    if not _is_complete(request):
        fetched += _in_tasks(spark, request, [None])
    return fetched


def _missing(api: ApiConfig, first: PageHead, kept: dict[int, PageHead]) -> list[int]:
    """The numbers of the pages that the total announces and that are neither kept nor the first one."""
    if not api.in_parallel or first.total is None:
        return []
    pages = min(math.ceil(first.total / api.page_size), api.max_pages)
    return [number for number in range(2, pages + 1) if number not in kept]


def _is_complete(request: ApiRequest) -> bool:
    """Whether the kept pages reach, without a gap, to one that is known to be the last."""
    heads = request.pages.heads()
    gapless = takewhile(lambda head: head is not None, (heads.get(number) for number in count(1)))
    return any(is_last(request.api, head) for head in gapless if head is not None)


def _in_tasks(spark: SparkSession, request: ApiRequest, lanes: Sequence[list[int] | None]) -> int:
    """Fetch the pages of every lane in a task of its own; None: those that follow what is kept. Raises what they
    would, and ConfigError where the driver does not find a page that a task has kept."""
    spark.dataSource.register(_data_source(lambda lane: _fetch_lane(request, lane), list(lanes)))
    rows = spark.read.format(_FORMAT).load().collect()
    problems = [row for row in rows if row["error"]]
    if problems:
        # a wrong config or contract would fail again: it is what to mend first
        worst = min(problems, key=lambda row: (row["error"] == "TemporaryFailure", row["page"] or 0))
        kinds = Counter(row["error"] for row in problems)
        others = len(problems) - 1
        raise _error(worst["error"], worst["message"] + (f" ({others} more tasks: {dict(kinds)})" if others else ""))
    kept = request.pages.heads()
    if lost := sorted({row["page"] for row in rows if row["items"]} - set(kept)):
        raise ConfigError(
            f"pages {lost[:5]} were kept by an executor in {request.folder}, but are not there for the driver: "
            "source.api.pages_folder must be a folder that the driver and all executors share"
        )
    return len(rows)


def _error(name: str, message: str) -> CatalogEnrichmentError:
    kind: type[CatalogEnrichmentError] = getattr(errors, name)
    return kind(message)


def _fetch_lane(request: ApiRequest, lane: list[int] | None) -> Iterator[tuple[int | None, int | None, str, str]]:
    """Fetch the pages of one task (runs on executors): a row per page, and one for what ended it too early."""
    number: int | None = None
    try:
        if lane is None:
            for head in fetch_onwards(request):
                yield head.number, head.items, "", ""
            return
        client = ApiClient(request)
        for number in lane:
            if request.pages.head(number) is None:  # a task that Spark runs again does not ask again
                fetched = client.fetch(number, page_url(request, number, None, 0))
                yield number, fetched.items if fetched else 0, "", ""
    except CatalogEnrichmentError as problem:
        yield number, None, type(problem).__name__, str(problem)


def _data_source(
    fetch: Callable[[list[int] | None], Iterator[tuple[Any, ...]]], lanes: list[list[int] | None]
) -> type[DataSource]:
    """Spark's Python data source whose partitions are the lanes; the class carries the request, the token included, so
    that it is in no option, plan or log."""
    from pyspark.sql.datasource import DataSource, DataSourceReader, InputPartition

    class Lane(InputPartition):  # type: ignore[misc]
        def __init__(self, pages: list[int] | None) -> None:
            super().__init__(None)
            self.pages = pages

    class PagesReader(DataSourceReader):  # type: ignore[misc]
        def partitions(self) -> Sequence[InputPartition]:
            return [Lane(pages) for pages in lanes]

        def read(self, partition: Any) -> Iterator[tuple[Any, ...]]:
            return fetch(partition.pages)

    class ApiPages(DataSource):  # type: ignore[misc]
        @classmethod
        def name(cls) -> str:
            return _FORMAT

        def schema(self) -> str:
            return _OUTCOME

        def reader(self, schema: Any) -> DataSourceReader:  # noqa: ARG002  the base's signature
            return PagesReader()

    return ApiPages


def _items(spark: SparkSession, request: ApiRequest, numbers: Sequence[int]) -> DataFrame:
    """One row per item of the kept pages: text, document, path (URL and page), row_number (from 1 in its page)."""
    folder, shown, path = request.folder, request.shown, request.api.items
    tasks = max(1, min(len(numbers), 4 * spark.sparkContext.defaultParallelism))
    pages = spark.createDataFrame([(number,) for number in numbers], "page int").repartition(tasks)

    def read(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return item_batches(batches, folder, shown, path)

    return pages.mapInArrow(read, "text string, document string, path string, row_number bigint")


def item_batches(batches: Iterator[pa.RecordBatch], folder: str, shown: str, path: str) -> Iterator[pa.RecordBatch]:
    """The items of the pages whose numbers are in ``batches``, one batch per page (runs on executors)."""
    import pyarrow as pa

    for batch in batches:
        for number in batch.column(0).to_pylist():
            texts = [text.encode("utf-8", "replace").decode() for text in KeptPages(Path(folder)).items(number, path)]
            uri = f"{shown}#page={number}"
            columns = [pa.array(texts, pa.string()), pa.array(texts, pa.string())]
            columns += [pa.array([uri] * len(texts), pa.string()), pa.array(range(1, len(texts) + 1), pa.int64())]
            yield pa.RecordBatch.from_arrays(columns, ["text", "document", "path", "row_number"])
