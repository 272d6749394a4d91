"""Source columns become those of products; bad rows get a parse_error, unusable columns are refused."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

from catalog_enrichment.config.images import FetchConfig, ImagesConfig
from catalog_enrichment.config.source import MappingConfig, SourceConfig
from catalog_enrichment.errors import DataContractError
from catalog_enrichment.ingest.product_columns import PAYLOAD_CHARS
from catalog_enrichment.ingest.product_pictures import uri_versions
from catalog_enrichment.inputs.stored_pictures import StoredPictures

from .read_source import read_source


def read_lines(spark: Any, folder: Path, lines: list[str], **mapping: Any) -> list[Any]:
    (folder / "feed.jsonl").write_text("\n".join(lines), encoding="utf-8")
    source = SourceConfig(format="jsonl", path="feed.jsonl", mapping=MappingConfig(**mapping))
    return read_source(spark, source, folder).collect()


# --- values -----------------------------------------------------------------------------------------------------------


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
    rows = read_lines(spark, tmp_path, lines, opt_out="off", updated_at="at")
    malformed = (
        "malformed row: cut off, broken quoting, a wrong number of columns, or bytes that are not in source.encoding"
    )
    assert len(rows) == len(lines)
    assert sorted((row.payload[:40], row.parse_error) for row in rows if row.parse_error) == [
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
    rows = read_lines(spark, tmp_path, lines, updated_at="at")
    assert {row.product_id: row.updated_at and row.updated_at.year for row in rows} == times
    assert [row.parse_error for row in rows] == [None] * 4


def test_the_text_of_a_corrupt_row_is_hidden_where_attributes_may_be_secret(spark: Any, tmp_path: Path) -> None:
    good = '{"product_id": "1", "title": "t", "color": "Red", "sure": false}'
    broken = '{"product_id": "2", "color": "secret", "sure": fal'
    rows = read_lines(spark, tmp_path, [good, broken], attributes={"color": "color"}, attributes_when="sure")
    [row] = [row for row in rows if row.parse_error]
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
    rows = {row.product_id: row for row in read_lines(spark, tmp_path, lines)}
    assert [row.parse_error for row in rows.values()] == [None] * 5
    assert [rows[name].title for name in ("nul", "emoji", "rtl")] == ["a\0b", "👩‍👩‍👧 shirt", "\u202eقميص"]
    assert "\ud800" not in rows["surrogate"].title
    assert (len(rows["long"].title), len(rows["long"].payload)) == (1_000_000, PAYLOAD_CHARS)


def test_invalid_utf8_in_parquet_is_made_valid(spark: Any, tmp_path: Path) -> None:
    text = b"a\xed\xa0\x80b"  # a lone surrogate, as some programs write it
    titles = pa.StringArray.from_buffers(1, pa.py_buffer(b"\x00\x00\x00\x00\x05\x00\x00\x00"), pa.py_buffer(text))
    pq.write_table(pa.table({"product_id": ["1"], "title": titles}), tmp_path / "feed.parquet")
    [row] = read_source(spark, SourceConfig(format="parquet", path="feed.parquet"), tmp_path).collect()
    assert row.title.startswith("a")
    assert "�" in row.title


# --- columns ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl", "delta"])
def test_the_error_for_a_missing_column_lists_the_available_columns(kind: str, spark: Any, tmp_path: Path) -> None:
    path = tmp_path / f"feed.{kind}"
    table = pa.table({"id": ["1"], "name": ["a"]})
    {
        "parquet": lambda: pq.write_table(table, path),
        "csv": lambda: path.write_text("id,name\n1,a\n"),
        "jsonl": lambda: path.write_text('{"id": "1", "name": "a"}\n'),
        "delta": lambda: write_deltalake(str(path), table),
    }[kind]()
    source = SourceConfig(format=kind, path=path.name, mapping=MappingConfig(product_id="id", title="headline"))
    with pytest.raises(DataContractError, match=r"'headline'.*does not exist.*'id', 'name'"):
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


def test_reserved_names_are_refused_as_mapped_columns(spark: Any, tmp_path: Path) -> None:
    line = '{"product_id": "1", "title": "t", "_source_uri": "x"}'
    with pytest.raises(DataContractError, match=r"may not be called \['_source_uri'\]"):
        read_lines(spark, tmp_path, [line], title="_source_uri")


# --- pictures ---------------------------------------------------------------------------------------------------------


def test_pictures_that_are_sent_are_put_into_the_store_unless_they_are_too_large(spark: Any, tmp_path: Path) -> None:
    """With its bytes, one picture of 192 MB ended the import: no memory in the JVM. Memory is not measured."""
    pictures = {"7": b"x" * 11, "8": b"x" * 10, "9": None}
    table = pa.table({"product_id": [7, 8, 9], "title": list("abc"), "image": list(pictures.values())})
    pq.write_table(table, tmp_path / "feed.parquet")
    source = SourceConfig(format="parquet", path="feed.parquet", mapping=MappingConfig(image_bytes="image"))
    images = ImagesConfig(max_bytes=10, store=str(tmp_path / "pictures"))
    rows = read_source(spark, source, tmp_path, images).orderBy("product_id").collect()
    version = hashlib.sha256(b"x" * 10).hexdigest()
    assert {row.product_id: [tuple(image) for image in row.images] for row in rows} == {
        "7": [(None, None, "too_large:11")], "8": [(None, None, version)], "9": [],
    }  # fmt: skip
    assert [row.parse_error for row in rows] == [None] * 3
    store = StoredPictures(tmp_path / "pictures")
    assert [file.name for file in store.files()] == [version]
    assert store.get(version) == b"x" * 10


HOSTILE = ["http://[::1", "https://a\u2100b/x", "file://[x", "/proc/kmsg", "file:///etc/passwd", "../secret.jpg"]
HOSTILE += ["simplecache::http://127.0.0.1/x", "zip://x::/etc/passwd", "a\0b", "x" * 5000, "file:///%00", "pipe"]


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
    elsewhere = ImagesConfig(fetch=FetchConfig(allowed_folders=(str(tmp_path),)))
    seen = [row.images[0].version for row in read_source(spark, source, tmp_path, elsewhere).collect()]
    assert seen[0] == HOSTILE[0]
    # `../secret.jpg` is refused as a path, also where the folder above is allowed
    assert seen[5].endswith("../secret.jpg")


def test_a_picture_below_the_root_has_a_path_from_there(spark: Any, tmp_path: Path) -> None:
    """So that a copy of the root's folder has its own pictures."""
    feed, root = tmp_path / "feed", str(tmp_path)
    feed.mkdir()
    (feed / "a.jpg").write_bytes(b"1")
    named = ["a.jpg", f"{root}/feed/a.jpg", f"{root}//feed/a.jpg", f"{root}-other/a.jpg", f"file://{root}/feed/a.jpg"]
    rows = [{"product_id": str(number), "title": "t", "picture": uri} for number, uri in enumerate(named)]
    (feed / "feed.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = SourceConfig(format="jsonl", path="feed/feed.jsonl", mapping=MappingConfig(image_uris="picture"))
    found = {row.product_id: row.images[0] for row in read_source(spark, source, tmp_path).collect()}
    assert [found[str(number)].uri for number in range(5)] == [*["feed/a.jpg"] * 3, *named[3:]]
    version = f"1-{(feed / 'a.jpg').stat().st_mtime_ns}"
    assert [found[str(number)].version for number in range(5)] == [*[version] * 3, named[3], version]


def test_versions_are_those_of_the_picture_sources(tmp_path: Path) -> None:
    file = tmp_path / "a b.jpg"
    file.write_bytes(b"1")
    images = ImagesConfig(fetch=FetchConfig(allowed_folders=(str(tmp_path),)))
    uris = [[str(file), file.as_uri()], [], ["https://cdn.test/a.jpg", "/nowhere/a"]]
    version = f"{file.stat().st_size}-{file.stat().st_mtime_ns}"
    assert list(uri_versions(pd.Series(uris), images)) == [[version] * 2, [], uris[2]]
