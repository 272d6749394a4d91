"""Which labels a proposer that was made elsewhere has seen: what is declared, and the check beside it.

A label that a model has learned certifies nothing (PRECISION, "Foreign proposals").
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from catalog_enrichment.config.proposer import NOTHING_SEEN
from catalog_enrichment.errors import ConfigError, DataContractError
from catalog_enrichment.precision.seen_labels import EarlierAgainstLater, earlier_against_later
from catalog_enrichment.precision.units import Bools, accept_scores, units_from
from catalog_enrichment.records import stable_hash
from catalog_enrichment.training.dataset import Dataset
from catalog_enrichment.training.evaluation import ModelScores
from catalog_enrichment.training.folds import where
from catalog_enrichment.training.labels import Labels
from catalog_enrichment.training.task import Split

if TYPE_CHECKING:
    from catalog_enrichment.config.schema import Config

FEWEST = 30
"""With fewer products from before or after the model was made, the check could notice nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Declaration:
    """What was declared: at most one of ``before`` and ``ids``; neither: nothing of this catalog was seen."""

    before: datetime | None = None
    """Labels of products that were first imported before it."""
    ids: frozenset[str] = frozenset()
    """Labels of these products."""
    file: str = ""
    """The name of the file with the ids."""

    @classmethod
    def of(cls, trained_on: str, config: Config) -> Declaration:
        """Read `proposer.trained_on`. Raises ConfigError for a text that is none of the three forms, and for a file
        without ids or that is not UTF-8."""
        if trained_on == NOTHING_SEEN:
            return cls()
        try:
            time = datetime.fromisoformat(trained_on)
        except ValueError:
            return cls._of_file(trained_on, config)
        return cls(before=time if time.tzinfo else time.replace(tzinfo=UTC))

    @classmethod
    def _of_file(cls, name: str, config: Config) -> Declaration:
        path = config.path(name)
        try:
            ids = frozenset(filter(None, map(str.strip, path.read_text(encoding="utf-8-sig").splitlines())))
        except (OSError, ValueError) as problem:
            raise ConfigError(
                f'proposer.trained_on must be "{NOTHING_SEEN}", a date like 2026-03-01, or the path of a file with a '
                f"product id per line; {name!r} is neither, and as a file it cannot be read: {problem}"
            ) from None
        if not ids:
            raise ConfigError(f"proposer.trained_on: {path} has no product ids")
        return cls(ids=ids, file=path.name)


def sentence(declared: Declaration) -> str:
    """Return what was declared, for the claim of a certificate, without a full stop."""
    start = "It was declared that the proposer has seen"
    if declared.before is not None:
        return f"{start} labels of products first imported before {declared.before:%Y-%m-%d %H:%M} UTC, and no others"
    if declared.ids:
        given = f"{len(declared.ids):,} products in {declared.file} (ids {stable_hash(sorted(declared.ids))[:16]})"
        return f"{start} the labels of the {given}, and no others"
    return f"{start} no label of this catalog"


def seen(declared: Declaration, dataset: Dataset, groups: np.ndarray) -> Bools:
    """(N,): the product was seen, or a product of its content group; a product that came at an unknown time counts as
    seen where a date was declared.

    Raises DataContractError if the catalog has none of the products that were declared.
    """
    times = [_utc(at) for at in dataset.first_imported_at if at is not None]
    if declared.before is not None and times and min(times) >= declared.before:
        raise DataContractError(
            f"proposer.trained_on: no product was imported before {declared.before:%Y-%m-%d %H:%M} UTC; the first came "
            f"{min(times):%Y-%m-%d %H:%M} UTC, or the catalog was made anew since. Name a later date or a file of "
            f'product ids, or declare "{NOTHING_SEEN}"'
        )
    if declared.before is not None:
        own = np.array([at is None or _utc(at) < declared.before for at in dataset.first_imported_at], dtype=bool)
    else:
        own = np.array([name in declared.ids for name in dataset.ids], dtype=bool)
        if declared.ids and not own.any():
            raise DataContractError(
                f"proposer.trained_on: none of the {len(declared.ids):,} ids in {declared.file} is a product that "
                "could certify. Check that they are ids of this catalog"
            )
    return np.isin(groups, groups[own])


def matched(declared: Declaration, dataset: Dataset) -> str:
    """Return how many of the products that were declared by their ids are there, a sentence; "" for no ids."""
    found = len(declared.ids.intersection(dataset.ids))
    return f"{found:,} of the {len(declared.ids):,} ids in {declared.file} are products here" if declared.ids else ""


class LeakCheck(NamedTuple):
    """The check for labels that were seen and not declared, of one attribute."""

    refusal: str
    """Why nothing of the attribute is certified; "" if the check found nothing."""
    note: str
    """What was compared, or why nothing could be."""
    result: EarlierAgainstLater | None


def leak_check(labels: Labels, scores: ModelScores, split: Split, made_at: datetime) -> LeakCheck:
    """Compare how often proposals are right at labelled products from before ``made_at`` with later ones, among those
    that were not declared as seen.

    Labels of the certification fold are not read: their use would have to be counted.
    """
    dataset = split.dataset
    held_out = np.sort(np.concatenate([split.folds.choosing, split.folds.test]))
    known = np.array([at is not None for at in dataset.first_imported_at], dtype=bool)
    index = where(held_out, labels.labelled & known)
    probabilities, every = scores.at(labels.attribute, index), np.ones(len(labels.values), dtype=bool)
    proposed = accept_scores(probabilities, labels.cardinality, every) > 0
    index, probabilities = index[proposed], probabilities[proposed]
    earlier = np.array([_before(dataset, product, made_at) for product in index.tolist()], dtype=bool)
    counts = (int(earlier.sum()), int((~earlier).sum()))
    if min(counts) < FEWEST:
        return LeakCheck(
            "",
            f"whether undeclared labels were seen could not be checked: {counts[0]:,} labelled products with a "
            f"proposal are from before it was made ({made_at:%Y-%m-%d}) and {counts[1]:,} are later",
            None,
        )
    units = units_from(probabilities, labels.truth[index], labels.cardinality, every)
    categories = [dataset.categories[product] for product in index.tolist()]
    found = earlier_against_later(~np.isfinite(units.error), earlier, units.accept, categories, split.groups[index])
    compared = (
        f"{found.wrong_earlier:,} of {found.earlier:,} products from before it was made are wrong, and "
        f"{found.expected:.1f} would be if they were like the {found.later:,} later ones with equal score and category "
        f"(p = {found.p_value:.2g})"
    )
    if not found.seen:
        return LeakCheck("", f"undeclared labels were looked for and not found: {compared}", found)
    why = (
        "the proposer seems to have seen labels that were not declared: it is right more often at products from "
        f"before it was made. {compared}. Declare what it has seen in proposer.trained_on"
    )
    return LeakCheck(why, compared, found)


def _before(dataset: Dataset, product: int, made_at: datetime) -> bool:
    at = dataset.first_imported_at[product]
    return at is not None and _utc(at) < made_at


def _utc(time: datetime) -> datetime:
    return time if time.tzinfo else time.replace(tzinfo=UTC)
