"""A registered version's proposer: which it is, by the files of the version's folder.

A version that was not trained here is a folder with `proposer.json` beside the files of :mod:`models.version_files`: it
names the model or the answers, pinned, with their hash, and how these become proposals. It has no weights: a model's
own files stay in its own version.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from catalog_enrichment.config import strict
from catalog_enrichment.config.proposer import AnswersConfig
from catalog_enrichment.dictionary import Dictionary
from catalog_enrichment.errors import ConfigError, ModelContractError
from catalog_enrichment.models import version_files
from catalog_enrichment.models.spec import Head
from catalog_enrichment.proposers.given import Calibration
from catalog_enrichment.proposers.network import NetworkProposer

if TYPE_CHECKING:
    from catalog_enrichment.proposers.protocol import Proposer

PROPOSER = "proposer.json"

Fetch = Callable[[str], Path]
"""URI of a model version of MLflow -> its folder on local disk."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GivenVersion:
    """What `proposer.json` says."""

    kind: Literal["pyfunc", "table"]
    trained_on: str
    """What was declared about the labels that the proposer has seen."""
    attributes: list[dict[str, Any]]
    """The dictionary of its attributes, as it was when the version was certified."""
    model: str = ""
    """The pinned URI of a pyfunc."""
    model_hash: str = ""
    """Hash of the model's files."""
    name: str = ""
    version: str = ""
    """The name and the version of answers."""
    table_version: int = -1
    """The version of the table `proposals` when it was certified. Later answers belong to the same ``version``."""
    answers_hash: str = ""
    """Hash of the answers that were certified."""
    forms: list[str] = field(default_factory=list)
    """The forms of their scores (contract `proposals`)."""
    answers: AnswersConfig = field(default_factory=AnswersConfig)
    inputs: list[str] = field(default_factory=list)
    """Columns that a pyfunc takes."""
    calibrations: dict[str, Calibration] = field(default_factory=dict)
    batch_rows: int = 64
    timeout_seconds: int = 300
    format: int = 1

    @property
    def dictionary(self) -> Dictionary:
        return Dictionary.from_plain(self.attributes)

    def save(self, folder: Path) -> None:
        """Write the version's folder, without certificates; ``folder`` is made."""
        folder.mkdir(parents=True, exist_ok=True)
        version_files.write(folder, PROPOSER, asdict(self))

    @classmethod
    def load(cls, folder: Path) -> GivenVersion:
        """Verify and read a version's folder. Raises ModelContractError."""
        version_files.verify(folder, (PROPOSER,))
        try:
            return strict.build(cls, json.loads((folder / PROPOSER).read_text()), where=PROPOSER)
        except (ConfigError, ValueError) as problem:
            raise ModelContractError(f"{folder} cannot be used: {problem}. {version_files.REMEDY}") from problem

    def proposer(self, fetch: Fetch) -> Proposer:
        """Return the proposer; the files of a pyfunc are fetched.

        Raises ModelContractError if they are not the files that were certified.
        """
        dictionary = self.dictionary
        heads = _heads(dictionary)
        if self.kind == "table":
            from catalog_enrichment.proposers.table import TableProposer

            return TableProposer(
                proposer=self.name,
                version=self.version,
                heads=heads,
                calibrations=self.calibrations,
                forms=tuple(self.forms),
            )
        from catalog_enrichment.proposers.pyfunc import PyfuncProposer, hash_of_model

        model = fetch(self.model)
        if (actual := hash_of_model(model)) != self.model_hash:
            raise ModelContractError(
                f"{self.model}: the model's files have hash {actual}, but those that were certified had "
                f"{self.model_hash}. They were changed; certify the model again with certify_model"
            )
        return PyfuncProposer(
            name=self.model,
            folder=model,
            model_hash=self.model_hash,
            heads=heads,
            dictionary=dictionary,
            columns=self.answers,
            inputs=tuple(self.inputs),
            calibrations=self.calibrations,
            batch_rows=self.batch_rows,
            timeout_seconds=self.timeout_seconds,
        )


def open_version(folder: Path, fetch: Fetch) -> Proposer:
    """Return the proposer of a version's folder, its files verified.

    Raises ModelContractError for a damaged folder, and what ``fetch`` raises for a model that cannot be fetched.
    """
    if (folder / PROPOSER).is_file():
        return GivenVersion.load(folder).proposer(fetch)
    return NetworkProposer.open(folder)


def _heads(dictionary: Dictionary) -> dict[str, Head]:
    return {
        name: Head(each.cardinality, each.labels, each.rule() if each.is_open else None)
        for name, each in dictionary.attributes.items()
    }


def heads_of(folder: Path) -> dict[str, Head]:
    """Return attribute -> its cardinality and values, of a version's folder. Nothing is fetched."""
    if (folder / PROPOSER).is_file():
        return _heads(GivenVersion.load(folder).dictionary)
    from catalog_enrichment.models import artifact

    return artifact.heads(folder)
