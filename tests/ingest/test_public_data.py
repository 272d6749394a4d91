"""The papers' public data sets, in their published layouts, through the shipped configs and the import job.

Every folder written here has the files, headers, spellings and errors of the original, with a few products.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from catalog_enrichment import resources
from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.config.load import load_config
from catalog_enrichment.config.schema import Config
from catalog_enrichment.context import Context, load_dictionary
from catalog_enrichment.errors import DataContractError
from catalog_enrichment.ingest.job import import_products
from catalog_enrichment.inputs.picture_sources import MISSING
from catalog_enrichment.spark import category_filters

from .read_source import read_source

ROWS = 24  # the snapshot suite accepts up to a tenth of bad rows


@dataclass(frozen=True)
class DataSet:
    """A data set in ``folder`` and its shipped config."""

    name: str
    folder: Path
    spark: Any

    def config(self, *overrides: str) -> Config:
        # pictures are not sampled: few of them are there, and no test asks for a public host
        here = [f"root={json.dumps(str(self.folder))}", "images.sample=0"]
        return load_config(f"config:{self.name}.toml", [*here, *overrides])

    def write(self, path: str, content: str | bytes) -> None:
        file = self.folder / "data" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)

    def table(self, path: str, rows: list[list[Any]], separator: str = ",") -> None:
        """As pandas' to_csv writes it: quoted where needed, an empty cell for a missing value."""
        sink = io.StringIO()
        csv.writer(sink, delimiter=separator, lineterminator="\n").writerows(rows)
        self.write(path, sink.getvalue())

    def picture(self, path: str, shade: int) -> None:
        sink = io.BytesIO()
        Image.new("RGB", (16, 16), (shade, 80, 255 - shade)).save(sink, format="JPEG")
        self.write(path, sink.getvalue())

    def imported(self, *overrides: str) -> ImportResult:
        config = self.config(*overrides)
        catalog, dictionary = Catalog(config.path(config.catalog.path), self.spark), load_dictionary(config)
        summary = import_products(Context(config, self.spark, catalog, dictionary, say=lambda _: None))
        products = {row.product_id: row for row in catalog.read("products").collect()}
        quarantine = {row.product_id: row for row in catalog.read("quarantine").collect()}
        rows = summary["new"] + summary["changed"] + summary["unchanged"] + sum(summary["quarantined"].values())
        assert summary["products"] == rows
        # no data set has categories: their attributes apply to every product
        attribute = dictionary[dictionary.enabled[0]]
        assert {row.category for row in products.values()} == {None}
        assert catalog.read("products").where(category_filters.applies(attribute)).count() == len(products)
        return ImportResult(self.folder, summary, products, quarantine)

    def raw(self, *overrides: str) -> dict[str, Any]:
        """Product id -> row of the source, before validation."""
        config = self.config(*overrides)
        assert config.source is not None
        return {row.product_id: row for row in read_source(self.spark, config.source, config.path(".")).collect()}


@dataclass(frozen=True)
class ImportResult:
    root: Path
    summary: dict[str, Any]
    products: dict[str, Any]
    quarantine: dict[str, Any]

    def pictures(self) -> dict[str, str]:
        """Product -> file name of its picture, for pictures that exist and can be opened."""
        names = {}
        for name, row in self.products.items():
            (image,) = row.images
            if image.version != MISSING:
                Image.open(self.root / image.uri).verify()
                names[name] = Path(image.uri).name
        return names


def _rakuten(data_set: DataSet) -> list[list[Any]]:
    """Rows of X_train.tsv: the third has no description and the fourth no picture; one has no title, one is cut off."""
    rows: list[list[Any]] = []
    for number in range(ROWS):
        text = f'<b>Stylet</b> &eacute;l&#39;gant n°{number}<br>\nde la marque "PILOT"'
        rows.append([number, f"Stylo élégant {number}", text, 1000 + number, 2000 + number])
        if number != 3:
            data_set.picture(f"rakuten/image_train/image_{1000 + number}_product_{2000 + number}.jpg", number)
    rows[2][2], rows[7][2], rows[9][1] = "", "NaN", ""
    data_set.table(
        "rakuten/X_train.tsv", [["Integer_id", "Title", "Description", "Image_id", "Product_id"], *rows], "\t"
    )
    return rows


