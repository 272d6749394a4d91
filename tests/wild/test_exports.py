"""Exports of shop systems: recognised by their columns, and read with one row per product, pictures and variants."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from catalog_enrichment.errors import ConfigError, DataContractError
from catalog_enrichment.ingest.file_sample import read_sample
from catalog_enrichment.ingest.guess import Given
from tests.wild.projects import read_rows, start

COLOURS = ("Red", "Blue")
SLOW = pytest.mark.slow


def shirts(number: int) -> Iterator[tuple[int, str, str]]:
    """Yield number, colour and title of the products in every export."""
    return ((n, COLOURS[n % 2], f"{COLOURS[n % 2]} shirt {n}") for n in range(number))


def shopify(number: int = 6) -> str:
    rows = ["Handle,Title,Body (HTML),Vendor,Type,Option1 Name,Option1 Value,Variant SKU,Image Src,Variant Image"]
    for n, colour, title in shirts(number):
        rows.append(f"h{n},{title},<p>Text {n}</p>,Maker {n % 2},Shirts,Color,{colour},S{n}-1,https://a/{n}.jpg,")
        rows.append(f"h{n},,,,,,Green,S{n}-2,,https://a/{n}-v.jpg")
    return "\n".join(rows)


def woocommerce(number: int = 6) -> str:
    rows = ["ID,Type,SKU,Name,Description,Categories,Parent,Images,Attribute 1 name,Attribute 1 value(s)"]
    for n, _, title in shirts(number):
        rows.append(
            f'{n},variable,,{title},Text {n},"Clothing, Clothing > Shirts",,https://a/{n}.jpg,Color,"Red\\, matt, Blue"'
        )
    for n, _, title in shirts(number):  # variants follow after all products
        rows.append(f"{10_000 + n},variation,V{n},{title} - Red,,,id:{n},https://a/{n}-v.jpg,Color,Red")
    return "\n".join(rows)


def magento(number: int = 6) -> str:
    rows = ["sku,store_view_code,name,description,categories,base_image,additional_images,additional_attributes,price"]
    for n, colour, title in shirts(number):
        rows.append(
            f'M{n},,{title},Text {n},Default/Men,/m/{n}.jpg,"/m/{n}-a.jpg,/m/{n}-b.jpg",'
            f'"color={colour},care=Wash, then dry,sizes=S|M",9.90'
        )
        rows.append(f"M{n},de,{colour} Hemd {n},,,,,,")
    return "\n".join(rows)


def google_tsv(number: int = 6) -> str:
    rows = ["id\ttitle\tdescription\tlink\timage_link\tadditional_image_link\tproduct_type\tcolor\tprice"]
    for n, colour, title in shirts(number):
        more = f"https://a/{n}-a.jpg,https://a/{n}-b.jpg"
        cells = [f"G{n}", f"{title}", f"Text {n}", f"https://shop/{n}", f"https://a/{n}.jpg", more]
        rows.append("\t".join([*cells, "Clothing > Shirts", colour, "9 EUR"]))
    return "\n".join(rows)


def google_xml(number: int = 6) -> str:
    items = "".join(
        f"<item><g:id>G{n}</g:id><title>{title}</title><description>Text {n}</description><link>https://shop/{n}</link>"
        f"<g:image_link>https://a/{n}.jpg</g:image_link><g:additional_image_link>https://a/{n}-a.jpg"
        f"</g:additional_image_link><g:additional_image_link>https://a/{n}-b.jpg</g:additional_image_link>"
        f"<g:product_type>Clothing &gt; Shirts</g:product_type><g:color>{colour}</g:color>"
        f"<g:shipping><g:price>1 EUR</g:price></g:shipping></item>"
        for n, colour, title in shirts(number)
    )
    space = 'xmlns:g="http://base.google.com/ns/1.0"'
    return f'<?xml version="1.0"?><rss version="2.0" {space}><channel><title>Shop</title>{items}</channel></rss>'


def akeneo(number: int = 6) -> str:
    rows = ["sku;categories;enabled;family;groups;color;description-en_US-web;name-en_US;picture"]
    for n, colour, title in shirts(number):
        rows.append(f"A{n};men,summer;1;shirts;;{colour};Text {n};{title};files/{n}.jpg")
    return "\n".join(rows)


def amazon_report(number: int = 6) -> str:
    rows = ["item-name\titem-description\tlisting-id\tseller-sku\tprice\tquantity\timage-url\tcolor"]
    rows += [f"{title}\tText {n}\tL{n}\tA{n}\t9\t1\thttps://a/{n}.jpg\t{colour}" for n, colour, title in shirts(number)]
    return "\n".join(rows)


def amazon_template(number: int = 6) -> str:
    rows = ["TemplateType=clothing\tVersion=2024.1\t\t\t\t\t", "SKU\tTitle\tImage\tOther image\tBullet\tBullet\tColour"]
    rows.append("item_sku\titem_name\tmain_image_url\tother_image_url1\tbullet_point1\tbullet_point2\tcolor_name")
    for n, colour, title in shirts(number):
        rows.append(f"A{n}\t{title}\thttps://a/{n}.jpg\thttps://a/{n}-o.jpg\tText {n}\tMore {n}\t{colour}")
    return "\n".join(rows)


def bigcommerce(number: int = 6) -> str:
    rows = ["Item Type,Product ID,Product Name,Product Description,Category,Product Image File - 1,Color"]
    for n, colour, title in shirts(number):
        rows.append(f"Product,{n + 40},{title},Text {n},Clothing/Shirts,https://a/{n}.jpg,{colour}")
        rows.append(f"  SKU,{n + 90},[S]Size=M,,,,Green")
    return "\n".join(rows)


def bigcommerce_new(number: int = 6) -> str:
    rows = ["Item,ID,Name,Type,SKU,Options,Description,Categories,Image URL (Import)"]
    for n, colour, title in shirts(number):
        rows.append(f"Product,{n + 40},{title},physical,B{n},,Text {n},Clothing/Shirts,")
        rows.append(f"Variant,{n + 90},,,B{n}-1,Type=Swatch|Name=Color|Value={colour},,,")
        rows.append(f"Image,,,,,,,,https://a/{n}.jpg")
    return "\n".join(rows)


@pytest.mark.parametrize(
    ("export", "name", "content", "first", "title", "images", "attributes"),
    [
        ("Shopify", "a.csv", shopify(), "h0", "Red shirt 0", ["https://a/0.jpg", "https://a/0-v.jpg"],
         {"color": ["Red", "Green"], "brand": ["Maker 0"]}),
        ("WooCommerce", "a.csv", woocommerce(), "id:0", "Red shirt 0",
         ["https://a/0.jpg", "https://a/0-v.jpg"], {"color": ["Red, matt", "Blue", "Red"]}),
        ("Magento", "a.csv", magento(), "M0", "Red shirt 0",
         ["/m/0.jpg", "/m/0-a.jpg", "/m/0-b.jpg"], {"color": ["Red"]}),
        pytest.param("Google Merchant Center", "a.tsv", google_tsv(), "G0", "Red shirt 0",
         ["https://a/0.jpg", "https://a/0-a.jpg", "https://a/0-b.jpg"], {"color": ["Red"]}, marks=SLOW),
        ("Google Merchant Center", "a.xml", google_xml(), "G0", "Red shirt 0",
         ["https://a/0.jpg", "https://a/0-a.jpg", "https://a/0-b.jpg"], {"color": ["Red"]}),
        pytest.param("Akeneo", "a.csv", akeneo(), "A0", "Red shirt 0",
         ["files/0.jpg"], {"color": ["Red"]}, marks=SLOW),
        pytest.param("Amazon listings", "a.txt", amazon_report(), "A0", "Red shirt 0",
         ["https://a/0.jpg"], {"color": ["Red"]}, marks=SLOW),
        ("Amazon inventory template", "a.txt", amazon_template(), "A0", "Red shirt 0",
         ["https://a/0.jpg", "https://a/0-o.jpg"], {"color_name": ["Red"]}),
        pytest.param("BigCommerce", "a.csv", bigcommerce(), "40", "Red shirt 0",
         ["https://a/0.jpg"], {"color": ["Red", "Green"]}, marks=SLOW),
        ("BigCommerce", "a.csv", bigcommerce_new(), "40", "Red shirt 0", ["https://a/0.jpg"], {"color": ["Red"]}),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 30 else "",
)  # fmt: skip
def test_an_export_is_recognised_and_read_right(
    export: str,
    name: str,
    content: str,
    first: str,
    title: str,
    images: list[str],
    attributes: dict[str, list[str]],
    spark: Any,
    tmp_path: Path,
) -> None:
    (tmp_path / name).write_text(content)
    summary, said = start(tmp_path / name, tmp_path / "p")
    assert summary["export"] == export
    assert f"{export} export" in said[0]
    assert set(attributes) <= set(summary["attributes"])
    rows = read_rows(spark, tmp_path / "p" / "config.toml")
    assert len(rows) == 6
    row = rows[first]
    assert row["title"] == title
    assert "Text 0" in row["description"]
    assert [uri.removeprefix(f"{tmp_path}/") for uri in row["images"]] == images
    assert {key: row["merchant_attributes"][key] for key in attributes} == attributes
    assert not any("=" in value for values in row["merchant_attributes"].values() for value in values)
    if summary["mapping"].get("category"):
        expected = {"Magento": "Default/Men", "Shopify": "Shirts", "Akeneo": "men"}
        assert row["category"] == expected.get(export, "Clothing/Shirts")


OTHERS = [{"id": f"P{n}", "title": f"Lamp number {n}", "colour": COLOURS[n % 2]} for n in range(6)]


def _xlsx(header_row: int) -> bytes:
    frame = pd.DataFrame(OTHERS)
    content = io.BytesIO()
    with pd.ExcelWriter(content, engine="openpyxl") as writer:
        frame.to_excel(writer, index=False, startrow=header_row - 1)
        if header_row > 1:
            writer.sheets["Sheet1"].cell(row=1, column=1, value="Products of the shop")
    return content.getvalue()


def _csv(separator: str, *above: str) -> str:
    lines = [*above, separator.join(OTHERS[0]), *(separator.join(row.values()) for row in OTHERS)]
    return "\n".join(lines)


def _xml(root: str, product: str, around: str = "{}") -> str:
    return f"<{root}>{around.format(''.join(product.format(**row) for row in OTHERS))}</{root}>"


OFFER = "<offer><id>{id}</id><title>{title}</title><param name='colour'>{colour}</param></offer>"
OFFERS = "<shop><currencies><c a='1'/><c a='2'/></currencies><offers>{}</offers></shop>"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("semicolons.csv", _csv(";")),
        ("bars.csv", _csv("|")),
        ("title.csv", _csv(",", "Export of 2026-11-25,,", "")),
        ("tabs.txt", _csv("\t")),
        ("title.tsv", _csv("\t", "Report\t\t")),
        ("excel.csv", _csv(";", "sep=;")),
        ("bom.csv", "\ufeff" + _csv(";")),
        ("windows.csv", _csv(";").replace("\n", "\r\n")),
        ("old_mac.csv", _csv(",").replace("\n", "\r")),
        ("list.json", json.dumps(OTHERS)),
        ("object.json", json.dumps({"count": 6, "products": OTHERS})),
        ("pretty.json", json.dumps({"items": OTHERS}, indent=1)),
        ("lines.jsonl", "\n".join(map(json.dumps, OTHERS))),
        ("sheet.xlsx", _xlsx(1)),
        ("title.xlsx", _xlsx(3)),
        ("atom.xml", _xml("feed", "<entry><id>{id}</id><title>{title}</title><colour>{colour}</colour></entry>")),
        ("offers.xml", _xml("catalog", OFFER, OFFERS)),
        ("attributes.xml", _xml("shop", '<product id="{id}" colour="{colour}"><title>{title}</title></product>')),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 20 else "",
)  # fmt: skip
def test_the_same_products_are_found_however_the_file_is_written(
    name: str, content: str | bytes, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    sample = read_sample(tmp_path / name)
    assert sample.columns["id"] == [row["id"] for row in OTHERS]
    assert sample.columns["title"] == [row["title"] for row in OTHERS]
    assert sample.columns["colour"] == [row["colour"] for row in OTHERS]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("title.csv", _csv(";", "Export of 2026-11-25;;", "")),
        ("object.json", json.dumps({"count": 6, "products": OTHERS})),
        ("title.xlsx", _xlsx(3)),
        ("attributes.xml", _xml("shop", '<product id="{id}" colour="{colour}"><title>{title}</title></product>')),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 20 else "",
)
def test_the_import_reads_what_init_project_found(name: str, content: str | bytes, spark: Any, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    summary, _ = start(tmp_path / name, tmp_path / "p")
    assert summary["mapping"] == {"product_id": "id", "title": "title"}
    rows = read_rows(spark, tmp_path / "p" / "config.toml")
    assert {(key, row["title"], row["merchant_attributes"]["colour"][0]) for key, row in rows.items()} == {
        tuple(row.values()) for row in OTHERS
    }


@pytest.mark.parametrize(
    ("encoding", "text"),
    [("cp1250", "Żółta koszula z łączką")],
)
def test_a_text_of_another_encoding_is_read_right(encoding: str, text: str, spark: Any, tmp_path: Path) -> None:
    lines = ["id,title,colour", *(f"P{n},{text} {n},{COLOURS[n % 2]}" for n in range(40))]
    (tmp_path / "a.csv").write_bytes("\n".join(lines).encode(encoding))
    start(tmp_path / "a.csv", tmp_path / "p")
    assert read_rows(spark, tmp_path / "p" / "config.toml")["P1"]["title"] == f"{text} 1"


def test_a_line_that_is_not_in_the_encoding_is_refused_and_no_other(spark: Any, tmp_path: Path) -> None:
    lines = [f"P{n},Größe {n},{COLOURS[n % 2]}".encode() for n in range(40)]
    lines[7] = "P7,Größe 7,Red".encode("cp1252")
    (tmp_path / "a.csv").write_bytes(b"id,title,colour\n" + b"\n".join(lines))
    start(tmp_path / "a.csv", tmp_path / "p")
    rows = read_rows(spark, tmp_path / "p" / "config.toml")
    refused = [row for row in rows.values() if row["parse_error"]]
    assert [row["payload"] for row in refused] == ["P7,Gr\\xf6\\xdfe 7,Red"]
    assert "source.encoding" in refused[0]["parse_error"]
    assert len(rows) == 40
    assert rows["P8"]["title"] == "Größe 8"


def test_numbers_with_a_comma_are_read_as_numbers_i1(spark: Any, tmp_path: Path) -> None:
    lines = ["id;title;width;price", *(f"P{n};Lamp {n} for desks;{1 + n % 2},5;1.234,50" for n in range(30))]
    (tmp_path / "a.csv").write_text("\n".join(lines))
    start(tmp_path / "a.csv", tmp_path / "p")
    config = tmp_path / "p" / "config.toml"
    assert 'decimal = ","' in config.read_text()
    config.write_text(
        config.read_text().replace("[source.mapping.attributes]", '[source.mapping.attributes]\nwidth = "width"')
    )
    assert read_rows(spark, config)["P1"]["merchant_attributes"]["width"] == ["2.5"]


def test_rows_of_one_id_are_merged_where_the_user_says_so(spark: Any, tmp_path: Path) -> None:
    rows = [f"P{n // 2},{f'Lamp {n // 2}' if n % 2 else ''},{COLOURS[n % 2]}" for n in range(12)]
    (tmp_path / "a.csv").write_text("\n".join(["item_id,title,colour", *rows]))
    with pytest.raises(DataContractError, match=r"it repeats.*--id COLUMN --merge-rows"):
        start(tmp_path / "a.csv", tmp_path / "p")
    given = Given(columns={"product_id": "item_id"}, merge_rows=True, min_count=2)
    start(tmp_path / "a.csv", tmp_path / "p", given=given)
    products = read_rows(spark, tmp_path / "p" / "config.toml")
    assert len(products) == 6
    assert products["P0"]["title"] == "Lamp 0"
    assert products["P0"]["merchant_attributes"] == {"colour": list(COLOURS)}
    with pytest.raises(ConfigError, match=r"--merge-rows needs --id COLUMN"):
        start(tmp_path / "a.csv", tmp_path / "q", given=Given(columns={}, merge_rows=True))
