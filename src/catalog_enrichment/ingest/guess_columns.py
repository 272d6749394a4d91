"""Guesses which column of a file feeds which column of the catalog, and which columns are attributes.

A guess needs both a name that says so and values that can be it; where no name does, id, title, description and
category are guessed by their values alone. Every guess says why, and which other columns were possible.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from catalog_enrichment.ingest.file_columns import Column, Kind, percent
from catalog_enrichment.ingest.frequent_values import by_value

MAX_VALUES = 100
"""An attribute with more frequent values is not guessed."""
_COVERED = 0.5
"""Share of an attribute's cells that its frequent values must have: in free text they have few."""
_WORDS_PER_VALUE = 5

Check = Callable[[Column], str]
"""Why a column cannot be it; empty: it can. Or why it is probably it; empty: it is not."""


@dataclass(frozen=True, slots=True)
class Guess:
    column: str
    """Empty: none; then ``why`` says what to put."""
    why: str
    others: tuple[str, ...] = ()
    """Other columns that were possible."""


@dataclass(frozen=True, slots=True)
class Role:
    """A column of the catalog."""

    names: tuple[str, ...]
    """What a column is called that is it, the most telling first."""
    parts: tuple[str, ...]
    """Words that such names may contain."""
    unsuitable: Check
    by_values: Check
    """For a column whose name does not tell; says why it is taken."""
    missing: str
    """Where no column is found: what to put, and what happens without."""


def _list(names: str) -> tuple[str, ...]:
    return tuple(names.split(", "))


def _none(_: Column) -> str:
    return ""


def _no_id(column: Column) -> str:
    if column.kind not in (Kind.TEXT, Kind.WHOLE, Kind.FLAG):
        return f"{column.kind}, not a text or whole number"
    if column.filled < 0.99:
        return f"filled in {percent(column.filled)} of the rows only"
    if column.distinct < 0.99:
        return f"it repeats: {column.different:,} different values in {len(column.first_texts):,} rows"
    return ""


def _like_an_id(column: Column) -> str:
    short = all(len(text) <= 64 and " " not in text for text in column.first_texts)
    return "" if _no_id(column) or not short or looks_like_files(column) else "every row has a value of its own"


def _no_title(column: Column) -> str:
    if column.kind is not Kind.TEXT:
        return f"{column.kind}, not text"
    if column.filled < 0.9:
        return f"filled in {percent(column.filled)} of the rows, the import needs 90%"
    return "" if column.distinct >= 0.1 else f"only {column.different:,} different values"


def _like_a_title(column: Column) -> str:
    likely = not _no_title(column) and column.distinct >= 0.5 and not looks_like_files(column)
    words = column.words_per_text >= 2 and column.characters <= 200
    return f"text with {column.words_per_text:.0f} words on average" if likely and words else ""


def _no_text(column: Column) -> str:
    if column.kind not in (Kind.TEXT, Kind.LIST):
        return f"{column.kind}, not text"
    return "its values are addresses or files" if looks_like_files(column) else ""


def _like_a_description(column: Column) -> str:
    long = not _no_text(column) and column.distinct >= 0.3 and column.characters >= 80 and column.words_per_text >= 10
    return f"the longest text, {column.words_per_text:.0f} words on average" if long else ""


def _no_category(column: Column) -> str:
    if column.kind in (Kind.TEXT, Kind.LIST, Kind.WHOLE):
        return "" if column.distinct <= 0.5 else "most rows have a value of their own"
    return f"{column.kind}, not text"


def _like_a_category(column: Column) -> str:
    paths = sum(bool(re.search(r"\w\s*[/>|]\s*\w", text)) for text in column.first_texts)
    likely = column.kind is Kind.TEXT and column.distinct <= 0.2 and not looks_like_files(column)
    return "its values look like paths" if likely and paths >= 0.8 * len(column.first_texts) > 0 else ""


def _no_shop(column: Column) -> str:
    return "" if column.kind in (Kind.TEXT, Kind.WHOLE, Kind.FLAG) else f"{column.kind}, not text"


def _no_language(column: Column) -> str:
    codes = all(re.fullmatch("[A-Za-z]{2}", text) for text in column.first_texts)
    return "" if column.kind is Kind.TEXT and codes else "its values are no codes of two letters"


def _no_time(column: Column) -> str:
    if column.kind is Kind.TIME:
        return ""
    wrong = next((text for text in column.first_texts if not _is_time(text)), None)
    if wrong is not None:
        return f"{wrong[:30]!r} is no ISO date or time, and such rows would go to quarantine"
    return "" if column.kind is Kind.TEXT else f"{column.kind}, not times"


def _is_time(text: str) -> bool:
    form = r"\d{4}-\d\d-\d\d(?:[ T]\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?(?:Z|[+-]\d\d:?\d\d)?)?"
    try:
        return bool(re.fullmatch(form, text) and datetime.fromisoformat(text))
    except ValueError:
        return False


def _no_flag(column: Column) -> str:
    return "" if column.kind is Kind.FLAG else f"{column.kind}, not yes or no"


