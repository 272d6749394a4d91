"""Model versions of MLflow that were made elsewhere, as proposers.

The driver fetches a model and ships its files; executors do not use the registry. Loading it runs its author's code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog_enrichment.config.proposer import AnswersConfig
from catalog_enrichment.inference import udf
from catalog_enrichment.models import compute_types, version_files
from catalog_enrichment.proposers import pyfunc_worker
from catalog_enrichment.proposers.answers import AnswerReader
from catalog_enrichment.proposers.given import Calibration
from catalog_enrichment.proposers.pyfunc_worker import ForeignModel, Products
from catalog_enrichment.records import stable_hash

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import DataFrame

    from catalog_enrichment.catalog.lake import Catalog
    from catalog_enrichment.config.images import ImagesConfig
    from catalog_enrichment.dictionary import Dictionary
    from catalog_enrichment.models.spec import Head
    from catalog_enrichment.proposers.protocol import Asked

_WRITTEN_WHEN_FETCHED = "registered_model_meta"
"""MLflow adds this file to a copy of a model that comes from the registry."""

_COLUMNS = ("title", "description", "images", "content_hash", "category", "language")


def hash_of_model(folder: Path) -> str:
    """Return the hash of a model's files: of those that its author logged."""
    files = (file for file in sorted(folder.rglob("*")) if file.is_file() and "__pycache__" not in file.parts)
    names = {file.relative_to(folder).as_posix(): file for file in files}
    names.pop(_WRITTEN_WHEN_FETCHED, None)
    return stable_hash({name: version_files.sha256(file) for name, file in names.items()})


@dataclass(frozen=True, kw_only=True, slots=True)
class PyfuncProposer:
    name: str
    """The pinned URI."""
    folder: Path
    """The model's files on the driver."""
    model_hash: str
    """Their hash, by :func:`hash_of_model`."""
    heads: Mapping[str, Head]
    dictionary: Dictionary
    """The dictionary of the attributes of ``heads``, by which answers become values."""
    columns: AnswersConfig
    """Where the answers are in what the model returns."""
    inputs: tuple[str, ...]
    """What the model takes, of :data:`~catalog_enrichment.proposers.pyfunc_worker.INPUTS`."""
    calibrations: Mapping[str, Calibration]
    batch_rows: int
    """Most products per call."""
    timeout_seconds: int
    """The longest that a call may take."""

    @property
    def weights_hash(self) -> str:
        """Hash of the model and of how its answers become scores."""
        calibrations = {name: asdict(calibration) for name, calibration in self.calibrations.items()}
        return stable_hash(
            "pyfunc", self.model_hash, self.dictionary.to_plain(), asdict(self.columns), list(self.heads), calibrations
        )

    @property
    def preprocessing_hash(self) -> str:
        """Hash of the columns that the model takes."""
        return stable_hash("pyfunc", list(self.inputs))

    @property
    def reads(self) -> tuple[str, ...]:
        """The columns that the model takes beside the content, and the language, if spellings depend on it."""
        has_aliases = any(attribute.aliases for attribute in self.dictionary.attributes.values())
        wanted = {*self.inputs, *(["language"] if has_aliases else [])}
        return tuple(name for name in ("category", "language") if name in wanted)

    def propose(self, products: DataFrame, asked: Asked) -> DataFrame:
        """See :class:`~catalog_enrichment.proposers.protocol.Proposer`."""
        shipped = udf.ship(products.sparkSession, self.folder, self.model_hash, compute_types.GIVEN)
        score = _scoring_udf(self, shipped, asked.images)
        with_scores = products.withColumn("scored", score(*_COLUMNS))
        return with_scores.drop("images").select("*", "scored.*").drop("scored")

    def answers(self, catalog: Catalog) -> DataFrame | None:  # noqa: ARG002
        """Return None: a product is scored when asked."""
        return None

    def load(self, folder: Path | None = None) -> ForeignModel:
        """Load the model in this process, from ``folder`` or the driver's. Raises ConfigError if it cannot be."""
        return ForeignModel(
            name=self.name,
            model=pyfunc_worker.load_model(folder or self.folder, self.name),
            inputs=self.inputs,
            answers=self.columns,
            heads=self.heads,
            reader=AnswerReader(self.dictionary),
            calibrations=self.calibrations,
            batch_rows=self.batch_rows,
            timeout_seconds=self.timeout_seconds,
        )


def _scoring_udf(proposer: PyfuncProposer, shipped: udf.ShippedModel, limits: ImagesConfig) -> Any:
    """Return the Iterator pandas UDF: the :data:`_COLUMNS` -> a struct of SCORED_TYPE, in order.

    Like :func:`udf.scoring_udf`, it is not deterministic to Spark, so that Spark scores each row once.
    """
    import pandas as pd
    from pyspark.sql.functions import pandas_udf

    identity = stable_hash(proposer.weights_hash, proposer.name, proposer.batch_rows, proposer.timeout_seconds)

    def score(columns: Iterator[tuple[pd.Series, ...]]) -> Iterator[pd.DataFrame]:
        model = task_model(identity, proposer, shipped.directory())
        batches = (Products(*map(list, columns_of_batch)) for columns_of_batch in columns)
        for found in pyfunc_worker.score_batches(model, batches, limits, proposer.reads):
            yield udf.as_pandas(udf.to_arrow(found))

    # written out rather than inferred: under `from __future__ import annotations` the hints above are strings
    score.__annotations__ = {"columns": Iterator[tuple[pd.Series, ...]], "return": Iterator[pd.DataFrame]}
    return pandas_udf(score, returnType=udf.SCORED_TYPE).asNondeterministic()


_loaded: dict[str, ForeignModel] = {}
"""Identity -> the model of a proposer in this process."""


def task_model(identity: str, proposer: PyfuncProposer, folder: Path) -> ForeignModel:
    """Return a proposer's model, loaded once per process. ``identity``: the hash of all that determines its scores."""
    if identity not in _loaded:
        _loaded[identity] = proposer.load(folder)
    return _loaded[identity]
