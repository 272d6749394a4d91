"""The section `[proposer]`: a model or a table that was made elsewhere, whose proposals certify_model certifies; and
`[proposals]`, the answers that import_proposals reads."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from catalog_enrichment.config.folds import FoldsConfig
from catalog_enrichment.config.strict import check_ranges

NOTHING_SEEN = "nothing of this catalog"
"""The value of `trained_on` that says that the proposer has seen no label of the catalog."""

_MODEL_URI = re.compile(r"models:/[^/@]+(/\d+|@[^/@]+)")


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswersConfig:
    """Where the answers about each attribute are: in the columns of a table, or of what a model returns.

    A cell is a value, an object with `value` and perhaps `score` and `evidence`, a list of these, or null: no value.
    """

    columns: dict[str, str] = field(default_factory=dict)
    """Attribute -> column; an attribute that is not named has the column of its own name."""
    scores: dict[str, str] = field(default_factory=dict)
    """Attribute -> column of its scores; by default `COLUMN_score`, where there is such a column."""
    evidence: dict[str, str] = field(default_factory=dict)
    """Attribute -> column that says where the value comes from; by default `COLUMN_evidence`, where there is one."""
    json_column: str = ""
    """One column of text that holds a JSON object with a key per attribute, as language models answer: code fences and
    sentences around it do not count. `columns`, `scores` and `evidence` name keys of the object then."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProposerConfig:
    kind: Literal["pyfunc", "table"]
    """pyfunc: a model version of MLflow. table: answers that import_proposals has read."""
    trained_on: str
    """Which labels of this catalog the proposer has seen: "nothing of this catalog"; a date like 2026-03-01 (products
    first imported before it were seen); or the path of a file with a product id per line. It has no default: products
    that were seen certify nothing, and a wrong declaration makes the certificate worthless."""
    model: str = ""
    """The model of a pyfunc, in the config's registry: `models:/NAME/VERSION` or `models:/NAME@ALIAS`. An alias is
    resolved once, and its version is what is certified."""
    allow_code: bool = False
    """Loading a pyfunc runs its author's code on the driver and on every executor, with the job's rights. true: that is
    allowed for `model`."""
    name: str = ""
    """The name of a table's proposer, as import_proposals stored it (`proposals.name`)."""
    version: str = ""
    """The version of a table's proposer (`proposals.version`)."""
    answers: AnswersConfig = field(default_factory=AnswersConfig)
    """The columns of what a pyfunc returns."""
    attributes: list[str] = field(default_factory=list)
    """Attributes to certify; empty: every enabled attribute of the dictionary."""
    calibration: Literal["platt", "none"] = "platt"
    """platt: scores are mapped to probabilities by a curve that is fitted on the choosing fold and keeps their order;
    none: they stay as they are. No certificate depends on it."""
    folds: FoldsConfig = field(
        default_factory=lambda: FoldsConfig(train=0.0, choosing=0.20, certification=0.65, test=0.15)
    )
    """Shares of the labelled products that the proposer has not seen; nothing is fitted, so `train` is 0."""
    label_uses_per_round: int = 5
    """After so many candidates of one certification fold, a new fold is drawn from products that never certified, if
    they are enough (PRECISION, certificate 6)."""
    max_unlabelled: int = 20_000
    """Unlabelled products scored for the threshold grid and the drift reference."""
    batch_rows: int = 64
    """Products per call of a pyfunc."""
    timeout_seconds: int = 300
    """A call of a pyfunc that takes longer is stopped and repeated in halves; a single product is quarantined."""

    def __post_init__(self) -> None:
        check_ranges("proposer", self, label_uses_per_round=(1, 2**31), max_unlabelled=(0, 2**31))
        check_ranges("proposer", self, batch_rows=(1, 100_000), timeout_seconds=(1, 86_400))
        if not self.trained_on.strip():
            raise ValueError(
                f'proposer.trained_on must say which labels the proposer has seen: "{NOTHING_SEEN}", a date, or the '
                "path of a file of product ids"
            )
        if self.folds.train:
            raise ValueError("proposer.folds.train must be 0: nothing is fitted")
        if self.kind == "pyfunc":
            self._check_pyfunc()
        elif not (self.name and self.version):
            raise ValueError("proposer.name and proposer.version must name the answers that import_proposals stored")

    def _check_pyfunc(self) -> None:
        if not _MODEL_URI.fullmatch(self.model):
            raise ValueError(f"proposer.model must be models:/NAME/VERSION or models:/NAME@ALIAS, not {self.model!r}")
        if not self.allow_code:
            raise ValueError(
                f"proposer.allow_code must be true: loading {self.model} runs its author's code, with the rights of "
                "the job. Allow it only for a model whose author you trust"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class ProposalsConfig:
    """Answers that were made elsewhere. Each row is an answer about a product, or about one of its attributes."""

    format: Literal["parquet", "delta", "csv", "jsonl"]
    """The format of the files. In CSV files all cells are text, and a score is a number with a decimal point."""
    path: str
    """The files; relative to `root`."""
    name: str
    """The proposer's name: a model, a prompt, a vendor."""
    version: str
    """Its version: answers of one version come from one model and prompt, also those that are imported later."""
    product_id: str = "product_id"
    """Column of the product's id."""
    content_hash: str = ""
    """Column of the product's `content_hash`, as it was when the answer was made. An answer about another content is
    stale, and not used."""
    answered_at: str = ""
    """Column of the time of the answer, instead of `content_hash`: an answer is stale where the listing was updated
    after it. A time without a zone is in UTC."""
    answers: AnswersConfig = field(default_factory=AnswersConfig)

    def __post_init__(self) -> None:
        if not self.name.strip() or not self.version.strip():
            raise ValueError("proposals.name and proposals.version must say whose answers these are")
        if bool(self.content_hash) == bool(self.answered_at):
            raise ValueError(
                "proposals.content_hash or proposals.answered_at must name a column, and not both: it tells whether "
                "an answer is about the product's present content"
            )
