"""Guesses which column of a file feeds which column of the catalog, and where the pictures are.

A guess needs both a name that says so and suitable values; where no name does, id, title, description and category are
guessed by their values alone. Every guess says why, and which other columns were possible.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path

from catalog_enrichment.ingest.file_columns import FileColumn, Kind, percent
from catalog_enrichment.ingest.source_frame import BETWEEN_PICTURES


@dataclass(frozen=True, slots=True)
class Guess:
    """The column that is taken for a column of the catalog."""

    column: str
    """The column's name. Empty: none was found, and ``why`` says what to put."""
    why: str
    others: tuple[str, ...] = ()
    """Other columns that were possible."""
    more: tuple[str, ...] = ()
    """Further columns and templates that are read with it."""

    @property
    def selector(self) -> str | list[str]:
        """Return what the mapping names: the column, or a list of several."""
        return [self.column, *self.more] if self.more else self.column

    @property
    def columns(self) -> set[str]:
        """Return the names of all columns that are read."""
        return {name for text in (self.column, *self.more) for name in re.findall(r"\{([^{}]+)\}", text) or [text]}


NO_GUESS = Guess("", "")


@dataclass(frozen=True, kw_only=True, slots=True)
class Role:
    """A column of the catalog, and how it is recognised."""

    names: str
    """What the file's column is called, the most telling name first, separated by commas."""
    parts: str = ""
    """Words that such names may contain, separated by commas."""
    unsuitable: Callable[[FileColumn], str]
    """Says why a column's values cannot be used; empty if they can."""
    by_values: Callable[[FileColumn], str] = lambda _: ""
    """Says why a column is taken whose name does not tell; empty if it is not."""
    missing: str
    """What to put where no column is found, and what happens without."""


ENOUGH_TITLES = 0.9
"""Share of the rows that must have a title; schemas/expectations/source_snapshot.v1.json says the same."""


def _no_id(column: FileColumn) -> str:
    if column.kind not in (Kind.TEXT, Kind.WHOLE, Kind.FLAG):
        return f"{column.kind}, not a text or whole number"
    if column.filled < 0.99:
        return f"filled in {percent(column.filled)} of the rows only"
    if column.distinct < 0.99:
        rows = f"{column.different:,} different values in {len(column.first_texts):,} rows"
        return f"it repeats: {rows} (--id COLUMN --merge-rows, if rows with the same id are one product)"
    return ""


def _like_an_id(column: FileColumn) -> str:
    short = sum(len(text) <= 64 and " " not in text for text in column.first_texts) >= 0.99 * len(column.first_texts)
    if _no_id(column) or not short or column.looks_like_files or column.is_running_number:
        return ""
    return "every row has a value of its own"


def _no_title(column: FileColumn) -> str:
    if column.kind is not Kind.TEXT:
        return f"{column.kind}, not text"
    if column.filled < ENOUGH_TITLES:
        return (
            f"filled in {percent(column.filled)} of the rows, the import needs {ENOUGH_TITLES:.0%} (--id COLUMN "
            "--merge-rows, if several rows are one product)"
        )
    return "" if column.distinct >= 0.1 else f"only {column.different:,} different values"


def _like_a_title(column: FileColumn) -> str:
    likely = not _no_title(column) and column.distinct >= 0.5 and not column.looks_like_files
    words = column.words_per_text >= 2 and column.characters <= 200
    return f"text with {column.words_per_text:.0f} words on average" if likely and words else ""


def _no_text(column: FileColumn) -> str:
    if column.kind not in (Kind.TEXT, Kind.LIST):
        return f"{column.kind}, not text"
    if column.looks_like_files:
        return "its values are addresses or files"
    if len(column.first_texts) >= _MANY_ROWS and column.distinct < 0.1:
        return f"one text for many products: {column.different:,} different in {len(column.first_texts):,} rows"
    return ""


def _like_a_description(column: FileColumn) -> str:
    long = not _no_text(column) and column.distinct >= 0.3 and column.characters >= 80 and column.words_per_text >= 10
    return f"the longest text, {column.words_per_text:.0f} words on average" if long else ""


