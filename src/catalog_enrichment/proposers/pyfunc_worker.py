"""A model of MLflow that was made elsewhere, at work: products in, scores of the dictionary's values out.

It runs where the products are scored and does not know Spark. The model is somebody else's code: it may raise, sleep,
use up the memory or answer with anything. What fails for a single product is that product's loss; what fails for every
product is an error that ends the job.
"""

from __future__ import annotations

import json
import signal
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from catalog_enrichment.config.images import ImagesConfig
from catalog_enrichment.config.proposer import AnswersConfig
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.inference import engine
from catalog_enrichment.inference.forward import ScoredCandidate, ScoredRow
from catalog_enrichment.inputs.images import Decoded, first_usable_of_each
from catalog_enrichment.inputs.square import Square
from catalog_enrichment.inputs.text import clean_text
from catalog_enrichment.models import compute_types
from catalog_enrichment.proposers import given
from catalog_enrichment.proposers.answer_rows import Cells, RowReader, cells_of
from catalog_enrichment.proposers.answers import AnswerReader, Counts
from catalog_enrichment.proposers.given import Calibrations
from catalog_enrichment.reasons import Reason
from catalog_enrichment.records import Modality

if TYPE_CHECKING:
    import pandas as pd

    from catalog_enrichment.models.spec import Head

TEXTS = ("title", "description")
INPUTS = (*TEXTS, "image", "category", "language")
"""What a model can take, by the names of its signature's columns: texts, and the bytes of a picture (``image``)."""

MOST_TIMEOUTS = 3
"""Products in a row whose call alone takes too long, before the job ends."""
MOST_FAILURES = 50
"""Products in a row whose call alone fails, before the job ends: an endpoint that is down, a model that is broken."""
MOST_WITHOUT_PACKAGE = 5
"""Products in a row that fail for a missing package, before the job ends, if no product was scored yet."""

_SQUARE = Square(32)
"""A picture is decoded to this side to see that it can be decoded."""
_JSON = "json"


def inputs_of(folder: Path, name: str = "") -> tuple[str, ...]:
    """Return which of :data:`INPUTS` the model in ``folder`` takes, by its signature.

    An optional column that is none of these is not given to the model. ``name``: the model's, for messages. Raises
    ConfigError without a signature, without a column of text, and for a required column that a catalog does not have.
    """
    from mlflow.models import Model

    name = name or str(folder)
    how = (
        f"A model can take {', '.join(INPUTS)}: image as binary, the others as string. Log it again with such a "
        "signature: mlflow.pyfunc.log_model(..., signature=ModelSignature(inputs=Schema([ColSpec('string', 'title')])))"
    )
    signature = Model.load(str(folder)).signature
    if signature is None or signature.inputs is None:
        raise ConfigError(f"{name} has no signature, so nothing says which columns it takes. {how}")
    schema = signature.inputs
    if schema.is_tensor_spec() or not schema.has_input_names():
        raise ConfigError(f"{name} takes {schema}, and not columns with names. {how}")
    wanted = ", ".join(map(str, schema.input_names())) or "no columns"
    taken = {str(column.name): column for column in schema.inputs if column.name in INPUTS}
    if unknown := [column for column in schema.required_input_names() if column not in INPUTS]:
        raise ConfigError(f"{name} takes {wanted}; a catalog has no {', '.join(map(str, unknown))}. {how}")
    if not any(column in taken for column in TEXTS):
        raise ConfigError(f"{name} takes {wanted}, and neither title nor description. {how}")
    for column, spec in taken.items():
        expected = "binary" if column == "image" else "string"
        if (actual := getattr(spec.type, "name", str(spec.type))) not in (expected, "Any"):
            raise ConfigError(f"{name} takes {column} as {actual}, but it is given as {expected}. {how}")
    return tuple(column for column in INPUTS if column in taken)


def outputs_of(folder: Path) -> frozenset[str]:
    """Return the columns that the signature of the model in ``folder`` promises; none where it does not name them."""
    from mlflow.models import Model

    signature = Model.load(str(folder)).signature
    names = [] if signature is None or signature.outputs is None else signature.outputs.input_names()
    return frozenset(str(name) for name in names if name is not None)