@pytest.mark.slow
def test_rakuten_sigir2020(spark: Any, tmp_path: Path) -> None:
    data_set = DataSet("rakuten_sigir2020", tmp_path, spark)
    rows = _rakuten(data_set)
    # labels in another order: one product has none, one label has no product, one code is not in the dictionary
    labels = [[number, (10, 2905)[number % 2]] for number in reversed(range(ROWS)) if number != 5]
    labels[0][1] = 4711
    data_set.table("rakuten/Y_train.tsv", [["Integer_id", "Prdtypecode"], *labels, [99_999, 10]], "\t")

    result = data_set.imported()
    assert (result.summary["new"], result.summary["quarantined"]) == (ROWS - 1, {"empty_title": 1})
    assert result.quarantine["9"].reason == "empty_title"
    first = result.products["0"]
    assert (first.title, first.description, first.language) == (rows[0][1], rows[0][2], "fr")
    assert result.products["2"].description is None
    assert result.products["7"].description is None
    assert first.merchant_attributes == {"product_type": ["10"]}
    assert result.products["1"].merchant_attributes == {"product_type": ["2905"]}
    assert result.products["5"].merchant_attributes == {}
    assert result.summary["merchant_values"] == {"product_type": {"mapped": ROWS - 3, "unmapped": 1}}
    pictures = result.pictures()
    assert pictures["0"] == "image_1000_product_2000.jpg"
    assert set(result.products) - set(pictures) == {"3"}

    labels[1][1] = 60
    data_set.table("rakuten/Y_train.tsv", [["Integer_id", "Prdtypecode"], *labels], "\t")
    again = data_set.imported()
    assert (again.summary["changed"], again.summary["new"]) == (1, 0)
    assert again.products[str(labels[1][0])].merchant_attributes == {"product_type": ["60"]}


def test_rakuten_labels_without_an_id_are_matched_by_row_order(spark: Any, tmp_path: Path) -> None:
    data_set = DataSet("rakuten_sigir2020", tmp_path, spark)
    rows = _rakuten(data_set)
    codes = [(10, 2280, 2905)[number % 3] for number in range(ROWS)]
    (by_row,) = _documented_overrides("rakuten_sigir2020")[0]
    data_set.table("rakuten/Y_train.tsv", [["Prdtypecode"], *[[code] for code in codes]], "\t")
    raw = data_set.raw(by_row)
    assert {name: row.merchant_attributes["product_type"] for name, row in raw.items()} == {
        str(row[0]): [str(code)] for row, code in zip(rows, codes, strict=True)
    }
    data_set.table("rakuten/Y_train.tsv", [["Prdtypecode"], *[[code] for code in codes[1:]]], "\t")
    with pytest.raises(DataContractError, match=r"has 24 rows and .*Y_train.tsv has 23.*source.labels.key"):
        data_set.raw(by_row)


@pytest.mark.slow
def test_rakuten_as_the_ens_publishes_it(spark: Any, tmp_path: Path) -> None:
    data_set = DataSet("rakuten_sigir2020", tmp_path, spark)
    rows = [[n, f"Livre {n}", "" if n == 2 else f"<p>Le livre, {n}</p>", 50 + n, 60 + n] for n in range(ROWS)]
    data_set.table("rakuten/X_train_update.csv", [["", "designation", "description", "productid", "imageid"], *rows])
    data_set.table("rakuten/Y_train_CVw08PX.csv", [["", "prdtypecode"], *[[n, 2403] for n in range(ROWS)]])
    data_set.picture(f"rakuten/images/image_train/image_{60 + 4}_product_{50 + 4}.jpg", 4)
    result = data_set.imported(*_documented_overrides("rakuten_sigir2020")[1])
    assert len(result.products) == ROWS
    assert result.products["3"].description == "<p>Le livre, 3</p>"
    assert result.products["3"].merchant_attributes == {"product_type": ["2403"]}
    assert result.pictures() == {"4": "image_64_product_54.jpg"}


def test_ens_colour(spark: Any, tmp_path: Path) -> None:
    data_set = DataSet("ens_colour", tmp_path, spark)
    rows: list[list[Any]] = []
    for number in range(ROWS):
        name = f"2780{number:02d}_10389968_1.jpg"
        rows.append([number, name, f"三協アルミ 梁置きタイプ {number}", f"■商品説明\n<br>サイズ 幅, {number}mm"])
        if number not in (1, 2):
            data_set.picture(f"ens_colour/images/{name}", number)
    rows[4][3], rows[5][2] = "", "　"  # no caption; an ideographic space is no title
    tags = [str(["Black", "White"]) for _ in rows]
    tags[0], tags[1], tags[6] = "['Silver', 'Grey', 'Black']", "['Multiple Colors']", "[]"
    data_set.table("ens_colour/X_train.csv", [["", "image_file_name", "item_name", "item_caption"], *rows])
    data_set.table("ens_colour/y_train.csv", [["", "color_tags"], *[[number, tag] for number, tag in enumerate(tags)]])

    result = data_set.imported()
    assert (len(result.products), result.summary["quarantined"]) == (ROWS - 1, {"empty_title": 1})
    names = [row[1] for row in rows]
    assert set(result.quarantine) == {names[5]}
    first = result.products[names[0]]
    assert (first.title, first.description, first.language) == (rows[0][2], rows[0][3], "ja")
    assert first.merchant_attributes == {"color": ["Silver", "Grey", "Black"]}
    assert result.products[names[1]].merchant_attributes == {"color": ["Multiple Colors"]}
    assert result.products[names[4]].description is None
    assert result.products[names[6]].merchant_attributes == {}
    assert result.summary["merchant_values"]["color"]["unmapped"] == 0
    assert set(result.products) - set(result.pictures()) == {names[1], names[2]}


