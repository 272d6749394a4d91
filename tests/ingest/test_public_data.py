"""The papers' public data, in the layouts that their owners publish, through the shipped configs and the real import.

Every folder written here has the files, headers, spellings and flaws of the original, with a handful of products.
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

from catalog_enrichment import dictionary, resources
from catalog_enrichment.catalog import category_filters
from catalog_enrichment.catalog.lake import LakeCatalog
from catalog_enrichment.config.load import load_config
from catalog_enrichment.config.schema import Config
from catalog_enrichment.context import Context, load_dictionary
from catalog_enrichment.errors import DataContractError
from catalog_enrichment.ingest import draft_dictionary
from catalog_enrichment.ingest.feeds import MISSING, read_source
from catalog_enrichment.ingest.job import import_products
from catalog_enrichment.stages import Stages

ROWS = 24  # the snapshot gate lets a tenth of the rows be bad


@dataclass(frozen=True)
class Owner:
    """A data set on disk under ``folder``, and the shipped config for it."""

    name: str
    folder: Path
    spark: Any

    def config(self, *overrides: str) -> Config:
        return load_config(f"config:{self.name}.toml", [f"root={json.dumps(str(self.folder))}", *overrides])

    def write(self, path: str, content: str | bytes) -> None:
        file = self.folder / "data" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)

    def table(self, path: str, rows: list[list[Any]], separator: str = ",") -> None:
        """As pandas' to_csv writes it: quoted where needed, nothing for a missing value."""
        sink = io.StringIO()
        csv.writer(sink, delimiter=separator, lineterminator="\n").writerows(rows)
        self.write(path, sink.getvalue())

    def picture(self, path: str, shade: int) -> None:
        sink = io.BytesIO()
        Image.new("RGB", (16, 16), (shade, 80, 255 - shade)).save(sink, format="JPEG")
        self.write(path, sink.getvalue())

    def catalog(self, *overrides: str) -> LakeCatalog:
        return LakeCatalog(self.config(*overrides).path(self.config().catalog.path), self.spark)

    def imported(self, *overrides: str) -> Imported:
        config = self.config(*overrides)
        catalog, words = self.catalog(*overrides), load_dictionary(config)
        summary = import_products(Context(config, self.spark, catalog, words, Stages(say=lambda _: None)))
        products = {row.product_id: row for row in catalog.read("products").collect()}
        bad = {row.product_id: row for row in catalog.read("quarantine").collect()}
        fates = summary["new"] + summary["changed"] + summary["unchanged"] + sum(summary["quarantined"].values())
        assert summary["products"] == fates
        # none of the data sets says a category: their attributes apply to every product
        attribute = words[words.enabled[0]]
        assert {row.category for row in products.values()} == {None}
        assert catalog.read("products").where(category_filters.applies(attribute)).count() == len(products)
        return Imported(summary, products, bad)

    def raw(self, *overrides: str) -> dict[str, Any]:
        """What is read, before validation."""
        config = self.config(*overrides)
        assert config.source is not None
        return {row.product_id: row for row in read_source(self.spark, config.source, config.path(".")).collect()}


@dataclass(frozen=True)
class Imported:
    summary: dict[str, Any]
    products: dict[str, Any]
    quarantine: dict[str, Any]

    def pictures(self) -> dict[str, str]:
        """Product -> name of its picture, which is there and can be opened."""
        found = {}
        for name, row in self.products.items():
            (image,) = row.images
            if image.version != MISSING:
                Image.open(image.uri).verify()
                found[name] = Path(image.uri).name
        return found


def _rakuten(owner: Owner) -> list[list[Any]]:
    """Rows of X_train.tsv: the third has no description and the fourth no picture; one has no title, one is cut off."""
    rows: list[list[Any]] = []
    for number in range(ROWS):
        text = f'<b>Stylet</b> &eacute;l&#39;gant n°{number}<br>\nde la marque "PILOT"'
        rows.append([number, f"Stylo élégant {number}", text, 1000 + number, 2000 + number])
        if number != 3:
            owner.picture(f"rakuten/image_train/image_{1000 + number}_product_{2000 + number}.jpg", number)
    rows[2][2], rows[7][2], rows[9][1] = "", "NaN", ""
    owner.table("rakuten/X_train.tsv", [["Integer_id", "Title", "Description", "Image_id", "Product_id"], *rows], "\t")
    return rows