ROLES: dict[str, Role] = {
    "product_id": Role(
        _list(
            "product id, id, item id, article id, listing id, offer id, asin, sku, product code, uuid, gtin, ean, "
            "upc, article number, item number, handle, artikelnummer, artnr, reference, key"
        ),
        _list("product id, item id, article id, listing id, product number, produkt id, sku, id produit"),
        _no_id,
        _like_an_id,
        "the column whose value every product has for itself",
    ),
    "title": Role(
        _list(
            "title, product title, product name, name, item name, item title, product display name, titel, "
            "produktname, bezeichnung, designation, titre, nom, libelle, titulo, nombre, titolo, nome"
        ),
        _list("title, product name, item name, display name, titel, titre, titulo, titolo"),
        _no_title,
        _like_a_title,
        "the column with the products' names",
    ),
    "description": Role(
        _list(
            "description, product description, long description, body, body html, details, text, content, "
            "bullet points, features, summary, about, beschreibung, descripcion, descrizione, descricao"
        ),
        _list("description, beschreibung, descripcion, descrizione, descricao"),
        _no_text,
        _like_a_description,
        "a column with a long text; without one the models read the title alone",
    ),
    "attributes_when": Role(
        _list("labelled, labeled, is labelled, is labeled, has labels, annotated, is annotated"),
        (),
        _no_flag,
        _none,
        "a yes-or-no column, if the attributes are to be read in some rows only",
    ),
    "category": Role(
        _list(
            "category, category path, product category, categories, google product category, category name, "
            "product type, main category, master category, department, breadcrumb, breadcrumbs, kategorie, "
            "warengruppe, categorie, rubrique, rayon, categoria, item type"
        ),
        _list("category, categories, kategorie, categorie, categoria"),
        _no_category,
        _like_a_category,
        "a column with category paths like Apparel/Topwear",
    ),
    "shop_id": Role(
        _list(
            "shop id, shop, seller id, seller, merchant id, merchant, store id, store, vendor id, vendor, shop name, "
            "seller name, merchant name, store name, haendler, handler, boutique, marchand"
        ),
        (),
        _no_shop,
        _none,
        'a column with the merchant; without one all are of the shop "default"',
    ),
    "language": Role(
        _list("language, lang, language code, locale, sprache, langue, idioma, lingua"),
        (),
        _no_language,
        _none,
        'a column with codes like en, de; or default_language = "de" (default: en)',
    ),
    "updated_at": Role(
        _list("updated at, updated, last updated, modified at, last modified, modified, update time, timestamp"),
        _list("updated at, last updated, last modified, modified at"),
        _no_time,
        _none,
        "a column with the time of the last change; without one the first import's",
    ),
    "opt_out": Role(
        _list("opt out, optout, opted out, do not enrich, no enrichment"),
        (),
        _no_flag,
        _none,
        "a yes-or-no column, true for products that must not be enriched",
    ),
}
"""Column of the catalog -> how it is found, in the order in which columns are given away."""

_BY_LENGTH = {"title": 1, "description": -1}
"""Of texts without a telling name the shortest is taken for the title, the longest for the description."""
_ABOUT_SALES = _list(
    "active, availability, available, blocked, condition, created, currency, deleted, discount, discontinued, enabled, "
    "fulfillment, inventory, price, published, qty, quantity, rating, reviews, sale, shipping, sold, status, stock, "
    "supplier, tax, vat, visibility, visible, warehouse, gtin, ean, upc, sku, barcode, url, link, thumbnail, seller, "
    "merchant, shop, vendor"
)
"""Words in the names of columns that say how a product is sold, not what it is."""


def guess_role(name: str, columns: Sequence[Column]) -> Guess:
    """The column of ``columns`` that feeds the catalog's column ``name``."""
    role = ROLES[name]
    ranked = sorted((rank, place) for place, column in enumerate(columns) if (rank := _rank(role, column)) is not None)
    named = [columns[place] for _, place in ranked]
    suitable = [column for column in named if not role.unsuitable(column)]
    if suitable:
        others = tuple(column.name for column in suitable[1:])
        return Guess(suitable[0].name, f"by its name; {suitable[0].fact()}", others)
    unsuitable = "".join(f'; not "{column.name}": {role.unsuitable(column)}' for column in named[:3])
    usable = [column for column in columns if column.kind is not Kind.UNUSABLE]
    likely = [column for column in usable if role.by_values(column)]
    if name in _BY_LENGTH:
        likely = sorted(likely, key=lambda column: _BY_LENGTH[name] * column.characters)
    if likely:
        others = tuple(column.name for column in likely[1:])
        return Guess(likely[0].name, f"no name tells{unsuitable}; {role.by_values(likely[0])}", others)
    return Guess("", role.missing + unsuitable)


def _rank(role: Role, column: Column) -> tuple[int, int] | None:
    """The smaller, the better the column's name fits; None: it does not."""
    if column.words in role.names:
        return 0, role.names.index(column.words)
    parts = [place for place, part in enumerate(role.parts) if f" {part} " in f" {column.words} "]
    return (1, parts[0]) if parts else None


