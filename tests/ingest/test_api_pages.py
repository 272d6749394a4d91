"""What is in a page, and pages that are kept. Without network."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from catalog_enrichment.errors import DataContractError
from catalog_enrichment.ingest.api_pages import (
    BrokenPage,
    KeptPages,
    PageHead,
    PagePaths,
    check_pages,
    fingerprint,
    item_spans,
    parse_page,
)

PATHS = PagePaths("data.items", "next", "")


def items(text: str, path: str) -> list[str]:
    return [text[start:end] for start, end in item_spans(text, path)]


def head(number: int, texts: list[str], total: int | None = None) -> PageHead:
    page = parse_page(number, f'{{"data": {{"items": [{", ".join(texts)}]}}}}', PATHS, {})
    return PageHead(page.number, page.items, page.items_hash, page.next, total)


def test_items_are_kept_as_the_server_wrote_them() -> None:
    text = ' {"a": {"x": [9]}, "data" : { "items":[ {"p": 1.10, "n": 1e999} ,"text, ]", [1,[2]] , null,{}] }}\n'
    assert items(text, "data.items") == ['{"p": 1.10, "n": 1e999}', '"text, ]"', "[1,[2]]", "null", "{}"]
    assert items("[]", "") == []
    assert items("[ 1 ]", "") == ["1"]
    assert items('{"items": [1], "items": [2]}', "items") == ["2"]


@pytest.mark.parametrize(
    ("text", "path", "says"),
    [
        ('{"data": {"rows": [], "n": 1}}', "data.items", r"no 'items' at data. Available: \['n', 'rows'\]"),
        ('{"data": []}', "data.items", r"no 'items' at data. Available: \[\]"),
        ('{"items": {"a": 1}}', "items", "no list at 'items'"),
        ('{"items": []}', "", "set source.api.items"),
        ('{"data": {"items": [{]}}', "data.items", "not JSON"),
        ('{"data": {"items": []}} trailing', "data.items", "not JSON"),
        ("<html>", "data.items", "not JSON"),
        ("[" * 100_000, "", "nested too deeply|not JSON"),
    ],
)
def test_a_page_without_its_list_is_broken(text: str, path: str, says: str) -> None:
    with pytest.raises(BrokenPage, match=says):
        parse_page(1, text, PagePaths(path, None, ""), {})


def test_the_next_page_is_a_text_or_number_or_nothing() -> None:
    in_page, in_header = PagePaths("items", "paging.next", ""), PagePaths("items", None, "")

    def next_of(value: str) -> str | None:
        return parse_page(1, f'{{"items": [], "paging": {{"next": {value}}}}}', in_page, {}).next

    assert [next_of(value) for value in ('"abc"', "7", "0")] == ["abc", "7", "0"]
    assert [next_of(value) for value in ("null", '""', "false")] == [None] * 3
    assert parse_page(1, '{"items": []}', in_page, {"link": "ignored"}).next is None
    assert parse_page(1, '{"items": []}', in_header, {"link": "/p?page=2"}).next == "/p?page=2"
    with pytest.raises(BrokenPage, match=r"'paging.next' is neither"):
        next_of("[1]")


def test_the_total_is_in_the_page_or_in_a_header() -> None:
    def total(path: str) -> int | None:
        text = '{"items": [], "n": "12", "b": true}'
        return parse_page(1, text, PagePaths("items", None, path), {"x-total": "34"}).total

    assert (total("n"), total("header:X-Total"), total("")) == (12, 34, None)
    for path in ("absent", "b", "items", "header:absent"):
        with pytest.raises(BrokenPage, match="is no number of products"):
            total(path)


def test_the_hash_of_a_page_is_that_of_its_items() -> None:
    first, second = (f'{{"data": {{"items": [{{"a": 1}}]}}, "at": {at}}}' for at in (1, 2))
    assert parse_page(1, first, PATHS, {}).items_hash == parse_page(9, second, PATHS, {}).items_hash
    assert head(1, ["1", "2"]).items_hash != head(1, ["12"]).items_hash
    assert fingerprint([head(1, ["1"]), head(2, ["2"])]) != fingerprint([head(1, ["2"]), head(2, ["1"])])
    assert fingerprint([head(1, ["1"])]) == fingerprint([head(1, ["1"], total=5)])


def test_pages_are_kept_and_found_again(tmp_path: Path) -> None:
    pages = KeptPages(tmp_path / "pages")
    assert (pages.heads(), pages.age_hours(), pages.head(1)) == ({}, 0.0, None)
    text = '{"data": {"items": [{"t": "Größe\nXL"}, {"t": "🎒"}]}}'
    second, tenth = parse_page(2, text, PATHS, {}), head(10, ["1"])
    pages.put(second, text)
    pages.put(tenth, '{"data": {"items": [1]}}')
    assert list(pages.heads().items()) == [(2, second), (10, tenth)]
    assert pages.head(2) == second
    assert pages.items(2, "data.items") == ['{"t": "Größe\nXL"}', '{"t": "🎒"}']
    assert 0 <= pages.age_hours() < 0.1
    (pages.folder / "started.json").write_text(json.dumps({"started_at": time.time() - 7200}))
    pages.put(head(11, []), '{"data": {"items": []}}')  # does not make them younger
    assert 1.9 < pages.age_hours() < 2.1
    (pages.folder / "started.json").write_text("cut o")
    assert pages.age_hours() == float("inf")
    pages.discard()
    pages.discard()
    assert list(tmp_path.iterdir()) == []


def test_the_same_page_twice_and_a_total_that_is_not_reached_are_refused() -> None:
    check_pages([head(1, ["1", "2"], 3), head(2, ["3"], 3), head(3, [], 3), head(4, [], 3)], "http://api/x")
    with pytest.raises(DataContractError, match="pages 1 and 3 are the same"):
        check_pages([head(1, ["1"]), head(2, ["2"]), head(3, ["1"])], "http://api/x")
    with pytest.raises(DataContractError, match="announces 4 products and gave 3 on 2 pages"):
        check_pages([head(1, ["1", "2"], 3), head(2, ["3"], 4)], "http://api/x")
    check_pages([head(1, ["1", "2"], 4), head(2, ["3"], 3)], "http://api/x")  # a product was deleted meanwhile
