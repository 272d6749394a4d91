"""One file of values: the same rows in every format, whole or not at all."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from catalog_enrichment.catalog import part_files
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.operations import spreadsheet, value_files
from catalog_enrichment.operations.value_files import FORMATS, SCHEMA, Format

SINCE = datetime(2026, 3, 29, 1, 30, 0, 123456, tzinfo=UTC)
FORMULAS = ["=1+1", "+1", "-5 °C", "@x", "\t\n =x", "\uff1dx", "\uff0bx", "\uff0dx", "\uff20x"]
TEXTS = ["it's", 'say "hi"', "línea\nnueva", "a,b;c|d", "商品-1", "🙂", "", " ", "a=b", "'=x", "\u2028"]


def value(text: str | None, **given: Any) -> dict[str, Any]:
    row = dict.fromkeys(SCHEMA.names) | {"product_id": "p", "attribute": "color", "value": text, "source": "merchant"}
    return row | given


ROWS = [
    value("Red", source="model", score=0.1 + 0.2, model_version="7", certificate_id="c", run_id="run-1", since=SINCE),
    value("Red", product_id="q", shop_id="=s", category="-c", attribute="@a", source="human", since=SINCE),
    *(value(text, product_id=text) for text in TEXTS + FORMULAS),
]


def batches(rows: list[dict[str, Any]], size: int = 3) -> Iterator[pa.RecordBatch]:
    for start in range(0, len(rows), size):
        yield pa.RecordBatch.from_pylist(rows[start : start + size], SCHEMA)


def read(file: Path, kind: Format) -> list[dict[str, Any]]:
    """The rows of a file, as the formats' common readers give them."""
    if kind == "parquet":
        return list(pq.read_table(file).to_pylist())
    if kind == "jsonl":
        return [json.loads(line) for line in file.read_text("utf-8").split("\n")[:-1]]
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def write(tmp_path: Path, kind: Format, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    target = tmp_path / f"values.{kind}"
    written = value_files.write_values(batches(rows), target, kind)
    assert written == {name: n for name in sorted({"merchant", "human", "model"})
                       if (n := sum(row["source"] == name for row in rows))}  # fmt: skip
    assert [file.name for file in tmp_path.iterdir()] == [target.name]
    return read(target, kind)


def test_parquet_has_the_rows_with_their_types(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part_files, "ROW_GROUP_BYTES", 1)
    assert write(tmp_path, "parquet", ROWS) == ROWS
    assert pq.read_schema(tmp_path / "values.parquet").equals(SCHEMA)


def test_json_lines_have_a_row_each_with_the_time_as_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part_files, "ROW_GROUP_BYTES", 1)
    text = "2026-03-29T01:30:00.123456Z"
    assert write(tmp_path, "jsonl", ROWS) == [row | {"since": row["since"] and text} for row in ROWS]
    assert "商品-1" in (tmp_path / "values.jsonl").read_text("utf-8")


def test_csv_has_a_header_and_an_apostrophe_before_what_would_be_a_formula(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part_files, "ROW_GROUP_BYTES", 1)
    found = write(tmp_path, "csv", ROWS)
    assert [*found[0]] == SCHEMA.names
    model, human = found[:2]
    assert (float(model["score"]), model["since"]) == (0.1 + 0.2, "2026-03-29T01:30:00.123456Z")
    assert [human[name] for name in ("shop_id", "category", "attribute", "score")] == ["'=s", "'-c", "'@a", ""]
    assert [row["value"] for row in found[2:]] == TEXTS + [f"'{text}" for text in FORMULAS]
    assert [row["product_id"] for row in found[2:]] == [row["value"] for row in found[2:]]


def test_the_pattern_of_formulas_means_the_same_to_python_and_arrow() -> None:
    texts = [chr(number) + "=x" for number in range(1, 0x3000)] + FORMULAS + TEXTS
    [guarded] = spreadsheet.as_text_array(pa.chunked_array([texts])).chunks
    by_python = [f"'{text}" if re.match(spreadsheet.FORMULA, text) else text for text in texts]
    assert guarded.to_pylist() == by_python
    assert spreadsheet.as_text_array(pa.chunked_array([[None, "x"]], pa.string())).to_pylist() == [None, "x"]


@pytest.mark.parametrize("kind", FORMATS)
def test_without_rows_there_is_a_file_without_rows(tmp_path: Path, kind: Format) -> None:
    assert write(tmp_path, kind, []) == []
    if kind == "csv":
        assert (tmp_path / "values.csv").read_text().replace('"', "").strip().split(",") == SCHEMA.names


@pytest.mark.parametrize("kind", FORMATS)
def test_an_export_that_fails_leaves_what_was_there(tmp_path: Path, kind: Format) -> None:
    def lost() -> Iterator[pa.RecordBatch]:
        yield from batches(ROWS)
        raise ConnectionError("lost")

    target = tmp_path / "values"
    target.write_text("earlier")
    with pytest.raises(ConnectionError):
        value_files.write_values(lost(), target, kind)
    assert target.read_text() == "earlier"
    assert [file.name for file in tmp_path.iterdir()] == ["values"]


def test_who_reads_the_earlier_file_keeps_reading_it(tmp_path: Path) -> None:
    target = tmp_path / "values.csv"
    target.write_text("earlier")
    with target.open() as reader:
        value_files.write_values(batches(ROWS), target, "csv")
        assert reader.read() == "earlier"
    assert "earlier" not in target.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("output", "given", "name", "kind"),
    [
        ("a.csv", None, "a.csv", "csv"),
        ("a.PARQUET", None, "a.PARQUET", "parquet"),
        ("a.jsonl", None, "a.jsonl", "jsonl"),
        ("a", None, "a", "csv"),
        ("a.txt", "jsonl", "a.txt", "jsonl"),
        ("there", None, "there/values.csv", "csv"),
        ("new/", "parquet", "new/values.parquet", "parquet"),
    ],
)
def test_the_suffix_tells_the_format_and_a_folder_gets_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str, given: Any, name: str, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    assert value_files.destination(output, given) == (tmp_path / name, kind)


def test_another_suffix_needs_a_format() -> None:
    with pytest.raises(ConfigError, match=r"\.json is none of csv, jsonl, parquet; give --format"):
        value_files.destination("a.json", None)


def test_a_file_is_replaced_only_on_request(tmp_path: Path) -> None:
    value_files.require_free(tmp_path / "new" / "folder" / "a.csv", overwrite=False)
    assert (tmp_path / "new" / "folder").is_dir()
    (tmp_path / "a.csv").touch()
    value_files.require_free(tmp_path / "a.csv", overwrite=True)
    with pytest.raises(ConfigError, match="--overwrite"):
        value_files.require_free(tmp_path / "a.csv", overwrite=False)
    with pytest.raises(ConfigError, match="is a folder"):
        value_files.require_free(tmp_path / "new", overwrite=True)


@pytest.mark.parametrize("name", ["file/below", "x" * 300])
def test_a_path_that_no_file_can_have_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be written"):
        value_files.require_free(tmp_path / name, overwrite=True)
