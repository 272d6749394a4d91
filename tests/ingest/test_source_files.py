"""Files of every format as one frame: one row per record, also for records that cannot be parsed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from catalog_enrichment.config.source import MappingConfig, SourceConfig
from catalog_enrichment.errors import DataContractError
from catalog_enrichment.ingest.feeds import read_source
from catalog_enrichment.ingest.json_documents import python_to_json


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("{'a': 'it\\'s', \"b\": [1, None, True], 'c': u'\\xe9'}", {"a": "it's", "b": [1, None, True], "c": "é"}),
        ("  {'a': ('x', 'y')}\n", {"a": ["x", "y"]}),
        ("{'a': __import__('os').getcwd()}", None),
        ("{'a': {1, 2}}", None),
        ("{'a': 1e999}", None),
        ("['a']", None),
        ("{'title': 'a', 'title': 'b'}", None),
        ("{'a': [{'x': 1, 'y': {True: 2, 1: 3}}]}", None),
        ("{'a': {'x': 1}, 'b': {'x': 1}}", {"a": {"x": 1}, "b": {"x": 1}}),
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


def test_reserved_names_are_refused_as_mapped_columns(spark: Any, tmp_path: Path) -> None:
    (tmp_path / "feed.jsonl").write_text('{"product_id": "1", "title": "t", "_source_uri": "x"}')
    mapping = MappingConfig(title="_source_uri")
    with pytest.raises(DataContractError, match=r"may not be called \['_source_uri'\]"):
        read_source(spark, SourceConfig(format="jsonl", path="feed.jsonl", mapping=mapping), tmp_path)


FOREIGN = {
    "Title": "other",
    "_source_uri": "u",
    "_metadata": {"a": 1},
    "_corrupt_record": "c",
    "_row_number": 7,
    "": 1,
    "a.b": 1,
}
"""Columns that no mapping names, and that must not disturb those that it names."""


def accepted_and_refused(spark: Any, folder: Path, kind: str, path: str) -> tuple[dict[str, str], list[str]]:
    """Product id -> title of the rows without an error, and the payloads of the others, sorted."""
    rows = read_source(spark, SourceConfig(format=kind, path=path), folder).collect()  # type: ignore[arg-type]
    accepted = {row.product_id: row.title for row in rows if row.parse_error is None}
    assert len(accepted) == sum(row.parse_error is None for row in rows)
    return accepted, sorted(row.payload for row in rows if row.parse_error is not None)


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
    assert accepted == dict.fromkeys([*good, "bytes \ufffd"], "t")
    assert refused == sorted(broken)


@pytest.mark.parametrize("kind", ["json_files", "python_lines", "parquet", "delta", "csv"])
def test_columns_that_the_mapping_does_not_name_refuse_nothing(kind: str, spark: Any, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from deltalake import write_deltalake

    row = {"product_id": "1", "title": "t"} | FOREIGN
    path = f"feed.{kind}"
    if kind == "json_files":
        path = "."
        (tmp_path / "1.json").write_text(json.dumps(row))
        (tmp_path / "2.json").write_text('{"product_id": "2", "title": "a", "title": "b"}')
    elif kind == "python_lines":
        (tmp_path / path).write_text(repr(row))
    elif kind == "csv":
        (tmp_path / path).write_text(",".join([*row, "title2", "title2"]) + "\n" + ",".join(["1", "t", *"abcdefghi"]))
    elif kind == "parquet":
        unknown_to_spark = {"ns": pa.array([1], pa.timestamp("ns")), "time": pa.array([1], pa.time64("us"))}
        columns = {name: pa.array([value]) for name, value in row.items()} | unknown_to_spark
        pq.write_table(pa.table(columns), tmp_path / path)
    else:  # Delta takes no names that differ in case alone
        write_deltalake(
            str(tmp_path / path), pa.Table.from_pylist([{k: v for k, v in row.items() if k not in ("Title", "")}])
        )
    accepted, refused = accepted_and_refused(spark, tmp_path, kind, path)
    assert accepted == {"1": "t"}
    assert len(refused) == (kind == "json_files")


def test_lines_of_csv_files_stay_in_order_where_a_file_is_read_in_parts(spark: Any, tmp_path: Path) -> None:
    """Also: the columns of a folder's files are found by their names, and a file without one is refused by line."""
    (tmp_path / "a b+c%20é").mkdir()
    rows = [f'p{n},"title {n}\nin two lines, {"x" * (n % 50)}"\n' for n in range(300)]
    rows[150] = 'broken,"never closed\n'
    (tmp_path / "a b+c%20é/1.csv").write_text("product_id,title\n" + "".join(rows))
    (tmp_path / "a b+c%20é/2.csv").write_text("\ufeffother,title,product_id\r\nx,t,q1\r\n\r\ny,\xe9,q2\r\n")
    (tmp_path / "a b+c%20é/3.csv").write_text("product_id,name\nr1,t\n")
    before = spark.conf.get("spark.sql.files.maxPartitionBytes")
    spark.conf.set("spark.sql.files.maxPartitionBytes", "1000")
    try:
        accepted, refused = accepted_and_refused(spark, tmp_path, "csv", "a b+c%20é")
    finally:
        spark.conf.set("spark.sql.files.maxPartitionBytes", before)
    good = {f"p{n}": f"title {n}\nin two lines, {'x' * (n % 50)}" for n in range(300) if n != 150}
    assert accepted == good | {"q1": "t", "q2": "\xe9"}
    assert refused == ['broken,"never closed', "product_id,name", "r1,t"]


def test_a_csv_header_with_an_open_quote_is_refused(spark: Any, tmp_path: Path) -> None:
    (tmp_path / "feed.csv").write_text('product_id,"title\n1,t\n')
    with pytest.raises(DataContractError, match="the header cannot be read"):
        read_source(spark, SourceConfig(format="csv", path="feed.csv"), tmp_path)
