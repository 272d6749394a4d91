"""One server with a store of its own per test; its dictionary has aliases and a long list of values."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from catalog_enrichment.audit.review_store import ReviewStore
from catalog_enrichment.config.schema import Config

from .review_server import Client, config_of, served

ATTRIBUTES: list[dict[str, Any]] = [
    {
        "name": "color",
        "cardinality": "one",
        "values": ["Red", "Green", "Blue", "Navy Blue", *(f"Shade {number:03d}" for number in range(300))],
        "aliases": {
            "de": {"Rot": "Red", "Dunkelblau": "Navy Blue"},
            "fr": {"bleu foncé": "Navy Blue"},
            "ja": {"赤": "Red"},
        },
    },
    {"name": "material", "cardinality": "many", "values": ["Cotton", "Wool", "Silk"]},
    {"name": "width", "kind": "number", "unit": "cm", "range": [1, 500]},
]


@pytest.fixture(scope="session")
def site_config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return config_of(tmp_path_factory.mktemp("page") / "site", ATTRIBUTES)


@pytest.fixture
def page_store(tmp_path: Path) -> Iterator[ReviewStore]:
    with ReviewStore(tmp_path / "review.sqlite") as store:
        yield store


@pytest.fixture
def port(site_config: Config, page_store: ReviewStore) -> Iterator[int]:
    with served(site_config, page_store) as port:
        yield port


@pytest.fixture
def ana(port: int) -> Client:
    return Client(port, "Ana")


@pytest.fixture
def ben(port: int) -> Client:
    return Client(port, "Ben")
