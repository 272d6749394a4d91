"""Imports from a real HTTP API on loopback, by Spark."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from catalog_enrichment.catalog.lake import LakeCatalog
from catalog_enrichment.config.load import load_config
from catalog_enrichment.context import Context, load_dictionary
from catalog_enrichment.errors import ConfigError, DataContractError, TemporaryFailure
from catalog_enrichment.ingest import api_source, job

from ..sample_catalog import killed_at
from .api_server import Api, body, busy, serving

CONFIG = """
[catalog]
path = "catalog"
dictionary = "attributes.json"
[mlflow]
tracking_uri = "sqlite:///mlflow.db"
[source]
format = "http_api"
path = "URL"
min_volume_ratio = 0
[source.api]
items = "data.items"
auth_env = "SHOP_TOKEN"
requests_per_second = 1000
retries = 1
retry_seconds = 0.01
private_hosts = ["127.0.0.1"]
[source.mapping]
product_id = "id"
image_uris = "pictures"
attributes = { color = "colour" }
[images]
sample = 0
"""
DICTIONARY = {"attributes": [{"name": "color", "cardinality": "many", "values": ["Red", "Blue"]}]}
PARALLEL = ('source.api.total="meta.total"', "source.api.page_size=10", "source.api.tasks=3")


def product(number: int, **given: Any) -> dict[str, Any]:
    return {"id": number, "title": f"Shirt {number}", "colour": ["Red"], "pictures": [f"img/{number}.jpg"]} | given


class Shop:
    def __init__(self, spark: Any, folder: Path, api: Api) -> None:
        self.spark, self.folder, self.api = spark, folder, api
        (folder / "config.toml").write_text(CONFIG.replace("URL", f"{api.url}/v1/products"))
        (folder / "attributes.json").write_text(json.dumps(DICTIONARY))
        self.catalog, self.said = LakeCatalog(folder / "catalog", spark), [""]

    def run(self, *settings: str) -> dict[str, Any]:
        config = load_config(self.folder / "config.toml", list(settings))
        self.said, self.api.asked = [], []
        return job.import_products(
            Context(config, self.spark, self.catalog, load_dictionary(config), say=self.said.append)
        )

    @property
    def kept(self) -> list[str]:
        return sorted(file.name for file in (self.folder / "catalog").glob("_staging/pages-*/*.page"))

    def rows(self, name: str) -> list[dict[str, Any]]:
        return [row for batch in self.catalog.scan(name) for row in batch.to_pylist()]


@pytest.fixture
def shop(spark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    monkeypatch.setenv("SHOP_TOKEN", "s3cr3t-t0ken")
    with serving(Api([product(number) for number in range(35)])) as api:
        yield Shop(spark, tmp_path, api)


def test_pages_are_fetched_in_parallel_and_bad_items_are_quarantined_with_their_page(shop: Shop) -> None:
    shop.api.items[12] = "no product"
    shop.api.items[23] = product(23, title=None)
    shop.api.items[24] = product(24, title={"en": "Shirt"})
    shop.api.faults = {3: busy(1)}
    done = shop.run(*PARALLEL)
    assert done["status"] == "succeeded"
    assert done["products"] == 35 == done["new"] + sum(done["quarantined"].values())
    assert done["quarantined"] == {"empty_title": 1, "unparseable_row": 2}
    assert Counter(shop.api.pages_asked) == {
        1: 1,
        2: 1,
        3: 2,
        4: 1,
        5: 1,
    }  # the fifth is asked for in case there is more
    origins = {(row["source_uri"], row["row_number"]) for row in shop.rows("quarantine")}
    url = f"{shop.api.url}/v1/products"
    assert origins == {(f"{url}#page=2", 3), (f"{url}#page=3", 4), (f"{url}#page=3", 5)}
    one = next(row for row in shop.rows("products") if row["product_id"] == "7")
    assert dict(one["merchant_attributes"]) == {"color": ["Red"]}
    assert [image["uri"] for image in one["images"]] == [f"{shop.api.url}/v1/img/7.jpg"]
    assert (shop.kept, {token for _, _, token in shop.api.asked}) == ([], {"Bearer s3cr3t-t0ken"})
    stored = json.dumps([shop.rows("runs"), shop.rows("quarantine")], default=str) + "".join(shop.said)
    assert "s3cr3t" not in stored


@pytest.mark.slow
def test_the_same_items_are_not_read_again_and_another_one_is(shop: Shop) -> None:
    shop.run(*PARALLEL)
    again = shop.run(*PARALLEL)
    assert (again["status"], again["products"], len(shop.api.asked)) == ("nothing_to_do", 35, 5)
    assert any("imported these files" in line for line in shop.said)
    shop.api.items[0] = product(0, title="Another")
    assert shop.run(*PARALLEL)["changed"] == 1


def test_an_import_that_ran_into_an_outage_goes_on_at_the_next_page(shop: Shop) -> None:
    cursor = ("source.api.paging=cursor",)
    shop.api.faults = {3: busy(10**6)}
    with pytest.raises(TemporaryFailure, match="page 3: HTTP 503, after 2 attempts"):
        shop.run(*cursor)
    assert shop.kept == ["00000001.page", "00000002.page"]
    shop.api.faults = {}
    done = shop.run(*cursor, "source.api.requests_per_second=500")
    assert (done["new"], shop.api.pages_asked, shop.kept) == (35, [3, 4], [])
    assert any("2 pages of an interrupted import are kept, 20 products" in line for line in shop.said)


@pytest.mark.slow
def test_in_parallel_too_pages_that_were_fetched_are_not_asked_for_again(shop: Shop) -> None:
    shop.api.faults = {2: busy(10**6)}
    with pytest.raises(TemporaryFailure, match="page 2"):
        shop.run(*PARALLEL)
    assert shop.kept == ["00000001.page", "00000003.page", "00000004.page"]
    shop.api.faults = {}
    done = shop.run(*PARALLEL)
    assert (done["new"], shop.api.pages_asked) == (35, [2, 5])


@pytest.mark.slow
def test_a_killed_import_uses_its_pages_and_one_that_was_killed_at_its_end_fetches_anew(shop: Shop) -> None:
    with killed_at(LakeCatalog, "replace_products"):
        shop.run()
    assert len(shop.kept) == 5
    assert shop.run()["new"] == 35
    assert (shop.api.asked, shop.kept) == ([], [])
    shop.api.items.append(product(99))
    with killed_at(api_source.ApiFeed, "forget"):
        shop.run()
    assert len(shop.kept) == 5
    shop.api.items.append(product(100))
    assert shop.run()["new"] == 1
    assert any("imported before: all pages are fetched anew" in line for line in shop.said)


@pytest.mark.slow
def test_pages_of_another_time_or_source_are_not_used(shop: Shop) -> None:
    shop.api.faults = {3: busy(10**6)}
    with pytest.raises(TemporaryFailure):
        shop.run()
    shop.api.faults = {}
    [started] = (shop.folder / "catalog").glob("_staging/pages-*/started.json")
    shop.api.faults = {1: busy(10**6)}
    with pytest.raises(TemporaryFailure):  # other pages, in a folder of their own
        shop.run('source.api.headers={"X-Shop" = "7"}')
    assert len(shop.kept) == 2
    shop.api.faults = {}
    started.write_text(json.dumps({"started_at": 1000}))
    assert shop.run()["new"] == 35
    assert shop.api.pages_asked == [1, 2, 3, 4, 5]
    assert any("older than 24 hours" in line for line in shop.said)


@pytest.mark.slow
def test_fewer_products_than_announced_and_pages_twice_are_refused_and_not_kept(shop: Shop) -> None:
    shop.api.total = 36
    with pytest.raises(DataContractError, match="announces 36 products and gave 35"):
        shop.run(*PARALLEL)
    shop.api.total, (_, _, second) = None, shop.api.page(2)
    shop.api.faults = {4: body(second)}
    with pytest.raises(DataContractError, match="pages 2 and 4 are the same"):
        shop.run(*PARALLEL)
    assert shop.kept == []
    assert shop.catalog.version("products") == -1


@pytest.mark.slow
def test_more_products_than_announced_are_imported(shop: Shop) -> None:
    shop.api.total = 11
    assert shop.run(*PARALLEL)["new"] == 35


def test_a_broken_page_in_a_task_and_a_missing_token_are_refused(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.api.faults = {3: body(b"[}")}
    with pytest.raises(DataContractError, match="page 3 is broken"):
        shop.run(*PARALLEL)
    shop.api.faults = {}
    with pytest.raises(DataContractError, match=r"column 'name' does not exist. Available columns: \['colour', 'id'"):
        shop.run("source.mapping.title=name")
    monkeypatch.delenv("SHOP_TOKEN")
    with pytest.raises(ConfigError, match="environment variable SHOP_TOKEN is not set"):
        shop.run()
    assert shop.api.asked == []
