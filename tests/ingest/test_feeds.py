"""Sources of every format give the same products; bad rows get a parse_error."""

from __future__ import annotations

import hashlib
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from catalog_enrichment import contract
from catalog_enrichment.config.fetch import FetchConfig
from catalog_enrichment.config.schema import ImagesConfig
from catalog_enrichment.config.source import MappingConfig, SourceConfig
from catalog_enrichment.errors import DataContractError
from catalog_enrichment.ingest.feeds import PAYLOAD_CHARS, fingerprint, read_source, uri_versions

PRODUCTS: list[dict[str, Any]] = [
    {
        "id": "1",
        "shop": "north",
        "name": 'A "red" shirt, new\nwith a second line',
        "text": None,
        "color": "Red",
        "material": ["Cotton", "Wool"],
        "pictures": ["images/1.jpg", "https://cdn.test/1-back.jpg"],
        "off": True,
        "at": "2026-01-02T03:04:05Z",
        "sure": True,
    },
    {
        "id": "2",
        "shop": "south",
        "name": "حقيبة 🎒 Größe\tM",
        "text": "plain",
        "color": "hidden",
        "material": ["hidden too"],
        "pictures": ["images/absent.jpg"],
        "off": False,
        "at": "2026-01-03T00:00:00Z",
        "sure": False,
    },
]
MAPPING = MappingConfig(
    product_id="id",
    shop_id="shop",
    title="name",
    description="text",
    image_uris="pictures",
    opt_out="off",
    updated_at="at",
    attributes={"color": "color", "material": "material"},
    attributes_when="sure",
)


def version_of(file: Path) -> str:
    return f"{file.stat().st_size}-{file.stat().st_mtime_ns}"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = json.dumps(value) if isinstance(value, list | bool) else str(value)
    return '"' + text.replace('"', '""') + '"'


def _write(kind: str, folder: Path, rows: list[dict[str, Any]]) -> str:
    """The rows as a source of this kind inside ``folder``; returns its path relative to it."""
    if kind in ("csv", "tsv"):
        separator = "," if kind == "csv" else "\t"
        lines = [separator.join(rows[0])] + [separator.join(_cell(value) for value in row.values()) for row in rows]
        (folder / f"feed.{kind}").write_text("\n".join(lines) + "\n", encoding="utf-8")
    elif kind == "jsonl":
        (folder / "feed.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), folder / "feed.parquet")
    else:
        from deltalake import write_deltalake

        write_deltalake(str(folder / "feed.delta"), pa.Table.from_pylist(rows))
    return f"feed.{kind}"


@pytest.mark.parametrize("kind", ["parquet", "csv", "tsv", "jsonl", "delta"])
def test_every_format_gives_the_same_products(kind: str, spark: Any, tmp_path: Path) -> None:
    path = _write(kind, tmp_path, PRODUCTS)
    folder = tmp_path / path if kind == "delta" else tmp_path
    (folder / "images").mkdir()
    (folder / "images/1.jpg").write_bytes(b"picture")

    raw = read_source(spark, SourceConfig(format=kind, path=path, mapping=MAPPING), tmp_path)
    first, second = raw.orderBy("product_id").collect()

    assert raw.columns == [*contract.columns("products"), "source_uri", "row_number", "payload", "parse_error"]
    assert (first.product_id, first.shop_id, first.title) == ("1", "north", PRODUCTS[0]["name"])
    assert (first.description, first.language, first.opt_out) == (None, "en", True)
    assert first.updated_at == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC).astimezone().replace(tzinfo=None)
    assert first.merchant_attributes == {"color": ["Red"], "material": ["Cotton", "Wool"]}
    assert [(image.bytes, image.uri) for image in first.images] == [
        (None, str(folder / "images/1.jpg")),
        (None, "https://cdn.test/1-back.jpg"),
    ]
    assert first.images[0].version == version_of(folder / "images/1.jpg")
    assert first.images[1].version == "https://cdn.test/1-back.jpg"
    assert (second.title, second.images[0].version) == (PRODUCTS[1]["name"], "missing")
    assert first.parse_error is None
    assert second.parse_error is None
    assert first.source_uri.endswith(".parquet" if kind == "delta" else path)
    numbers = {"parquet": (0, 1), "delta": (0, 1), "csv": (1, 3), "tsv": (1, 3)}  # of a CSV file's lines
    assert (first.row_number, second.row_number) == numbers.get(kind, (None, None))
    assert second.content_hash == _content_hash(PRODUCTS[1]["name"], "plain", ["missing"])
    # the values of a product that is not marked as labelled are not read, not even into the payload
    assert second.merchant_attributes == {}
    assert "hidden" not in second.payload
    assert "Cotton" in first.payload