def load_model(folder: Path, name: str) -> Any:
    """Load the pyfunc in ``folder``, which runs its author's code. Raises ConfigError if it cannot be loaded."""
    import mlflow

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the author's code and packages may warn of anything
            return mlflow.pyfunc.load_model(str(folder))
    except ImportError as problem:
        _refuse_without_package(name, problem)
    except (Exception, SystemExit) as problem:  # the author's code may raise anything
        raise ConfigError(
            f"{name} cannot be loaded: {_described(problem)}. Load it with mlflow.pyfunc.load_model on a machine with "
            "the workers' packages, and register a version that loads"
        ) from problem


@dataclass(frozen=True, slots=True)
class Products:
    """Products to score, as parallel columns."""

    titles: Sequence[str | None]
    descriptions: Sequence[str | None]
    images: Sequence[Sequence[Mapping[str, Any]] | None]
    """Per product, the ordered pictures (contract `products`): structs of bytes, uri, version."""
    contents: Sequence[str]
    """Per product, the hash of title, description and pictures."""
    categories: Sequence[str | None]
    languages: Sequence[str | None]

    def __post_init__(self) -> None:
        if len({len(getattr(self, field.name)) for field in fields(self)}) > 1:
            raise ValueError("the columns of a batch differ in length")

    def __len__(self) -> int:
        return len(self.titles)

    def at(self, positions: Sequence[int]) -> Products:
        """Return the products at these positions."""
        return Products(*([getattr(self, field.name)[position] for position in positions] for field in fields(self)))


