"""Rows of answers that were made elsewhere, read as proposals: the task of import_proposals on the executors.

A row has a cell per attribute, and perhaps one with its score and one with its evidence; or one cell with a language
model's raw answer. A cell is text, JSON in a text, or a list or struct of a typed file. All rows about a product and
content are its answers, which :class:`AnswerReader` takes together.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from catalog_enrichment.config.proposer import AnswersConfig
from catalog_enrichment.dictionary import Dictionary
from catalog_enrichment.proposers.answers import AnswerReader, read_json, read_object

if TYPE_CHECKING:
    import pyarrow as pa

CURRENT, STALE, UNKNOWN = "current", "stale", "unknown_product"
NO_ID, NO_CONTENT, BAD_TIME, CORRUPT_ROW = "without_product_id", "without_content_hash", "unreadable_time", "unreadable"
OUTCOMES = (CURRENT, STALE, UNKNOWN, NO_ID, NO_CONTENT, BAD_TIME, CORRUPT_ROW)
"""What became of a row: it is about the product's present content, about another, about no product of the catalog; or
what it lacks."""

PRODUCTS, UNKNOWN_PRODUCTS = "products", "unknown_products"
"""Counts of products: with answers that are stored, and that the catalog does not have."""

MOST_UNKNOWN = 5
"""Products that the catalog does not have that are named."""

READ_TYPE = (
    "product_id string, content_hash string, attribute string, "
    "candidates array<struct<value:string,score:double,rank:int,evidence:string>>, form string, "
    "counted string, value string, number bigint"
)
"""The rows of :class:`ReadAnswers`, as DDL: candidates of a product; or, without a product, a number of what
``counted`` says, of the attribute or of all rows (null). ``value``: an unmapped value, or an unknown product."""

COUNTS = ("proposed", "without_value", "unreadable", "bad_score", "unmapped")
"""The numbers per attribute (:class:`~catalog_enrichment.proposers.answers.Counts`)."""

_BATCH_ROWS = 10_000
_NUMBER = re.compile(r"\s*[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?\s*")
_UNREADABLE: Mapping[str, Any] = {}
"""An answer that is in none of the forms."""


class Cells(NamedTuple):
    """The cells of a row that answer about an attribute, by name."""

    value: str
    score: str | None = None
    evidence: str | None = None


def cells_of(attribute: str, answers: AnswersConfig) -> Cells:
    """Return the names of the cells about an attribute: those of the config, else the defaults."""
    column = answers.columns.get(attribute, attribute)
    return Cells(
        column,
        answers.scores.get(attribute, f"{column}_score"),
        answers.evidence.get(attribute, f"{column}_evidence"),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class RowReader:
    """Reads the answers of a row."""

    cells: Mapping[str, Cells]
    """Attribute -> its cells: of the row, or the keys of the object in ``json``."""
    json: str | None = None
    """The cell of a language model's raw answer."""
    is_text: bool = False
    """The file's format has texts only: a score is a number in a text."""

    def answers(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return attribute -> its answer, as :class:`AnswerReader` takes it.

        A key that the object of a raw answer does not have says nothing about its attribute, and of a raw answer that
        cannot be read the answers about all attributes are unreadable.
        """
        if self.json is None:
            return {attribute: self._answer(row, cells) for attribute, cells in self.cells.items()}
        given = row[self.json]
        content = read_object(given) if isinstance(given, str) else _plain(given)
        if not isinstance(content, Mapping):
            return dict.fromkeys(self.cells, _UNREADABLE)
        return {
            attribute: _scored(
                content[cells.value],
                content.get(str(cells.score), _ABSENT),
                content.get(str(cells.evidence)),
            )
            for attribute, cells in self.cells.items()
            if cells.value in content
        }

    def _answer(self, row: Mapping[str, Any], cells: Cells) -> Any:
        score: Any = _ABSENT
        if cells.score is not None:
            score = _parsed(row[cells.score])
            score = _as_number(score) if self.is_text else score
        return _scored(_parsed(row[cells.value]), score, row[cells.evidence] if cells.evidence else None)


_ABSENT = object()
"""The score of an answer where there is no place for one. Where there is, an empty place is no score."""


def _scored(given: Any, score: Any, evidence: Any) -> Any:
    """Return an answer with the score and the evidence of cells of their own, where it has none itself.

    A list of values has a list of scores of the same length: which of several values a single score is meant for, is
    not guessed.
    """
    values = given if isinstance(given, list) else [given]
    if given is _UNREADABLE or all(value is None or value == "" for value in values):
        return given
    scores = [_ABSENT] * len(values) if score is _ABSENT else _of_each(score, len(values))
    evidences = _of_each(evidence, len(values)) if isinstance(evidence, list) else [evidence] * len(values)
    return [_entry(*entry) for entry in zip(values, scores, evidences, strict=True)]


def _of_each(given: Any, number: int) -> list[Any]:
    """Return what a cell says of each of ``number`` values; None of each if that cannot be told."""
    listed = given if isinstance(given, list) else [given]
    return listed if len(listed) == number else [None] * number


def _entry(value: Any, score: Any, evidence: Any) -> Any:
    entry = dict(value) if isinstance(value, Mapping) else {"value": value}
    if entry.get("score") is None and score is not _ABSENT:
        entry["score"] = math.nan if score is None else score
    if entry.get("evidence") is None:
        entry["evidence"] = evidence
    return entry


def _parsed(cell: Any) -> Any:
    """Return the content of a cell. A text that begins as a JSON list or object does, and is none, is unreadable."""
    if not isinstance(cell, str):
        return _plain(cell)
    text = cell.strip()
    if not text.startswith(("[", "{")):
        return text
    content = read_json(text)
    return _UNREADABLE if content is None else content


def _as_number(score: Any) -> Any:
    """Return the numbers that texts hold; other texts stay, and are no scores."""
    if isinstance(score, list):
        return [_as_number(each) for each in score]
    if isinstance(score, str):
        return float(score) if _NUMBER.fullmatch(score) else score or None
    return score


def _plain(cell: Any) -> Any:
    """Return decimals, which warehouses write, as floats, also inside lists and structs."""
    if isinstance(cell, Decimal):
        return float(cell)
    if isinstance(cell, list):
        return [_plain(each) for each in cell]
    return {name: _plain(each) for name, each in cell.items()} if isinstance(cell, dict) else cell


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadAnswers:
    """What an executor does with batches of rows.

    Batches have product_id, content_hash, language, outcome (:data:`OUTCOMES`) and the cells. The rows about a product
    and content come one after the other. Holds those rows, and the counts of :class:`AnswerReader`.
    """

    rows: RowReader
    dictionary: Dictionary
    stored: frozenset[str]
    """The outcomes whose answers are stored."""
    form: str = ""
    """Names how the rows are read; with the number of answers about a product it is the form of its scores."""

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yield batches of READ_TYPE."""
        buffered: list[dict[str, Any]] = []
        for row in self._read(batches):
            buffered.append(row)
            if len(buffered) == _BATCH_ROWS:
                yield _batch(buffered)
                buffered = []
        yield _batch(buffered)

    def _read(self, batches: Iterable[pa.RecordBatch]) -> Iterator[dict[str, Any]]:
        reader, numbers = AnswerReader(self.dictionary), Counter[str]()
        unknown: list[str] = []
        rows = (row for batch in batches for row in batch.to_pylist())
        for product_id, of_product in groupby(rows, key=itemgetter("product_id")):
            outcomes: set[str] = set()
            for (content_hash, outcome), group in groupby(of_product, key=itemgetter("content_hash", "outcome")):
                outcomes.add(outcome)
                given = list(group)
                numbers[outcome] += len(given)
                if outcome in self.stored:
                    yield from self._proposals(reader, product_id, content_hash, given)
            numbers[PRODUCTS] += not outcomes.isdisjoint(self.stored)
            if UNKNOWN in outcomes:
                numbers[UNKNOWN_PRODUCTS] += 1
                unknown += [product_id] if len(unknown) < MOST_UNKNOWN else []
        yield from (_count(name, number) for name, number in numbers.items())
        yield from (_count(UNKNOWN_PRODUCTS, 0, value=product_id) for product_id in unknown)
        for attribute, counts in reader.counts.items():
            yield from (_count(name, getattr(counts, name), attribute) for name in COUNTS)
            for value, number in counts.examples(most=None).items():
                yield _count("unmapped", number, attribute, value)

    def _proposals(
        self, reader: AnswerReader, product_id: str, content_hash: str, rows: list[dict[str, Any]]
    ) -> Iterator[dict[str, Any]]:
        """Yield a row per attribute about which there is an answer that can be read, perhaps that there is no value."""
        answers: dict[str, list[Any]] = {}
        for row in rows:
            for attribute, answer in self.rows.answers(row).items():
                answers.setdefault(attribute, []).append(answer)
        for attribute, of_attribute in answers.items():
            found = reader.proposals(attribute, of_attribute, rows[0]["language"])
            if all(answer is _UNREADABLE for answer in of_attribute):
                continue
            candidates = [
                {"value": value, "score": score, "rank": rank, "evidence": evidence}
                for (value, score, rank, *_), evidence in found
            ]
            yield {
                "product_id": product_id,
                "content_hash": content_hash,
                "attribute": attribute,
                "candidates": candidates,
                "form": f"{self.form}/{len(of_attribute)}",
            }


def _count(name: str, number: int, attribute: str | None = None, value: str | None = None) -> dict[str, Any]:
    return {"counted": name, "number": number, "attribute": attribute, "value": value}


def _batch(rows: list[dict[str, Any]]) -> pa.RecordBatch:
    import pyarrow as pa

    text = pa.string()
    candidate = pa.struct({"value": text, "score": pa.float64(), "rank": pa.int32(), "evidence": text})
    kinds = {
        **dict.fromkeys(("product_id", "content_hash", "attribute"), text),
        "candidates": pa.list_(candidate),
        **dict.fromkeys(("form", "counted", "value"), text),
        "number": pa.int64(),
    }
    return pa.RecordBatch.from_pylist(rows, schema=pa.schema(kinds))