def _content_hash(title: str, description: str, images: list[str]) -> str:
    parts = {"title": title, "description": description, "images": images}
    return hashlib.sha256(json.dumps(parts, ensure_ascii=False, separators=(",", ":")).encode()).hexdigest()


def test_the_version_of_picture_bytes_is_their_hash(spark: Any, tmp_path: Path) -> None:
    table = pa.table({"product_id": [7, 8], "title": ["a", "b"], "image": [b"jpeg", None]})
    pq.write_table(table, tmp_path / "feed.parquet")
    mapping = MappingConfig(image_bytes="image")
    first, second = read_source(
        spark, SourceConfig(format="parquet", path="feed.parquet", mapping=mapping), tmp_path
    ).collect()
    assert first.product_id == "7"
    assert [bytes(i.bytes) for i in first.images] == [b"jpeg"]
    assert first.images[0].version == hashlib.sha256(b"jpeg").hexdigest()
    assert second.images == []


def test_bytes_of_a_picture_above_the_limit_are_not_imported(spark: Any, tmp_path: Path) -> None:
    """With its bytes, one picture of 192 MB ended the import: no memory in the JVM. Memory is not measured."""
    table = pa.table({"product_id": [7, 8], "title": ["a", "b"], "image": [b"x" * 11, b"x" * 10]})
    pq.write_table(table, tmp_path / "feed.parquet")
    source = SourceConfig(format="parquet", path="feed.parquet", mapping=MappingConfig(image_bytes="image"))
    rows = read_source(spark, source, tmp_path, ImagesConfig(max_bytes=10)).orderBy("product_id").collect()
    assert [[(i.bytes and bytes(i.bytes), i.version) for i in row.images] for row in rows] == [
        [(None, "too_large:11")],
        [(b"x" * 10, hashlib.sha256(b"x" * 10).hexdigest())],
    ]
    assert [row.parse_error for row in rows] == [None, None]


def test_malformed_lines_and_wrong_types_are_rows_with_an_error(spark: Any, tmp_path: Path) -> None:
    lines = [
        '{"product_id": "1", "title": "fine", "off": false, "at": "2026-01-01"}',
        '{"product_id": "2", "title": "cut',
        '{"product_id": "3", "title": ["a list", 404], "off": false}',
        '{"product_id": "4", "title": {"en": "an object"}}',
        '{"product_id": "5", "title": "t", "off": "perhaps"}',
        '{"product_id": "6", "title": "t", "at": "yesterday"}',
        '{"product_id": "9", "title": "t", "at": "294247-01-10"}',
        '{"product_id": "A", "title": "t", "at": "-0044-03-15"}',
        '{"product_id": 7, "title": 12}',
        "[NEW] this is no JSON",
        '{"product_id": "8", "title": "[NEW] {shirt}"}',
    ]
    (tmp_path / "feed.jsonl").write_text("\n".join(lines))
    mapping = MappingConfig(opt_out="off", updated_at="at")
    raw = read_source(spark, SourceConfig(format="jsonl", path="feed.jsonl", mapping=mapping), tmp_path)
    errors = {row.payload: row.parse_error for row in raw.collect()}
    payloads_and_errors = sorted((payload[:40], error) for payload, error in errors.items() if error)
    malformed = "malformed row: cut off, broken quoting, or a wrong number of columns"
    assert len(errors) == len(lines)
    assert payloads_and_errors == [
        ("[NEW] this is no JSON", malformed),
        ('{"product_id": "2", "title": "cut', malformed),
        ('{"product_id":"3","title":"[\\"a list\\",4', 'title is no text: ["a list",404]'),
        ('{"product_id":"4","title":"{\\"en\\":\\"an ', 'title is no text: {"en":"an object"}'),
        ('{"product_id":"5","title":"t","opt_out":', "opt_out is no boolean: perhaps"),
        ('{"product_id":"6","title":"t","updated_a', "updated_at is no timestamp: yesterday"),
        ('{"product_id":"9","title":"t","updated_a', "updated_at is not in the years 1 to 9999: 294247-01-10"),
        ('{"product_id":"A","title":"t","updated_a', "updated_at is not in the years 1 to 9999: -0044-03-15"),
    ]


def test_what_programs_write_for_no_time_is_no_time(spark: Any, tmp_path: Path) -> None:
    times = {"0001-01-01T00:00:00Z": None, "9999-12-31": None, "0001-01-02": 1, "9999-12-30T23:00:00Z": 9999}
    lines = [json.dumps({"product_id": time, "title": "t", "at": time}) for time in times]
    (tmp_path / "feed.jsonl").write_text("\n".join(lines))
    source = SourceConfig(format="jsonl", path="feed.jsonl", mapping=MappingConfig(updated_at="at"))
    rows = read_source(spark, source, tmp_path).collect()
    assert {row.product_id: row.updated_at and row.updated_at.year for row in rows} == times
    assert [row.parse_error for row in rows] == [None] * 4


