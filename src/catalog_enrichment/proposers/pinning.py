"""From the section `[proposer]` to a version: the model or the answers that it names, pinned, with their hash."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from catalog_enrichment.config.proposer import AnswersConfig
from catalog_enrichment.errors import DataContractError
from catalog_enrichment.proposers.answer_rows import cells_of
from catalog_enrichment.proposers.versions import Fetch, GivenVersion
from catalog_enrichment.records import stable_hash

if TYPE_CHECKING:
    from catalog_enrichment.catalog.lake import Catalog
    from catalog_enrichment.config.proposer import ProposerConfig
    from catalog_enrichment.dictionary import Dictionary


@dataclass(frozen=True, kw_only=True, slots=True)
class Shelf:
    """Where models and answers are found."""

    find: Callable[[str], Any]
    """URI of a model, with a version or an alias -> its name, version and created_at. Raises RegistryError, which
    lists those there are."""
    fetch: Fetch
    catalog: Catalog


class Pinned(NamedTuple):
    version: GivenVersion
    """Without calibrations."""
    made_at: datetime
    """When the model was registered, or the first answer imported."""
    reads_pictures: bool


def pinned(settings: ProposerConfig, dictionary: Dictionary, trained_on: str, shelf: Shelf) -> Pinned:
    """Return the version to certify. ``dictionary``: of its attributes; ``trained_on``: what was declared, a sentence.

    Raises RegistryError if the registry does not have the model, ConfigError if the model takes no text, and
    DataContractError if there are no such answers.
    """
    kinds = {"pyfunc": _pyfunc, "table": _table}
    return kinds[settings.kind](settings, {"attributes": dictionary.to_plain(), "trained_on": trained_on}, shelf)


def _pyfunc(settings: ProposerConfig, known: dict[str, Any], shelf: Shelf) -> Pinned:
    from catalog_enrichment.proposers.pyfunc import hash_of_model
    from catalog_enrichment.proposers.pyfunc_worker import inputs_of, outputs_of

    found = shelf.find(settings.model)
    uri = f"models:/{found.name}/{found.version}"
    folder = shelf.fetch(uri)
    inputs = inputs_of(folder, uri)
    version = GivenVersion(
        kind="pyfunc",
        model=uri,
        model_hash=hash_of_model(folder),
        answers=_with_scores(settings.answers, known["attributes"], outputs_of(folder)),
        inputs=list(inputs),
        batch_rows=settings.batch_rows,
        timeout_seconds=settings.timeout_seconds,
        **known,
    )
    return Pinned(version, found.created_at, "image" in inputs)


def _with_scores(
    answers: AnswersConfig, attributes: Sequence[Mapping[str, Any]], outputs: Collection[str]
) -> AnswersConfig:
    """Return where the answers are, with the columns of scores that the signature's ``outputs`` have: whether there are
    scores is fixed for the version."""
    named = {each["name"]: str(cells_of(each["name"], answers).score) for each in attributes}
    there = {name: column for name, column in named.items() if column in outputs}
    return replace(answers, scores=there | answers.scores)


def _table(settings: ProposerConfig, known: dict[str, Any], shelf: Shelf) -> Pinned:
    from pyspark.sql import functions as F

    of_all = shelf.catalog.read("proposals").groupBy("proposer", "version")
    groups = of_all.agg(F.min("answered_at").alias("first"), F.count("*").alias("rows")).collect()
    own = [row for row in groups if (row["proposer"], row["version"]) == (settings.name, settings.version)]
    if not own:
        there = ", ".join(f"{row['proposer']} {row['version']} ({row['rows']:,})" for row in sorted(groups)) or "none"
        raise DataContractError(
            f"the catalog has no answers of {settings.name} {settings.version}; it has {there}. Run import_proposals "
            "with that name and version, or correct proposer.name and proposer.version"
        )
    table_version = shelf.catalog.version("proposals")
    names = [attribute["name"] for attribute in known["attributes"]]
    of_version = (F.col("proposer") == settings.name) & (F.col("version") == settings.version)
    answers = shelf.catalog.read("proposals").where(of_version & F.col("attribute").isin(*names))
    row = F.xxhash64("product_id", "content_hash", "attribute", F.to_json("candidates"))
    sums = (F.count("*"), F.sum(row.cast("decimal(38,0)")), F.bit_xor(row))
    version = GivenVersion(
        kind="table",
        name=settings.name,
        version=settings.version,
        table_version=table_version,
        answers_hash=stable_hash([str(number) for number in answers.agg(*sums).first() or ()]),
        forms=sorted(row["form"] for row in answers.select("form").distinct().collect()),
        **known,
    )
    first = own[0]["first"]
    return Pinned(version, first if first.tzinfo else first.replace(tzinfo=UTC), reads_pictures=False)
