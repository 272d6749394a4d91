"""Maps the columns of answers that were made elsewhere: a row per input row, with its product, content and cells."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from catalog_enrichment.errors import DataContractError
from catalog_enrichment.ingest.source_frame import (
    CORRUPT,
    RESERVED,
    ROW_NUMBER,
    SOURCE_URI,
    SourceFrame,
    SourceRows,
    named_columns,
    select,
    trimmed,
)
from catalog_enrichment.proposers.answer_rows import (
    BAD_TIME,
    CORRUPT_ROW,
    CURRENT,
    NO_CONTENT,
    NO_ID,
    STALE,
    Cells,
    RowReader,
    cells_of,
)

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

    from catalog_enrichment.config.proposer import ProposalsConfig
    from catalog_enrichment.dictionary import Dictionary

_TEXT_FORMATS = ("csv", "jsonl")
_DATE = r"^\d{4}-\d{1,2}-\d{1,2}"
"""How a time begins: Spark reads a time of the day alone as today's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SelectedRows:
    """The rows of the files."""

    frame: DataFrame
    """product_id, content_hash or answered_at, ``cells``, ``order``, and ``problem``: what the row lacks, or null."""
    reader: RowReader
    cells: list[str]
    order: list[str]
    """Columns that have the order of the rows."""
    by_time: bool
    """There is a time of the answer in place of the content."""

    @property
    def stored(self) -> tuple[str, ...]:
        """The outcomes whose answers are stored: also stale ones, where it is known about which content they are."""
        return (CURRENT,) if self.by_time else (CURRENT, STALE)


def select_rows(source: SourceRows, given: ProposalsConfig, dictionary: Dictionary) -> SelectedRows:
    """Return the rows of ``source``. Raises DataContractError for a column that is not there, and where there is none
    for any attribute."""
    from pyspark.sql import functions as F

    opened = source.open(_names_to_read(given, dictionary))
    keys = {"product_id": given.product_id, "content_hash": given.content_hash, "answered_at": given.answered_at}
    columns = {
        name: trimmed(F.make_valid_utf8(select(column, opened, f"proposals.{name}").text()))
        for name, column in keys.items()
        if column
    }
    selectors, reader = _cells(given, dictionary, opened)
    cells = {f"c{place}": select(selector, opened, where).column for place, (selector, where) in enumerate(selectors)}
    order: dict[str, Column] = {"file": F.col(SOURCE_URI), "line": F.col(ROW_NUMBER)}
    if given.format == "jsonl":  # its rows have no numbers
        order["text"] = F.xxhash64(*cells.values())
    rows = opened.frame.select(
        *[F.nullif(column, F.lit("")).alias(name) for name, column in columns.items()],
        *[column.alias(name) for name, column in (cells | order).items()],
        F.col(CORRUPT).isNotNull().alias("corrupt"),
    )
    problem = F.when(F.col("corrupt"), CORRUPT_ROW).when(F.col("product_id").isNull(), NO_ID)
    if given.answered_at:
        time = F.col("answered_at")
        rows = rows.withColumn("answered_at", F.when(time.rlike(_DATE), time.try_cast("timestamp")))
        rows = rows.withColumn("content_hash", F.lit(None).cast("string"))
        problem = problem.when(F.col("answered_at").isNull(), BAD_TIME)
    else:
        problem = problem.when(F.col("content_hash").isNull(), NO_CONTENT)
    return SelectedRows(
        frame=rows.withColumn("problem", problem).drop("corrupt"),
        reader=reader,
        cells=list(cells),
        order=list(order),
        by_time=bool(given.answered_at),
    )


def _names_to_read(given: ProposalsConfig, dictionary: Dictionary) -> list[str]:
    """Return the names of the columns that can be meant. Raises DataContractError for a reserved name."""
    selectors = [given.product_id, given.content_hash, given.answered_at, given.answers.json_column]
    if not given.answers.json_column:
        selectors += [cell for name in dictionary.attributes for cell in cells_of(name, given.answers) if cell]
    names = {name for selector in filter(None, selectors) for name in named_columns(selector)}
    if reserved := sorted(names & set(RESERVED)):
        raise DataContractError(f"columns of answers may not be called {reserved}: these names are reserved")
    return sorted(names)


def _cells(
    given: ProposalsConfig, dictionary: Dictionary, opened: SourceFrame
) -> tuple[list[tuple[str, str]], RowReader]:
    """Return the (selector, place in the config) of each cell, and the reader of these cells: c0, c1, ..."""
    answers, is_text = given.answers, given.format in _TEXT_FORMATS
    named = {*answers.columns, *answers.scores, *answers.evidence}
    if answers.json_column:
        keys = {name: cells_of(name, answers) for name in sorted(named.union(dictionary.enabled))}
        return [(answers.json_column, "proposals.answers.json_column")], RowReader(cells=keys, json="c0")
    selectors: list[tuple[str, str]] = []
    cells: dict[str, Cells] = {}
    for name in sorted(named.union(dictionary.enabled)):
        parts = cells_of(name, answers)
        if name not in named and parts.value not in opened.types:
            continue  # there is no answer about it
        optional = {"scores": (parts.score, answers.scores), "evidence": (parts.evidence, answers.evidence)}
        own = [(parts.value, f"proposals.answers.columns.{name}"), *_given_places(name, optional, opened)]
        places = {selector: f"c{len(selectors) + number}" for number, (selector, _) in enumerate(own)}
        cells[name] = Cells(places[parts.value], places.get(str(parts.score)), places.get(str(parts.evidence)))
        selectors += own
    if not cells:
        raise DataContractError(
            f"the files have a column for none of the attributes {dictionary.enabled}. Available columns: "
            f"{sorted(opened.available())}. Name them in proposals.answers.columns, or json_column"
        )
    return selectors, RowReader(cells=cells, is_text=is_text)


def _given_places(
    attribute: str, optional: dict[str, tuple[str | None, dict[str, str]]], opened: SourceFrame
) -> Iterator[tuple[str, str]]:
    """Yield the columns of scores and evidence that are named, or there by their default name."""
    for option, (selector, named) in optional.items():
        if selector and (attribute in named or selector in opened.types):
            yield selector, f"proposals.answers.{option}.{attribute}"
