"""CSV files: every physical line is part of an accepted row or of a refused row (I7)."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from catalog_enrichment.config.source import MappingConfig, SourceConfig
from catalog_enrichment.errors import DataContractError
from catalog_enrichment.ingest import csv_rows
from catalog_enrichment.ingest.csv_rows import (
    Layout,
    TextRow,
    decoded,
    header_names,
    physical_lines,
    read_csv,
    read_header,
)

from .read_source import accepted_and_refused, read_source

NAMES = ["a", "b"]


def read(text: str, names: list[str] | None = None, separator: str = ",") -> list[TextRow]:
    return list(read_csv(physical_lines(text), Layout(separator, columns=tuple(names or ())), NAMES))


def accepted(rows: list[TextRow]) -> list[list[str | None]]:
    return [row.cells for row in rows if row.refused is None]


def refused(rows: list[TextRow]) -> list[tuple[int, str | None]]:
    return [(row.line, row.refused) for row in rows if row.refused is not None]


def test_cells_hold_separators_quotes_and_line_breaks() -> None:
    text = 'b,a\r\n"x, y","say ""hi"""\r\n"two\r\nlines",\n\n   \nNUL\0,5" pipe'
    rows = read(text)
    assert accepted(rows) == [['say "hi"', "x, y"], [None, "two\r\nlines"], ['5" pipe', "NUL\0"]]
    assert [row.line for row in rows] == [1, 2, 6]


@pytest.mark.parametrize("broken", ['1,"never closed', '1,"closed" too early', '"1,"x"'])
def test_broken_quotes_cost_one_physical_line(broken: str) -> None:
    around = [f'{n},"text {n}"' for n in range(200)]
    text = "\n".join(["a,b", *around[:100], broken, *around[100:]])
    rows = read(text)
    assert refused(rows) == [(101, broken)]
    assert accepted(rows) == [[str(n), f"text {n}"] for n in range(200)]


def test_an_unclosed_quote_before_lines_without_quotes_costs_one_line() -> None:
    rows = read('a,b\n1,"open\n2,x\n3,y\n')
    assert refused(rows) == [(1, '1,"open')]
    assert accepted(rows) == [["2", "x"], ["3", "y"]]


ROWS = 200


