"""Small files in the shape of those that shops really have: what a project makes of each, by its right value."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from catalog_enrichment.errors import DataContractError
from tests.wild.projects import CASES, read_rows, start

# case/file -> (mapping, attributes, a product that must be in its rows)
READ: dict[str, tuple[dict[str, Any], set[str], dict[str, Any]]] = {
    "shopify_export/products_export.csv": (
        {"product_id": "Handle", "title": "Title", "category": "Product Category", "image_uris": "Image Src"},
        {"color", "size"},
        {
            "product_id": "linen-shirt-0",
            "title": "Linen shirt no. 0",
            "category": "Apparel & Accessories/Clothing/Shirts",
            "images": [f"https://shop.example/files/0-{name}.jpg" for name in "01x"],
            "merchant_attributes": {"color": ["red"], "size": ["S", "M"]},
            "source_rows": 3,
        },
    ),
    "shopify_first_rows/products.csv": (
        {"product_id": "Handle", "title": "Title"},
        {"brand", "color"},
        {"product_id": "ring-0", "merchant_attributes": {"brand": ["Muster"], "color": ["silver", "gold"]}},
    ),
    "woo_attribute_pairs/wc-product-export.csv": (
        {"product_id": ["SKU", "id:{ID}"], "title": "Name", "image_uris": "Images"},
        {"colour", "material"},
        {
            "product_id": "SC-0",
            "category": "Clothing/Scarves",
            "images": ["https://shop.example/a0.jpg", "https://shop.example/b0.jpg"],
            "merchant_attributes": {"colour": ["Red"], "material": ["Wool"]},
        },
    ),
    "magento_additional_attributes/catalog_product.csv": (
        {"product_id": "sku", "title": "name"},
        {"color", "size"},
        {"product_id": "TS-1", "merchant_attributes": {"color": ["Black"], "size": ["M"]}},
    ),
    "key_value_text/products.csv": (
        {"product_id": "id", "title": "title"},
        {"farbe", "material"},
        {"product_id": "2", "merchant_attributes": {"farbe": ["Blau"], "material": ["Holz"]}},
    ),
    "flipkart_specifications/sample.csv": (
        {"product_id": "uniq_id", "title": "product_name", "description": "description"},
        {"color", "material"},
        {"product_id": "0" * 32, "merchant_attributes": {"color": ["Black"], "material": ["Cotton"]}},
    ),
    "json_list/products.json": (
        {"product_id": "id", "title": "title", "description": "description"},
        {"color"},
        {"product_id": "1", "title": "Ring 1 silver", "merchant_attributes": {"color": ["Gold"]}},
    ),
    "semicolon_csv/artikel.csv": (
        {"product_id": "Artikelnummer", "title": "Bezeichnung", "category": "Warengruppe"},
        {"farbe"},
        {"product_id": "1001", "title": "Gewürzmühle Größe 1", "merchant_attributes": {"farbe": ["Weiß"]}},
    ),
    "cp1252_umlauts/artikel.csv": (
        {"product_id": "Artikelnummer", "title": "Bezeichnung", "category": "Warengruppe"},
        {"farbe"},
        {"product_id": "1000", "title": "Gewürzmühle Größe 0", "merchant_attributes": {"farbe": ["Grün"]}},
    ),
    "latin1/products.csv": (
        {"product_id": "sku", "title": "title"},
        {"colour"},
        {"product_id": "P1", "title": "Weißes Kleid für Mädchen 1", "merchant_attributes": {"colour": ["Weiß"]}},
    ),
    "title_line_above_header/products.csv": (
        {"product_id": "id", "title": "title"},
        {"color"},
        {"product_id": "1", "title": "Lamp 0 for desks", "merchant_attributes": {"color": ["Red"]}},
    ),
    "twin_code_before_name/articles.csv": (
        {"product_id": "article_id", "title": "prod_name", "description": "detail_desc"},
        {"index_name"},
        {"product_id": "1", "merchant_attributes": {"index_name": ["Ladieswear"]}},
    ),
    "title_called_product/laptops.csv": (
        {"product_id": "laptop_ID", "title": "Product"},
        {"company", "type_name"},
        {"product_id": "1", "title": "Notebook 0 G0"},
    ),
    "crawl_time_as_attribute/products.csv": (
        {"product_id": "id", "title": "title"},
        {"color"},
        {"product_id": "1", "merchant_attributes": {"color": ["Red"]}},
    ),
    "unknown_as_value/foods.csv": (
        {"product_id": "code", "title": "product_name"},
        {"food_group", "colour"},
        {"product_id": "1", "merchant_attributes": {}},
    ),
    "init_null_words/products.csv": (
        {"product_id": "sku", "title": "title"},
        {"colour"},
        {"product_id": "P0001", "merchant_attributes": {}},
    ),
    "description_is_boilerplate/toys.csv": (
        {"product_id": "Uniq Id", "title": "Product Name", "description": "About Product"},
        {"color"},
        {"title": "Wooden train 0 for children"},
    ),
    "values_joined_by_separators/products.csv": (
        {"product_id": "id", "title": "title"},
        {"allergens_tags", "colours", "sizes"},
        {
            "product_id": "5",
            "merchant_attributes": {
                "allergens_tags": ["en:milk", "en:gluten"],
                "colours": ["red", "blue"],
                "sizes": ["S", "M"],
            },
        },
    ),
    "category_levels/feed.csv": (
        {"product_id": "id", "category": "google_product_category"},
        {"color"},
        {"product_id": "3", "category": "Garden/Tools/Rakes"},
    ),
    "picture_urls_joined/feed.csv": (
        {"image_uris": "images"},
        {"color"},
        {"product_id": "1", "images": ["https://img.example/0a.jpg", "https://img.example/0b.jpg"]},
    ),
    "few_cells_with_two_pictures/wc-product-export.csv": (
        {"product_id": "ID", "image_uris": "Images"},
        {"color"},
        {"product_id": "1", "images": ["https://shop.example/a0.jpg", "https://shop.example/b0.jpg"]},
    ),
    "picture_url_with_commas/feed.csv": (
        {"image_uris": "image_url"},
        {"color"},
        {"product_id": "1", "images": ["https://img.example/image/upload/w_600,f_auto,q_auto/jug_0.jpg"]},
    ),
    "picture_urls_unreachable/catalog.csv": (
        {"product_id": "sku", "image_uris": "image_url"},
        {"color"},
        {"product_id": "P0", "images": ["https://img.example/0.jpg"]},
    ),
    "fold_merges_values/products.csv": (
        {"product_id": "sku", "title": "title"},
        {"energy_class", "language_level", "product_kind_hi", "kind_th"},
        {"product_id": "P0000", "merchant_attributes": {"energy_class": ["A"], "language_level": ["C"]}},
    ),
    "json_nan/products.jsonl": (
        {"product_id": "sku", "title": "title"},
        {"brand", "colour"},
        {"product_id": "P2", "merchant_attributes": {}},
    ),
    "glob_path/products[2].csv": (
        {"product_id": "sku", "title": "name"},
        set(),
        {"product_id": "NEW1", "title": "New shirt"},
    ),
    "parquet_ns_timestamp/products.parquet": (
        {"product_id": "sku", "updated_at": "updated_at"},
        {"colour"},
        {"product_id": "P1", "merchant_attributes": {"colour": ["Blue"]}, "parse_error": None},
    ),
    "text_only_report/products.csv": (
        {"product_id": "id", "title": "title", "description": "description"},
        {"color"},
        {"product_id": "1", "merchant_attributes": {"color": ["Red"]}},
    ),
}


IN_EVERY_RUN = (
    *("shopify_export", "woo_attribute_pairs", "json_list", "cp1252_umlauts", "json_nan", "glob_path"),
    *("values_joined_by_separators", "category_levels", "fold_merges_values", "parquet_ns_timestamp"),
)
"""The cases whose rows are also read in every run of the tests: one for each way through the import."""


@pytest.mark.parametrize("case", READ)
def test_a_project_of_a_shops_file_has_the_right_columns(case: str, tmp_path: Path) -> None:
    mapping, attributes, _ = READ[case]
    summary, _ = start(CASES / case, tmp_path / "p")
    assert summary["mapping"] | mapping == summary["mapping"]
    assert set(summary["attributes"]) == attributes


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=() if case.startswith(IN_EVERY_RUN) else pytest.mark.slow) for case in READ],
)
def test_a_file_of_a_shop_is_read_right(case: str, spark: Any, tmp_path: Path) -> None:
    start(CASES / case, tmp_path / "p")
    product = READ[case][2]
    rows = read_rows(spark, tmp_path / "p" / "config.toml")
    key = product.get("product_id") or next(iter(rows))
    for name, value in product.items():
        found = rows[key][name]
        if name == "merchant_attributes":
            found = {attribute: found[attribute] for attribute in (value or found)}
        assert found == value, name
    assert not any("\ufffd" in str(row) for row in rows.values())
    assert all(row["parse_error"] is None for row in rows.values())


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("no_header/foods.tsv", "no line with the columns' names.*--columns NAME"),
        ("utf16/products.csv", "UTF-16: save it as UTF-8"),
        ("row_number_as_id/shelves.csv", '"item_id": it repeats.*"X1": a running number.*--id COLUMN'),
    ],
)
def test_a_file_that_cannot_be_read_right_is_refused_with_what_to_do(case: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataContractError, match=message):
        start(CASES / case, tmp_path / "p")
    assert not (tmp_path / "p").exists()


def test_a_file_without_a_header_is_read_with_given_names(spark: Any, tmp_path: Path) -> None:
    file = CASES / "no_header/foods.tsv"
    summary, _ = start(file, tmp_path / "p", columns=("title", "id", "group", "a", "b"))
    assert summary["mapping"]["title"] == "title"
    rows = read_rows(spark, tmp_path / "p" / "config.toml")
    assert rows["11"]["title"] == "Rye bread 0"
    assert len(rows) == len(file.read_text().splitlines())


def test_pictures_below_a_folder_are_found_by_paths_with_a_leading_slash(spark: Any, tmp_path: Path) -> None:
    shutil.copytree(CASES / "picture_path_with_leading_slash", tmp_path / "shop")
    start(tmp_path / "shop" / "catalog.csv", tmp_path / "p")
    images = [row["images"] for row in read_rows(spark, tmp_path / "p" / "config.toml").values()]
    assert all(len(found) == 1 for found in images)
    assert Path(images[0][0]).is_relative_to(tmp_path / "shop")
    assert any(Path(found[0]).is_file() for found in images)


def test_values_that_differ_in_signs_and_marks_stay_as_the_merchant_gave_them_i1(spark: Any, tmp_path: Path) -> None:
    shutil.copytree(CASES / "values1", tmp_path / "p")
    rows = read_rows(spark, tmp_path / "p" / "config.toml")
    for name in ("energy", "lens", "lang"):
        given = {key: row["merchant_attributes"][name] for key, row in rows.items() if key.startswith(f"{name} ")}
        assert given == {key: [key.removeprefix(f"{name} ")] for key in given} != {}
    kinds = [row["merchant_attributes"]["kind"][0] for key, row in rows.items() if key.startswith("hi ")]
    assert kinds == [key.removeprefix("hi ") for key in rows if key.startswith("hi ")]
    colors = {
        key[6:8]: row["merchant_attributes"].get("color") for key, row in rows.items() if key.startswith("color ")
    }
    blank = [f"{number:02}" for number in (*range(11), 24, 31)]
    assert [colors[number] for number in blank] == [None] * len(blank)
    assert {tuple(colors[str(number)]) for number in range(25, 31)} == {("Black",)}
    turkish = {key: row["merchant_attributes"]["tr"] for key, row in rows.items() if key.startswith("tr ")}
    assert set(map(tuple, turkish.values())) == {("İpek",), ("Kırmızı",)}
    categories = {row["category"].casefold() for key, row in rows.items() if key.startswith("cat ")}
    assert categories == {"apparel", "apparel/shirts"}


def test_ids_are_told_apart_by_what_can_be_seen(spark: Any, tmp_path: Path) -> None:
    shutil.copytree(CASES / "values1", tmp_path / "p")
    rows = read_rows(spark, tmp_path / "p" / "config.toml")
    assert {"00123", "123", "Case", "case", "CASE", "12", "1000", "12345678901234567890"} <= set(rows)
    assert [row["parse_error"] for row in rows.values() if row["parse_error"]] == [
        "product_id is a rounded number: 1.0E22"
    ]
    assert [key for key in rows if "P9" in key] == ["P9"]


def test_words_for_no_value_are_named_to_the_user(tmp_path: Path) -> None:
    start(CASES / "unknown_as_value/foods.csv", tmp_path / "p")
    config = (tmp_path / "p" / "config.toml").read_text()
    assert 'empty_texts = ["-", "not specified", "unknown"]' in config
    assert "take out 'unknown' where that is a value" in config