def _no_category(column: FileColumn) -> str:
    if column.kind in (Kind.TEXT, Kind.LIST, Kind.WHOLE):
        return "" if column.distinct <= 0.5 else "most rows have a value of their own"
    return f"{column.kind}, not text"


def _like_a_category(column: FileColumn) -> str:
    paths = sum(bool(re.search(r"\w\s*[/>|]\s*\w", text)) and "</" not in text for text in column.first_texts)
    likely = column.kind is Kind.TEXT and column.distinct <= 0.2 and not column.looks_like_files
    return "its values look like paths" if likely and paths >= 0.8 * len(column.first_texts) > 0 else ""


def _no_shop(column: FileColumn) -> str:
    return "" if column.kind in (Kind.TEXT, Kind.WHOLE, Kind.FLAG) else f"{column.kind}, not text"


def _no_language(column: FileColumn) -> str:
    codes = all(re.fullmatch("[A-Za-z]{2}", text) for text in column.first_texts)
    return "" if column.kind is Kind.TEXT and codes else "its values are no codes of two letters"


def _no_time(column: FileColumn) -> str:
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


def _no_flag(column: FileColumn) -> str:
    return "" if column.kind is Kind.FLAG else f"{column.kind}, not yes or no"


ROLES: dict[str, Role] = {
    "product_id": Role(
        names="product id, id, item id, article id, listing id, offer id, asin, sku, product code, uuid, gtin, ean, "
        "upc, article number, item number, item no, item nr, art nr, art no, handle, artikelnummer, artnr, reference, "
        "key, code, item code, barcode",
        parts="product id, item id, article id, listing id, product number, produkt id, sku, id produit, id",
        unsuitable=_no_id,
        by_values=_like_an_id,
        missing="the column whose value every product has for itself",
    ),
    "title": Role(
        names="title, product title, product name, name, item name, item title, product display name, titel, "
        "produktname, bezeichnung, designation, titre, nom, libelle, titulo, nombre, titolo, nome, prod name, product, "
        "item",
        parts="title, product name, prod name, item name, display name, titel, titre, titulo, titolo",
        unsuitable=_no_title,
        by_values=_like_a_title,
        missing="the column with the products' names",
    ),
    "description": Role(
        names="description, product description, long description, body, body html, details, text, content, "
        "bullet points, features, summary, about, about product, beschreibung, descripcion, descrizione, descricao",
        parts="description, beschreibung, descripcion, descrizione, descricao, desc, about",
        unsuitable=_no_text,
        by_values=_like_a_description,
        missing="a column with a long text; without one the models read the title alone",
    ),
    "attributes_when": Role(
        names="labelled, labeled, is labelled, is labeled, has labels, annotated, is annotated",
        unsuitable=_no_flag,
        missing="a yes-or-no column, if the attributes are to be read in some rows only",
    ),
    "category": Role(
        names="category, category path, product category, categories, google product category, category name, "
        "product type, main category, master category, department, breadcrumb, breadcrumbs, kategorie, "
        "warengruppe, categorie, rubrique, rayon, categoria, item type",
        parts="category, categories, kategorie, categorie, categoria",
        unsuitable=_no_category,
        by_values=_like_a_category,
        missing="a column with category paths like Apparel/Topwear",
    ),
    "shop_id": Role(
        names="shop id, shop, seller id, seller, merchant id, merchant, store id, store, vendor id, shop name, "
        "seller name, merchant name, store name, haendler, handler, boutique, marchand",
        unsuitable=_no_shop,
        missing='a column with the merchant; without one all are of the shop "default"',
    ),
    "language": Role(
        names="language, lang, language code, locale, sprache, langue, idioma, lingua",
        unsuitable=_no_language,
        missing='a column with codes like en, de; or default_language = "de" (default: en)',
    ),
    "updated_at": Role(
        names="updated at, updated, last updated, modified at, last modified, modified, update time, timestamp",
        parts="updated at, last updated, last modified, modified at",
        unsuitable=_no_time,
        missing="a column with the time of the last change; without one the first import's",
    ),
    "deleted": Role(
        names="deleted, is deleted",
        unsuitable=_no_flag,
        missing="a yes-or-no column, true for products that are removed from the catalog",
    ),
    "opt_out": Role(
        names="opt out, optout, opted out, do not enrich, no enrichment",
        unsuitable=_no_flag,
        missing="a yes-or-no column, true for products that must not be enriched",
    ),
}
"""Column of the catalog -> how it is found, in the order in which columns are assigned."""