class ForeignModel:
    """A model that was made elsewhere, loaded, with all that its answers need to become scores.

    It lives as long as its process and remembers what its calls said about it: the products per call that it can
    manage, and how many products in a row failed in a way that is not theirs.
    """

    def __init__(
        self,
        *,
        name: str,
        model: Any,
        inputs: Sequence[str],
        answers: AnswersConfig,
        heads: Mapping[str, Head],
        reader: AnswerReader,
        calibrations: Calibrations,
        batch_rows: int,
        timeout_seconds: float,
    ) -> None:
        """``model``: has ``predict`` of a pandas DataFrame, as MLflow's pyfuncs do. ``inputs``: the columns that it
        takes. ``batch_rows``: most products per call. ``timeout_seconds``: the longest that a call may take."""
        self.name, self.inputs, self.heads = name, tuple(inputs), heads
        self.rows = batch_rows
        self._model, self._calibrations, self._timeout = model, calibrations, timeout_seconds
        self._reader = reader
        self._answers = _Answers(name, answers, tuple(heads))
        self._timeouts = self._without_package = self._failures = 0
        self._has_scored = False

    def score(self, products: Products, limits: ImagesConfig) -> list[ScoredRow]:
        """Return a row per product, in order. Pictures are opened within ``limits``, if the model takes them.

        A call that fails is repeated in halves, so that only bad products are lost. Raises ConfigError where no product
        can be scored: a column of the answers is missing, every call takes too long, a package is missing.
        """
        rows: list[ScoredRow | None] = [
            None if clean_text(title, max_chars=100) else _without_title() for title in products.titles
        ]
        positions = [position for position, row in enumerate(rows) if row is None]
        while positions:
            now, positions = positions[: self.rows], positions[self.rows :]
            for position, row in zip(now, self._with_pictures(products.at(now), limits), strict=True):
                rows[position] = row
        return [row for row in rows if row is not None]

    def _with_pictures(self, products: Products, limits: ImagesConfig) -> list[ScoredRow]:
        if "image" not in self.inputs:
            listed = [images is not None and len(images) > 0 for images in products.images]
            return [
                row if row.error or has_picture else replace(row, modality=Modality.TEXT_ONLY.value)
                for row, has_picture in zip(self._scored(products, None), listed, strict=True)
            ]
        pictures = first_usable_of_each(products.images, _SQUARE, limits, keep_bytes=True)
        return [
            replace(row, modality=Modality.TEXT_ONLY.value, image_reason=picture.reason.value)
            if picture.reason and row.error is None
            else row
            for row, picture in zip(self._scored(products, pictures), pictures, strict=True)
        ]

    def _scored(self, products: Products, pictures: Sequence[Decoded] | None) -> list[ScoredRow]:
        number = len(products)
        try:
            rows = self._called(products, pictures)
        except (Exception, SystemExit, _TooSlowError) as caught:  # the author's code may raise anything
            if isinstance(caught, _FormError) and not self._has_scored:
                raise ConfigError(str(caught)) from None
            problem: BaseException = caught.with_traceback(None)  # it would hold the memory of the call
        else:
            self._timeouts = self._without_package = self._failures = 0
            self._has_scored = True
            return rows
        if number == 1:
            self._check_the_model(problem)
            if isinstance(problem, OSError):  # a connection that failed or timed out: there may be an answer next time
                return [ScoredRow([], compute_type=compute_types.GIVEN)]
            return [ScoredRow([], error=Reason.SCORING_FAILED.value, detail=_described(problem))]
        middle = number // 2
        halves = (range(middle), range(middle, number))
        rows = [
            row
            for half in halves
            for row in self._scored(products.at(half), pictures and [pictures[position] for position in half])
        ]
        if isinstance(problem, MemoryError | _TooSlowError) and not any(row.error for row in rows):
            self.rows = min(self.rows, middle)  # no product is to blame but their number
        return rows

    def _called(self, products: Products, pictures: Sequence[Decoded] | None) -> list[ScoredRow]:
        """Call the model and read its answers."""
        frame = self._frame(products, pictures)
        result = _within(self._timeout, lambda: self._model.predict(frame))
        if (number := _length(result)) not in (None, len(products)):
            raise _RowsError(f"returned {number:,} rows for {len(products):,} products")
        answers = self._answers.read(result)
        return [self._row(answer, language) for answer, language in zip(answers, products.languages, strict=True)]

    def _frame(self, products: Products, pictures: Sequence[Decoded] | None) -> pd.DataFrame:
        import pandas as pd

        given = {
            "title": products.titles,
            "description": products.descriptions,
            "image": [picture.data for picture in pictures or ()],
            "category": products.categories,
            "language": products.languages,
        }
        return pd.DataFrame({name: pd.Series(list(given[name]), dtype=object) for name in self.inputs})

    def _row(self, answers: Mapping[str, Any] | None, language: str | None) -> ScoredRow:
        """Return a product's candidates. ``answers``: by attribute; an attribute that is not there has no value.

        ``detail`` says what of the answers could not be used: JSON, by attribute.
        """
        candidates: list[ScoredCandidate] = []
        problems: dict[str, dict[str, int]] = {}
        for attribute in self.heads:
            answer = (answers or {}).get(attribute)
            self._reader.counts.pop(attribute, None)
            proposals = self._reader.proposals(attribute, [answer], language)
            candidates += given.candidates(attribute, proposals, self._calibrations.get(attribute))
            if found := _problems(self._reader.counts[attribute]):
                problems[attribute] = found
        return ScoredRow(
            candidates, compute_type=compute_types.GIVEN, detail=json.dumps(problems) if problems else None
        )

    def _check_the_model(self, problem: BaseException) -> None:
        """Raise ConfigError if ``problem``, of the call for a single product, seems to be one of all products."""
        is_slow = isinstance(problem, _TooSlowError)
        self._timeouts = self._timeouts + 1 if is_slow else 0
        self._without_package = self._without_package + 1 if isinstance(problem, ImportError) else 0
        if self._timeouts >= MOST_TIMEOUTS:
            raise ConfigError(
                f"{self.name} took more than {self._timeout:g} s for a single product, {self._timeouts} times in a "
                "row: no product was to blame. See why it is slow on a worker, or set proposer.timeout_seconds higher"
            )
        self._failures += 1
        if self._failures >= MOST_FAILURES:
            raise ConfigError(
                f"{self.name} failed for {self._failures} products in a row, the last with {_described(problem)}: no "
                "product was to blame, and none of these is put into quarantine. Mend the model or what it asks, and "
                "run the job again"
            )
        if isinstance(problem, ImportError) and self._without_package >= MOST_WITHOUT_PACKAGE and not self._has_scored:
            _refuse_without_package(self.name, problem)


def score_batches(
    model: ForeignModel, batches: Iterable[Products], limits: ImagesConfig, reads: Sequence[str]
) -> Iterator[list[ScoredRow]]:
    """Score batches lazily, in order; yield a list per batch, with a row per product in input order.

    Of products with the same content, and the same ``reads`` (category, language), a single product is scored.
    """
    scored = engine.ScoredContents()
    for products in batches:
        beside = [products.categories if name == "category" else products.languages for name in reads]
        keys = [repr(key) for key in zip(products.contents, *beside, strict=True)]
        share = scored.share(keys, len(products))
        yield scored.rows(share, model.score(products.at(share.positions), limits))


