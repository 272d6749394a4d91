"""Files that are parsed as a whole: JSON lists, xlsx sheets, XML feeds."""

from __future__ import annotations

import io
import json
from datetime import datetime
from typing import Any

import openpyxl
import pytest

from catalog_enrichment.ingest.csv_rows import COMMAS, Layout
from catalog_enrichment.ingest.whole_files import read_whole, text_rows


def read(kind: str, content: bytes | str, layout: Layout = COMMAS) -> list[Any]:
    given = content.encode() if isinstance(content, str) else content
    return [record for _, record in read_whole(kind, given, layout)]


@pytest.mark.parametrize(
    "around", ["[{}]", '{{"products": [{}], "tags": [1]}}', '{{"meta": {{}}, "rows_of_shop": [{}]}}', "\ufeff[{}]"]
)
def test_a_list_of_objects_is_found_and_numbers_stay_as_they_are_written(around: str) -> None:
    product = '{"id": 12345678901234567890, "size": 38.50, "on": true, "x": null, "n": NaN, "many": ["a", "b"]}'
    assert read("json_list", around.format(product)) == [
        {"id": "12345678901234567890", "size": "38.50", "on": "true", "x": None, "n": None, "many": '["a", "b"]'}
    ]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"a": 1}', "neither a list"),
        ('{"a": [1], "b": [2]}', "neither a list"),
        ('"text"', "neither a list"),
        ('[{"a": 1, "a": 2}]', "a key is repeated"),
        ('[{"a": 1}', "Expecting"),
    ],
)
def test_another_document_is_refused(content: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        read("json_list", content)


def test_what_is_no_object_is_a_refused_row_i7() -> None:
    rows = list(text_rows(read_whole("json_list", b'[{"id": "a"}, "text", ["x"]]', COMMAS), ["id"]))
    assert [(row.line, row.cells, row.refused) for row in rows] == [
        (0, ["a"], None),
        (1, [None], '"text"'),
        (2, [None], '["x"]'),
    ]


def sheet(*rows: list[Any], more: str = "") -> bytes:
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    if more:
        book.create_sheet(more).append(["only", "here"])
        book[more].append(["1", "2"])
    content = io.BytesIO()
    book.save(content)
    return content.getvalue()


def test_cells_of_a_sheet_are_texts_as_people_see_them() -> None:
    content = sheet(
        ["id", "size", "at", "on", None], [17.0, 38.5, datetime(2026, 1, 2, 3), True, "x"], [None] * 5, [18, None]
    )
    assert read("xlsx", content) == [
        {"id": "17", "size": "38.5", "at": "2026-01-02 03:00:00", "on": "true", "_c4": "x"},
        {"id": "18", "size": None, "at": None, "on": None, "_c4": None},
    ]


def test_the_row_with_names_and_the_sheet_are_chosen() -> None:
    content = sheet(["Report"], ["id", "title"], ["1", "a"], more="Other")
    assert read("xlsx", content, Layout(header_row=2)) == [{"id": "1", "title": "a"}]
    assert read("xlsx", content, Layout(sheet="Other")) == [{"only": "1", "here": "2"}]
    assert read("xlsx", content, Layout(header_row=9)) == []
    with pytest.raises(ValueError, match="Nowhere"):
        read("xlsx", content, Layout(sheet="Nowhere"))


def test_elements_of_a_telling_name_are_products_also_where_others_are_more() -> None:
    currencies = "".join(f"<currency id='{n}'/>" for n in range(9))
    feed = f"<y><shop><currencies>{currencies}</currencies><offers><offer id='1'><a>x</a></offer></offers></shop></y>"
    assert read("xml", feed) == [{"id": "1", "a": "x"}]


def test_names_without_their_space_repeated_elements_and_parameters() -> None:
    item = "<g:id>1</g:id><link href='https://a'/><pic>a</pic><pic>b</pic><param name='Color'>Red</param>"
    nested = "<g:s><g:p>1</g:p></g:s>"
    feed = f"<rss xmlns:g='http://g'><channel><item>{item}{nested}</item></channel></rss>"
    assert read("xml", feed) == [{"id": "1", "link": "https://a", "pic": json.dumps(["a", "b"]), "Color": "Red"}]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("<a><b>text</b></a>", "no element is repeated"),
        ("<a><b></a>", "no XML"),
        ("<!DOCTYPE a [<!ENTITY b 'c'>]><a><item x='1'>&b;</item></a>", "ENTITY is not read"),
    ],
)
def test_other_xml_is_refused(content: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        read("xml", content)


def test_objects_in_objects_become_columns_and_lists_of_objects_their_addresses_or_names() -> None:
    product = {
        "id": 1,
        "category": {"id": 5, "name": "Dress"},
        "images": [{"src": "https://a/1.jpg", "alt": "x"}, {"src": "https://a/2.jpg"}],
        "tags": [{"name": "new"}, {"name": "sale"}],
        "attributes": [{"name": "Color", "options": ["Red"]}],
        "specs": {"Color": "Red", "Fit": "slim"},
    }
    assert read("json_list", json.dumps([product])) == [
        {
            "id": "1",
            "category.id": "5",
            "category.name": "Dress",
            "images": '["https://a/1.jpg", "https://a/2.jpg"]',
            "tags": '["new", "sale"]',
            "attributes": '[{"name": "Color", "options": ["Red"]}]',
            "specs": '{"Color": "Red", "Fit": "slim"}',
        }
    ]


def test_elements_that_hold_a_name_and_a_value_are_pairs() -> None:
    pair = "<PARAM><PARAM_NAME>Color</PARAM_NAME><VAL>Red</VAL></PARAM>"
    assert read("xml", f"<shop><item id='1'><a>x</a>{pair}</item></shop>") == [{"id": "1", "a": "x", "Color": "Red"}]
