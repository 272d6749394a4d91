"""Epochs: which certification fold a training uses, and when a new one is drawn (PRECISION, certificate 6).

The k-th use of a certification fold may spend only delta / (k (k + 1)). So after `training.label_uses_per_round` uses a
new fold is drawn, of products that never certified, and its first use may spend delta again. The products of the old
fold may be trained on from then on. The test fold is the same in every certification_round: the promotion gate pairs versions on it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from catalog_enrichment.config.schema import TrainingConfig
from catalog_enrichment.precision.earlier_uses import EarlierUses
from catalog_enrichment.training.folds import (
    Folds,
    GroupedProducts,
    Index,
    never_certified,
    redraw_certification,
    split_folds,
)


@dataclass(frozen=True, slots=True)
class CertificationRound:
    """The certification fold that a training uses."""

    number: int = 0
    reason: str = ""
    """Why a new fold was drawn, or why the old one goes on although it was used often; "" if neither is so."""


def folds_of_round(
    labelled: Index,
    products: GroupedProducts,
    settings: TrainingConfig,
    attributes: Sequence[str],
    earlier: EarlierUses,
) -> tuple[Folds, CertificationRound]:
    """The folds of the certification round that the next training belongs to.

    The attribute of ``attributes`` with the most uses in the newest certification round decides: if its next use would exceed
    `training.label_uses_per_round`, and the products that never certified are at least as many as the certification
    fold's share, a new certification round begins; otherwise the newest one goes on.
    """
    first = split_folds(labelled, products, settings.folds)

    def of(certification_round: int) -> Folds:
        certified = _certified_before(products, earlier, certification_round)
        return (
            redraw_certification(first, products, settings.folds, certification_round, certified)
            if certification_round
            else first
        )

    name = max(attributes, key=lambda attribute: earlier.uses.get(attribute, 0))
    uses = earlier.uses.get(name, 0)
    if uses < settings.label_uses_per_round:
        return of(earlier.certification_round), CertificationRound(earlier.certification_round)
    why = (
        f"the labels of {name} were used {uses} times in certification round {earlier.certification_round} (training.label_uses_per_round = "
        f"{settings.label_uses_per_round})"
    )
    number = earlier.certification_round + 1
    candidates = np.setdiff1d(labelled, first.test)
    fresh = never_certified(candidates, products.groups, _certified_before(products, earlier, number))
    needed = ceil(settings.folds.certification * len(labelled))
    drawn = of(number)
    if len(fresh) >= needed and all(drawn.sizes().values()):
        size = len(drawn.certification)
        return drawn, CertificationRound(
            number, f"{why}: certification round {number} has a new fold of {size} products that never certified"
        )
    missing = f"{len(fresh)} labelled products outside the test fold never certified, a new fold needs {needed}"
    return of(earlier.certification_round), CertificationRound(
        earlier.certification_round,
        f"{why} and certification round {earlier.certification_round} goes on: {missing}. Label more",
    )


def resumed(earlier: EarlierUses, checkpoints: Path | None, fingerprint: str) -> EarlierUses:
    """``earlier``, but for a training that was interrupted in a certain certification_round: as if that one were the newest and not
    used yet. Its own use may be recorded already, and must not be what makes its second start draw other folds.

    ``fingerprint``: a hash of all that the training depends on, under which :func:`remember` stored the certification round.
    """
    file = _file(checkpoints, fingerprint) if checkpoints else None
    if file is None or not file.is_file():
        return earlier
    return replace(earlier, certification_round=int(json.loads(file.read_text())["certification_round"]), uses={})


def remember(certification_round: CertificationRound, checkpoints: Path | None, fingerprint: str) -> None:
    """Store the certification round of a training, so that it continues in the same one if it is interrupted."""
    if checkpoints is None:
        return
    file = _file(checkpoints, fingerprint)
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps({"certification_round": certification_round.number}))
    partial.replace(file)


def _file(checkpoints: Path, fingerprint: str) -> Path:
    return checkpoints / f"certification_round-{fingerprint[:16]}.json"


def _certified_before(products: GroupedProducts, earlier: EarlierUses, certification_round: int) -> NDArray[np.bool_]:
    """(N,): the product certified in a certification round before ``certification_round``."""
    certified = earlier.certified_before(certification_round)
    return np.array([product in certified for product in products.ids], dtype=bool)
