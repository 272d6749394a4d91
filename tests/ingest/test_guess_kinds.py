"""Columns of numbers with units, and of texts that no list can hold."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from catalog_enrichment import dictionary
from catalog_enrichment.config.load import load_config
from catalog_enrichment.ingest import guess_kinds
from catalog_enrichment.ingest.guess import Given
from catalog_enrichment.ingest.project import Project, init_project


def rows(number: int = 120) -> list[dict[str, str]]:
    """Products with a width in two units, a weight whose unit is in its name, a brand that the title has, a part number
    that it has not, a colour, and a year."""
    found = []
    for row in range(number):
        width = f"{40 + row % 70} cm" if row % 5 else f"{400 + row} mm"
        brand = f"Brand{row % 60} Co"
        found.append(
            {
                "id": f"p{row}",
                "title": f"{brand} shelf number {row} for the wall",
                "width": width if row % 50 else "wide",
                "weight_kg": f"{1 + row % 40}.{row % 10}",
                "brand": brand,
                "factory_code": f"XK{row * 7919 % 10007}Q",
                "color": "Red" if row % 2 else "Blue",
                "model_year": str(1980 + row % 40),
            }
        )
    return found


def project(tmp_path: Path, table: list[dict[str, str]], **given: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    file = tmp_path / "shop.csv"
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(table[0]))
        writer.writeheader()
        writer.writerows(table)
    asked = Project(folder=tmp_path / "project", file=file, given=Given(columns={}, **given))
    summary = init_project(asked, print)
    content = json.loads((tmp_path / "project" / "attributes.json").read_text())
    dictionary.load(tmp_path / "project" / "attributes.json")
    return summary, {entry.pop("name"): entry for entry in content["attributes"]}


def test_numbers_and_texts_are_attributes_beside_closed_lists(tmp_path: Path) -> None:
    summary, found = project(tmp_path, rows())
    assert found["width"] == {"kind": "number", "unit": "cm", "range": [8.0, 500.0]}
    assert found["weight_kg"] == {"kind": "number", "unit": "kg", "range": [0.2, 200.0]}
    assert found["brand"] == {"kind": "text"}
    assert found["color"]["values"] == ["Blue", "Red"]
    assert set(found) == {"width", "weight_kg", "brand", "color"}
    assert summary["attributes"]["width"] == {"column": "width", "kind": "number"}


def test_a_column_that_is_named_is_taken_by_its_kind(tmp_path: Path) -> None:
    _, found = project(tmp_path, rows(), attributes=["width", "color"])
    assert set(found) == {"width", "color"}
    assert found["width"]["kind"] == "number"


@pytest.mark.parametrize(
    "cells",
    [
        ["wide"] * 30 + [f"{number} cm" for number in range(90)],  # too many are no numbers
        [f"{number} cm" if number % 2 else f"{number} kg" for number in range(120)],  # two dimensions
        [f"{number}-{number + 3} cm" for number in range(120)],  # ranges
    ],
)
def test_what_is_mostly_no_number_with_a_unit_is_no_number(tmp_path: Path, cells: list[str]) -> None:
    table = [row | {"width": cell} for row, cell in zip(rows(), cells, strict=True)]
    _, found = project(tmp_path, table)
    assert found.get("width", {}).get("kind") != "number"


def test_a_column_that_mixes_units_is_in_the_most_frequent_one(tmp_path: Path) -> None:
    spellings = ["{} cm", "{}ｃｍ", "{}0 mm", "{} CM", "{} in", "{}", "{} cm ({}0 mm)", "0,{} m", "{}\u00a0cm"]
    cells = [spellings[number % len(spellings)].format(*[40 + number % 50] * 2) for number in range(120)]
    table = [row | {"width": cell} for row, cell in zip(rows(), cells, strict=True)]
    _, found = project(tmp_path, table)
    assert (found["width"]["kind"], found["width"]["unit"]) == ("number", "cm")


@pytest.mark.parametrize(
    ("cells", "language", "mark"),
    [
        (["1.5 cm", "12.5 cm", "1.299 cm"], "de", "."),
        (["1.5 cm", "12.5 cm", "1.299 cm"], "en", ""),
        (["1,5 cm", "12,5 cm", "1,299 cm"], "en", ","),
        (["1.299,5 cm", "70 cm"], "en", ","),
        (["1,5 cm", "12.5 cm"], "de", ""),  # cells differ
        (["70 cm", "1.299 cm"], "de", ""),  # no cell shows it
    ],
)
def test_the_mark_before_the_decimals_is_the_cells(tmp_path: Path, cells: list[str], language: str, mark: str) -> None:
    own = {"lang": language} if language != "en" else {}
    table = [row | own | {"width": cells[number % len(cells)]} for number, row in enumerate(rows())]
    project(tmp_path, table)
    config = load_config(tmp_path / "project" / "config.toml")
    assert config.source is not None
    assert config.source.mapping.decimal_marks.get("width", "") == mark
    assert config.source.mapping.separators == {}


@pytest.mark.parametrize("cells", [["1,5", "2,5", "1", "2", "5"], ["1,5 kg", "5 kg", "1 kg"]])
def test_a_decimal_comma_does_not_separate_values(tmp_path: Path, cells: list[str]) -> None:
    table = [row | {"weight_kg": cells[number % len(cells)]} for number, row in enumerate(rows())]
    _, found = project(tmp_path, table)
    assert found["weight_kg"]["kind"] == "number"
    assert "separators" not in (tmp_path / "project" / "config.toml").read_text()


@pytest.mark.parametrize(
    ("text", "unit", "spelled"),
    [
        ("5 cm", "centimeter", "cm"),
        ("４０ｃｍ", "centimeter", "cm"),
        ("5' 6\"", "inch", '"'),
        ("7.2K rpm", "turn_per_minute", "rpm"),
        ("16-GB", "gigaoctet", "GB"),
        ("8 fl oz", "fluid_ounce", "fl oz"),
        ("5", "meter", ""),
    ],
)
def test_how_a_unit_is_spelled(text: str, unit: str, spelled: str) -> None:
    assert guess_kinds._unit_in(text, unit) == spelled


def test_a_brand_that_is_called_none_is_a_brand(tmp_path: Path) -> None:
    table = [row | ({"brand": "None", "title": f"None shelf {number}"} if number % 9 == 0 else {})
             for number, row in enumerate(rows())]  # fmt: skip
    table = [row | {"color": "unknown" if number % 7 == 0 else row["color"]} for number, row in enumerate(table)]
    _, found = project(tmp_path, table)
    assert found["brand"] == {"kind": "text"}
    config = (tmp_path / "project" / "config.toml").read_text()
    assert 'empty_texts = ["unknown"]' in config


def test_a_text_that_seldom_stands_in_the_rows_own_texts_is_left_out(tmp_path: Path) -> None:
    table = rows()
    brands = [row["brand"] for row in table]
    table = [row | {"brand": brands[(number + 1) % len(brands)]} for number, row in enumerate(table)]
    _, found = project(tmp_path, table)
    assert "brand" not in found


def test_a_list_that_leaves_out_many_of_many_values_is_no_list(tmp_path: Path) -> None:
    table = [row | {"brand": f"Maker{number % 3 if number % 4 else number}"} for number, row in enumerate(rows(480))]
    table = [row | {"title": f"{row['brand']} {row['title']}"} for row in table]
    _, found = project(tmp_path, table)
    assert found["brand"] == {"kind": "text"}
    few = [row | {"brand": f"Maker{number % 3}"} for number, row in enumerate(table)]
    (tmp_path / "few").mkdir()
    _, found = project(tmp_path / "few", few)
    assert found["brand"]["values"] == ["Maker0", "Maker1", "Maker2"]