def test_rakuten_sigir2020(spark: Any, tmp_path: Path) -> None:
    owner = Owner("rakuten_sigir2020", tmp_path, spark)
    rows = _rakuten(owner)
    # labels in another order, one product without, one product that is not there, one code that nobody knows
    labels = [[number, (10, 2905)[number % 2]] for number in reversed(range(ROWS)) if number != 5]
    labels[0][1] = 4711
    owner.table("rakuten/Y_train.tsv", [["Integer_id", "Prdtypecode"], *labels, [99_999, 10]], "\t")

    found = owner.imported()
    assert (found.summary["new"], found.summary["quarantined"]) == (ROWS - 1, {"empty_title": 1})
    assert found.quarantine["9"].reason == "empty_title"
    first = found.products["0"]
    assert (first.title, first.description, first.language) == (rows[0][1], rows[0][2], "fr")
    assert found.products["2"].description is None
    assert found.products["7"].description is None
    assert first.merchant_attributes == {"product_type": ["10"]}
    assert found.products["1"].merchant_attributes == {"product_type": ["2905"]}
    assert found.products["5"].merchant_attributes == {}
    assert found.summary["merchant_values"] == {"product_type": {"mapped": ROWS - 3, "unmapped": 1}}
    pictures = found.pictures()
    assert pictures["0"] == "image_1000_product_2000.jpg"
    assert set(found.products) - set(pictures) == {"3"}

    labels[1][1] = 60
    owner.table("rakuten/Y_train.tsv", [["Integer_id", "Prdtypecode"], *labels], "\t")
    again = owner.imported()
    assert (again.summary["changed"], again.summary["new"]) == (1, 0)
    assert again.products[str(labels[1][0])].merchant_attributes == {"product_type": ["60"]}


def test_rakuten_labels_without_an_id_go_by_the_order_of_rows(spark: Any, tmp_path: Path) -> None:
    owner = Owner("rakuten_sigir2020", tmp_path, spark)
    rows = _rakuten(owner)
    codes = [(10, 2280, 2905)[number % 3] for number in range(ROWS)]
    (by_row,) = _documented("rakuten_sigir2020")[0]
    owner.table("rakuten/Y_train.tsv", [["Prdtypecode"], *[[code] for code in codes]], "\t")
    found = owner.raw(by_row)
    assert {name: row.merchant_attributes["product_type"] for name, row in found.items()} == {
        str(row[0]): [str(code)] for row, code in zip(rows, codes, strict=True)
    }
    owner.table("rakuten/Y_train.tsv", [["Prdtypecode"], *[[code] for code in codes[1:]]], "\t")
    with pytest.raises(DataContractError, match=r"has 24 rows and .*Y_train.tsv has 23.*source.labels.key"):
        owner.raw(by_row)


def test_rakuten_as_the_ens_publishes_it(spark: Any, tmp_path: Path) -> None:
    owner = Owner("rakuten_sigir2020", tmp_path, spark)
    rows = [[n, f"Livre {n}", "" if n == 2 else f"<p>Le livre, {n}</p>", 50 + n, 60 + n] for n in range(ROWS)]
    owner.table("rakuten/X_train_update.csv", [["", "designation", "description", "productid", "imageid"], *rows])
    owner.table("rakuten/Y_train_CVw08PX.csv", [["", "prdtypecode"], *[[n, 2403] for n in range(ROWS)]])
    owner.picture(f"rakuten/images/image_train/image_{60 + 4}_product_{50 + 4}.jpg", 4)
    found = owner.imported(*_documented("rakuten_sigir2020")[1])
    assert len(found.products) == ROWS
    assert found.products["3"].description == "<p>Le livre, 3</p>"
    assert found.products["3"].merchant_attributes == {"product_type": ["2403"]}
    assert found.pictures() == {"4": "image_64_product_54.jpg"}


def test_ens_colour(spark: Any, tmp_path: Path) -> None:
    owner = Owner("ens_colour", tmp_path, spark)
    rows: list[list[Any]] = []
    for number in range(ROWS):
        name = f"2780{number:02d}_10389968_1.jpg"
        rows.append([number, name, f"三協アルミ 梁置きタイプ {number}", f"■商品説明\n<br>サイズ 幅, {number}mm"])
        if number not in (1, 2):
            owner.picture(f"ens_colour/images/{name}", number)
    rows[4][3], rows[5][2] = "", "　"  # no caption; an ideographic space is no title
    tags = [str(["Black", "White"]) for _ in rows]
    tags[0], tags[1], tags[6] = "['Silver', 'Grey', 'Black']", "['Multiple Colors']", "[]"
    owner.table("ens_colour/X_train.csv", [["", "image_file_name", "item_name", "item_caption"], *rows])
    owner.table("ens_colour/y_train.csv", [["", "color_tags"], *[[number, tag] for number, tag in enumerate(tags)]])

    found = owner.imported()
    assert (len(found.products), found.summary["quarantined"]) == (ROWS - 1, {"empty_title": 1})
    names = [row[1] for row in rows]
    assert set(found.quarantine) == {names[5]}
    first = found.products[names[0]]
    assert (first.title, first.description, first.language) == (rows[0][2], rows[0][3], "ja")
    assert first.merchant_attributes == {"color": ["Silver", "Grey", "Black"]}
    assert found.products[names[1]].merchant_attributes == {"color": ["Multiple Colors"]}
    assert found.products[names[4]].description is None
    assert found.products[names[6]].merchant_attributes == {}
    assert found.summary["merchant_values"]["color"]["unmapped"] == 0
    assert set(found.products) - set(found.pictures()) == {names[1], names[2]}


