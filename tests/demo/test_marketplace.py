"""The generated marketplace has the properties that its docstring lists."""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from catalog_enrichment import dictionary, resources
from catalog_enrichment.config.images import ImagesConfig
from catalog_enrichment.config.load import load_config
from catalog_enrichment.demo import pictures
from catalog_enrichment.demo.marketplace import Marketplace, generate
from catalog_enrichment.dictionary import Dictionary

PRODUCTS = 1500


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Marketplace:
    return generate(tmp_path_factory.mktemp("demo") / "marketplace", PRODUCTS)


@pytest.fixture(scope="module")
def rows(market: Marketplace) -> list[dict[str, Any]]:
    """The lines of the feed that can be parsed."""
    return [row for row in map(_parsed, market.source.read_text().splitlines()) if row]


@pytest.fixture(scope="module")
def truth(market: Marketplace) -> dict[tuple[str, str], list[str]]:
    table = pq.read_table(market.truth)
    return {(row["product_id"], row["attribute"]): row["values"] for row in table.to_pylist()}


@pytest.fixture(scope="module")
def attributes() -> Dictionary:
    return dictionary.load(resources.locate("schemas:attributes/demo.v1.json"))


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        row: dict[str, Any] = json.loads(line)
    except ValueError:
        return None
    return row


def test_the_same_seed_gives_the_same_marketplace(tmp_path: Path) -> None:
    first, second = generate(tmp_path / "a", 40), generate(tmp_path / "b", 40)
    assert first.source.read_bytes() == second.source.read_bytes()
    assert pq.read_table(first.truth).equals(pq.read_table(second.truth))
    for file in (tmp_path / "a/images").iterdir():
        assert file.read_bytes() == (tmp_path / "b/images" / file.name).read_bytes()
    assert generate(tmp_path / "c", 40, seed=8).source.read_bytes() != first.source.read_bytes()


def test_the_wholesaler_changes_no_other_listing(tmp_path: Path) -> None:
    without, with_it = generate(tmp_path / "a", 40), generate(tmp_path / "b", 40, wholesale=10)
    lines = with_it.source.read_text().splitlines(keepends=True)
    assert "".join(lines[:40]) == without.source.read_text()
    assert (len(lines), with_it.rows, without.rows) == (50, 50, 40)
    names = [sorted(file.name for file in (tmp_path / folder / "images").iterdir()) for folder in "ab"]
    assert names[0] == names[1]
    truth = pq.read_table(without.truth)
    assert pq.read_table(with_it.truth).slice(0, truth.num_rows).equals(truth)


def test_the_wholesaler_has_no_pictures_and_names_the_attributes(tmp_path: Path, attributes: Dictionary) -> None:
    """Filled in or not, most of its listings can be decided by their text, and few of its values are wrong."""
    market = generate(tmp_path / "m", 2, wholesale=1000)
    rows = [json.loads(line) for line in market.source.read_text().splitlines()[2:]]
    true_values = {
        (row["product_id"], row["attribute"]): row["values"] for row in pq.read_table(market.truth).to_pylist()
    }
    assert all(row["images"] == [] for row in rows)
    assert len({row["shop"] for row in rows}) == 1
    for name in ("color", "material"):
        spellings = attributes[name].spellings()
        for filled in (True, False):
            listed = [row for row in rows if bool(row[name]) is filled]
            assert 0.70 < len(listed) / len(rows) < 0.78 or not filled
            named = [
                {value for spelling, value in spellings.items() if f" {spelling} " in f" {dictionary.fold(text)} "}
                for text in (row["description"] for row in listed)
            ]
            truths = [set(true_values[row["id"], name]) for row in listed]
            assert all(values in (true, set()) for values, true in zip(named, truths, strict=True))
            assert 0.91 < sum(map(bool, named)) / len(listed) < 0.97
        given = [(row, row[name] if name == "material" else [row[name]]) for row in rows if row[name]]
        wrong = sum(
            {spellings.get(dictionary.fold(value), "") for value in values} != set(true_values[row["id"], name])
            for row, values in given
        )
        assert 0 < wrong / len(given) < 0.02


