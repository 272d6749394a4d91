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
from catalog_enrichment.records import ANY_VALUE


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


WIDTH: dict[str, Any] = {"name": "width", "kind": "number", "unit": "cm", "range": [1, 500]}
BRAND: dict[str, Any] = {"name": "brand", "kind": "text", "aliases": {"en": {"HP": "Hewlett-Packard"}}}


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
        ([WIDTH | {"unit": "foo"}], "'foo' is no known unit"),
        ([WIDTH | {"units": ["kg"]}], "'kg' cannot be converted into 'cm'"),
        ([WIDTH | {"values": ["1 cm"]}], "values is a key of attributes of kind 'closed', not 'number'"),
        ([WIDTH | {"aliases": {"en": {"a": "b"}}}], "aliases is a key of attributes of kind 'text', not 'number'"),
        ([WIDTH | {"cardinality": "many"}], "cardinality 'one'"),
        ([WIDTH | {"tolerance": 1.0}], r"tolerance must lie in \[0, 1\), not 1.0"),
        ([WIDTH | {"range": [5, 1]}], "smallest, largest"),
        ([WIDTH | {"range": [5]}], "smallest, largest"),
        ([WIDTH | {"range": [5, float("inf")]}], "smallest, largest"),
        ([BRAND | {"aliases": {"en": {"HP": "-"}}}], "'-' in the aliases of en is no value: it says nothing"),
        ([BRAND | {"aliases": {"en": {"": "HP"}}}], "'' in the aliases of en is no value"),
        ([BRAND | {"aliases": {"en": {"HP": "A", "h.p.": "B"}}}], "'h.p.' stands for 'A' and 'B' in en"),
        ([BRAND | {"aliases": {"en": {"A": "B"}, "de": {"b": "C"}}}], "'B' is what aliases stand for, and is an alias"),
        ([{"name": "width", "kind": "number"}], "a number needs a unit"),
        ([{"name": "brand", "kind": "text", "unit": "cm"}], "unit is a key of attributes of kind 'number', not 'text'"),
        ([COLOR | {"range": [1, 2]}], "range is a key of attributes of kind 'number', not 'closed'"),
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


def test_open_attributes_have_values_by_their_kind(tmp_path: Path) -> None:
    words = dictionary.load(write(tmp_path, COLOR, WIDTH, BRAND))
    width, brand, color = words["width"], words["brand"], words["color"]
    assert (width.is_open, brand.is_open, color.is_open) == (True, True, False)
    assert width.canonical('20"') == "50.8 cm"
    assert width.canonical("1.299 mm", "de") == "129.9 cm"
    assert width.canonical("12-15 cm") is None
    assert width.why_not("9000 cm") == "the number is not in the plausible range"
    assert brand.canonical("hp") == "Hewlett-Packard"
    assert brand.canonical("Acme  Co") == "Acme Co"
    assert color.why_not("blurple") == "no value of the dictionary has this spelling"
    assert color.why_not("gray") is None
    assert (width.labels, color.labels) == ((ANY_VALUE,), ("Navy Blue", "Grey", "Red"))


def test_an_alias_may_have_a_meaning_per_language(tmp_path: Path) -> None:
    aliases = {"en": {"HP": "Hewlett-Packard"}, "de": {"hp": "Horst Paulus", "HP.": "Horst Paulus"}}
    brand = dictionary.load(write(tmp_path, BRAND | {"aliases": aliases}))["brand"]
    assert (brand.canonical("HP", "de-AT"), brand.canonical("HP", "en")) == ("Horst Paulus", "Hewlett-Packard")
    assert brand.lists("Horst Paulus")
    assert brand.lists("Hewlett-Packard")


def test_a_stored_value_is_called_as_the_dictionary_says_now(tmp_path: Path) -> None:
    words = dictionary.load(write(tmp_path, COLOR, WIDTH | {"unit": "m", "range": [0.01, 5]}, BRAND))
    assert words["width"].renewed("109 cm") == "1.09 m"
    assert words["width"].renewed("900 cm") is None
    assert words["brand"].renewed("HP") == "Hewlett-Packard"
    assert (words["color"].renewed("Red"), words["color"].renewed("red")) == ("Red", None)
    assert words.is_same("width", "109 cm", "1.09 m")
    assert words.is_same("brand", "hp", "Hewlett-Packard")
    assert not words.is_same("color", "109 cm", "1.09 m")
    assert not words.is_same("unknown", "a", "A")
    assert words.is_same("unknown", "a", "a")
    assert set(words.open_attributes) == {"width", "brand"}
    assert words.is_same_set("width", ["109 cm"], ("1.09 m",))
    assert not words.is_same_set("width", ["109 cm", "50 cm"], ["1.09 m", "50 cm"])
    assert words.is_same_set("color", ("Red", "Grey"), ["Red", "Grey"])
    assert not words.is_same_set("width", [], ["1.09 m"])


def test_the_hash_of_numbers_is_about_units_and_ranges_alone(tmp_path: Path) -> None:
    def numbers_hash(*attributes: dict[str, Any]) -> int:
        return dictionary.load(write(tmp_path, *attributes)).numbers_hash()

    assert numbers_hash(COLOR, BRAND) == 0
    plain = numbers_hash(COLOR, WIDTH)
    assert 0 < plain < 2**63
    assert plain == numbers_hash(BRAND, WIDTH | {"tolerance": 0.5}, COLOR)
    others = [{"unit": "m"}, {"range": [1, 501]}, {"range": [2, 500]}, {"range": [None, 500]}, {"name": "height"}]
    assert len({plain, *(numbers_hash(WIDTH | other) for other in others)}) == 1 + len(others)


def test_an_open_attribute_lists_what_it_would_store(tmp_path: Path) -> None:
    words = dictionary.load(write(tmp_path, COLOR, WIDTH, BRAND))
    assert words["width"].lists("51 cm")
    assert not words["width"].lists("510 mm")
    assert not words["width"].lists("501 cm")
    assert words["brand"].lists("Acme")
    assert not words["brand"].lists("HP")
    assert not words["brand"].lists("")
    assert words["color"].lists("Grey")
    assert not words["color"].lists("gray")


def test_values_are_the_same_by_the_kind(tmp_path: Path) -> None:
    words = dictionary.load(write(tmp_path, COLOR, WIDTH, BRAND))
    assert words["width"].is_same("100 cm", "100.5 cm")
    assert words["brand"].is_same("ACME", "Acme")
    assert not words["color"].is_same("Grey", "grey")


def test_spellings_look_up_open_values(tmp_path: Path) -> None:
    spellings = dictionary.Spellings(dictionary.load(write(tmp_path, COLOR, WIDTH, BRAND)))
    assert spellings.canonical("width", "de", "1,5 m") == "150 cm"
    assert spellings.canonical("brand", None, "HP") == "Hewlett-Packard"


def test_the_aliases_of_the_own_language_go_before_others(tmp_path: Path) -> None:
    aliases = {"en": {"M": "Mercer"}, "de": {"M": "Mueller"}}
    brand = dictionary.load(write(tmp_path, BRAND | {"aliases": aliases}))["brand"]
    assert brand.canonical("m", "en-GB") == "Mercer"
    assert brand.canonical("m", "de") == "Mueller"


def test_plain_data_keeps_the_kinds(tmp_path: Path) -> None:
    words = dictionary.load(write(tmp_path, COLOR, WIDTH | {"units": ["mm"], "tolerance": 0.02}, BRAND))
    plain = json.loads(json.dumps(words.to_plain()))
    assert dictionary.Dictionary.from_plain(plain) == words
