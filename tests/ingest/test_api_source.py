"""Imports from a real HTTP API on loopback, by Spark."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.errors import ConfigError, DataContractError, TemporaryFailure
from catalog_enrichment.ingest import api_source

from ..sample_catalog import killed_at
from .api_server import Api, body, busy, serving
from .shop import Shop

SOURCE: dict[str, Any] = {
    "format": "http_api",
    "min_volume_ratio": 0.0,
    "api": {
        "items": "data.items", "auth_env": "SHOP_TOKEN", "requests_per_second": 1000.0, "retries": 1,
        "retry_seconds": 0.01, "private_hosts": ["127.0.0.1"],
    },
    "mapping": {"product_id": "id", "image_uris": "pictures", "attributes": {"color": "colour"}},
}  # fmt: skip
PARALLEL = {"total": "meta.total", "page_size": 10, "tasks": 3}


def product(number: int, **given: Any) -> dict[str, Any]:
    return {"id": number, "title": f"Shirt {number}", "colour": ["Red"], "pictures": [f"img/{number}.jpg"]} | given


class ApiShop(Shop):
    def __init__(self, spark: Any, folder: Path, api: Api) -> None:
        super().__init__(spark, folder, SOURCE | {"path": f"{api.url}/v1/products"}, sample=0)
        self.api = api

    def run(self, **api: Any) -> dict[str, Any]:
        """Import with other keys of `[source.api]`."""
        self.api.asked = []
        return self.imported(api=api)

    @property
    def kept(self) -> list[int]:
        """The numbers of the pages that are kept."""
        return sorted(int(file.stem) for file in (self.folder / "catalog").glob("_staging/pages-*/*.page"))


@pytest.fixture
def shop(spark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiShop]:
    monkeypatch.setenv("SHOP_TOKEN", "s3cr3t-t0ken")
    with serving(Api([product(number) for number in range(35)])) as api:
        yield ApiShop(spark, tmp_path, api)


def test_pages_are_fetched_in_parallel_and_bad_items_are_quarantined_with_their_page(shop: ApiShop) -> None:
    shop.api.items[12] = "no product"
    shop.api.items[23] = product(23, title=None)
    shop.api.items[24] = product(24, title={"en": "Shirt"})
    shop.api.faults = {3: busy(1)}
    done = shop.run(**PARALLEL)
    assert done["status"] == "succeeded"
    assert done["products"] == 35 == done["new"] + sum(done["quarantined"].values())
    assert done["quarantined"] == {"empty_title": 1, "unparseable_row": 2}
    # the fifth page is asked for in case there is more
    assert Counter(shop.api.pages_asked) == Counter([1, 2, 3, 3, 4, 5])
    url = f"{shop.api.url}/v1/products"
    assert {(row["source_uri"], row["row_number"]) for row in shop.rows("quarantine")} == {
        (f"{url}#page=2", 3), (f"{url}#page=3", 4), (f"{url}#page=3", 5),
    }  # fmt: skip
    seven = shop.products()["7"]
    assert seven["merchant_attributes"] == {"color": ["Red"]}
    assert [image["uri"] for image in seven["images"]] == [f"{shop.api.url}/v1/img/7.jpg"]
    assert (shop.kept, {token for _, _, token in shop.api.asked}) == ([], {"Bearer s3cr3t-t0ken"})
    stored = json.dumps([shop.rows("runs"), shop.rows("quarantine")], default=str) + "".join(shop.said)
    assert "s3cr3t" not in stored


@pytest.mark.slow
def test_the_same_items_are_not_read_again_and_another_item_is(shop: ApiShop) -> None:
    shop.run(**PARALLEL)
    again = shop.run(**PARALLEL)
    assert (again["status"], again["products"], len(shop.api.asked)) == ("nothing_to_do", 35, 5)
    assert any("imported these files" in line for line in shop.said)
    shop.api.items[0] = product(0, title="Another")
    assert shop.run(**PARALLEL)["changed"] == 1


def test_an_import_that_ran_into_an_outage_goes_on_at_the_next_page(shop: ApiShop) -> None:
    shop.api.faults = {3: busy()}
    with pytest.raises(TemporaryFailure, match="page 3: HTTP 503, after 2 attempts"):
        shop.run(paging="cursor")
    assert shop.kept == [1, 2]
    shop.api.faults = {}
    done = shop.run(paging="cursor", requests_per_second=500.0)
    assert (done["new"], shop.api.pages_asked, shop.kept) == (35, [3, 4], [])
    assert any("2 pages of an interrupted import are kept, 20 products" in line for line in shop.said)


@pytest.mark.slow
def test_in_parallel_too_pages_that_were_fetched_are_not_asked_for_again(shop: ApiShop) -> None:
    shop.api.faults = {2: busy()}
    with pytest.raises(TemporaryFailure, match="page 2"):
        shop.run(**PARALLEL)
    assert shop.kept == [1, 3, 4]
    shop.api.faults = {}
    done = shop.run(**PARALLEL)
    assert (done["new"], shop.api.pages_asked) == (35, [2, 5])


@pytest.mark.slow
def test_a_killed_import_uses_its_pages_and_fetches_anew_if_it_was_killed_at_its_end(shop: ApiShop) -> None:
    with killed_at(Catalog, "replace_products"):
        shop.run()
    assert len(shop.kept) == 5
    assert shop.run()["new"] == 35
    assert (shop.api.asked, shop.kept) == ([], [])
    shop.api.items.append(product(99))
    with killed_at(api_source.ApiSource, "discard"):
        shop.run()
    assert len(shop.kept) == 5
    shop.api.items.append(product(100))
    assert shop.run()["new"] == 1
    assert any("imported before: all pages are fetched anew" in line for line in shop.said)


@pytest.mark.slow
def test_pages_of_another_time_or_source_are_not_used(shop: ApiShop) -> None:
    shop.api.faults = {3: busy()}
    with pytest.raises(TemporaryFailure):
        shop.run()
    [started] = (shop.folder / "catalog").glob("_staging/pages-*/started.json")
    shop.api.faults = {1: busy()}
    with pytest.raises(TemporaryFailure):  # other pages, in a folder of their own
        shop.run(headers={"X-Shop": "7"})
    assert len(shop.kept) == 2
    shop.api.faults = {}
    started.write_text(json.dumps({"started_at": 1000}))
    assert shop.run()["new"] == 35
    assert shop.api.pages_asked == [1, 2, 3, 4, 5]
    assert any("older than 24 hours" in line for line in shop.said)


@pytest.mark.slow
def test_fewer_products_than_announced_and_pages_twice_are_refused_and_not_kept_and_more_are_imported(
    shop: ApiShop,
) -> None:
    shop.api.total = 36
    with pytest.raises(DataContractError, match="announces 36 products and gave 35"):
        shop.run(**PARALLEL)
    shop.api.total, shop.api.faults = None, {4: body(shop.api.page(2)[2])}
    with pytest.raises(DataContractError, match="pages 2 and 4 are the same"):
        shop.run(**PARALLEL)
    assert shop.kept == []
    assert shop.catalog.version("products") == -1
    shop.api.total, shop.api.faults = 11, {}
    assert shop.run(**PARALLEL)["new"] == 35


def test_a_broken_page_in_a_task_and_a_missing_token_are_refused(
    shop: ApiShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.api.faults = {3: body(b"[}")}
    with pytest.raises(DataContractError, match="page 3 is broken"):
        shop.run(**PARALLEL)
    shop.api.faults = {}
    with pytest.raises(DataContractError, match=r"column 'name' does not exist. Available columns: \['colour', 'id'"):
        shop.imported(mapping={"title": "name"})
    monkeypatch.delenv("SHOP_TOKEN")
    with pytest.raises(ConfigError, match="environment variable SHOP_TOKEN is not set"):
        shop.run()
    assert shop.api.asked == []