def test_every_fault_occurs(market: Marketplace, rows: list[dict[str, Any]]) -> None:
    assert len(market.source.read_text().splitlines()) == market.rows == PRODUCTS
    assert len(rows) < PRODUCTS
    ids = Counter(row["id"] for row in rows)
    assert ids.pop(None) >= 1
    assert max(ids.values()) == 2
    assert any(isinstance(row["title"], list) for row in rows)
    assert any(row["title"] == "  " for row in rows)
    files = {name: market.source.parent / name for row in rows for name in row["images"]}
    contents = [file.read_bytes() for file in files.values() if file.exists()]
    assert any(not row["images"] for row in rows)
    assert len(contents) < len(files)
    assert b"" in contents
    assert any(content.startswith(b"<html>") for content in contents)
    assert pictures.bomb() in contents
    assert any(content.startswith(b"\xff\xd8") and not content.endswith(b"\xff\xd9") for content in contents)


def test_the_bomb_is_small_and_declares_more_pixels_than_allowed() -> None:
    assert len(pictures.bomb()) < 50_000
    with pytest.warns(Image.DecompressionBombWarning), Image.open(io.BytesIO(pictures.bomb())) as image:
        assert image.width * image.height > ImagesConfig().max_pixels


def test_truth_covers_exactly_the_valid_rows(
    rows: list[dict[str, Any]], truth: dict[tuple[str, str], list[str]]
) -> None:
    valid_ids = {row["id"] for row in rows if row["id"] and isinstance(row["title"], str) and row["title"].strip()}
    assert {product for product, _ in truth} == valid_ids


def test_truth_is_outside_the_folder_of_the_feed(market: Marketplace) -> None:
    assert market.source.parent not in market.truth.parents


@pytest.mark.parametrize("attribute", ["color", "material", "country_of_origin"])
def test_merchants_fill_in_60_percent_and_3_percent_of_those_are_wrong(
    attribute: str, rows: list[dict[str, Any]], truth: dict[tuple[str, str], list[str]], attributes: Dictionary
) -> None:
    applicable = [row for row in rows if (row["id"], attribute) in truth]
    filled = [row for row in applicable if row[attribute] is not None]
    spellings, wrong = attributes[attribute].spellings(), 0
    for row in filled:
        values = row[attribute] if isinstance(row[attribute], list) else [row[attribute]]
        mapped = sorted(spellings.get(dictionary.fold(value), "") for value in values)
        wrong += mapped != sorted(truth[row["id"], attribute])
    assert 0.55 < len(filled) / len(applicable) < 0.66
    assert 0.012 < wrong / len(filled) < 0.055


@pytest.mark.parametrize("attribute", ["color", "material"])
def test_text_alone_is_not_enough(
    attribute: str, rows: list[dict[str, Any]], truth: dict[tuple[str, str], list[str]], attributes: Dictionary
) -> None:
    """About 65% of the texts name the attribute, and every value that is named is true."""
    applicable, named = [row for row in rows if (row["id"], attribute) in truth], 0
    for row in applicable:
        text = f" {dictionary.fold(row['title'] + ' ' + row['description'])} "
        values = {value for spelling, value in attributes[attribute].spellings().items() if f" {spelling} " in text}
        named += bool(values)
        assert values <= set(truth[row["id"], attribute])
    assert 0.58 < named / len(applicable) < 0.72


def test_a_material_is_one_to_three_values(truth: dict[tuple[str, str], list[str]]) -> None:
    sizes = Counter(len(values) for (_, attribute), values in truth.items() if attribute == "material")
    assert set(sizes) == {1, 2, 3}


def test_pictures_differ_by_colour_and_by_material() -> None:
    def mean(rgb: tuple[int, int, int] | None, *materials: str) -> Any:
        return pictures.render("cloth", rgb, materials, seed=1)[20:60, 30:60].mean(axis=(0, 1))

    assert mean((200, 30, 30))[0] > mean((30, 30, 200))[0] + 100
    grey = mean(None)
    assert max(grey) - min(grey) < 3
    plain, wool = (pictures.render("cloth", None, materials, seed=1) for materials in ((), ("Wool",)))
    assert plain.shape == wool.shape == (pictures.SIZE, pictures.SIZE, 3)
    assert (plain[-10:].astype(int) - wool[-10:]).std() > 20


def test_the_demo_config_maps_the_feed(rows: list[dict[str, Any]]) -> None:
    loaded = load_config("config:demo.toml")
    assert loaded.source
    mapping = loaded.source.mapping
    columns = [mapping.product_id, mapping.shop_id, mapping.title, mapping.description, mapping.category]
    columns += [mapping.language, mapping.image_uris, mapping.opt_out, mapping.updated_at]
    assert {*columns, *mapping.attributes.values()} == set(rows[0])
