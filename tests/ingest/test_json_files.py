"""JSON lines, JSON files and Python literals: a row per document, also for a document that cannot be parsed (I7)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from catalog_enrichment.config.source import MappingConfig, SourceConfig
from catalog_enrichment.ingest.json_files import python_to_json

from .read_source import accepted_and_refused, read_source
from .test_sources import FOREIGN


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("{'a': 'it\\'s', \"b\": [1, None, True], 'c': u'\\xe9'}", {"a": "it's", "b": [1, None, True], "c": "é"}),
        ("  {'a': ('x', 'y')}\n", {"a": ["x", "y"]}),
        ("{'a': {'x': 1}, 'b': {'x': 1}}", {"a": {"x": 1}, "b": {"x": 1}}),
        ("{'a': __import__('os').getcwd()}", None),
        ("{'a': {1, 2}}", None),
        ("{'a': 1e999}", None),
        ("['a']", None),
        ("{'title': 'a', 'title': 'b'}", None),
        ("{'a': [{'x': 1, 'y': {True: 2, 1: 3}}]}", None),
        ("{'a': 'cut", None),
        ("{" * 5000, None),
        ("\0", None),
    ],
)
def test_python_literals_become_json_and_nothing_is_executed(line: str, value: Any) -> None:
    document = python_to_json(line)
    assert value == (document and json.loads(document))


def test_a_file_per_record_gives_a_row_per_file(spark: Any, tmp_path: Path) -> None:
    files = {
        "a b+c%20é.d.json": '{\n "title": "fine"\n}\n',
        "list.json": '[{"title": "a list"}]',
        "two.json": '{"title": "a"} {"title": "b"}',
        "text.json": '"text"',
        "empty.json": "",
        "blank.json": "\n \n",
        "picture.jpeg": "no document",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    mapping = MappingConfig(product_id="_file_stem", image_uris="{_file_stem}.jpeg")
    raw = read_source(spark, SourceConfig(format="json_files", path=".", mapping=mapping), tmp_path)
    rows = {row.product_id: row for row in raw.collect()}
    assert set(rows) == {"a b+c%20é.d", "list", "two", "text", "empty", "blank"}
    assert [name for name, row in rows.items() if row.parse_error is None] == ["a b+c%20é.d"]
    assert rows["a b+c%20é.d"].title == "fine"
    assert rows["a b+c%20é.d"].images[0].uri == "a b+c%20é.d.jpeg"


def test_a_line_is_a_row_if_it_is_exactly_one_json_object_i7(spark: Any, tmp_path: Path) -> None:
    good = {
        "plain": '{"product_id": "plain", "title": "t"}',
        "foreign": json.dumps({"product_id": "foreign", "title": "t"} | FOREIGN),
        "nan": '\t{"product_id": "nan", "title": "t", "price": NaN, "low": [-Infinity]} ',
        "surrogate": r'{"product_id": "surrogate", "title": "t", "x": "\ud800", "y": "\\ud800"}',
        "mark": '\ufeff{"product_id": "mark", "title": "t"}',
    }
    broken = [
        "[]", "{} {}", "{}{}", '{"product_id": "1"}, {"product_id": "2"}', '{"product_id": "1"}], [{}', '{"a": 1} x',
        "null", '"text"', '{"product_id": "1", "title": "a", "title": "b"}', "{'product_id': '1'}",
        '{"product_id": "1", "title": "a", "n": {"x": [{"y": 1, "y": 1}]}}', '{"product_id": "1",}',
        '{"product_id": "1", "title": NaN, "title": "b"}',
    ]  # fmt: skip
    text = "\ufeff" + "\n".join([*good.values(), "", " \t", *broken])
    (tmp_path / "feed.jsonl").write_bytes(text.encode() + b'\r\n{"product_id": "bytes \xff", "title": "t"}')
    accepted, refused = accepted_and_refused(spark, tmp_path, "jsonl", "feed.jsonl")
    assert accepted == dict.fromkeys(good, "t")
    assert refused == sorted([*broken, '{"product_id": "bytes \ufffd", "title": "t"}'])
