"""Files of every format as one frame: one row per record, also for records that cannot be parsed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from catalog_enrichment.config.source import MappingConfig, SourceConfig
from catalog_enrichment.errors import DataContractError
from catalog_enrichment.ingest.feeds import read_source
from catalog_enrichment.ingest.source_files import python_to_json


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("{'a': 'it\\'s', \"b\": [1, None, True], 'c': u'\\xe9'}", {"a": "it's", "b": [1, None, True], "c": "é"}),
        ("  {'a': ('x', 'y')}\n", {"a": ["x", "y"]}),
        ("{'a': __import__('os').getcwd()}", None),
        ("{'a': {1, 2}}", None),
        ("{'a': 1e999}", None),
        ("['a']", None),
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
    assert rows["a b+c%20é.d"].images[0].uri == f"{tmp_path}/a b+c%20é.d.jpeg"


def test_a_csv_without_a_header_gets_the_given_names(spark: Any, tmp_path: Path) -> None:
    (tmp_path / "feed.csv").write_text('1,"a, b"\n2,c,more\n')
    source = SourceConfig(format="csv", path="feed.csv", columns=["product_id", "title"])
    rows = read_source(spark, source, tmp_path).orderBy("product_id").collect()
    assert [(row.product_id, row.title, row.parse_error is None) for row in rows] == [
        ("1", "a, b", True), ("2", "c", False),
    ]  # fmt: skip


def test_a_column_without_a_name_is_named_by_its_index(spark: Any, tmp_path: Path) -> None:
    (tmp_path / "feed").mkdir()
    (tmp_path / "feed/1.csv").write_text(",title\n7,a\n")
    mapping = MappingConfig(product_id="_c0")
    (row,) = read_source(spark, SourceConfig(format="csv", path="feed/1.csv", mapping=mapping), tmp_path).collect()
    assert (row.product_id, row.title) == ("7", "a")
    with pytest.raises(DataContractError, match=r"\['_c0'\] have no name in the header"):
        read_source(spark, SourceConfig(format="csv", path="feed", mapping=mapping), tmp_path)


def test_reserved_names_are_refused_as_columns(spark: Any, tmp_path: Path) -> None:
    (tmp_path / "feed.jsonl").write_text('{"product_id": "1", "title": "t", "_file_stem": "x"}')
    with pytest.raises(DataContractError, match=r"may not be called \['_file_stem'\]"):
        read_source(spark, SourceConfig(format="jsonl", path="feed.jsonl"), tmp_path)
