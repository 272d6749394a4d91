"""A fitted comparison that the tests of several files read."""

from __future__ import annotations

import pytest

from catalog_enrichment.comparison.compared_models import FittedModels
from catalog_enrichment.comparison.tables import Comparison, build_comparison
from catalog_enrichment.config.schema import Config

from ..training.toy import product
from .comparison_samples import config, fit_models


@pytest.fixture(scope="session")
def settings(tmp_path_factory) -> Config:
    return config(tmp_path_factory.mktemp("compare"))


@pytest.fixture(scope="session")
def rows() -> list[dict]:
    products = [product(number) for number in range(260)]
    for number in range(0, 260, 9):  # a reseller's copy: the same picture, so the same content group
        products.append(product(number) | {"product_id": f"twin{number}"})
    products[10] |= {"images": []}
    return products


@pytest.fixture(scope="session")
def fitted(settings: Config, rows: list[dict], tmp_path_factory) -> FittedModels:
    return fit_models(rows, settings, tmp_path_factory.mktemp("w"))


@pytest.fixture(scope="session")
def comparison(settings: Config, fitted: FittedModels) -> Comparison:
    assert settings.compare is not None
    return build_comparison(fitted, settings.compare)
