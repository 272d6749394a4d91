"""Pages of an HTTP API: what a page contains, and the folder in which fetched pages are kept.

A page is kept as it came, below one line that says what was found in it. A file that is there is whole. Neither Spark
nor network are needed here.

::

    FOLDER/started.json      when the first page was fetched
    FOLDER/00000001.page     a line of JSON (PageHead), then the body in UTF-8
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from catalog_enrichment.errors import DataContractError
from catalog_enrichment.records import stable_hash

_DECODER = json.JSONDecoder(strict=False)
"""Control characters in a text make one product unusable, not the page: items are parsed again when they are read."""
_SPACE = re.compile(r"[ \t\r\n]*")
_HEADER = "header:"


class BrokenPage(Exception):
    """A page that is not what the config says. Only inside the files that fetch."""


@dataclass(frozen=True, slots=True)
class PageHead:
    """The facts about a page that are known without reading its body."""

    number: int
    """Its place in the order of the pages, from 1, whatever the API counts."""
    items: int
    items_hash: str
    """SHA-256 of the items' texts. Two pages have the same if the server gave one page twice."""
    next: str | None
    """Cursor or URL of the next page; None if there is none, and where pages are asked for by number or offset."""
    total: int | None
    """Number of all products, as this page says; None if it does not."""


@dataclass(frozen=True, slots=True)
class PagePaths:
    """Places in a page: names joined by dots."""

    items: str
    """The list of products; empty: the page is the list."""
    next: str | None
    """The next cursor or URL; None: it is in the header `Link`, or nowhere."""
    total: str
    """The number of all products, or `header:NAME`; empty: nowhere."""


def parse_page(number: int, text: str, paths: PagePaths, headers: dict[str, str]) -> PageHead:
    """Return what is in a page.

    ``headers``: of the answer, by lower-case name; ``link`` is the URL of rel="next" there. Raises BrokenPage if the
    text is not JSON, has no list at the configured place, or no usable next page or total.
    """
    try:
        page = json.loads(text, strict=False)
        items = [text[start:end] for start, end in item_spans(text, paths.items)]
    except RecursionError:
        raise BrokenPage("it is nested too deeply") from None
    except ValueError as problem:
        raise BrokenPage(f"it is not JSON: {problem}") from None
    digest = hashlib.sha256("\0".join(items).encode("utf-8", "surrogatepass")).hexdigest()
    following: Any = headers.get("link") if paths.next is None else _at(page, paths.next)
    if paths.next is not None and not (following is None or isinstance(following, str | int)):
        raise BrokenPage(f"{paths.next!r} is neither a text nor a number")
    return PageHead(
        number=number,
        items=len(items),
        items_hash=digest,
        next=None if following in (None, "") or following is False else str(following),
        total=_total(page, paths.total, headers) if paths.total else None,
    )


def item_spans(text: str, path: str) -> list[tuple[int, int]]:
    """Return (start, end) in ``text`` of every item of the list at ``path``, which are kept as they were written.

    Raises ValueError for text that is not JSON, BrokenPage if there is no list.
    """
    at = _skip(text, 0)
    names = path.split(".") if path else []
    for depth, name in enumerate(names):
        members = list(_members(text, at)) if text[at : at + 1] == "{" else []
        found = [start for key, start in members if key == name]
        if not found:
            place = ".".join(names[:depth]) or "its top"
            raise BrokenPage(f"there is no {name!r} at {place}. Available: {sorted({key for key, _ in members})[:30]}")
        at = found[-1]  # JSON parsers take the last of a repeated key
    if text[at : at + 1] != "[":
        raise BrokenPage(f"there is no list at {path!r}" if path else "it is not a list; set source.api.items")
    return list(_elements(text, at))


def _members(text: str, at: int) -> Iterator[tuple[str, int]]:
    """Yield (key, start of its value) of the object that starts at ``at``."""
    at = _skip(text, at + 1)
    while text[at : at + 1] != "}":
        key, at = _DECODER.raw_decode(text, at)
        start = _skip(text, _skip(text, at) + 1)  # after the colon
        _, at = _DECODER.raw_decode(text, start)
        yield str(key), start
        at = _after_comma(text, at)


