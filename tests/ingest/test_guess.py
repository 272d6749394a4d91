"""Guesses about columns: which feeds what, which are attributes, where pictures are, and why others are not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from catalog_enrichment.errors import ConfigError, DataContractError
from catalog_enrichment.ingest.file_columns import Kind, columns_of, texts_of
from catalog_enrichment.ingest.file_sample import read_sample
from catalog_enrichment.ingest.guess import Given, Guesses, guess

from ..sample_catalog import jpeg
from .project_files import products, write


def guessed(file: Path, columns: dict[str, str] | None = None, **given: Any) -> Guesses:
    return guess(read_sample(file), file, Given(columns=columns or {}, **given))


def mapping(guesses: Guesses) -> dict[str, str]:
    return {name: found.column for name, found in guesses.roles.items() if found.column}


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.parquet"])
def test_a_plain_file_is_mapped_in_every_format(name: str, tmp_path: Path) -> None:
    guesses = guessed(write(tmp_path / name, products()))
    assert mapping(guesses) == {
        **{"product_id": "sku", "title": "Product Name", "description": "description", "category": "category"}
    }
    assert {name: found.column for name, found in guesses.attributes.items()} == {"colour": "Colour"}
    assert dict(guesses.counts["colour"]) == {"Red": 60, "Green": 60, "Navy Blue": 60}
    assert guesses.labelled == {"colour": 180}
    assert guesses.attributes["colour"].why.startswith("3 of 3 values in at least 20 rows; filled in 75% of 240 rows")
    assert "numbers" in guesses.unused["price"]
    assert "yes or no" in guesses.unused["in_stock"]


def test_without_telling_names_the_values_decide(tmp_path: Path) -> None:
    renamed = {"sku": "a", "Product Name": "b", "description": "c", "category": "d", "Colour": "e"}
    rows = [{renamed.get(name, name): value for name, value in row.items()} for row in products()]
    guesses = guessed(write(tmp_path / "a.jsonl", rows))
    assert mapping(guesses) == {"product_id": "a", "title": "b", "description": "c", "category": "d"}
    assert "no name tells" in guesses.roles["title"].why
    assert list(guesses.attributes) == ["e"]


def test_a_name_alone_is_not_enough(tmp_path: Path) -> None:
    """`id` repeats, `title` is empty in many rows, `updated_at` holds no times, `language` no codes."""
    changes = {"updated_at": "yesterday", "language": "English"}
    rows = [row | changes | {"id": n % 9, "title": f"x {n}" if n % 5 else None} for n, row in enumerate(products())]
    guesses = guessed(write(tmp_path / "a.csv", rows))
    assert mapping(guesses).keys() == {"product_id", "title", "description", "category"}
    assert mapping(guesses)["product_id"] == "sku"
    assert mapping(guesses)["title"] == "Product Name"
    assert guesses.roles["title"].others == ()
    assert "yesterday" in guesses.roles["updated_at"].why
    assert "two letters" in guesses.roles["language"].why


def test_shop_language_times_and_flags_are_mapped(tmp_path: Path) -> None:
    flags = {"opt_out": "false", "is_deleted": "no"}
    changes = {"seller": "north", "lang": "de", "last_updated": "2026-01-02T03:04:05Z"} | flags
    guesses = guessed(write(tmp_path / "a.csv", products(**changes)))
    expected = {"shop_id": "seller", "language": "lang", "opt_out": "opt_out", "updated_at": "last_updated"}
    expected["deleted"] = "is_deleted"
    assert expected.items() <= mapping(guesses).items()
    assert "seller" not in guesses.unused


def test_values_of_rows_that_are_not_labelled_are_not_read(tmp_path: Path) -> None:
    rows = [row | {"labelled": n % 2 == 0, "Colour": "Red" if n % 4 else "Blue"} for n, row in enumerate(products())]
    rows = [row if row["labelled"] else row | {"Colour": "hidden"} for row in rows]
    guesses = guessed(write(tmp_path / "a.parquet", rows))
    assert mapping(guesses)["attributes_when"] == "labelled"
    assert dict(guesses.counts["colour"]) == {"Red": 60, "Blue": 60}
    assert "of 120 rows" in guesses.attributes["colour"].why


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([f"value {number % 120}" for number in range(3_000)], "at most 100"),
        (["always"] * 3_000, "one value"),
        (["a"] * 2_990 + ["b"] * 10, "2 different values, 1 of them in at least 20 rows"),
        (["a", "b"] * 700 + [f"rare {number}" for number in range(1_600)], "free text"),
        ([f"a sentence with many words for {'you' if n % 2 else 'me'} alone" for n in range(3_000)], "free text"),
        ([f"https://shop.test/{number % 5}" for number in range(3_000)], "addresses"),
        (["yes", "no"] * 1_500, "yes or no"),
        ([str(number % 5) for number in range(3_000)], "whole numbers"),
        (["4.5", "3.9"] * 1_500, "numbers"),
        ([None] * 3_000, "empty"),
    ],
)
def test_what_is_no_attribute_says_why(values: list[Any], reason: str, tmp_path: Path) -> None:
    rows = [{"id": number, "title": f"The shirt {number}", "material": value} for number, value in enumerate(values)]
    guesses = guessed(write(tmp_path / "a.csv", rows))
    assert guesses.attributes == {}
    assert reason in guesses.unused["material"]


def test_a_column_that_repeats_another_or_is_about_sales_is_no_attribute(tmp_path: Path) -> None:
    rows = [row | {"colour code": f"c{row['Colour']}", "stock status": f"s{n % 3}"} for n, row in enumerate(products())]
    rows = [row | {"colour code": row["Colour"] and row["colour code"]} for row in rows]
    guesses = guessed(write(tmp_path / "a.csv", rows))
    assert list(guesses.attributes) == ["colour"]
    assert guesses.unused["colour code"] == 'it says the same as "Colour"'
    assert "sold" in guesses.unused["stock status"]


def test_lists_are_read_as_several_values(tmp_path: Path) -> None:
    rows = [{"id": n, "title": f"The shirt {n}", "material": ["Cotton", "Wool"][: 1 + n % 2]} for n in range(90)]
    for name in ("a.jsonl", "a.parquet", "a.csv"):  # in CSV as Python writes a list
        guesses = guessed(write(tmp_path / name, rows))
        assert guesses.several == {"material"}
        assert guesses.counts["material"] == [("Cotton", 90), ("Wool", 45)]


def test_texts_for_no_value_are_found_and_not_counted(tmp_path: Path) -> None:
    rows = [row | {"Colour": row["Colour"] or "NaN"} for row in products()]
    guesses = guessed(write(tmp_path / "a.csv", rows))
    assert guesses.empty_texts == {"NaN": 0.25}
    assert [value for value, _ in guesses.counts["colour"]] == ["Green", "Navy Blue", "Red"]
    assert guesses.labelled["colour"] == 180


@pytest.mark.parametrize(
    ("cell", "texts"),
    [
        ("", []),
        (" Red ", ["Red"]),
        ('["a", " b", "a", ""]', ["a", "b"]),
        ("['a', 'b']", ["a", "b"]),
        ("[a broken list]", ["[a broken list]"]),
        ([None, 1, True], ["1", "true"]),
        ("[" * 20_000, ["[" * 20_000]),
        ("\ud800", ["?"]),
    ],
)
def test_the_texts_of_a_cell(cell: Any, texts: list[str]) -> None:
    assert texts_of(cell) == texts


# --- pictures ---------------------------------------------------------------------------------------------------------


def test_pictures_as_bytes_are_found_by_their_first_bytes(tmp_path: Path) -> None:
    picture = jpeg((200, 30, 30))
    rows = [row | {"blob": b"no picture", "photo": picture} for row in products()]
    guesses = guessed(write(tmp_path / "a.parquet", rows))
    assert guesses.roles["image_bytes"].column == "photo"
    assert "image_uris" not in mapping(guesses)
    assert guesses.unused["blob"] == "bytes"


def test_addresses_and_lists_of_paths_are_pictures(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "1.jpg").write_bytes(b"x")
    addresses = {"link": "https://shop.test/p", "thumbnail image": "https://cdn.test/s.jpg"}
    web = products(**addresses, ImageURL="https://cdn.test/x")
    guesses = guessed(write(tmp_path / "web.csv", web))
    assert guesses.roles["image_uris"].column == "ImageURL"
    assert guesses.roles["image_uris"].others == ("thumbnail image",)
    assert "fetched" in guesses.roles["image_uris"].why
    paths = [row | {"files": [f"{n}.jpg", f"{n}-b.jpg"]} for n, row in enumerate(products())]
    guesses = guessed(write(tmp_path / "paths.jsonl", paths))
    assert guesses.roles["image_uris"].column == "files"
    assert guesses.image_folder.column == str(tmp_path / "photos")
    elsewhere = [row | {"files": f"else/{n}.jpg"} for n, row in enumerate(products())]
    guesses = guessed(write(tmp_path / "elsewhere.jsonl", elsewhere))
    assert guesses.image_folder.column == ""
    assert "none beside the file" in guesses.image_folder.why


def test_several_addresses_in_one_text_are_mapped(tmp_path: Path) -> None:
    changes = {"images": "https://cdn.test/1.jpg|https://cdn.test/2.jpg"}
    guesses = guessed(write(tmp_path / "a.csv", products(**changes)))
    assert mapping(guesses)["image_uris"] == "images"


def test_files_named_by_the_id_are_found(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "A-0003.jpg").write_bytes(b"x")
    guesses = guessed(write(tmp_path / "a.csv", products()))
    assert guesses.roles["image_uris"].column == "images/{sku}.jpg"


# --- what the user names ----------------------------------------------------------------------------------------------


def test_given_columns_go_before_guesses(tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", products())
    given = {"title": "description", "description": "", "category": "Colour", "product_id": "price"}
    guesses = guessed(file, given, attributes=["category", "in_stock"])
    assert mapping(guesses) == {"product_id": "price", "title": "description", "category": "Colour"}
    assert "check it: numbers" in guesses.roles["product_id"].why
    taken = {name: found.column for name, found in guesses.attributes.items()}
    assert taken == {"category": "category", "in_stock": "in_stock"}
    assert guesses.counts["in_stock"] == [("false", 120), ("true", 120)]
    assert "category" not in mapping(guessed(file, attributes=["category"])), "a given column is not guessed again"


@pytest.mark.parametrize(
    ("columns", "attributes", "message"),
    [
        ({"title": "nosuch"}, None, "--title 'nosuch': the file has no such column. It has .*'sku'"),
        ({"image": "nosuch"}, None, "--image 'nosuch'"),
        ({}, ["nosuch"], "--attribute 'nosuch'"),
        ({"product_id": ""}, None, "--id must name a column"),
        ({"category": "photo"}, None, "--category 'photo': the column holds pictures as bytes"),
    ],
)
def test_a_given_column_that_cannot_be_used_is_refused(
    columns: dict[str, str], attributes: list[str] | None, message: str, tmp_path: Path
) -> None:
    file = write(tmp_path / "a.parquet", products(photo=jpeg((1, 2, 3))))
    with pytest.raises(ConfigError, match=message):
        guessed(file, columns, attributes=attributes)


def test_without_an_id_or_a_title_the_message_names_the_columns(tmp_path: Path) -> None:
    rows = [{"kind": f"k{n % 3}", "size": f"s{n % 5}"} for n in range(60)]
    with pytest.raises(DataContractError, match=r'product_id.*"kind" \(text, 3 different values.*--id COLUMN'):
        guessed(write(tmp_path / "a.csv", rows))
    with pytest.raises(DataContractError, match=r"can be the title.*--title COLUMN"):
        guessed(write(tmp_path / "b.csv", [{"id": n} | row for n, row in enumerate(rows)]))


# --- odd names --------------------------------------------------------------------------------------------------------


def test_names_become_attribute_names_that_differ(tmp_path: Path) -> None:
    columns = ("Größe (EU)", "grosse eu", "颜色", "***", "frameColor", "last")
    values = [{name: f"{name[0]}{n % (3 + place)}" for place, name in enumerate(columns)} for n in range(420)]
    rows = [{"id": n, "title": f"The shirt {n}"} | row for n, row in enumerate(values)]
    guesses = guessed(write(tmp_path / "a.csv", rows, ["id", "title", *columns[:5], ""]))
    assert {name: found.column for name, found in guesses.attributes.items()} == {
        "grosse_eu": "Größe (EU)", "grosse_eu_2": "grosse eu", "颜色": "颜色", "attribute": "***",
        "frame_color": "frameColor", "c7": "_c7",
    }  # fmt: skip


def test_columns_of_one_name_are_told_apart_as_by_the_import(tmp_path: Path) -> None:
    rows = [{"id": n, "title": f"The shirt {n}", "a": f"g{n % 3}", "b": f"h{n % 4}"} for n in range(90)]
    guesses = guessed(write(tmp_path / "a.csv", rows, ["id", "title", "tag", "tag"]))
    assert {found.column for found in guesses.attributes.values()} == {"tag2", "tag3"}


def test_names_that_no_mapping_can_have_are_said(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    rows = [{"id": n, "title": f"The shirt {n}", "": f"a{n % 3}", "_source_uri": f"b{n % 3}"} for n in range(90)]
    write(file, [row | {"\ud800": f"c{n % 3}"} for n, row in enumerate(rows)])
    columns, _ = columns_of(read_sample(file))
    assert {name for name, column in columns.items() if column.kind is Kind.UNUSABLE} == {"", "_source_uri", "\ud800"}
    assert guessed(file).attributes == {}


def test_objects_and_keys_with_values_are_no_values(tmp_path: Path) -> None:
    rows = [
        {"id": f"P{n}", "title": f"Lamp number {n}", "specs": [{"name": "Color", "options": [["Red", "Blue"][n % 2]]}]}
        for n in range(60)
    ]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    guesses = guess(read_sample(tmp_path / "a.json"), tmp_path / "a.json", Given(columns={}, min_count=2))
    assert {name: found.column for name, found in guesses.attributes.items()} == {"color": "key:Color"}
    lines = [f"P{n},Lamp number {n},Size~{['S', 'M'][n % 2]}:x,Length = {n % 3} mm" for n in range(60)]
    (tmp_path / "b.csv").write_text("\n".join(["id,title,odd,length", *lines]))
    other = guess(read_sample(tmp_path / "b.csv"), tmp_path / "b.csv", Given(columns={}, min_count=2))
    assert "keys with values" in other.unused["length"]