_EXACT_TITLES = frozenset((0, place) for place in range(6))
"""Ranks of names that are said of titles alone."""
_MANY_ROWS = 20
"""Rows from which a text that repeats is not taken for a description."""
_BY_LENGTH = {"title": 1, "description": -1}
"""The shortest of texts without a telling name is taken for the title, the longest for the description."""


def guess_role(name: str, columns: Sequence[FileColumn]) -> Guess:
    """Return the column of ``columns`` that feeds the catalog's column ``name``."""
    role = ROLES[name]
    ranked = sorted((rank, place) for place, column in enumerate(columns) if (rank := _rank(role, column)) is not None)
    named = [columns[place] for _, place in ranked]
    suitable = [column for column in named if not role.unsuitable(column)]
    if suitable:
        others = tuple(column.name for column in suitable[1:])
        return Guess(suitable[0].name, f"by its name; {suitable[0].fact()}", others)
    rejected = [(column, role.unsuitable(column)) for column in named[:3]]
    if name == "product_id":
        reason = "a running number of the rows, which is another one in the next export"
        rejected += [(column, reason) for column in columns if column.is_running_number and column not in named]
    unsuitable = "".join(f'; not "{column.name}": {why}' for column, why in rejected)
    usable = [column for column in columns if column.kind is not Kind.UNUSABLE]
    likely = [column for column in usable if role.by_values(column) and not _about_search(column)]
    if name == "title" and any(_rank(role, column) in _EXACT_TITLES for column in named):
        likely = []  # another text is not what the file calls the title
    if name in _BY_LENGTH:
        likely = sorted(likely, key=lambda column: _BY_LENGTH[name] * column.characters)
    if likely:
        others = tuple(column.name for column in likely[1:])
        return Guess(likely[0].name, f"no name tells{unsuitable}; {role.by_values(likely[0])}", others)
    return Guess("", role.missing + unsuitable)


def _rank(role: Role, column: FileColumn) -> tuple[int, int] | None:
    """Return a rank, the smaller the better the column's name fits; None if it does not."""
    if _about_search(column):
        return None
    names, words = role.names.split(", "), column.role_words
    if words in names:
        return 0, names.index(words)
    parts = [n for n, part in enumerate(role.parts.split(", ")) if part and f" {part} " in f" {words} "]
    return (1, parts[0]) if parts else None


def _about_search(column: FileColumn) -> bool:
    """Return whether the column is written for search engines, such as a meta title."""
    return bool(set(column.words.split()) & {"meta", "seo", "og"})


# --- pictures ---------------------------------------------------------------------------------------------------------

_PICTURE_NAMES = ("image", "images", "img", "picture", "pictures", "photo", "photos", "bild", "bilder", "foto", "fotos")
_PICTURE_WORDS = (*_PICTURE_NAMES, "imageurl", "imageurls", "imurl", "imagepath", "imgs", "immagine", "imagen")
_SMALLER = ("thumbnail", "thumb", "small", "icon", "logo", "swatch")
_FOLDERS = (".", "images", "image", "pictures", "photos", "img", "imgs", "media", "media/catalog/product")
_ENDINGS = (".jpg", ".jpeg", ".png", ".webp")
_ABSOLUTE = re.compile(r"(?://|[A-Za-z][A-Za-z0-9+.\-]*://)")
_TRIED = 20
"""References that are looked for in the folders."""
_NO_BYTES = Guess("", "a column with the encoded picture (JPEG, PNG, ...)")


@dataclass(frozen=True, slots=True)
class PictureColumns:
    """Where the pictures are: at most one of ``data`` and ``references`` has a column."""

    data: Guess
    """The guess for `image_bytes`."""
    references: Guess
    """The guess for `image_uris`."""
    folder: Guess = NO_GUESS
    """The guess for `source.image_folder`: its column is the folder; empty if none is needed or found."""