def _elements(text: str, at: int) -> Iterator[tuple[int, int]]:
    at = _skip(text, at + 1)
    while text[at : at + 1] != "]":
        start = at
        _, at = _DECODER.raw_decode(text, start)
        yield start, at
        at = _after_comma(text, at)


def _after_comma(text: str, at: int) -> int:
    at = _skip(text, at)
    return _skip(text, at + 1) if text[at : at + 1] == "," else at


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _at(page: Any, path: str) -> Any:
    """Return the value at ``path``; None where it, or something on the way, is missing."""
    for name in path.split("."):
        page = page.get(name) if isinstance(page, dict) else None
    return page


def _total(page: Any, path: str, headers: dict[str, str]) -> int:
    in_header = path.lower().startswith(_HEADER)
    value = headers.get(path[len(_HEADER) :].strip().lower()) if in_header else _at(page, path)
    text = str(value)
    if isinstance(value, bool) or not text.isdecimal() or len(text) > 15:
        raise BrokenPage(f"source.api.total: {path!r} is no number of products, but {text[:50]!r}")
    return int(text)


class KeptPages:
    """The folder of the pages of one source."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, head: PageHead, text: str) -> None:
        """Keep a page, in place of a page of the same number."""
        self.folder.mkdir(parents=True, exist_ok=True)
        started = self.folder / "started.json"
        if not started.exists():
            _write_whole(started, json.dumps({"started_at": time.time()}).encode())
        line = json.dumps(asdict(head)).encode()
        _write_whole(self._file(head.number), line + b"\n" + text.encode("utf-8", "surrogatepass"))

    def heads(self) -> dict[int, PageHead]:
        """Return number -> head of every page that is kept, in order."""
        return {head.number: head for head in map(_head, sorted(self.folder.glob("*.page")))}

    def head(self, number: int) -> PageHead | None:
        file = self._file(number)
        return _head(file) if file.is_file() else None

    def items(self, number: int, path: str) -> list[str]:
        """Return the texts of the page's items, as the server wrote them."""
        _, _, body = self._file(number).read_bytes().partition(b"\n")
        text = body.decode("utf-8", "replace")
        return [text[start:end] for start, end in item_spans(text, path)]

    def age_hours(self) -> float:
        """Return the hours since the first page was fetched; infinity if that is unknown, 0 without pages."""
        if not any(self.folder.glob("*.page")):
            return 0.0
        try:
            started = float(json.loads((self.folder / "started.json").read_text())["started_at"])
        except (OSError, ValueError, KeyError, TypeError):
            return float("inf")
        return max(0.0, time.time() - started) / 3600

    def discard(self) -> None:
        """Remove the folder, in one step for its readers."""
        gone = self.folder.with_name(f"_gone-{uuid.uuid4()}")
        with suppress(FileNotFoundError):
            self.folder.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)

    def _file(self, number: int) -> Path:
        return self.folder / f"{number:08d}.page"


def _head(file: Path) -> PageHead:
    with file.open("rb") as opened:
        return PageHead(**json.loads(opened.readline()))


def _write_whole(file: Path, content: bytes) -> None:
    unfinished = file.with_name(f"_{uuid.uuid4()}")
    unfinished.write_bytes(content)
    unfinished.replace(file)


def fingerprint(heads: Sequence[PageHead]) -> str:
    """Return a hash of all items of all pages, in their order."""
    return stable_hash("http_api", [(head.items, head.items_hash) for head in heads])


def check_pages(heads: Sequence[PageHead], url: str) -> None:
    """Raise DataContractError if the pages cannot be all products, each once.

    ``heads``: in order. The same page twice means that the server ignores the parameter. Fewer items than the last
    total mean that pages are cut off, or that products moved between pages during the fetch.
    """
    seen: dict[str, int] = {}
    for head in heads:
        if head.items and head.items_hash in seen:
            raise DataContractError(
                f"{url}: pages {seen[head.items_hash]} and {head.number} are the same. Does the server know the "
                "parameter? Check source.api.paging, page_param and next"
            )
        seen[head.items_hash] = head.number
    items, totals = sum(head.items for head in heads), [head.total for head in heads if head.total is not None]
    if totals and items < totals[-1]:
        raise DataContractError(
            f"{url}: the API announces {totals[-1]:,} products and gave {items:,} on {len(heads):,} pages. Check "
            "source.api.page_size (servers often have a largest one); leave out source.api.total if it is an estimate"
        )
