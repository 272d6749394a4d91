"""The attribute dictionary: spellings, categories, and files that are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from catalog_enrichment import dictionary
from catalog_enrichment.errors import ConfigError


def write(folder: Path, *attributes: dict[str, Any]) -> Path:
    path = folder / "attributes.json"
    path.write_text(json.dumps({"attributes": list(attributes)}))
    return path


COLOR: dict[str, Any] = {
    "name": "color",
    "cardinality": "one",
    "values": ["Navy Blue", "Grey", "Red"],
    "aliases": {"en": {"gray": "Grey", "navy": "Navy Blue"}, "de": {"rot": "Red"}, "xx": {"rot": "Grey"}},
    "categories": ["Apparel"],
}


@pytest.mark.parametrize(
    ("raw", "language", "value"),
    [
        ("navy-blue", None, "Navy Blue"),
        ("  NAVY  blue ", "en", "Navy Blue"),
        ("Gray", "en", "Grey"),
        ("rot", "de", "Red"),
        ("rot", "xx", "Grey"),  # the product's own language goes before the others
        ("turquoise", "en", None),
        ("", "en", None),
    ],
)
def test_spellings_map_to_canonical_values(tmp_path: Path, raw: str, language: str | None, value: str | None) -> None:
    color = dictionary.load(write(tmp_path, COLOR))["color"]
    assert color.spellings(language).get(dictionary.fold(raw)) == value


@pytest.mark.parametrize(
    ("category", "applies"),
    [("Apparel", True), ("Apparel/Topwear", True), ("ApparelX", False), ("Footwear", False), (None, True), ("", True)],
)
def test_an_attribute_applies_to_its_categories_and_all_below(
    tmp_path: Path, category: str | None, applies: bool
) -> None:
    assert dictionary.load(write(tmp_path, COLOR))["color"].applies_to(category) is applies


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"cardinality": "few"}, "few"),
        ({"aliases": {"en": {"x": "Mauve"}}}, "Mauve"),
        ({"colour": 1}, "unknown fields"),
        ({"values": []}, "color"),
    ],
)
def test_a_bad_dictionary_is_a_config_error(tmp_path: Path, change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        dictionary.load(write(tmp_path, COLOR | change))


def test_an_attribute_defined_twice_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="twice"):
        dictionary.load(write(tmp_path, COLOR, COLOR))


def test_a_disabled_attribute_is_not_predicted(tmp_path: Path) -> None:
    loaded = dictionary.load(write(tmp_path, COLOR, COLOR | {"name": "size", "enabled": False}))
    assert loaded.enabled == ["color"]
    assert loaded.hash() != dictionary.load(write(tmp_path, COLOR)).hash()