@dataclass(frozen=True)
class _Answers:
    """Reads what a model returns, in one of the forms of MLflow's pyfuncs, as an answer per product and attribute."""

    name: str
    """The model's, for messages."""
    config: AnswersConfig
    attributes: tuple[str, ...]

    def read(self, result: Any) -> list[Mapping[str, Any] | None]:
        """Return attribute -> answer of each product; None for a product without an answer.

        Raises _FormError if the result has no place for an attribute.
        """
        import pandas as pd

        if isinstance(result, pd.Series):
            return self._unnamed(list(result))
        if isinstance(result, np.ndarray):
            if result.ndim == 2 and result.shape[1] == 1:
                result = result[:, 0]
            if result.ndim != 1:
                self._refuse(f"an array of {' x '.join(map(str, result.shape))}")
            return self._unnamed(list(result))
        if isinstance(result, list | tuple):
            listed = [None if _is_null(row) else row for row in result]
            named = [row for row in listed if isinstance(row, Mapping)]
            if not named or any(row is not None and not isinstance(row, Mapping) for row in listed):
                return self._unnamed(listed)
            return self._objects(listed, named)
        if isinstance(result, Mapping) and result:
            if len({_length(column) for column in result.values()}) > 1:
                self._refuse(f"a dict of {', '.join(map(str, result))}, which are no columns of the same length")
            try:
                result = pd.DataFrame({name: pd.Series(list(column)) for name, column in result.items()})
            except TypeError:
                self._refuse(f"a dict of {', '.join(map(str, result))}, which are no columns")
        if not isinstance(result, pd.DataFrame):
            self._refuse(f"a {type(result).__name__}")
        if not result.index.equals(pd.RangeIndex(len(result))) and set(result.index) == set(range(len(result))):
            result = result.sort_index()  # the rows of the products, in another order
        return self._frame(result)

    def _frame(self, frame: pd.DataFrame) -> list[Mapping[str, Any] | None]:
        columns = [str(column) for column in frame.columns]
        if self.config.json_column:
            reader = RowReader(cells=self._cells, json=_JSON)
            places = {_JSON: self._place(self.config.json_column, columns)}
        else:
            places, cells = {}, {}
            for attribute, parts in self._cells.items():
                has_scores = attribute in self.config.scores
                if not has_scores and parts.score in columns:
                    self._refuse(
                        f"a table with the column {parts.score}, which neither the outputs of its signature nor "
                        f"proposer.answers.scores.{attribute} name: whether there are scores must not depend on a call"
                    )
                evidence = parts.evidence if parts.evidence in columns else None
                cells[attribute] = Cells(parts.value, parts.score if has_scores else None, evidence)
                places |= {name: self._place(name, columns) for name in cells[attribute] if name is not None}
            reader = RowReader(cells=cells)
        read = {name: [_cell(value) for value in frame.iloc[:, place]] for name, place in places.items()}
        rows = [dict(zip(read, values, strict=True)) for values in zip(*read.values(), strict=True)]
        return [_answers_of(reader, row) for row in rows]

    def _objects(
        self, listed: Sequence[Mapping[str, Any] | None], named: Sequence[Mapping[str, Any]]
    ) -> list[Mapping[str, Any] | None]:
        """Return the answers of a dict per product: a key that it does not have has no value."""
        keys = {str(key) for row in named for key in row}
        if self.config.json_column in keys:
            contents = [row and row.get(self.config.json_column) for row in listed]
        elif keys and not any(cells.value in keys for cells in self._cells.values()):
            if "value" in keys and len(self.attributes) == 1:
                return self._unnamed(listed)
            self._refuse(f"dicts with {', '.join(sorted(keys)[:20])}")
        else:
            contents = list(listed)
        return self._of_json(contents)

    def _unnamed(self, values: Sequence[Any]) -> list[Mapping[str, Any] | None]:
        """Return the answers of a single column: JSON, if the config says so, else about the only attribute."""
        if self.config.json_column:
            return self._of_json(values)
        if len(self.attributes) > 1:
            self._refuse("one column without a name")
        [attribute] = self.attributes
        reader = RowReader(cells={attribute: Cells(attribute)})
        return [_answers_of(reader, {attribute: _cell(value)}) for value in values]

    def _of_json(self, contents: Sequence[Any]) -> list[Mapping[str, Any] | None]:
        reader = RowReader(cells=self._cells, json=_JSON)
        return [_answers_of(reader, {_JSON: _cell(content)}) for content in contents]

    @cached_property
    def _cells(self) -> dict[str, Cells]:
        """Attribute -> the columns or keys of its value, score and evidence."""
        return {attribute: cells_of(attribute, self.config) for attribute in self.attributes}

    def _place(self, name: str, columns: Sequence[str]) -> int:
        if (number := columns.count(name)) != 1:
            says = "has no column" if number == 0 else f"has {number} columns"
            self._refuse(f"a table that {says} {name}, with the columns {', '.join(columns[:20])}")
        return columns.index(name)

    def _refuse(self, returned: str) -> NoReturn:
        raise _FormError(
            f"{self.name} returned {returned}. It must return a DataFrame with a column, or a list of dicts with a "
            f"key, for each of {', '.join(self.attributes)}, or a column of JSON: name them in [proposer.answers] "
            "(columns, scores, json_column), or name the attributes that it answers about in proposer.attributes"
        )


