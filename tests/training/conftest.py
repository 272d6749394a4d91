"""Fixtures of the training tests: toy products as a training task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from catalog_enrichment.config.folds import FoldsConfig
from catalog_enrichment.config.images import ImagesConfig
from catalog_enrichment.models.spec import ModelSpec
from catalog_enrichment.models.text_encoders import build_tokenizer
from catalog_enrichment.training.dataset import LoadOptions, load_dataset
from catalog_enrichment.training.examples import Examples
from catalog_enrichment.training.fit import set_threads
from catalog_enrichment.training.folds import GroupedProducts, content_groups, split_folds
from catalog_enrichment.training.task import Task

from .toy import DICTIONARY, batches, recipe

Rows = Sequence[Mapping[str, Any]]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    """Two test processes have two cores (tests/conftest.py)."""
    set_threads(1)


@pytest.fixture(scope="session")
def toy_task(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Task]:
    """Builds a task from product rows, for a model (default: the toy recipe's) and attributes."""

    def build(rows: Rows, model: ModelSpec | None = None, attributes: Sequence[str] = ("color", "material")) -> Task:
        spec = model or recipe().model
        options = LoadOptions(
            attributes=list(attributes),
            square=spec.image.square,
            max_chars=spec.max_chars,
            images=ImagesConfig(),
            workdir=tmp_path_factory.mktemp("task"),
            max_unlabelled=len(rows),
        )
        dataset = load_dataset(batches([dict(row) for row in rows]), DICTIONARY, options)
        labels = {name: dataset.labels(name) for name in attributes}
        groups = content_groups(dataset.titles, dataset.pictures, [])
        labelled = np.flatnonzero(np.any([label.labelled for label in labels.values()], axis=0))
        folds = split_folds(labelled, GroupedProducts(dataset.ids, groups), FoldsConfig())
        tokenizers = {name: build_tokenizer(text, dataset.titles) for name, text in spec.texts.items()}
        return Task(Examples.of(dataset, spec, tokenizers), tokenizers, labels, folds, groups)

    return build
