"""Guesses where a file's pictures are: bytes in a column, paths or addresses in a column, or files named by the id."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from catalog_enrichment.ingest.file_columns import Column, Kind
from catalog_enrichment.ingest.guess_columns import Guess, address_share, picture_share

_NAMES = ("image", "images", "img", "picture", "pictures", "photo", "photos", "bild", "bilder", "foto", "fotos")
_WORDS = (*_NAMES, "imageurl", "imageurls", "imurl", "imagepath", "imgs", "immagine", "imagen")
_SMALLER = ("thumbnail", "thumb", "small", "icon", "logo", "swatch")
_FOLDERS = (".", "images", "image", "pictures", "photos", "img", "imgs")
_ENDINGS = (".jpg", ".jpeg", ".png", ".webp")
_ABSOLUTE = re.compile(r"(?:/|[A-Za-z][A-Za-z0-9+.\-]*://)")
_TRIED = 20
"""References that are looked for in the folders."""
_SEVERAL = re.compile(r"\S+\s*([|,; ])\s*(?:https?://|\S+\.(?:jpe?g|png|webp)\b)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Pictures:
    """Exactly one of the two has a column, or none."""

    data: Guess
    """`image_bytes`"""
    references: Guess
    """`image_uris`"""
    folder: Guess
    """`source.image_folder`: its column is the folder; empty where none is needed or found."""


def guess_pictures(columns: Sequence[Column], product_id: Column, file: Path) -> Pictures:
    """Where the pictures are. ``columns``: those that nothing else has taken, without ``product_id``."""
    by_bytes = sorted((c for c in columns if c.kind is Kind.PICTURE), key=_preference)
    by_reference = sorted((c for c in columns if not _no_references(c)), key=_preference)
    others = tuple(column.name for column in [*by_bytes[1:], *by_reference])
    no_bytes = Guess("", "a column with the encoded picture (JPEG, PNG, ...)")
    if by_bytes:
        references = Guess("", "further pictures by path or address; each product's first usable one is read")
        why = "its bytes begin like a picture's"
        return Pictures(Guess(by_bytes[0].name, why, others), references, Guess("", ""))
    if by_reference:
        return _referenced(by_reference[0], Guess(by_reference[0].name, _why(by_reference[0]), others[1:]), file)
    if named := _named_by_id(product_id, file):
        return Pictures(no_bytes, named, Guess("", ""))
    refused = [f'; not "{c.name}": {_no_references(c)}' for c in columns if _named_like_pictures(c)]
    missing = "a column with paths or addresses of pictures; or a template: images/{ID}.jpg"
    return Pictures(no_bytes, Guess("", missing + "".join(refused)), Guess("", ""))


def pictures_in(column: Column, file: Path) -> Pictures:
    """The pictures of a column that the user named."""
    if column.kind in (Kind.PICTURE, Kind.BYTES):
        return Pictures(Guess(column.name, f"as given; {column.fact()}"), Guess("", ""), Guess("", ""))
    return _referenced(column, Guess(column.name, f"as given; {column.fact()}"), file)


def no_pictures() -> Pictures:
    given = Guess("", "none, as given")
    return Pictures(given, given, Guess("", ""))


def _preference(column: Column) -> tuple[bool, bool, bool]:
    """Sorts the likelier picture columns first; the order of the file decides between equal ones."""
    words = set(column.words.split())
    return bool(words & set(_SMALLER)), not _named_like_pictures(column), column.words not in _NAMES


def _named_like_pictures(column: Column) -> bool:
    return bool(set(column.words.split()) & set(_WORDS))


def _no_references(column: Column) -> str:
    """Why the column's values cannot be pictures' paths or addresses; empty: they can."""
    if column.kind not in (Kind.TEXT, Kind.LIST):
        return column.problem or f"{column.kind}, not paths or addresses"
    if column.kind is Kind.TEXT:
        found = [match[1] for text in column.first_texts[:1000] if (match := _SEVERAL.match(text))]
        if found and len(found) >= 0.2 * len(column.first_texts[:1000]):
            return f"several pictures in one text, separated by {found[0]!r}: write them as a JSON list"
    if picture_share(column) >= 0.8 or (_named_like_pictures(column) and address_share(column) >= 0.8):
        return ""
    return "its values are no paths or addresses of pictures"


def _why(column: Column) -> str:
    web = address_share(column) >= 0.5
    kind = "addresses" if web else "paths"
    note = "; pictures on the web are fetched when products are imported and scored" if web else ""
    return f"its values are {kind} of pictures, filled in {column.filled:.0%} of the rows{note}"


def _referenced(column: Column, guess: Guess, file: Path) -> Pictures:
    """With the folder that relative paths start at."""
    relative = [text for text in column.first_texts if not _ABSOLUTE.match(text)][:_TRIED]
    folder = Guess("", "")
    if relative:
        folders = (file.parent / name for name in _FOLDERS)
        found = next((place for place in folders if any((place / text).is_file() for text in relative)), None)
        if found is None:
            folder = Guess("", f"the folder that paths like {relative[0][:60]!r} start at: none beside the file")
        elif found != file.parent:
            folder = Guess(str(found), f"{relative[0][:60]!r} or another one is there")
    return Pictures(Guess("", "a column with the encoded picture (JPEG, PNG, ...)"), guess, folder)


def _named_by_id(product_id: Column, file: Path) -> Guess | None:
    """A template, if there are files beside the source that are named by the products' ids."""
    if set("{}[]") & set(product_id.name):
        return None
    ids = [text for text in islice(product_id.first_texts, _TRIED) if "/" not in text]
    for name in _FOLDERS:
        for ending in _ENDINGS:
            if any((file.parent / name / f"{text}{ending}").is_file() for text in ids):
                prefix = "" if name == "." else f"{name}/"
                return Guess(f"{prefix}{{{product_id.name}}}{ending}", "files beside the source have the ids as names")
    return None