@pytest.mark.parametrize(
    "kinds",
    [
        ['{n},"Red shirt,a', *["{n},plain,a"] * (ROWS - 2), '{n},Monitor 24",a'],
        ['{n},"Red shirt,a', *["{n},plain,a", "{n},pl,ain,a", ""] * 66, '{n},Monitor 24",a'],
        ['{n},"Red, shirt,a', *["{n},plain,a"] * (ROWS - 2), '{n},x,Monitor 24",a'],
        ['{n},"Red shirt,a', '{n},Monitor 24",a'] * (ROWS // 2),
        ['"Red shirt,{n},a', 'Monitor 24",{n},a'] * (ROWS // 2),
    ],
)
def test_an_unclosed_quote_that_a_later_inch_mark_seems_to_close_costs_one_line_i7(
    kinds: list[str],
) -> None:
    lines = [kind.format(n=n) for n, kind in enumerate(kinds)]
    rows = list(read_csv(physical_lines("\n".join(["a,b,c", *lines])), Layout(), ["a", "b", "c"]))
    written = [line for line in lines if line]
    assert len(rows) == len(written)
    open_quotes = [line for line in written if line.count('"') == 1 and "Red" in line]
    wrong = {line for line in written if line in open_quotes or len(line.split(",")) != 3}
    assert {row.refused for row in rows if row.refused is not None} == wrong
    assert accepted(rows) == [line.split(",") for line in written if line not in wrong]


@pytest.mark.parametrize(
    "row",
    [
        '1,"two\nlines",a',
        '1,"Red, large\nshirt, of cotton\nand, wool",a',
        '1,a,"Sizes:\nS, 10, 20\nM, 11, 21"',
        '1,a,"one\ntwo\nS,10,20\nfour"',
        '"two\nlines",1,a',
        '"1","a,\nb","c"',
        '"a,b,c\nx","y","z"',
    ],
)
def test_a_text_of_several_lines_stays_one_row(row: str) -> None:
    rows = list(read_csv(physical_lines(f"{row}\n2,x,y\n"), Layout(columns=("a", "b", "c")), ["a", "b", "c"]))
    assert [found.refused for found in rows] == [None, None]
    assert accepted(rows)[0] == next(csv.reader(io.StringIO(row, newline="")))


def test_a_record_with_another_number_of_cells_is_refused_as_a_whole() -> None:
    rows = read('a,b\n1\n2,"two\nlines, with, commas",3\n4,x\n')
    assert refused(rows) == [(1, "1"), (2, '2,"two\nlines, with, commas",3')]
    assert accepted(rows) == [["4", "x"]]
    assert [row.cells for row in rows[:2]] == [["1", None], ["2", "two\nlines, with, commas"]]


def test_a_record_that_is_too_long_costs_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    text = 'a,b\n1,"one\ntwo\nthree\nfour"\n2,x\n'
    assert accepted(read(text)) == [["1", "one\ntwo\nthree\nfour"], ["2", "x"]]
    for name, limit in (("MAX_LINES", 3), ("MAX_CHARACTERS", 17)):
        with monkeypatch.context() as patch:
            patch.setattr(csv_rows, name, limit)
            assert refused(read(text))[0] == (1, '1,"one')
            assert accepted(read(text)) == [["2", "x"]]


def test_a_file_without_a_wanted_column_is_refused_line_by_line() -> None:
    assert refused(read("a,c\n1,2\n\n3,4\n")) == [(0, "a,c"), (1, "1,2"), (3, "3,4")]
    assert refused(read('a,"b\n1,2\n')) == [(0, 'a,"b'), (1, "1,2")]
    assert read("") == read("\n\n") == []


def test_headers() -> None:
    assert header_names(["a", "", "a", "b"]) == ["a0", "_c1", "a2", "b"]
    assert read_header(physical_lines("\ufeffa,b\n"), Layout()) == NAMES
    assert read_header(physical_lines('"a\nb"\tc'), Layout("\t")) == ["a\nb", "c"]
    assert read_header(physical_lines('"a,b\n1,2'), Layout()) is None


def test_lines_end_in_three_ways() -> None:
    assert physical_lines("a\r\nb\rc\n\n\r\n\u2028d") == ["a\r\n", "b\r", "c\n", "\n", "\r\n", "\u2028d"]
    assert physical_lines("a\rb") == ["a\r", "b"]
    assert accepted(read("a,b\r1,2\r3,4")) == [["1", "2"], ["3", "4"]]


PIECES = st.sampled_from(
    [*('"', '""', '"""', ",", ",,", "\n", "\r\n", "\r", "a", "1,x", '"q, r"'), *"\0\ufeff \t\u2028", "é👗", "x" * 50]
)
CELL = st.text(st.sampled_from('",\n\r\0 \tax1é👗\u2028'), max_size=8)


@given(pieces=st.lists(PIECES, max_size=60), named=st.booleans())
@example(pieces=['"', "\n", '"'], named=True)
@settings(max_examples=400, deadline=None)
def test_every_physical_line_is_in_one_row_i7(pieces: list[str], named: bool) -> None:
    text = "".join(pieces)
    lines = physical_lines(text)
    assert "".join(lines) == text
    rows = read(text, names=NAMES if named else None)
    numbers = [row.line for row in rows]
    assert numbers == sorted(set(numbers))
    # the lines of a row: from its first one to that of the next row, less blank ones
    for row, end in zip(rows, [*numbers, len(lines)][1:], strict=True):
        own = "".join(lines[row.line : end])
        own = own.removeprefix("\ufeff") if row.line == 0 else own
        if row.refused is not None:
            assert own.startswith(row.refused)
            assert not own.removeprefix(row.refused).strip(" \r\n")
        else:
            parsed = list(csv.reader(io.StringIO(own, newline=""), strict=True))
            assert [len(cells) for cells in parsed if "".join(cells).strip()] in ([2], [])
            if named:
                assert [cell or None for cell in parsed[0]] == row.cells
    if named:  # else the first record is the header
        assert not "".join(lines[: [*numbers, len(lines)][0]]).strip(" \r\n\ufeff")


@given(table=st.lists(st.tuples(CELL, CELL), max_size=20), end=st.sampled_from(["\n", "\r\n"]))
@settings(max_examples=200, deadline=None)
def test_what_a_csv_writer_writes_is_read_back(table: list[tuple[str, str]], end: str) -> None:
    sink = io.StringIO(newline="")
    csv.writer(sink, quoting=csv.QUOTE_ALL, lineterminator=end).writerows([NAMES, *table])
    rows = read(sink.getvalue())
    assert refused(rows) == []
    assert accepted(rows) == [[cell or None for cell in row] for row in table]


@given(table=st.lists(st.tuples(CELL, CELL), min_size=1, max_size=20), data=st.data())
@settings(max_examples=200, deadline=None)
def test_one_line_with_an_unclosed_quote_costs_that_line_alone(
    table: list[tuple[str, str]], data: st.DataObject
) -> None:
    sink = io.StringIO(newline="")
    one_line = [tuple(cell.replace("\n", " ").replace("\r", " ") for cell in row) for row in table]
    csv.writer(sink, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows([("id", *row) for row in one_line])
    lines = physical_lines(sink.getvalue())
    place = data.draw(st.integers(0, len(lines)))
    lines.insert(place, 'broken,"open,1\n')
    rows = list(read_csv(lines, Layout(columns=("a", "b", "c")), NAMES))
    assert refused(rows) == [(place, 'broken,"open,1')]
    assert accepted(rows) == [["id", row[0] or None] for row in one_line]


# --- by Spark ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["csv", "tsv"])
def test_rows_with_too_few_or_too_many_cells_are_rows_with_an_error(kind: str, spark: Any, tmp_path: Path) -> None:
    separator = "," if kind == "csv" else "\t"
    lines = [["product_id", "title", "color"], ["1", "fine", "Red"], ["2", "short"], ["3", "long", "Red", "more"]]
    (tmp_path / "feed").write_text("\n".join(separator.join(line) for line in lines))
    raw = read_source(spark, SourceConfig(format=kind, path="feed"), tmp_path)
    rows = raw.select("product_id", "parse_error").collect()  # also when few columns are read
    assert [row.product_id for row in rows if row.parse_error is None] == ["1"]
    assert len(rows) == 3


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


def test_lines_stay_in_order_where_a_file_is_read_in_parts(spark: Any, tmp_path: Path) -> None:
    """Also: the columns of a folder's files are found by their names, and a file without them is refused by line."""
    folder = tmp_path / "a b+c%20é"
    folder.mkdir()
    rows = [f'p{n},"title {n}\nin two lines, {"x" * (n % 50)}"\n' for n in range(300)]
    rows[150] = 'broken,"never closed\n'
    (folder / "1.csv").write_text("product_id,title\n" + "".join(rows))
    (folder / "2.csv").write_text("\ufeffother,title,product_id\r\nx,t,q1\r\n\r\ny,\xe9,q2\r\n")
    (folder / "3.csv").write_text("product_id,name\nr1,t\n")
    before = spark.conf.get("spark.sql.files.maxPartitionBytes")
    spark.conf.set("spark.sql.files.maxPartitionBytes", "1000")
    try:
        accepted, refused = accepted_and_refused(spark, tmp_path, "csv", folder.name)
    finally:
        spark.conf.set("spark.sql.files.maxPartitionBytes", before)
    good = {f"p{n}": f"title {n}\nin two lines, {'x' * (n % 50)}" for n in range(300) if n != 150}
    assert accepted == good | {"q1": "t", "q2": "\xe9"}
    assert refused == ['broken,"never closed', "product_id,name", "r1,t"]


def test_a_header_with_an_open_quote_is_refused(spark: Any, tmp_path: Path) -> None:
    (tmp_path / "feed.csv").write_text('product_id,"title\n1,t\n')
    with pytest.raises(DataContractError, match="the header cannot be read"):
        read_source(spark, SourceConfig(format="csv", path="feed.csv"), tmp_path)


def test_a_row_with_bytes_that_are_not_in_the_encoding_is_refused_alone_i7() -> None:
    lines = [decoded(line, "utf-8") + "\n" for line in (b"id,title", b"1,a", b"2,Gr\xf6\xdfe", "3,Größe".encode())]
    rows = list(read_csv(lines, Layout(), ["title"]))
    assert [(row.cells, row.refused) for row in rows] == [
        (["a"], None),
        ([None], "2,Gr\\xf6\\xdfe"),
        (["Größe"], None),
    ]
    assert read_header([decoded(b"Gr\xf6\xdfe,b\n", "utf-8")], Layout()) is None
    assert read_header([decoded(b"Gr\xf6\xdfe,b\n", "cp1252")], Layout()) == ["Größe", "b"]


def test_rows_above_the_header_are_not_read() -> None:
    lines = ["Report,,\n", "\n", "a,b,c\n", "1,2,3\n"]
    assert read_header(lines, Layout(header_row=2)) == ["a", "b", "c"]
    assert [row.cells for row in read_csv(lines, Layout(header_row=2), ["c"])] == [["3"]]
    assert list(read_csv(lines, Layout(header_row=9), ["c"])) == []