def guess_pictures(columns: Sequence[FileColumn], product_id: FileColumn, file: Path) -> PictureColumns:
    """Guess where the pictures are. ``columns``: the columns that are not assigned yet, without ``product_id``."""
    by_bytes = sorted((c for c in columns if c.kind is Kind.PICTURE), key=_preference)
    by_reference = sorted((c for c in columns if not _no_references(c)), key=_preference)
    others = tuple(column.name for column in [*by_bytes[1:], *by_reference])
    if by_bytes:
        references = Guess("", "further pictures by path or address; of each product the first usable picture is read")
        why = "its bytes begin like a picture's"
        return PictureColumns(Guess(by_bytes[0].name, why, others), references)
    if by_reference:
        return referenced(by_reference[0], Guess(by_reference[0].name, _why(by_reference[0]), others[1:]), file)
    if named := _named_by_id(product_id, file):
        return PictureColumns(_NO_BYTES, named)
    refused = [f'; not "{c.name}": {_no_references(c)}' for c in columns if _named_like_pictures(c)]
    missing = "a column with paths or addresses of pictures; or a template: images/{ID}.jpg"
    return PictureColumns(_NO_BYTES, Guess("", missing + "".join(refused)))


def pictures_in(column: FileColumn, file: Path) -> PictureColumns:
    """Return the pictures of a column that the user named."""
    if column.kind in (Kind.PICTURE, Kind.BYTES):
        return PictureColumns(Guess(column.name, f"as given; {column.fact()}"), NO_GUESS)
    return referenced(column, Guess(column.name, f"as given; {column.fact()}"), file)


def no_pictures() -> PictureColumns:
    given = Guess("", "none, as given")
    return PictureColumns(given, given)


def _preference(column: FileColumn) -> tuple[bool, bool, bool]:
    """Return a sort key that puts the likelier picture columns first."""
    words = set(column.words.split())
    return bool(words & set(_SMALLER)), not _named_like_pictures(column), column.words not in _PICTURE_NAMES


def _named_like_pictures(column: FileColumn) -> bool:
    return bool(set(column.words.split()) & set(_PICTURE_WORDS))


def _no_references(column: FileColumn) -> str:
    """Return why the column's values cannot be paths or addresses of pictures; empty if they can."""
    if column.kind not in (Kind.TEXT, Kind.LIST):
        return column.problem or f"{column.kind}, not paths or addresses"
    if column.picture_share >= 0.8 or (_named_like_pictures(column) and column.address_share >= 0.8):
        return ""
    return "its values are no paths or addresses of pictures"


def _why(column: FileColumn) -> str:
    web = column.address_share >= 0.5
    kind = "addresses" if web else "paths"
    note = "; pictures on the web are fetched when products are imported and scored" if web else ""
    return f"its values are {kind} of pictures, filled in {column.filled:.0%} of the rows{note}"


def referenced(column: FileColumn, guess: Guess, file: Path) -> PictureColumns:
    """Return ``guess`` with the folder that relative paths start at."""
    texts = [text for text in column.first_texts if not _ABSOLUTE.match(text) and not Path(text).is_file()]
    relative = [re.split(BETWEEN_PICTURES, text)[0].lstrip("/") for text in texts[:_TRIED]]
    rooted = any(text.startswith("/") for text in texts[:_TRIED])
    folder = NO_GUESS
    if relative:
        folders = (file.parent / name for name in _FOLDERS)
        found = next((place for place in folders if any((place / text).is_file() for text in relative)), None)
        if found is None:
            folder = Guess("", f"the folder that paths like {relative[0][:60]!r} start at: none beside the file")
        elif found != file.parent or rooted:
            folder = Guess(str(found), f"{relative[0][:60]!r} or another one is there")
    return PictureColumns(_NO_BYTES, guess, folder)


def _named_by_id(product_id: FileColumn, file: Path) -> Guess | None:
    """Return a template if there are files beside the source that are named by the products' ids."""
    if set("{}[]") & set(product_id.name):
        return None
    ids = [text for text in islice(product_id.first_texts, _TRIED) if "/" not in text]
    for name in _FOLDERS:
        for ending in _ENDINGS:
            if any((file.parent / name / f"{text}{ending}").is_file() for text in ids):
                prefix = "" if name == "." else f"{name}/"
                return Guess(f"{prefix}{{{product_id.name}}}{ending}", "files beside the source have the ids as names")
    return None