@pytest.mark.parametrize("kind", ["csv", "tsv"])
def test_rows_with_too_few_or_too_many_cells_are_rows_with_an_error(kind: str, spark: Any, tmp_path: Path) -> None:
    separator = "," if kind == "csv" else "\t"
    rows = [["product_id", "title", "color"], ["1", "fine", "Red"], ["2", "short"], ["3", "long", "Red", "more"]]
    (tmp_path / "feed").write_text("\n".join(separator.join(row) for row in rows))
    mapping = MappingConfig(attributes={"color": "color"})
    raw = read_source(spark, SourceConfig(format=kind, path="feed", mapping=mapping), tmp_path)
    # also when few columns are read
    rows = raw.select("product_id", "parse_error").collect()
    assert [row.product_id for row in rows if row.parse_error is None] == ["1"]
    assert len(rows) == 3


def test_the_text_of_a_corrupt_row_is_hidden_where_attributes_may_be_secret(spark: Any, tmp_path: Path) -> None:
    good = '{"product_id": "1", "title": "t", "color": "Red", "sure": false}'
    (tmp_path / "feed.jsonl").write_text(good + '\n{"product_id": "2", "color": "secret", "sure": fal')
    mapping = MappingConfig(attributes={"color": "color"}, attributes_when="sure")
    raw = read_source(spark, SourceConfig(format="jsonl", path="feed.jsonl", mapping=mapping), tmp_path)
    row = raw.where("parse_error is not null").first()
    assert row is not None
    assert row.payload is None
    assert "secret" not in str(row)


def test_unusual_text_is_kept_as_valid_utf8(spark: Any, tmp_path: Path) -> None:
    lines = [
        r'{"product_id": "nul", "title": "a\u0000b"}',
        r'{"product_id": "surrogate", "title": "a\ud800b"}',
        '{"product_id": "emoji", "title": "👩‍👩‍👧 shirt"}',
        '{"product_id": "rtl", "title": "\u202eقميص"}',
        json.dumps({"product_id": "long", "title": "x" * 1_000_000}),
    ]
    (tmp_path / "feed.jsonl").write_text("\n".join(lines), encoding="utf-8")
    raw = read_source(spark, SourceConfig(format="jsonl", path="feed.jsonl"), tmp_path)
    rows = {row.product_id: row for row in raw.collect()}
    assert set(rows) == {"nul", "surrogate", "emoji", "rtl", "long"}
    assert all(row.parse_error is None for row in rows.values())
    assert rows["nul"].title == "a\0b"
    assert "\ud800" not in rows["surrogate"].title
    assert rows["emoji"].title == "👩‍👩‍👧 shirt"
    assert rows["rtl"].title == "\u202eقميص"
    assert len(rows["long"].title) == 1_000_000
    assert len(rows["long"].payload) == PAYLOAD_CHARS


def test_invalid_utf8_in_parquet_is_made_valid(spark: Any, tmp_path: Path) -> None:
    text = b"a\xed\xa0\x80b"  # a lone surrogate, as some programs write it
    titles = pa.StringArray.from_buffers(1, pa.py_buffer(b"\x00\x00\x00\x00\x05\x00\x00\x00"), pa.py_buffer(text))
    pq.write_table(pa.table({"product_id": ["1"], "title": titles}), tmp_path / "feed.parquet")
    row = read_source(spark, SourceConfig(format="parquet", path="feed.parquet"), tmp_path).first()
    assert row is not None
    assert row.title.startswith("a")
    assert "�" in row.title


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
def test_the_error_for_a_missing_column_lists_the_available_ones(kind: str, spark: Any, tmp_path: Path) -> None:
    path = _write(kind, tmp_path, PRODUCTS)
    source = SourceConfig(format=kind, path=path, mapping=MappingConfig(product_id="id", title="headline"))
    with pytest.raises(DataContractError, match=r"'headline'.*does not exist.*'name'"):
        read_source(spark, source, tmp_path)


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("title", pa.array([{"en": "a"}])),
        ("product_id", pa.array([1.0])),
        ("image_bytes", pa.array(["aGk="])),
        ("updated_at", pa.array([17])),
        ("color", pa.array([{"hex": "ff0000"}])),
    ],
)
def test_a_column_of_an_unusable_type_is_refused(column: str, values: Any, spark: Any, tmp_path: Path) -> None:
    columns = {"product_id": pa.array(["1"]), "title": pa.array(["a"])} | {column: values}
    pq.write_table(pa.table(columns), tmp_path / "feed.parquet")
    extra: dict[str, Any] = {"attributes": {"color": "color"}} if column == "color" else {column: column}
    source = SourceConfig(format="parquet", path="feed.parquet", mapping=MappingConfig(**extra))
    with pytest.raises(DataContractError, match=f"{column}.*has type .*; usable: "):
        read_source(spark, source, tmp_path)