def _answers_of(reader: RowReader, row: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the answers of a row; None if it has no content."""
    return None if reader.json and row[reader.json] is None else reader.answers(row)


def _cell(value: Any) -> Any:
    """Return a cell with None for every null of pandas, and lists for arrays. Inside a list or dict NaN stays: a score
    of NaN is a bad score, and not a value without a score."""
    if isinstance(value, np.ndarray):
        return [_cell_inside(each) for each in value] if value.ndim else _cell(value[()])
    return None if _is_null(value) else _cell_inside(value)


def _cell_inside(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return [_cell_inside(each) for each in value] if value.ndim else value[()]
    if isinstance(value, list | tuple):
        return [_cell_inside(each) for each in value]
    return {str(name): _cell_inside(each) for name, each in value.items()} if isinstance(value, Mapping) else value


def _is_null(value: Any) -> bool:
    import pandas as pd

    return value is None or (pd.api.types.is_scalar(value) and bool(pd.isna(value)))


def _length(result: Any) -> int | None:
    """Return the number of rows of what a model returned; None if it has none."""
    if isinstance(result, Mapping):
        lengths = {len(column) for column in result.values() if hasattr(column, "__len__")}
        return max(lengths, default=None)
    if isinstance(result, np.ndarray):
        return len(result) if result.ndim else None
    return len(result) if hasattr(result, "__len__") and not isinstance(result, str | bytes) else None


def _problems(counts: Counts) -> dict[str, int]:
    """Return what could not be used of a product's answers about an attribute, in words, with its number."""
    numbers = {"unreadable": counts.unreadable, "a score that is none": counts.bad_score}
    unmapped = {f"{value!r} is no value of the dictionary": number for value, number in counts.examples().items()}
    longer = {"a text too long for a value": counts.unmapped - sum(counts.examples().values())}
    return {words: number for words, number in (numbers | unmapped | longer).items() if number}


class _RowsError(ValueError):
    """A model returned another number of rows than products: no answer can be assigned to a product."""


class _FormError(Exception):
    """A model returned something that holds no answers: no product is to blame."""


class _TooSlowError(BaseException):
    """A call took too long. It is no Exception: the model's own code may handle those, and go on."""


def _within(seconds: float, call: Callable[[], Any]) -> Any:
    """Return what ``call`` returns. Raises :class:`_TooSlowError` after ``seconds``.

    Only the main thread can be interrupted, where Spark's workers run; in any other the call takes as long as it takes.
    """
    if threading.current_thread() is not threading.main_thread():
        return call()

    def stop(*_: object) -> NoReturn:
        raise _TooSlowError(f"the call took more than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    timer = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        return call()
    finally:
        signal.setitimer(signal.ITIMER_REAL, *timer)
        signal.signal(signal.SIGALRM, before)


def _without_title() -> ScoredRow:
    detail = "nothing is left of the title after cleaning"
    return ScoredRow([], error=Reason.EMPTY_TITLE.value, detail=detail)


def _described(problem: BaseException) -> str:
    """Return the class and the message of an error in a line: the last line of a worker's traceback is its message."""
    name = type(problem).__name__.removeprefix("_")
    return f"{name}: {' '.join(str(problem).split())}"[:500]


def _refuse_without_package(name: str, problem: ImportError) -> NoReturn:
    package = f"the package {problem.name}" if problem.name else "a package"
    raise ConfigError(
        f"{name} needs {package}, which this machine does not have as the model needs it ({_described(problem)}). "
        "Install what the model's requirements.txt lists on the driver and on all workers"
    ) from problem