def test_mm_imdb(spark: Any, tmp_path: Path) -> None:
    owner = Owner("mm_imdb", tmp_path, spark)
    ids = [f"{36_000 + number:07d}" for number in range(ROWS)]
    for number, name in enumerate(ids):
        film = {
            "title": f"Film n°{number}",
            "plot": [f"A <i>plot</i> {number}.", "Another."],
            "year": 1990,
            "kind": "movie",
        }
        film |= {
            "genres": ["Drama", "Film-Noir"],
            "cast": [{"name": "A. Person"}],
            "cover url": "http://ia.media/x.jpg",
        }
        film |= {"plot": []} if number == 1 else {}
        film |= {"genres": ["Reality-TV", "Comedy"]} if number == 2 else {}
        owner.write(f"mmimdb/dataset/{name}.json", json.dumps(film, indent=2 if number % 2 else None))
        if number != 3:
            owner.picture(f"mmimdb/dataset/{name}.jpeg", number)
    owner.write(f"mmimdb/dataset/{ids[4]}.json", '{"title": "cut o')
    owner.write(f"mmimdb/dataset/{ids[5]}.json", "")
    owner.write("mmimdb/split.json", json.dumps({"train": ids[:12], "dev": ids[12:16], "test": ids[16:]}))

    found = owner.imported()
    assert (len(found.products), found.summary["quarantined"]) == (ROWS - 2, {"unparseable_row": 2})
    assert set(found.quarantine) == {ids[4], ids[5]}
    first = found.products[ids[0]]
    assert (first.title, first.description) == ("Film n°0", "A <i>plot</i> 0.\nAnother.")
    assert first.merchant_attributes == {"genre": ["Drama", "Film-Noir"]}
    assert found.products[ids[1]].description is None
    assert found.products[ids[2]].merchant_attributes == {"genre": ["Reality-TV", "Comedy"]}
    assert found.products[ids[12]].merchant_attributes
    assert {found.products[name].merchant_attributes.get("genre") for name in ids[16:]} == {None}
    assert found.summary["merchant_values"]["genre"]["unmapped"] == 1
    assert set(found.products) - set(found.pictures()) == {ids[3]}
    (everything,) = _documented("mm_imdb")[0]
    assert owner.raw(everything)[ids[20]].merchant_attributes == {"genre": ["Drama", "Film-Noir"]}
    assert owner.raw("source.mapping.description=plot[-1]")[ids[0]].description == "Another."


def test_food101(spark: Any, tmp_path: Path) -> None:
    owner = Owner("food101", tmp_path, spark)
    dishes = ["apple_pie", "waffles", "macaroni_and_cheese"]
    rows = [[f"{dish}_{n}.jpg", f'Best "{dish}", ever &amp; easy | {n}', dish] for dish in dishes for n in range(8)]
    for name, _, dish in rows[1:]:
        owner.picture(f"food101/images/train/{dish}/{name}", 3)
    owner.table("food101/texts/train_titles.csv", rows)
    with (tmp_path / "data/food101/texts/train_titles.csv").open("a") as file:
        file.write("cut_off_1.jpg\n")
    test = [[f"{dish}_{n}.jpg", f"Recipe {n}", dish] for dish in dishes for n in range(100, 104)]
    owner.table("food101/texts/test_titles.csv", test)
    owner.picture("food101/images/test/waffles/waffles_100.jpg", 5)

    found = owner.imported()
    assert (len(found.products), found.summary["quarantined"]) == (24, {"unparseable_row": 1})
    assert found.products["waffles_3.jpg"].title == rows[11][1]
    assert found.products["waffles_3.jpg"].merchant_attributes == {"dish": ["waffles"]}
    assert found.summary["merchant_values"] == {"dish": {"mapped": 24, "unmapped": 0}}
    assert set(found.products) - set(found.pictures()) == {"apple_pie_0.jpg"}
    both = owner.imported(*_documented("food101")[0])
    assert (len(both.products), both.summary["new"]) == (36, 12)
    assert both.products["waffles_100.jpg"].merchant_attributes == {}
    assert both.pictures()["waffles_100.jpg"] == "waffles_100.jpg"


