"""How a text file is written: its encoding, separator, header and numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from catalog_enrichment.errors import DataContractError
from catalog_enrichment.ingest.sniffing import decimal_of, encodings_of, header_row, sniff

FILE = Path("products.csv")
KNOWN = frozenset({"id", "title"})


def lines_of(text: str, encoding: str, number: int = 40) -> bytes:
    return "\n".join(f"P{n},{text} {n},Red" for n in range(number)).encode(encoding)


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("utf-8", "Größe für Füße"),
        ("cp1252", "Größe für Füße"),
        ("cp1252", "Chemise été à manches courtes"),
        ("cp1250", "Żółta koszula z łączką"),
        ("cp1251", "Красная рубашка для мужчин"),
        ("shift-jis", "赤いシャツ 男性用"),
        ("gb18030", "红色衬衫 男士"),
    ],
)
def test_the_encoding_is_the_one_whose_signs_are_letters(encoding: str, text: str) -> None:
    sample = lines_of(text, encoding)
    found = encodings_of(sample, FILE)
    assert sample.decode(found[0]) == sample.decode(encoding)


def test_encodings_that_fit_as_well_are_named() -> None:
    found = encodings_of(lines_of("Kırmızı gömlek, erkekler için", "cp1254"), FILE)
    assert "cp1254" in found
    assert len(found) > 1


def test_a_few_damaged_lines_do_not_make_another_encoding() -> None:
    damaged = b"P,Gr\xf6\xdfe,Red"
    assert encodings_of(lines_of("Größe", "utf-8", 40) + b"\n" + damaged, FILE) == ["utf-8"]
    assert encodings_of(b"\n".join([damaged] * 3), FILE)[0] == "cp1252"


def test_bytes_of_no_encoding_are_refused_with_what_to_do() -> None:
    with pytest.raises(DataContractError, match=r"products\.csv is not written in UTF-8.*--encoding cp1252"):
        encodings_of(bytes(range(128, 256)) * 20, FILE)


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_the_separator_is_found_though_texts_hold_others(separator: str) -> None:
    rows = [["id", "title", "text"], *([str(n), f"Lamp {n}", '"red, or; blue | green"'] for n in range(20))]
    found = sniff("\n".join(separator.join(row) for row in rows), KNOWN, lambda _: False)
    assert found is not None
    assert (found.separator, found.header_row) == (separator, 1)


def test_a_text_without_columns_has_no_separator() -> None:
    assert sniff("only words\nand more words\n", KNOWN, lambda _: False) is None


@pytest.mark.parametrize(
    ("records", "has_header", "row"),
    [
        ([["id", "title"], ["1", "a"]], False, 1),  # names that are known
        ([["Nr", "Text"], ["1", "a"]], True, 1),
        ([["Report", "", ""], ["a", "b", "c"], ["1", "2", "3"]], True, 2),
        ([["Report", "of the", "", ""], ["", "", "", ""], ["a", "b", "c", "d"], ["1", "2", "3", "4"]], True, 3),
        ([["Rye", "11", "600"], ["Oat", "12", "601"]], False, 0),
        ([["Rye", "11", "600"], ["Oat", "12", "601"]], True, 0),  # mostly numbers
        ([["Art", "2023", "2024", "Text"], ["1", "2", "3", "a"]], True, 1),
        ([["https://a/1.jpg", "https://a/2.jpg"], ["x", "y"]], True, 0),
        ([[], ["1", "2"]], True, 1),  # its quotes are broken
        ([["A", "B"], ["item_sku", "item_name"], ["1", "2"]], True, 2),  # an export
    ],
)
def test_the_header_is_the_first_row_of_names_as_wide_as_the_others(
    records: list[list[str]], has_header: bool, row: int
) -> None:
    assert header_row(records, KNOWN, lambda cells: "item_sku" in cells, has_header) == row


@pytest.mark.parametrize(
    ("cells", "decimal"),
    [
        (["1,5", "2,75", "1.234,50"], ","),
        (["1.5", "2.75"], "."),
        (["1,5", "2.5"], "."),  # both: nothing is said
        (["1,5", "red", "blue"], "."),
        (["24,269", "1,300"], "."),  # perhaps thousands
        ([None, ""], "."),
        (["1", "2"], "."),
    ],
)
def test_the_sign_before_decimals_is_a_comma_where_a_column_has_no_other(cells: list[str | None], decimal: str) -> None:
    assert decimal_of([["a", "b"], cells]) == decimal


def test_a_title_and_decimal_commas_do_not_make_the_comma_a_separator() -> None:
    rows = ["Price list of the shop", "Nr;Text;Price", *(f"{n};Lamp {n};{n},50" for n in range(20))]
    found = sniff("\n".join(rows), frozenset({"text"}), lambda _: False)
    assert found is not None
    assert (found.separator, found.header_row) == (";", 2)


def test_lines_of_two_encodings_are_utf8_where_most_are() -> None:
    lines = [f"P{n},Größe {n}".encode("cp1252" if n % 3 == 0 else "utf-8") for n in range(60)]
    assert encodings_of(b"\n".join(lines), FILE) == ["utf-8"]
