"""Sources of every format give the same products, and labels files are joined without losing a row."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

from catalog_enrichment import contract
from catalog_enrichment.config import strict
from catalog_enrichment.config.source import LabelsConfig, MappingConfig, SourceConfig
from catalog_enrichment.errors import ConfigError, DataContractError
from catalog_enrichment.ingest.product_columns import read_products
from catalog_enrichment.ingest.sources import opened_source

from .read_source import accepted_and_refused, config_of, fingerprint, read_source

PRODUCTS: list[dict[str, Any]] = [
    {
        "id": "1", "shop": "north", "name": 'A "red" shirt, new\nwith a second line', "text": None, "color": "Red",
        "material": ["Cotton", "Wool"], "pictures": ["images/1.jpg", "https://cdn.test/1-back.jpg"], "off": True,
        "at": "2026-01-02T03:04:05Z", "sure": True,
    },
    {
        "id": "2", "shop": "south", "name": "حقيبة 🎒 Größe\tM", "text": "plain", "color": "hidden",
        "material": ["hidden too"], "pictures": ["images/absent.jpg"], "off": False, "at": "2026-01-03T00:00:00Z",
        "sure": False,
    },
]  # fmt: skip
MAPPING = MappingConfig(
    product_id="id", shop_id="shop", title="name", description="text", image_uris="pictures", opt_out="off",
    updated_at="at", attributes={"color": "color", "material": "material"}, attributes_when="sure",
)  # fmt: skip


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = json.dumps(value) if isinstance(value, list | bool) else str(value)
    return '"' + text.replace('"', '""') + '"'


def _write(kind: str, folder: Path, rows: list[dict[str, Any]]) -> str:
    """The rows as a source of this kind inside ``folder``; returns its path relative to it."""
    file = folder / f"feed.{kind}"
    if kind in ("csv", "tsv"):
        separator = "," if kind == "csv" else "\t"
        lines = [separator.join(rows[0])] + [separator.join(_cell(value) for value in row.values()) for row in rows]
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    elif kind == "jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), file)
    else:
        write_deltalake(str(file), pa.Table.from_pylist(rows))
    return file.name


ORIGIN = ("source_uri", "row_number", "source_rows")


@pytest.mark.parametrize("kind", ["parquet", "csv", "tsv", "jsonl", "delta"])
def test_every_format_gives_the_same_products(kind: str, spark: Any, tmp_path: Path) -> None:
    path = _write(kind, tmp_path, PRODUCTS)
    folder = tmp_path / path if kind == "delta" else tmp_path
    picture = folder / "images" / "1.jpg"
    picture.parent.mkdir()
    picture.write_bytes(b"picture")

    raw = read_source(spark, SourceConfig(format=kind, path=path, mapping=MAPPING), tmp_path)
    first, second = raw.orderBy("product_id").collect()

    assert raw.columns == [*contract.columns("products"), "deleted", *ORIGIN, "payload", "parse_error"]
    assert (first.product_id, first.shop_id, first.title) == ("1", "north", PRODUCTS[0]["name"])
    assert (first.description, first.language, first.opt_out) == (None, "en", True)
    assert first.updated_at == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC).astimezone().replace(tzinfo=None)
    assert first.merchant_attributes == {"color": ["Red"], "material": ["Cotton", "Wool"]}
    version, back = f"{picture.stat().st_size}-{picture.stat().st_mtime_ns}", "https://cdn.test/1-back.jpg"
    near = str(picture.relative_to(tmp_path))
    assert [tuple(image) for image in first.images] == [(None, near, version), (None, back, back)]
    assert (second.title, second.images[0].version) == (PRODUCTS[1]["name"], "missing")
    assert (first.parse_error, second.parse_error) == (None, None)
    assert first.source_uri.endswith(".parquet" if kind == "delta" else path)
    numbers = {"parquet": (0, 1), "delta": (0, 1), "csv": (1, 3), "tsv": (1, 3)}  # of a CSV file's lines
    assert (first.row_number, second.row_number) == numbers.get(kind, (None, None))
    parts = {"title": PRODUCTS[1]["name"], "description": "plain", "images": ["missing"]}
    content = json.dumps(parts, ensure_ascii=False, separators=(",", ":")).encode()
    assert second.content_hash == hashlib.sha256(content).hexdigest()
    # the values of a product that is not marked as labelled are not read, not even into the payload
    assert second.merchant_attributes == {}
    assert "hidden" not in second.payload
    assert "Cotton" in first.payload


FOREIGN = {
    "Title": "other", "_source_uri": "u", "_metadata": {"a": 1}, "_corrupt_record": "c", "_row_number": 7, "": 1,
    "a.b": 1,
}  # fmt: skip
"""Columns that no mapping names, and that must not disturb the columns that it names."""


@pytest.mark.parametrize("kind", ["json_files", "python_lines", "parquet", "delta", "csv"])
def test_columns_that_the_mapping_does_not_name_refuse_nothing(kind: str, spark: Any, tmp_path: Path) -> None:
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
        known = {name: value for name, value in row.items() if name not in ("Title", "")}
        write_deltalake(str(tmp_path / path), pa.Table.from_pylist([known]))
    accepted, refused = accepted_and_refused(spark, tmp_path, kind, path)
    assert accepted == {"1": "t"}
    assert len(refused) == (kind == "json_files")


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl", "delta"])
def test_a_missing_path_and_an_empty_folder_are_refused(kind: str, spark: Any, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "_SUCCESS").touch()
    for path, complaint in (("nowhere", "nothing at"), ("empty", "empty folder")):
        with pytest.raises(DataContractError, match=complaint):
            read_source(spark, SourceConfig(format=kind, path=path), tmp_path)


def test_a_file_of_another_format_is_refused(spark: Any, tmp_path: Path) -> None:
    (tmp_path / "feed.parquet").write_text("product_id,title\n1,a\n")
    with pytest.raises(DataContractError, match="cannot be read as parquet"):
        read_source(spark, SourceConfig(format="parquet", path="feed.parquet"), tmp_path)
    with pytest.raises(DataContractError, match="not a readable Delta table"):
        read_source(spark, SourceConfig(format="delta", path="."), tmp_path)


@pytest.mark.parametrize("kind", ["jsonl", "delta"])
@pytest.mark.parametrize("whole", [True, False])
def test_the_fingerprint_changes_with_the_files(kind: str, whole: bool, spark: Any, tmp_path: Path) -> None:
    path = _write(kind, tmp_path, PRODUCTS)
    source = SourceConfig(format=kind, path=path if whole or kind == "delta" else ".")
    before = fingerprint(spark, source, tmp_path)
    assert fingerprint(spark, source, tmp_path) == before
    if kind == "delta":
        write_deltalake(str(tmp_path / path), pa.Table.from_pylist(PRODUCTS), mode="append")
    else:
        _write(kind, tmp_path, PRODUCTS[:1])
    assert fingerprint(spark, source, tmp_path) != before


# --- labels files -----------------------------------------------------------------------------------------------------


def _labelled(folder: Path, labels: str, key: str = "id", kind: str = "csv") -> SourceConfig:
    (folder / "feed.csv").write_text("id,name\n1,a\n2,b\n3,c\n")
    if labels:
        (folder / f"labels.{kind}").write_text(labels)
    attributes = {"color": "list" if kind == "id_lists" else "color"}
    return SourceConfig(
        format="csv",
        path="feed.csv",
        labels=LabelsConfig(format=kind, path=f"labels.{kind}", key=key),
        mapping=MappingConfig(product_id="id", title="name", attributes=attributes),
    )


def _colors(spark: Any, source: SourceConfig, folder: Path) -> dict[str, list[str] | None]:
    rows = read_source(spark, source, folder).collect()
    return {row.product_id: row.merchant_attributes.get("color") for row in rows}


def test_labels_are_joined_by_key_and_a_product_without_a_label_stays(spark: Any, tmp_path: Path) -> None:
    source = _labelled(tmp_path, "color,id\nRed,3\nBlue,1\nGrey,9\nGreen,\n")
    assert _colors(spark, source, tmp_path) == {"1": ["Blue"], "2": None, "3": ["Red"]}
    before = fingerprint(spark, source, tmp_path)
    (tmp_path / "labels.csv").write_text("color,id\nRed,2\n")
    assert fingerprint(spark, source, tmp_path) != before


def test_labels_can_be_arrays_in_a_file_of_another_format_and_lists_of_ids(spark: Any, tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [1, 3], "color": [["Red", "Blue"], []]}), tmp_path / "labels.parquet")
    arrays = _labelled(tmp_path, "", kind="parquet")
    assert _colors(spark, arrays, tmp_path) == {"1": ["Red", "Blue"], "2": None, "3": None}
    lists = _labelled(tmp_path, '{"train": ["1", "3"], "test": ["2"]}', kind="id_lists")
    assert _colors(spark, lists, tmp_path) == {"1": ["train"], "2": ["test"], "3": ["train"]}


@pytest.mark.parametrize(
    ("labels", "key", "colors"),
    [
        ("id,color\n1,Red\n2,Blue,more\n3,Grey\n", "id", ["Red", "Blue", "Grey"]),
        ("color,sure\nRed,1\nBlue\nGrey,0\n", "", ["Red", "Blue", "Grey"]),
    ],
)
def test_a_product_with_a_corrupt_label_row_gets_a_parse_error_and_shifts_no_label(
    labels: str, key: str, colors: list[str], spark: Any, tmp_path: Path
) -> None:
    rows = {row.product_id: row for row in read_source(spark, _labelled(tmp_path, labels, key), tmp_path).collect()}
    assert [rows[name].parse_error is None for name in "123"] == [True, False, True]
    assert [rows[name].merchant_attributes["color"] for name in "13"] == [colors[0:1], colors[2:3]]


@pytest.mark.parametrize(
    ("labels", "key", "complaint"),
    [
        ("id,color\n1,Red\n1,Blue\n", "id", "more than one row for id '1'"),
        ("id,color\n8,Red\n", "id", "no label for any row"),
        ("color\nRed\n", "id", r"labels.csv has no column 'id'.*\['color'\]"),
        ("id,color\n1,Red\n", "sku", "the source has no column 'sku'"),
        ("color\nRed\n\nBlue\n", "", "3 rows and .* has 2"),
        ("id,shade\n1,Red\n", "id", r"'color'.*does not exist.*\['id', 'name', 'shade'\]"),
        ("", "id", "source.labels.path: nothing at"),
    ],
)
def test_files_that_do_not_belong_together_are_refused(
    labels: str, key: str, complaint: str, spark: Any, tmp_path: Path
) -> None:
    with pytest.raises(DataContractError, match=complaint):
        read_source(spark, _labelled(tmp_path, labels, key), tmp_path)


def test_labels_in_a_folder_cannot_be_joined_by_order(spark: Any, tmp_path: Path) -> None:
    source = _labelled(tmp_path, "", key="")
    (tmp_path / "labels.csv").mkdir()
    (tmp_path / "labels.csv/part.csv").write_text("color\nRed\nRed\nRed\n")
    with pytest.raises(DataContractError, match="folder: its rows have no order"):
        read_source(spark, source, tmp_path)


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ({"format": "jsonl", "labels": {"format": "csv", "path": "y"}}, "labels.key is needed: jsonl"),
        ({"format": "csv", "labels": {"format": "parquet", "path": "y"}}, "labels.key is needed: parquet"),
        ({"format": "csv", "labels": {"format": "id_lists", "path": "y"}}, "labels.key is needed: id_lists"),
        ({"format": "jsonl", "columns": ["a"]}, "source.columns is allowed for csv"),
        ({"format": "csv", "columns": ["a", "a"]}, "must be different"),
        ({"format": "csv", "mapping": {"attributes_when_values": ["train"]}}, "attributes_when must name a column"),
        ({"format": "csv", "min_volume_ratio": 2.0}, r"min_volume_ratio must lie in \[0, 1\]"),
    ],
)
def test_options_that_contradict_each_other_are_config_errors(source: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        strict.build(SourceConfig, {"path": "x", **source}, where="test")


def test_a_column_of_two_types_in_a_folder_is_refused_naming_the_files(spark: Any, tmp_path: Path) -> None:
    for name, values in (("a", ["38"]), ("b", [38])):
        pq.write_table(pa.table({"product_id": [name], "title": ["t"], "size": values}), tmp_path / f"{name}.parquet")
    mapping = MappingConfig(attributes={"color": "size"})
    with pytest.raises(DataContractError, match=r"column 'size' is string in .*a\.parquet and int64 in .*b\.parquet"):
        read_source(spark, SourceConfig(format="parquet", path=".", mapping=mapping), tmp_path)
    unread = read_source(spark, SourceConfig(format="parquet", path="."), tmp_path)
    assert {row.product_id for row in unread.collect()} == {"a", "b"}


@pytest.mark.parametrize(
    ("kind", "name"),
    [("csv", "products[2]"), ("csv", "a{b,c}"), ("jsonl", "what?"), ("parquet", "all*"), ("csv", "back\\slash")],
)
def test_characters_of_patterns_in_a_path_mean_themselves(kind: str, name: str, spark: Any, tmp_path: Path) -> None:
    for file, title in ((f"{name}.{kind}", "right"), (f"products2.{kind}", "wrong"), (f"whatx.{kind}", "wrong")):
        if kind == "parquet":
            pq.write_table(pa.table({"product_id": ["1"], "title": [title]}), tmp_path / file)
        else:
            text = f"product_id,title\n1,{title}\n" if kind == "csv" else f'{{"product_id": "1", "title": "{title}"}}\n'
            (tmp_path / file).write_text(text)
    rows = read_source(spark, SourceConfig(format=kind, path=f"{name}.{kind}"), tmp_path).collect()  # type: ignore[arg-type]
    assert [row.title for row in rows] == ["right"]


@pytest.mark.parametrize("kind", ["jsonl", "json_list", "csv"])
def test_a_new_file_without_a_key_that_other_files_have(kind: str, spark: Any, tmp_path: Path) -> None:
    folder = tmp_path / "feed"
    folder.mkdir()

    def write(name: str, row: dict[str, str]) -> None:
        content = {"jsonl": json.dumps(row), "json_list": json.dumps([row])}
        table = "\n".join([",".join(row), ",".join(row.values())])
        (folder / f"{name}{'.json' if kind == 'json_list' else '.' + kind}").write_text(content.get(kind, table))

    mapping = MappingConfig(
        product_id="id", title="name", category="path[0]", description="of {fabric}", attributes={"color": "colour"}
    )
    source = SourceConfig(format=kind, path="feed", append_only=True, mapping=mapping)

    def changed(position: dict[str, Any]) -> dict[str, Any]:
        with opened_source(spark, config_of(source, tmp_path), [].append) as opened:
            part = opened.since(position, [])
            rows = read_products(part, source, tmp_path, config_of(source, tmp_path).pictures())
            return {row.product_id: (row.category, row.description, row.merchant_attributes) for row in rows.collect()}

    write("one", {"id": "1", "name": "a", "path": "Shirts", "fabric": "silk", "colour": "red"})
    with opened_source(spark, config_of(source, tmp_path), [].append) as opened:
        position = opened.position()
    write("two", {"id": "2", "name": "b"})
    if kind == "csv":  # whose files have the same columns
        with pytest.raises(DataContractError, match=r"column 'fabric' does not exist\. Available"):
            changed(position)
        return
    assert changed(position) == {"2": (None, None, {})}
    write("two", {"id": "2", "title": "b"})
    with pytest.raises(DataContractError, match=r"source\.mapping\.title: column 'name' .* does not exist"):
        changed(position)