@pytest.mark.slow
def test_mm_imdb(spark: Any, tmp_path: Path) -> None:
    data_set = DataSet("mm_imdb", tmp_path, spark)
    ids = [f"{36_000 + number:07d}" for number in range(ROWS)]
    for number, name in enumerate(ids):
        plot = [] if number == 1 else [f"A <i>plot</i> {number}.", "Another."]
        genres = ["Reality-TV", "Comedy"] if number == 2 else ["Drama", "Film-Noir"]
        film = {"title": f"Film n°{number}", "plot": plot, "genres": genres, "year": 1990, "kind": "movie"}
        film |= {"cast": [{"name": "A. Person"}], "cover url": "http://ia.media/x.jpg"}
        data_set.write(f"mmimdb/dataset/{name}.json", json.dumps(film, indent=2 if number % 2 else None))
        if number != 3:
            data_set.picture(f"mmimdb/dataset/{name}.jpeg", number)
    data_set.write(f"mmimdb/dataset/{ids[4]}.json", '{"title": "cut o')
    data_set.write(f"mmimdb/dataset/{ids[5]}.json", "")
    data_set.write("mmimdb/split.json", json.dumps({"train": ids[:12], "dev": ids[12:16], "test": ids[16:]}))

    result = data_set.imported()
    assert (len(result.products), result.summary["quarantined"]) == (ROWS - 2, {"unparseable_row": 2})
    assert set(result.quarantine) == {ids[4], ids[5]}
    first = result.products[ids[0]]
    assert (first.title, first.description) == ("Film n°0", "A <i>plot</i> 0.\nAnother.")
    assert first.merchant_attributes == {"genre": ["Drama", "Film-Noir"]}
    assert result.products[ids[1]].description is None
    assert result.products[ids[2]].merchant_attributes == {"genre": ["Reality-TV", "Comedy"]}
    assert result.products[ids[12]].merchant_attributes
    assert {result.products[name].merchant_attributes.get("genre") for name in ids[16:]} == {None}
    assert result.summary["merchant_values"]["genre"]["unmapped"] == 1
    assert set(result.products) - set(result.pictures()) == {ids[3]}
    (everything,) = _documented_overrides("mm_imdb")[0]
    assert data_set.raw(everything)[ids[20]].merchant_attributes == {"genre": ["Drama", "Film-Noir"]}
    assert data_set.raw("source.mapping.description=plot[-1]")[ids[0]].description == "Another."


@pytest.mark.slow
def test_food101(spark: Any, tmp_path: Path) -> None:
    data_set = DataSet("food101", tmp_path, spark)
    dishes = ["apple_pie", "waffles", "macaroni_and_cheese"]
    rows = [[f"{dish}_{n}.jpg", f'Best "{dish}", ever &amp; easy | {n}', dish] for dish in dishes for n in range(8)]
    for name, _, dish in rows[1:]:
        data_set.picture(f"food101/images/train/{dish}/{name}", 3)
    data_set.table("food101/texts/train_titles.csv", rows)
    with (tmp_path / "data/food101/texts/train_titles.csv").open("a") as file:
        file.write("cut_off_1.jpg\n")
    test = [[f"{dish}_{n}.jpg", f"Recipe {n}", dish] for dish in dishes for n in range(100, 104)]
    data_set.table("food101/texts/test_titles.csv", test)
    data_set.picture("food101/images/test/waffles/waffles_100.jpg", 5)

    result = data_set.imported()
    assert (len(result.products), result.summary["quarantined"]) == (24, {"unparseable_row": 1})
    assert result.products["waffles_3.jpg"].title == rows[11][1]
    assert result.products["waffles_3.jpg"].merchant_attributes == {"dish": ["waffles"]}
    assert result.summary["merchant_values"] == {"dish": {"mapped": 24, "unmapped": 0}}
    assert set(result.products) - set(result.pictures()) == {"apple_pie_0.jpg"}
    both = data_set.imported(*_documented_overrides("food101")[0])
    assert (len(both.products), both.summary["new"]) == (36, 12)
    assert both.products["waffles_100.jpg"].merchant_attributes == {}
    assert both.pictures()["waffles_100.jpg"] == "waffles_100.jpg"