def test_amazon_reviews_of_2014_are_python_literals(spark: Any, tmp_path: Path) -> None:
    owner = Owner("amazon_reviews", tmp_path, spark)
    rows: list[dict[str, Any]] = []
    for number in range(ROWS):
        paths = [["Beauty", "Hair Care", "Shampoos"], ["Beauty", "Gifts"]]
        row = {"asin": f"B{number:09d}", "title": f"Dr. O'Neil's {number}\" brush", "categories": paths, "price": 9.5}
        row |= {
            "description": f"<p>Caf\xe9 \u2014 it's \\ {number}</p>",
            "related": {"also_viewed": ["B1"]},
            "brand": None,
        }
        rows.append(row | {"imUrl": f"http://ecx.images-amazon.com/images/I/{number}.jpg"})
    rows[1] |= {"categories": [["Beauty"]]}
    rows[2] |= {"categories": []}
    del rows[3]["description"], rows[3]["imUrl"], rows[4]["title"]
    lines = [*map(repr, rows), "{'asin': 'cut', 'title': 'a", ""]
    owner.write("amazon/meta_Beauty.json.gz", gzip.compress("\n".join(lines).encode()))

    found = owner.imported()
    assert (len(found.products), found.summary["quarantined"]) == (ROWS - 1, {"empty_title": 1, "unparseable_row": 1})
    assert {row.payload[:15] for row in found.quarantine.values() if row.reason == "unparseable_row"} == {
        lines[-2][:15]
    }
    first = found.products["B000000000"]
    assert (first.title, first.description) == (rows[0]["title"], rows[0]["description"])
    assert first.merchant_attributes == {"category": ["Shampoos"]}
    assert found.products["B000000001"].merchant_attributes == {"category": ["Beauty"]}
    assert found.products["B000000002"].merchant_attributes == {}
    assert (found.products["B000000003"].description, found.products["B000000003"].images) == (None, [])
    assert [image.uri for image in first.images] == [rows[0]["imUrl"]]
    owner.picture("amazon/images/B000000000.jpg", 1)
    local = owner.raw(*_documented("amazon_reviews")[2])
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
    owner = Owner("amazon_reviews", tmp_path, spark)
    owner.write("amazon/meta_Beauty.json.gz", gzip.compress("\n".join(map(json.dumps, AMAZON_2018)).encode()))
    found = owner.imported(*_documented("amazon_reviews")[1])
    assert len(found.products) == ROWS
    assert (found.products["B0"].description, found.products["B0"].merchant_attributes) == (None, {})
    assert found.products["B1"].description == "First.\nSecond."
    assert found.products["B1"].merchant_attributes == {"category": ["Soap &amp; Co"]}
    assert [image.uri for image in found.products["B2"].images] == AMAZON_2018[2]["imageURLHighRes"]


def test_a_dictionary_is_built_from_the_data(spark: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    owner = Owner("amazon_reviews", tmp_path, spark)
    leaves = ["Shampoos"] * 5 + ["shampoos"] * 2 + ["Nail Polish"] * 3 + ["Wigs"]
    rows = [
        {"asin": str(n), "title": "t", "description": "", "imUrl": "", "categories": [["Beauty", leaf]]}
        for n, leaf in enumerate(leaves)
    ]
    owner.write("amazon/meta_Beauty.json.gz", gzip.compress("\n".join(map(repr, rows)).encode()))
    output = tmp_path / "data/amazon/attributes.json"
    arguments = [
        "--config",
        "config:amazon_reviews.toml",
        "--set",
        f"root={json.dumps(str(tmp_path))}",
        "--min-count",
        "2",
    ]
    assert draft_dictionary.main([*arguments, "--output", str(output)]) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert summary["attributes"] == {"category": {"values": 2, "too_rare": 1}}
    words = dictionary.load(output)["category"]
    assert (words.values, words.cardinality) == (("Shampoos", "Nail Polish"), "one")
    assert words.spellings()["shampoos"] == "Shampoos"
    assert draft_dictionary.main([*arguments, "--output", str(output)]) == 2
    assert "new file" in capsys.readouterr().err
    assert draft_dictionary.main([*arguments, "--output", str(output) + "2", "--min-count", "9"]) == 2
    assert "most frequent is 'Shampoos' with 7" in capsys.readouterr().err


def _documented(name: str) -> list[list[str]]:
    """The overrides that the header of a shipped config tells its readers to type, one list for each variant."""
    variants: list[list[str]] = []
    before = False
    for line in resources.locate(f"config:{name}.toml").read_text().splitlines():
        given = line.startswith("#") and "--set" in line
        if given and not before:
            variants.append([])
        if given:
            words = shlex.split(line[line.index("--set") :].removesuffix("\\"))
            variants[-1] += [word for word in words if word != "--set"]
        before = given
    return variants
