"""Pictures sent as bytes are kept apart from the products, and once."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from catalog_enrichment import dictionary, resources
from catalog_enrichment.catalog.lake import LakeCatalog
from catalog_enrichment.config import strict
from catalog_enrichment.config.schema import Config
from catalog_enrichment.context import Context
from catalog_enrichment.ingest.job import import_products
from catalog_enrichment.inputs.images import first_usable
from catalog_enrichment.inputs.square import Square
from catalog_enrichment.inputs.stored_pictures import StoredPictures

from ..catalog.catalog_rows import product
from ..sample_catalog import jpeg

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

RED, BLUE = jpeg((200, 0, 0)), jpeg((0, 0, 200))


class Shop:
    """A merchants' parquet file with pictures in it."""

    def __init__(self, spark: SparkSession, folder: Path) -> None:
        content = {
            "catalog": {"path": "catalog", "dictionary": "schemas:attributes/fashion.v1.json"},
            "mlflow": {"tracking_uri": "sqlite:///mlflow.db"},
            "root": str(folder),
            "source": {"format": "parquet", "path": "feed.parquet", "mapping": {"image_bytes": "picture"}},
        }
        config = strict.build(Config, content, where="test")
        attributes = dictionary.load(resources.locate("schemas:attributes/fashion.v1.json"))
        self.catalog = LakeCatalog(folder / "catalog", spark)
        self.context = Context(config, spark, self.catalog, attributes, say=lambda _: None)
        self.store = StoredPictures(folder / "catalog" / "pictures")
        self._feed = folder / "feed.parquet"

    def run(self, pictures: dict[str, bytes | None], title: str = "t") -> dict[str, Any]:
        rows = [{"product_id": name, "title": title, "picture": data} for name, data in pictures.items()]
        pq.write_table(pa.Table.from_pylist(rows), self._feed)
        return import_products(self.context)

    def images(self) -> dict[str, list[dict[str, Any]]]:
        rows = self.catalog.read("products").select("product_id", "images").collect()
        return {row["product_id"]: [image.asDict() for image in row["images"]] for row in rows}

    def kept(self) -> dict[str, int]:
        """Version -> i-node of its file."""
        return {file.name: self.store.path(file.name).stat().st_ino for file in self.store.files()}


@pytest.fixture
def shop(spark: SparkSession, tmp_path: Path) -> Shop:
    return Shop(spark, tmp_path)


def version(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_each_picture_is_kept_once_whatever_is_imported(shop: Shop) -> None:
    summary = shop.run({"a": RED, "b": RED, "c": None, "d": BLUE})
    assert (summary["new"], summary["pictures_tried"], summary["unusable_pictures"]) == (4, 3, {})
    kept = shop.kept()
    assert set(kept) == {version(RED), version(BLUE)}
    named = {"bytes": None, "uri": None}
    assert shop.images() == {
        "a": [named | {"version": version(RED)}], "b": [named | {"version": version(RED)}], "c": [],
        "d": [named | {"version": version(BLUE)}],
    }  # fmt: skip

    assert shop.run({"a": RED, "b": BLUE, "c": None, "d": BLUE}, title="other")["changed"] == 4
    assert shop.kept() == kept  # the same files, not written again
    assert shop.images()["b"] == shop.images()["d"]


def test_pictures_that_an_earlier_release_kept_in_the_table_move_out_with_the_next_import(shop: Shop) -> None:
    in_table = [
        {"bytes": RED, "uri": None, "version": version(RED)},
        {"bytes": None, "uri": "https://x.example/1", "version": "1"},
    ]
    rows = [product("old", images=in_table), product("none", images=[]), product("reference", images=in_table[1:])]
    shop.catalog.append_rows("products", rows, "import-0")
    shop.run({"new": BLUE})

    images = shop.images()
    assert images["old"] == [in_table[0] | {"bytes": None}, in_table[1]]
    assert (images["none"], images["reference"]) == ([], in_table[1:])
    assert set(shop.kept()) == {version(RED), version(BLUE)}
    seen = first_usable(images["old"], Square(8), shop.context.config.pictures())
    assert seen.pixels is not None