@pytest.mark.slow
def test_amazon_reviews_of_2014_are_python_literals(spark: Any, tmp_path: Path) -> None:
    data_set = DataSet("amazon_reviews", tmp_path, spark)
    rows: list[dict[str, Any]] = []
    for number in range(ROWS):
        paths = [["Beauty", "Hair Care", "Shampoos"], ["Beauty", "Gifts"]]
        row = {"asin": f"B{number:09d}", "title": f"Dr. O'Neil's {number}\" brush", "categories": paths, "price": 9.5}
        row |= {"description": f"<p>Caf\xe9 \u2014 it's \\ {number}</p>", "related": {"also_viewed": ["B1"]}}
        rows.append(row | {"brand": None, "imUrl": f"http://ecx.images-amazon.com/images/I/{number}.jpg"})
    rows[1] |= {"categories": [["Beauty"]]}
    rows[2] |= {"categories": []}
    del rows[3]["description"], rows[3]["imUrl"], rows[4]["title"]
    lines = [*map(repr, rows), "{'asin': 'cut', 'title': 'a", ""]
    data_set.write("amazon/meta_Beauty.json.gz", gzip.compress("\n".join(lines).encode()))

    result = data_set.imported()
    assert (len(result.products), result.summary["quarantined"]) == (ROWS - 1, {"empty_title": 1, "unparseable_row": 1})
    assert {row.payload[:15] for row in result.quarantine.values() if row.reason == "unparseable_row"} == {
        lines[-2][:15]
    }
    first = result.products["B000000000"]
    assert (first.title, first.description) == (rows[0]["title"], rows[0]["description"])
    assert first.merchant_attributes == {"category": ["Shampoos"]}
    assert result.products["B000000001"].merchant_attributes == {"category": ["Beauty"]}
    assert result.products["B000000002"].merchant_attributes == {}
    assert (result.products["B000000003"].description, result.products["B000000003"].images) == (None, [])
    assert [image.uri for image in first.images] == [rows[0]["imUrl"]]
    data_set.picture("amazon/images/B000000000.jpg", 1)
    local = data_set.raw(*_documented_overrides("amazon_reviews")[2])
    assert [local[f"B00000000{n}"].images[0].version == MISSING for n in (0, 1)] == [False, True]


AMAZON_2018: list[dict[str, Any]] = [
    {
        "asin": f"B{number}",
        "title": "Soap",
        "description": ["First.", "Second."] if number else [],
        "category": ["Beauty", "Bath", "Soap &amp; Co" if number % 2 else "Sponges"] if number else [],
        "imageURLHighRes": [f"https://images-na.ssl-images-amazon.com/images/I/{number}{side}.jpg" for side in "ab"],
    }
    for number in range(ROWS)
]


def test_amazon_reviews_of_2018_are_json_lines(spark: Any, tmp_path: Path) -> None:
    data_set = DataSet("amazon_reviews", tmp_path, spark)
    data_set.write("amazon/meta_Beauty.json.gz", gzip.compress("\n".join(map(json.dumps, AMAZON_2018)).encode()))
    result = data_set.imported(*_documented_overrides("amazon_reviews")[1])
    assert len(result.products) == ROWS
    assert (result.products["B0"].description, result.products["B0"].merchant_attributes) == (None, {})
    assert result.products["B1"].description == "First.\nSecond."
    assert result.products["B1"].merchant_attributes == {"category": ["Soap &amp; Co"]}
    assert [image.uri for image in result.products["B2"].images] == AMAZON_2018[2]["imageURLHighRes"]


def _documented_overrides(name: str) -> list[list[str]]:
    """The --set overrides in the header of a shipped config, one list for each variant of the data set."""
    variants: list[list[str]] = []
    in_variant = False
    for line in resources.locate(f"config:{name}.toml").read_text().splitlines():
        has_overrides = line.startswith("#") and "--set" in line
        if has_overrides and not in_variant:
            variants.append([])
        if has_overrides:
            arguments = shlex.split(line[line.index("--set") :].removesuffix("\\"))
            variants[-1] += [argument for argument in arguments if argument != "--set"]
        in_variant = has_overrides
    return variants