# --- attributes -------------------------------------------------------------------------------------------------------


def guess_attributes(
    columns: Sequence[Column], readable: Sequence[bool], min_count: int
) -> tuple[dict[str, str], dict[str, str]]:
    """Column -> why it is taken as an attribute, and column -> why it is not.

    ``readable``: whether the merchants' values of a row may be read (`attributes_when`). Others are not looked at.
    """
    taken: dict[str, str] = {}
    refused: dict[str, str] = {}
    seen: list[Column] = []
    for column in columns:
        if column.kind in (Kind.TEXT, Kind.LIST):
            cells = [texts for texts, may in zip(column.texts, readable, strict=True) if may]
            shown = Column(column.name, column.kind, cells)
            why, refusal = _attribute(shown, min_count, len(cells))
            twin = next((other.name for other in seen if not refusal and _is_repeated(shown, other)), "")
            refusal = refusal or (f'it says the same as "{twin}"' if twin else "")
        else:
            why, shown, refusal = "", column, column.problem or str(column.kind)
        if refusal:
            refused[column.name] = refusal
        else:
            taken[column.name] = why
            seen.append(shown)
    return taken, refused


def value_counts(cells: Sequence[Sequence[str]]) -> list[tuple[str, int]]:
    """(value, rows) pairs of an attribute, the most frequent first."""
    return by_value([(text, 1) for texts in cells for text in texts])


def _attribute(column: Column, min_count: int, rows: int) -> tuple[str, str]:
    """(why it is one, why not); one of them is empty."""
    counts = value_counts(column.texts)
    frequent = [count for _, count in counts if count >= min_count]
    total = sum(count for _, count in counts)
    if about_sales := sorted(set(_ABOUT_SALES) & set(column.words.split())):
        return "", f'its name ("{about_sales[0]}") says how a product is sold, not what it is'
    if looks_like_files(column):
        return "", "its values are addresses or files"
    if len(frequent) < 2:
        if len(counts) < 2:
            return "", "one value everywhere" if counts else "no value in the rows that may be read"
        return "", f"{len(counts):,} different values, {len(frequent) or 'none'} of them in at least {min_count} rows"
    if len(frequent) > MAX_VALUES:
        return "", f"{len(frequent):,} values in at least {min_count} rows each; at most {MAX_VALUES} are guessed"
    if sum(frequent) < _COVERED * total or column.words_per_text > _WORDS_PER_VALUE:
        return "", f"free text: {len(counts):,} different values"
    return attribute_fact(counts, column, min_count, rows), ""


def attribute_fact(counts: Collection[tuple[str, int]], column: Column, min_count: int, rows: int) -> str:
    """The attribute in a few words. ``rows``: those whose values may be read."""
    frequent = sum(count >= min_count for _, count in counts)
    several = any(len(texts) > 1 for texts in column.texts)
    filled = f"filled in {percent(column.filled)} of {rows:,} rows"
    return f"{frequent} of {len(counts):,} values in at least {min_count} rows; {filled}" + (
        "; several values per product" if several else ""
    )


def _is_repeated(column: Column, other: Column) -> bool:
    """Whether each value of one stands for one of the other, and most rows have both or none."""
    both = [(tuple(a), tuple(b)) for a, b in zip(column.texts, other.texts, strict=True) if a and b]
    pairs = set(both)
    if len(pairs) < 2 or len(both) < 0.9 * max(len(column.first_texts), len(other.first_texts)):
        return False
    return len({a for a, _ in pairs}) == len({b for _, b in pairs}) == len(pairs)


def readable_rows(columns: Mapping[str, Column], flag: str, rows: int) -> list[bool]:
    """For each sampled row whether merchants' values may be read: all, unless the column ``flag`` says otherwise."""
    if not flag:
        return [True] * rows
    true = {"true", "t", "yes", "y", "1"}
    return [bool(texts) and texts[0].casefold() in true for texts in columns[flag].texts]


# --- files and addresses ----------------------------------------------------------------------------------------------

_ADDRESS = re.compile(r"(?:https?|ftp|s3a?|gs|file)://\S+", re.IGNORECASE)
_PICTURE_FILE = re.compile(r"[^\n]*\.(?:jpe?g|png|webp|gif|bmp|tiff?)(?:[?#]\S*)?", re.IGNORECASE)


def looks_like_files(column: Column) -> bool:
    """Whether the values are addresses or names of picture files."""
    return picture_share(column) >= 0.8 or _share(column, _ADDRESS) >= 0.8


def picture_share(column: Column) -> float:
    """Share of the values that are a path or address of a picture, by their ending."""
    return _share(column, _PICTURE_FILE)


def address_share(column: Column) -> float:
    return _share(column, _ADDRESS)


def _share(column: Column, pattern: re.Pattern[str]) -> float:
    return sum(bool(pattern.fullmatch(text)) for text in column.first_texts) / max(len(column.first_texts), 1)
