"""The bounded sample of a file: formats, refusals, and how much of a large file is read."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from catalog_enrichment.errors import ConfigError, DataContractError
from catalog_enrichment.ingest import file_sample
from catalog_enrichment.ingest.file_sample import read_sample

from .project_files import products, write


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.jsonl.gz", "a.parquet", "a.txt.csv"])
def test_every_format_gives_the_same_columns(name: str, tmp_path: Path) -> None:
    sample = read_sample(write(tmp_path / name, products(30)))
    assert sample.format == name.removesuffix(".gz").rsplit(".", 1)[-1]
    assert (sample.rows, sample.whole, sample.broken) == (30, True, 0)
    assert list(sample.columns) == list(products(1)[0])
    assert sample.columns["Colour"][:4] == [None, "Green", "Navy Blue", "Red"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.csv", b"", "is empty"),
        ("blank.csv", b" \n\n", "is empty"),
        ("header.csv", b"id,title\n", "has no rows"),
        ("sheet.xlsx", b"PK\x03\x04rest", "ZIP archive and no xlsx"),
        ("text.csv", "id,title\n1,a\n".encode("utf-16"), "UTF-16"),
        ("binary.csv", b"id,\0title\n", "no text and no parquet"),
        ("notes.txt", b"only one column\nof text\n", "format is not known. Known formats: CSV"),
        ("page.html", b"<html>, and more</html>\n", "format is not known"),
        ("no_names.tsv", b"Rye bread\t11\nOat bread\t12\n", "no line with the columns' names.*--columns"),
        ("pretty.json", b'{\n "id": 1\n}\n', "neither a list of objects nor an object with one such list"),
        ("cut.json", b'[{"id": 1}, {"id"', "cannot be read as json_list"),
        ("all_broken.jsonl", b'{"id": 1, "id": 2}\n', "a key is repeated"),
        ("no_items.xml", b"<page>text</page>", "no element is repeated"),
        ("entities.xml", b'<!DOCTYPE a [<!ENTITY b "c">]><a><item>&b;</item></a>', "ENTITY is not read"),
        ("latin.jsonl", '{"id": "größe"}\n'.encode("cp1252"), "JSON is written in UTF-8"),
        ("cut.parquet", b"PAR1 and no more", "cut off or damaged"),
        ("footer.parquet", b"PAR1" + b"x" * 50 + (20).to_bytes(4, "little") + b"PAR1", "cut off or damaged: "),
        ("cut.csv.gz", gzip.compress(b"id,title\n" * 99, mtime=0)[:-9], "cut off or damaged"),
        ("packed.csv", gzip.compress(b"id,title\n1,a\n", mtime=0), "must end in .gz"),
        ("quotes.csv", b'id,"title\n1,a\n2,b\n', "never closed"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_the_reason(
    name: str, content: bytes, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataContractError, match=message):
        read_sample(tmp_path / name)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        read_sample(tmp_path / "nosuch.csv")
    with pytest.raises(ConfigError, match="is a folder"):
        read_sample(tmp_path)


@pytest.mark.parametrize("name", ["large.csv", "large.jsonl", "many_groups.parquet", "few_groups.parquet"])
def test_of_a_large_file_parts_from_all_over_it_are_read(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"id": number, "title": f'a "quoted" title,\nof {number}'} for number in range(5_000)]
    file = tmp_path / name
    if name.endswith("parquet"):
        pq.write_table(pa.Table.from_pylist(rows), file, row_group_size=20 if name.startswith("many") else 500)
    else:
        write(file, rows)
    monkeypatch.setattr(file_sample, "SAMPLED_ROWS", 500)
    monkeypatch.setattr(file_sample, "SAMPLED_BYTES", 32_000)
    sample = read_sample(file)
    ids = [int(value) for value in sample.columns["id"]]
    assert not sample.whole
    assert 250 <= sample.rows <= 500
    assert sample.broken == 0
    quarters = [sum(number // 1_250 == quarter for number in ids) for quarter in range(4)]
    assert min(quarters) >= 0.15 * len(ids), quarters
    assert all(title == f'a "quoted" title,\nof {number}' for number, title in zip(ids, sample.columns["title"]))  # noqa: B905


def test_rows_that_cannot_be_parsed_are_left_out_and_counted(tmp_path: Path) -> None:
    lines = ['{"id": 1, "title": "a"}', '{"id": 2, "title"', '{"id": 3, "id": 4}', "[]", '{"id": 5}']
    (tmp_path / "a.jsonl").write_text("\ufeff" + "\r\n".join(lines))
    sample = read_sample(tmp_path / "a.jsonl")
    assert (sample.rows, sample.broken) == (2, 3)
    assert sample.columns == {"id": [1, 5], "title": ["a", None]}
    (tmp_path / "a.csv").write_text("id,title\n1,a\n2,b,c\n3,d\n")
    sample = read_sample(tmp_path / "a.csv")
    assert (sample.rows, sample.broken) == (2, 1)


def test_columns_that_the_import_cannot_read_are_not_usable(tmp_path: Path) -> None:
    picture = pa.array([{"bytes": b"x", "path": "a"}] * 2)
    names = ["id", "twice", "twice", "picture"]
    table = pa.Table.from_arrays([pa.array([1, 2]), pa.array(["a", "b"]), pa.array(["c", "d"]), picture], names)
    pq.write_table(table, tmp_path / "a.parquet")
    sample = read_sample(tmp_path / "a.parquet")
    assert set(sample.columns) == {"id"}
    assert "several columns" in sample.unusable["twice"]
    assert "struct" in sample.unusable["picture"]
    rows = [{"id": 1, "parts": {"a": 1}, "paths": [["a", "b"]]}]
    (tmp_path / "a.jsonl").write_text(json.dumps(rows[0]))
    assert set(read_sample(tmp_path / "a.jsonl").unusable) == {"parts", "paths"}


def test_only_the_first_pictures_and_the_beginning_of_long_texts_are_kept(tmp_path: Path) -> None:
    rows = [{"id": number, "image": b"\xff\xd8\xff", "text": "x" * 9_000} for number in range(50)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    sample = read_sample(tmp_path / "a.parquet")
    assert len(sample.columns["image"]) < 50 == len(sample.columns["id"])
    assert {len(text) for text in sample.columns["text"]} == {2_000}