def test_json_objects_are_an_unusable_type_for_titles(spark: Any, tmp_path: Path) -> None:
    (tmp_path / "feed.jsonl").write_text('{"product_id": "1", "title": {"en": "a"}}\n')
    with pytest.raises(DataContractError, match="type struct<"):
        read_source(spark, SourceConfig(format="jsonl", path="feed.jsonl"), tmp_path)


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl", "delta"])
def test_a_missing_path_and_an_empty_folder_are_refused(kind: str, spark: Any, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "_SUCCESS").touch()
    with pytest.raises(DataContractError, match="nothing at"):
        read_source(spark, SourceConfig(format=kind, path="nowhere"), tmp_path)
    with pytest.raises(DataContractError, match="empty folder"):
        read_source(spark, SourceConfig(format=kind, path="empty"), tmp_path)


def test_a_file_of_another_format_is_refused(spark: Any, tmp_path: Path) -> None:
    (tmp_path / "feed.parquet").write_text("product_id,title\n1,a\n")
    with pytest.raises(DataContractError, match="cannot be read as parquet"):
        read_source(spark, SourceConfig(format="parquet", path="feed.parquet"), tmp_path)
    with pytest.raises(DataContractError, match="not a readable Delta table"):
        read_source(spark, SourceConfig(format="delta", path="."), tmp_path)


def test_the_fingerprint_changes_with_the_files(spark: Any, tmp_path: Path) -> None:
    source = SourceConfig(format="jsonl", path=_write("jsonl", tmp_path, PRODUCTS))
    before = fingerprint(spark, source, tmp_path)
    assert fingerprint(spark, source, tmp_path) == before
    _write("jsonl", tmp_path, PRODUCTS[:1])
    assert fingerprint(spark, source, tmp_path) != before
    delta = SourceConfig(format="delta", path=_write("delta", tmp_path, PRODUCTS))
    assert fingerprint(spark, delta, tmp_path) not in (before, "")


HOSTILE = ["http://[::1", "https://a\u2100b/x", "file://[x", "/proc/kmsg", "file:///etc/passwd", "../secret.jpg"]
HOSTILE += ["simplecache::http://127.0.0.1/x", "zip://x::/etc/passwd", "\0", "x" * 5000, "file:///%00", "pipe"]


def test_no_uri_stops_a_feed_and_no_version_tells_of_a_file_elsewhere(spark: Any, tmp_path: Path) -> None:
    feed = tmp_path / "feed"
    feed.mkdir()
    (tmp_path / "secret.jpg").write_bytes(b"a secret")
    os.mkfifo(feed / "pipe")
    rows = [{"product_id": str(number), "title": "t", "picture": uri} for number, uri in enumerate(HOSTILE)]
    (feed / "feed.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = SourceConfig(format="jsonl", path="feed/feed.jsonl", mapping=MappingConfig(image_uris="picture"))
    images = [row.images[0] for row in read_source(spark, source, tmp_path).collect()]
    assert len(images) == len(HOSTILE)
    assert {image.version for image in images if image.version != image.uri} == {"missing"}
    (tmp_path / "pictures").mkdir()
    elsewhere = ImagesConfig(fetch=FetchConfig(allowed_folders=(str(tmp_path),)))
    seen = [row.images[0].version for row in read_source(spark, source, tmp_path, elsewhere).collect()]
    assert seen[0] == HOSTILE[0]
    # `../secret.jpg` is refused as a path, also where the folder above is allowed
    assert seen[5].endswith("../secret.jpg")


def test_versions_are_those_of_the_picture_sources(tmp_path: Path) -> None:
    (tmp_path / "a b.jpg").write_bytes(b"1")
    images = ImagesConfig(fetch=FetchConfig(allowed_folders=(str(tmp_path),)))
    uris = [[str(tmp_path / "a b.jpg"), (tmp_path / "a b.jpg").as_uri()], [], ["https://cdn.test/a.jpg", "/nowhere/a"]]
    one, none, remote = uri_versions(pd.Series(uris), images)
    assert one == [version_of(tmp_path / "a b.jpg")] * 2
    assert (none, remote) == ([], ["https://cdn.test/a.jpg", "/nowhere/a"])
