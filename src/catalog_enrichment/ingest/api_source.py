"""Products from an HTTP API as a source: fetches its pages in Spark tasks, then reads the kept pages.

The first page is fetched by the driver. Where the API gives the number of products and pages are asked for by number or
offset, the others are fetched by several tasks; otherwise one task fetches one page after the other. A task raises no
error, as Spark would repeat it: it gives a row that says what happened, and the driver raises the error.
"""

from __future__ import annotations

import math
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from catalog_enrichment import errors
from catalog_enrichment.config.remote_sources import ApiConfig
from catalog_enrichment.errors import CatalogEnrichmentError, ConfigError
from catalog_enrichment.ingest.api_client import ApiClient, ApiRequest, fetch_onwards, is_last, page_url
from catalog_enrichment.ingest.api_pages import KeptPages, PageHead, check_pages, fingerprint
from catalog_enrichment.ingest.json_files import open_documents
from catalog_enrichment.ingest.source_frame import Location, SourceFrame, read_in_tasks
from catalog_enrichment.monitoring.stages import Say
from catalog_enrichment.records import stable_hash
from catalog_enrichment.spark import api_mode

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession

_OUTCOME = "page int, items int, error string, message string"


@dataclass(frozen=True, slots=True)
class ApiSource:
    """An API, in one import."""

    spark: SparkSession
    request: ApiRequest
    say: Say

    @property
    def location(self) -> Location:
        url = self.request.shown
        return Location(url, url.rsplit("/", 1)[0] if url.count("/") > 2 else url)

    def fingerprint(self, imported: str) -> str:
        """Fetch the pages that are not kept yet, and return the hash of all items.

        If all pages were kept before and were imported already, an import was killed after it had finished with them:
        all are fetched anew.
        """
        if fetch_all(self.spark, self.request, self.say) == 0 and fingerprint(self._heads()) == imported:
            self.say("the kept pages were imported before: all pages are fetched anew")
            self.discard()
            fetch_all(self.spark, self.request, self.say)
        heads = self._heads()
        check_pages(heads, self.request.shown)
        return fingerprint(heads)

    def open(self, names: Sequence[str]) -> SourceFrame:
        fetch_all(self.spark, self.request, self.say)  # fetches nothing after fingerprint()
        return open_documents(_items(self.spark, self.request, [head.number for head in self._heads()]), names)

    def close(self) -> None:
        """Do nothing: nothing is open."""

    def discard(self) -> None:
        """Remove the kept pages: they are imported, or cannot be."""
        self.request.pages.discard()

    def _heads(self) -> list[PageHead]:
        return list(self.request.pages.heads().values())


def api_source(spark: SparkSession, url: str, api: ApiConfig, folder: Path, say: Say) -> ApiSource:
    """Return the source at ``url``, without kept pages that are too old.

    ``folder``: each API has a folder in it for its pages. Raises ConfigError if the environment variable with the token
    is not set.
    """
    key = stable_hash(url, api.content_keys(), api.auth_env, api.auth_header)[:20]  # a token has its own pages
    request = ApiRequest(url=url, api=api, folder=str(folder / f"pages-{key}"), token=_token(api))
    age = request.pages.age_hours()
    if age > api.keep_hours or (age and not api.keep_hours):
        say(f"the pages that an interrupted import left are older than {api.keep_hours:g} hours: all are fetched anew")
        request.pages.discard()
    request.rate.reset()
    return ApiSource(spark, replace(request, stop_at=time.time() + api.seconds), say)


def _token(api: ApiConfig) -> str:
    if not api.auth_env:
        return ""
    token = os.environ.get(api.auth_env, "").strip()
    if not token:
        raise ConfigError(f"source.api.auth_env: the environment variable {api.auth_env} is not set")
    if not token.isascii() or not token.isprintable():
        raise ConfigError(f"source.api.auth_env: the value of {api.auth_env} cannot be a header: printable ASCII only")
    return token


def fetch_all(spark: SparkSession, request: ApiRequest, say: Say) -> int:
    """Fetch and keep every page that is not kept yet; return how many were fetched. Raises as :class:`ApiClient`."""
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
    """Return the numbers of the pages that the total announces and that are neither kept nor the first page."""
    if not api.in_parallel or first.total is None:
        return []
    pages = min(math.ceil(first.total / api.page_size), api.max_pages)
    return [number for number in range(2, pages + 1) if number not in kept]


def _is_complete(request: ApiRequest) -> bool:
    """Return whether the kept pages reach, without a gap, to a page that is known to be the last page."""
    heads = request.pages.heads()
    for number in count(1):
        if number not in heads:
            return False
        if is_last(request.api, heads[number]):
            return True
    return False


def _in_tasks(spark: SparkSession, request: ApiRequest, lanes: Sequence[list[int] | None]) -> int:
    """Fetch the pages of every lane in its own task; None: the pages that follow the kept pages.

    Raises what the tasks would raise, and ConfigError where the driver does not find a page that a task has kept.
    """

    def fetch(lane: list[int] | None) -> Iterator[tuple[int | None, int | None, str, str]]:
        return _fetch_lane(request, lane)

    rows = read_in_tasks(spark, "api_pages", lanes, fetch, _OUTCOME).collect()
    problems = [row for row in rows if row["error"]]
    if problems:
        # a wrong config or contract comes first: it would fail again at the next try
        worst = min(problems, key=lambda row: (row["error"] == "TemporaryFailure", row["page"] or 0))
        kinds = Counter(row["error"] for row in problems)
        others = len(problems) - 1
        kind: type[CatalogEnrichmentError] = getattr(errors, worst["error"])
        raise kind(worst["message"] + (f" ({others} more tasks: {dict(kinds)})" if others else ""))
    kept = request.pages.heads()
    if lost := sorted({row["page"] for row in rows if row["items"]} - set(kept)):
        raise ConfigError(
            f"pages {lost[:5]} were kept by an executor in {request.folder}, but are not there for the driver: "
            "source.api.pages_folder must be a folder that the driver and all executors share"
        )
    return len(rows)


def _fetch_lane(request: ApiRequest, lane: list[int] | None) -> Iterator[tuple[int | None, int | None, str, str]]:
    """Fetch the pages of one task; yield a row per page, and a row for an error that ended it. Runs on executors."""
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


def _items(spark: SparkSession, request: ApiRequest, numbers: Sequence[int]) -> DataFrame:
    """Return a row per item: text, document, path (URL and page), row_number (from 1 in its page)."""
    folder, shown, path = request.folder, request.shown, request.api.items
    tasks = max(1, min(len(numbers), 4 * api_mode.of(spark).parallelism()))
    pages = spark.createDataFrame([(number,) for number in numbers], "page int").repartition(tasks)

    def read(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return _item_batches(batches, folder, shown, path)

    return pages.mapInArrow(read, "text string, document string, path string, row_number bigint")


def _item_batches(batches: Iterator[pa.RecordBatch], folder: str, shown: str, path: str) -> Iterator[pa.RecordBatch]:
    """Yield the items of the pages whose numbers are in ``batches``, a batch per page. Runs on executors."""
    import pyarrow as pa

    for batch in batches:
        for number in batch.column(0).to_pylist():
            texts = [text.encode("utf-8", "replace").decode() for text in KeptPages(Path(folder)).items(number, path)]
            columns = {
                "text": pa.array(texts, pa.string()),
                "document": pa.array(texts, pa.string()),
                "path": pa.array([f"{shown}#page={number}"] * len(texts), pa.string()),
                "row_number": pa.array(range(1, len(texts) + 1), pa.int64()),
            }
            yield pa.RecordBatch.from_pydict(columns)
