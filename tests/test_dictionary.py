"""The attribute dictionary: spellings, categories, and files that are refused."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
        ("rot", "de-AT", "Red"),
        ("rot", "DE", "Red"),
        ("rot", "xx", "Grey"),  # the product's own language goes before the others
        ("NAVY BLUE", "tr", "Navy Blue"),  # no value of this name has the Turkish dotless i
        ("rot", "en", None),  # two languages mean two values by it
        ("turquoise", "en", None),
        ("", "en", None),
    ],
)
def test_spellings_map_to_canonical_values(tmp_path: Path, raw: str, language: str | None, value: str | None) -> None:
    color = dictionary.load(write(tmp_path, COLOR))["color"]
    assert color.canonical(raw, language) == value


@pytest.mark.parametrize(
    ("category", "applies"),
    [
        ("Apparel", True),
        ("Apparel/Topwear", True),
        ("APPAREL/Topwear", True),
        ("ApparelX", False),
        ("Footwear", False),
        (None, True),
        ("", True),
    ],
)
def test_an_attribute_applies_to_its_categories_and_all_below(
    tmp_path: Path, category: str | None, applies: bool
) -> None:
    assert dictionary.load(write(tmp_path, COLOR))["color"].applies_to(category) is applies


@pytest.mark.parametrize(
    ("attributes", "complaint"),
    [
        ([COLOR | {"cardinality": "few"}], "few"),
        ([COLOR | {"aliases": {"en": {"x": "Mauve"}}}], "Mauve"),
        ([COLOR | {"colour": 1}], r"unknown key 'attributes\.0\.colour'"),
        ([COLOR | {"values": []}], "color: values must not be empty"),
        ([COLOR | {"values": "Black"}], r"attributes\.0\.values must be a list"),
        ([COLOR | {"values": [38, 39]}], r"attributes\.0\.values\.0 must be of type str"),
        ([COLOR | {"values": ["Red", "Red"]}], "a value is repeated"),
        ([COLOR | {"values": ["Red", " "]}], "must not be blank"),
        ([COLOR | {"values": ["Red", "Grey "]}], "blanks around"),
        ([COLOR | {"values": ["Red", "RED", "Grey", "Navy Blue"]}], "'Red' and 'RED' cannot be told apart"),
        ([COLOR | {"aliases": {"en": {"red": "Grey"}}}], "'Red' and 'red' cannot be told apart in en"),
        ([COLOR | {"aliases": {"de": {"rot": "Red", "Rot": "Grey"}}}], "'rot' and 'Rot' cannot be told apart in de"),
        ([COLOR | {"aliases": {"en": {"Grey": ["gray"]}}}], r"aliases\.en\.Grey must be of type str"),
        ([COLOR | {"enabled": "false"}], r"attributes\.0\.enabled must be of type bool"),
        ([COLOR | {"categories": "Apparel"}], r"attributes\.0\.categories must be a list"),
        ([COLOR | {"name": "size (EU)"}], "letters, digits, _ and -"),
        ([COLOR | {"name": "a/b"}], "letters, digits, _ and -"),
        ([COLOR, COLOR], "twice"),
        ([COLOR, COLOR | {"name": "Color"}], "differ in case alone"),
    ],
)
def test_a_bad_dictionary_is_a_config_error(tmp_path: Path, attributes: list[dict[str, Any]], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        dictionary.load(write(tmp_path, *attributes))


def test_a_disabled_attribute_is_not_predicted(tmp_path: Path) -> None:
    loaded = dictionary.load(write(tmp_path, COLOR, COLOR | {"name": "size", "enabled": False}))
    assert loaded.enabled == ["color"]
    assert loaded.hash() != dictionary.load(write(tmp_path, COLOR)).hash()


def test_a_key_that_is_repeated_is_a_config_error(tmp_path: Path) -> None:
    file = tmp_path / "attributes.json"
    file.write_text('{"attributes": [{"name": "a", "name": "b", "cardinality": "one", "values": ["x"]}]}')
    with pytest.raises(ConfigError, match="'name' is repeated"):
        dictionary.load(file)
    file.write_text("[]")
    with pytest.raises(ConfigError, match="must be a table of keys"):
        dictionary.load(file)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        *[("A", "A+"), ("A+", "A++"), ("-1.50", "+1.50"), ("C", "C++"), ("C++", "C#"), ("कुर्ता", "कुर्ती"), ("$", "$$")],
        *[("1/2", "12"), ("1.5", "15"), ("1,5", "15"), ("<5", ">5"), ("*", "***"), ("50%", "50"), ("10-12", "1012")],
        *[("เสื้อ", "เสื่อ"), ("घड़ा", "घड़ी"), ("?", "-"), ("A", "A-"), ("A-", "A--")],
        *[
            ("A", "A\u2013"),
            ("(-5)", "(5)"),
            ("- 5", "5"),
            ("\u20135 °C", "5 °C"),
            ("\u22125", "5"),
            ("6\u2033", "6\u2032"),
            ("16:9", "16 9"),
        ],
    ],
)
def test_values_that_differ_in_signs_or_marks_are_different_i1(one: str, other: str) -> None:
    assert dictionary.spelling(one) != dictionary.spelling(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        *[("navy-blue", "Navy  Blue"), ("T-Shirt", "t shirt"), ("Grey/Black", "grey black"), ("(Red)", "red")],
        *[
            ("Na\u00advy", "navy"),
            ("na\u200bvy", "Navy"),
            ("Ｒｅｄ", "red"),
            ("Cafe\u0301", "Café"),
            ("\u00a0Red", "red"),
        ],
        *[("STRASSE", "straße"), ("size-5", "Size 5"), ("Size 1.", "size 1")],
    ],
)
def test_case_spaces_and_punctuation_do_not_make_another_value(one: str, other: str) -> None:
    assert dictionary.spelling(one) == dictionary.spelling(other)


def test_turkish_has_two_letters_i() -> None:
    assert dictionary.spelling("KIRMIZI", "tr") == dictionary.spelling("kırmızı", "tr")
    assert dictionary.spelling("İPEK", "tr") == dictionary.spelling("ipek", "tr")
    assert dictionary.spelling("ipek", "tr") != dictionary.spelling("ıpek", "tr")
    assert dictionary.spelling("IPEK", "en") == dictionary.spelling("ipek", "en")


@pytest.mark.parametrize(
    "path", ["Home > Kitchen", "Home>Kitchen/", " Home | Kitchen", "Home &gt; Kitchen", "Home >> Kitchen"]
)
def test_levels_of_a_category_are_found_however_they_are_separated(path: str) -> None:
    assert dictionary.category_path(path) == "Home/Kitchen"


@given(st.lists(st.text(min_size=1, max_size=8), min_size=2, max_size=6, unique=True))
def test_no_two_values_of_a_dictionary_share_a_spelling_i1(values: list[str]) -> None:
    stripped = [value.strip() for value in values]
    row = {"name": "a", "cardinality": "one", "values": stripped}
    with tempfile.TemporaryDirectory() as folder:
        try:
            loaded = dictionary.load(write(Path(folder), row))["a"]
        except ConfigError:
            return
    for language in (None, "tr"):
        assert {loaded.canonical(value, language) for value in loaded.values} == set(stripped)
        assert all(loaded.canonical(value, language) == value for value in loaded.values)
