"""Models of `[compare]`, trained on the labelled and judged on products whose truth somebody else brings."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping, Set
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from catalog_enrichment.catalog.lake import LakeCatalog
from catalog_enrichment.config.schema import Config
from catalog_enrichment.context import load_dictionary

Values = frozenset[str]


def judge(config: Config, truth: Mapping[str, Mapping[str, Values]], subsets: Mapping[str, Set[str] | None]) -> Any:
    """Fit every model; a comparison per subset of the products that are not labelled (None: all of them).

    ``truth``: attribute -> product id -> values. Values that the models did not learn stay in every denominator.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "30000")  # read when torch is loaded
    from catalog_enrichment.comparison.fit_all import run_contest
    from catalog_enrichment.comparison.models import compare_settings
    from catalog_enrichment.comparison.tables import compare

    catalog = LakeCatalog(config.path(config.catalog.path))
    with tempfile.TemporaryDirectory() as workdir:
        contest = run_contest(
            lambda: catalog.scan("products"), load_dictionary(config), config, Path(workdir), _say, unlabelled=True
        )
        found = {}
        for name, members in subsets.items():
            labels = {
                attribute: _told(label, truth[attribute], contest.ids, members)
                for attribute, label in contest.labels.items()
            }
            known = np.any([label.labelled for label in labels.values()], axis=0)
            index = contest.index[known[contest.index]]
            found[name] = compare(replace(contest, labels=labels, index=index), compare_settings(config))
        return found, contest


def _told(label: Any, truth: Mapping[str, Values], ids: Any, members: Set[str] | None) -> Any:
    """The attribute's labels as the truth has them, on the members alone."""
    column = {value: number for number, value in enumerate(label.values)}
    told = np.zeros_like(label.truth)
    unlearned = np.zeros_like(label.unlearned)
    for product, product_id in enumerate(ids):
        if members is not None and product_id not in members:
            continue
        for value in truth.get(product_id, ()):
            if value in column:
                told[product, column[value]] = True
            else:
                unlearned[product] += 1
    return replace(label, truth=told, unlearned=unlearned, labelled=told.any(axis=1) | (unlearned > 0))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
