"""Epochs: which certification fold a training uses, and when a new one is drawn (PRECISION, certificate 6).

The k-th use of a certification fold may spend only delta / (k (k + 1)). So after `training.label_uses_per_epoch` uses a
new fold is drawn, of products that never certified, and its first use may spend delta again. The products of the old
fold may be trained on from then on. The test fold is the same in every epoch: the promotion gate pairs versions on it.
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
class Epoch:
    """The certification fold that a training uses."""

    number: int = 0
    reason: str = ""
    """Why a new fold was drawn, or why the old one goes on although it was used often; "" if neither is so."""


def folds_of_epoch(
    labelled: Index,
    products: GroupedProducts,
    settings: TrainingConfig,
    attributes: Sequence[str],
    earlier: EarlierUses,
) -> tuple[Folds, Epoch]:
    """The folds of the epoch that the next training belongs to.

    The attribute of ``attributes`` with the most uses in the newest epoch decides: if its next use would exceed
    `training.label_uses_per_epoch`, and the products that never certified are at least as many as the certification
    fold's share, a new epoch begins; otherwise the newest one goes on.
    """
    first = split_folds(labelled, products, settings.folds)

    def of(epoch: int) -> Folds:
        certified = _certified_before(products, earlier, epoch)
        return redraw_certification(first, products, settings.folds, epoch, certified) if epoch else first

    name = max(attributes, key=lambda attribute: earlier.uses.get(attribute, 0))
    uses = earlier.uses.get(name, 0)
    if uses < settings.label_uses_per_epoch:
        return of(earlier.epoch), Epoch(earlier.epoch)
    why = (
        f"the labels of {name} were used {uses} times in epoch {earlier.epoch} (training.label_uses_per_epoch = "
        f"{settings.label_uses_per_epoch})"
    )
    number = earlier.epoch + 1
    candidates = np.setdiff1d(labelled, first.test)
    fresh = never_certified(candidates, products.groups, _certified_before(products, earlier, number))
    needed = ceil(settings.folds.certification * len(labelled))
    drawn = of(number)
    if len(fresh) >= needed and all(drawn.sizes().values()):
        size = len(drawn.certification)
        return drawn, Epoch(number, f"{why}: epoch {number} has a new fold of {size} products that never certified")
    missing = f"{len(fresh)} labelled products outside the test fold never certified, a new fold needs {needed}"
    return of(earlier.epoch), Epoch(earlier.epoch, f"{why} and epoch {earlier.epoch} goes on: {missing}. Label more")


def resumed(earlier: EarlierUses, checkpoints: Path | None, fingerprint: str) -> EarlierUses:
    """``earlier``, but for a training that was interrupted in a certain epoch: as if that one were the newest and not
    used yet. Its own use may be recorded already, and must not be what makes its second start draw other folds.

    ``fingerprint``: a hash of all that the training depends on, under which :func:`remember` stored the epoch.
    """
    file = _file(checkpoints, fingerprint) if checkpoints else None
    if file is None or not file.is_file():
        return earlier
    return replace(earlier, epoch=int(json.loads(file.read_text())["epoch"]), uses={})


def remember(epoch: Epoch, checkpoints: Path | None, fingerprint: str) -> None:
    """Store the epoch of a training, so that it continues in the same one if it is interrupted."""
    if checkpoints is None:
        return
    file = _file(checkpoints, fingerprint)
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps({"epoch": epoch.number}))
    partial.replace(file)


def _file(checkpoints: Path, fingerprint: str) -> Path:
    return checkpoints / f"label_epoch-{fingerprint[:16]}.json"


def _certified_before(products: GroupedProducts, earlier: EarlierUses, epoch: int) -> NDArray[np.bool_]:
    """(N,): the product certified in an epoch before ``epoch``."""
    certified = earlier.certified_before(epoch)
    return np.array([product in certified for product in products.ids], dtype=bool)
