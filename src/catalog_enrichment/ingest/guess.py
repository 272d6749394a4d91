"""All guesses about one file: the source mapping, the attributes, and why other columns were not taken."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from catalog_enrichment.config.source import KEY
from catalog_enrichment.errors import ConfigError, DataContractError
from catalog_enrichment.ingest import guess_kinds, guess_language
from catalog_enrichment.ingest.draft_dictionary import MIN_COUNT, by_value
from catalog_enrichment.ingest.exports import Recognised
from catalog_enrichment.ingest.file_columns import FileColumn, Kind, columns_of, percent
from catalog_enrichment.ingest.file_sample import FileSample
from catalog_enrichment.ingest.guess_columns import (
    ENOUGH_TITLES,
    ROLES,
    Guess,
    PictureColumns,
    guess_pictures,
    guess_role,
    no_pictures,
    pictures_in,
    referenced,
)
from catalog_enrichment.ingest.guess_kinds import OpenGuess
from catalog_enrichment.ingest.guess_language import ENGLISH, UNKNOWN, Languages
from catalog_enrichment.ingest.guess_products import ProductSample, products_in

OPTIONS = {
    "id": "product_id",
    "title": "title",
    "description": "description",
    "category": "category",
    "shop": "shop_id",
    "image": "image",
}
"""Argument of init_project -> the catalog's column that it names; `image` feeds image_bytes or image_uris."""
NEEDED = {"product_id": "id", "title": "title"}
"""Columns that a source must have -> the argument that names them."""
MAX_VALUES = 100
"""An attribute with more frequent values is not guessed."""

_LONGEST_NAME = 30
"""Characters of an attribute's name."""
_COVERED = 0.5
"""Share of an attribute's cells that its frequent values must have. In free text they have few."""
_MOSTLY_COVERED = 0.9
"""The same where the values are many and stand in the texts, which an attribute of the kind `text` finds all of."""
_WORDS_PER_VALUE = 5
_BY_CHANCE = 10
"""Values of two columns without a common word that must stand for each other before they are taken for the same."""
_CODE = 4
"""Characters of a value, at most, where a column may hold codes."""
_TRUE = {"true", "t", "yes", "y", "1"}
_ABOUT_SALES = (
    "author, crawl, crawled, creator, date, editor, modified, scraped, scraper, storage, timestamp, updated, badge, "
    "delivery, import, imported, keywords, meta, note, notes, payment, search, seo, slug, sort, "
    "active, availability, available, blocked, condition, created, currency, deleted, discount, discontinued, enabled, "
    "fulfillment, inventory, price, published, qty, quantity, rating, reviews, sale, shipping, sold, status, stock, "
    "supplier, tax, vat, visibility, visible, warehouse, gtin, ean, upc, sku, barcode, url, link, thumbnail, seller, "
    "merchant, shop, vendor"
)
"""Words in the names of columns that say how a product is sold, not what it is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Given:
    """The columns that the user has named."""

    columns: Mapping[str, str]
    """Column of the catalog (the values of OPTIONS) -> column of the file; empty: the file has none."""
    attributes: Sequence[str] | None = None
    """Columns of the file; None: guess them."""
    merge_rows: bool = False
    """Rows with the same product id are one product."""
    min_count: int = MIN_COUNT
    """Rows that a value of an attribute needs."""


@dataclass(frozen=True, slots=True)
class Guesses:
    """All guesses about a file."""

    roles: dict[str, Guess]
    """Key of `source.mapping` -> its column."""
    image_folder: Guess
    languages: Languages
    empty_texts: dict[str, float]
    """Texts that mean "no value" -> share of a column's cells."""
    attributes: dict[str, Guess]
    """Attribute's name -> its column."""
    counts: dict[str, list[tuple[str, int]]]
    """Attribute's name -> (value, rows) pairs, the most frequent first; those with a closed list of values."""
    open_values: dict[str, dict[str, Any]]
    """Attribute's name -> what the dictionary says of it; numbers and texts, which no closed list holds."""
    several: frozenset[str]
    """Attributes of which a product can have several values."""
    labelled: dict[str, int]
    """Attribute's name -> sampled rows with a value."""
    separators: dict[str, str]
    """Attribute's name -> what stands between several values in one cell."""
    decimal_marks: dict[str, str]
    """Attribute's name -> what stands before the decimals of its numbers, where the languages do not say it."""
    products: ProductSample
    """What one product is."""
    unused: dict[str, str]
    """Column of the file that nothing reads -> why it is no attribute."""


def guess(sample: FileSample, file: Path, given: Given) -> Guesses:
    """Return the guesses about ``file``, whose rows are sampled in ``sample``. Their `products` have a row per product.

    Raises ConfigError for a given column that the file does not have or that cannot be mapped, and DataContractError
    where no column can be the product id or the title.
    """
    merge_by = given.columns.get("product_id", "") if given.merge_rows else ""
    if given.merge_rows and merge_by not in sample.columns:
        raise ConfigError(f"--merge-rows needs --id COLUMN, a column of the file, which has {list(sample.columns)}")
    products = products_in(sample, merge_by)
    sample = products.sample
    columns, empty = columns_of(sample)
    usual = products.export.attributes if products.export else {}
    columns |= {name: replace(columns[name], usual_name=to) for name, to in usual.items()}
    if products.export and products.export.joined_by:
        keys = {name: column for name, column in columns.items() if name.startswith(KEY)}
        columns |= {name: replace(column, joined_by=products.export.joined_by) for name, column in keys.items()}
    _check_given(columns, given)
    roles, image_folder, free = _assign_roles(columns, file, given, products.export)
    readable = _readable_rows(columns, roles["attributes_when"].column, sample.rows)
    # the attributes are looked at in the rows whose merchants' values may be read
    shown = {
        name: replace(column, texts=[texts for texts, may in zip(column.texts, readable, strict=True) if may])
        for name, column in columns.items()
        if column.texts
    }
    rows = _row_texts(columns, roles, readable)
    separators = {
        name: column.separator
        for name, column in shown.items()
        if column.separator and guess_kinds.number(column) is None
    }
    shown = {name: column.split() if name in separators else column for name, column in shown.items()}
    if given.attributes is None:
        possible = [column for column in free if not (why := _not_possible(column.name, products))]
        shown_possible = [shown.get(column.name, column) for column in possible]
        taken, unused, kinds = _guess_attributes(shown_possible, given.min_count, rows)
        unused |= {column.name: why for column in free if (why := _not_possible(column.name, products))}
    else:
        unused = {column.name: "not among the given --attribute columns" for column in free}
        kinds = {name: found for name in given.attributes if (found := _open(shown[name], given.min_count, rows))}
        facts = {name: kinds[name].why if name in kinds else _fact(shown[name], given.min_count) for name in shown}
        taken = {name: f"as given; {facts[name]}" for name in given.attributes}
    names = _attribute_names([columns[name] for name in taken])
    languages = _languages(columns, roles, sample.rows)
    usual_mark = "." if languages.main in (ENGLISH, UNKNOWN) and not roles["language"].column else ""
    marks = {names[name]: found.decimal_mark for name, found in kinds.items() if name in taken}
    return Guesses(
        roles,
        image_folder,
        languages,
        empty,
        attributes={names[name]: Guess(name, why) for name, why in taken.items()},
        counts={names[name]: _value_counts(shown[name]) for name in taken if name not in kinds},
        open_values={names[name]: kinds[name].entry for name in taken if name in kinds},
        several=frozenset(names[name] for name in taken if _has_several(shown[name]) and name not in kinds),
        labelled={names[name]: len(shown[name].first_texts) for name in taken},
        separators={names[name]: separators[name] for name in taken if name in separators},
        decimal_marks={name: mark for name, mark in marks.items() if mark not in ("", usual_mark)},
        products=products,
        unused=unused,
    )


def _not_possible(name: str, products: ProductSample) -> str:
    """Return why a column is not looked at as an attribute; empty if it is."""
    if name in products.pairs_read():
        return f"its keys are columns of their own: {KEY}..."
    if products.export and name in products.export.no_attributes:
        return f"in {products.export.name}'s exports it says how the shop works, not what a product is"
    return ""


def _assign_roles(
    columns: Mapping[str, FileColumn], file: Path, given: Given, export: Recognised | None
) -> tuple[dict[str, Guess], Guess, list[FileColumn]]:
    """Return key of `source.mapping` -> its column, the folder of the pictures, and the columns that are left."""
    roles: dict[str, Guess] = {}
    image_folder = Guess("", "")
    reserved = {*given.columns.values(), *(given.attributes or ())}

    def free() -> list[FileColumn]:
        taken = reserved | {name for found in roles.values() for name in found.columns}
        return [column for column in columns.values() if column.name not in taken]

    for name in ROLES:
        roles[name] = _role(name, columns, free(), given, export)
        if name in NEEDED and not roles[name].column:
            raise DataContractError(_not_found(name, file, columns, roles[name].why))
        if name == "title":  # before the others: a description is no list of addresses
            product_id = columns.get(roles["product_id"].column, next(iter(columns.values())))
            pictures = _pictures(columns, product_id, free(), file, given, export)
            roles |= {"image_bytes": pictures.data, "image_uris": pictures.references}
            image_folder = pictures.folder
    return roles, image_folder, free()


def _role(
    name: str,
    columns: Mapping[str, FileColumn],
    free: Sequence[FileColumn],
    given: Given,
    export: Recognised | None,
) -> Guess:
    if name not in given.columns and export is not None and name in export.roles:
        if found := _exported(export, name):
            return found
        return Guess("", ROLES[name].missing) if name == "shop_id" else guess_role(name, free)
    if name not in given.columns:
        return guess_role(name, free)
    if not given.columns[name]:
        return Guess("", "none, as given")
    column = columns[given.columns[name]]
    if name == "title" and column.filled < ENOUGH_TITLES:
        raise DataContractError(
            f"--title {column.name!r} is filled in {percent(column.filled)} of the rows, and the import needs "
            f"{ENOUGH_TITLES:.0%}. Where several rows are one product, name its id: --id COLUMN --merge-rows"
        )
    doubt = ROLES[name].unsuitable(column)
    return Guess(column.name, f"as given; {column.fact()}" + (f"; check it: {doubt}" if doubt else ""))


def _exported(export: Recognised, role: str) -> Guess | None:
    """Return the columns that an export has for a role; None if it has none."""
    found = export.roles[role]
    return Guess(found[0], f"by its name in {export.name}'s exports", more=tuple(found[1:])) if found else None


def _pictures(
    columns: Mapping[str, FileColumn],
    product_id: FileColumn,
    free: Sequence[FileColumn],
    file: Path,
    given: Given,
    export: Recognised | None,
) -> PictureColumns:
    if "image" not in given.columns and export is not None and (found := _exported(export, "image_uris")):
        return referenced(columns[found.column], found, file)
    if "image" not in given.columns:
        return guess_pictures(free, product_id, file)
    name = given.columns["image"]
    return pictures_in(columns[name], file) if name else no_pictures()


def _check_given(columns: Mapping[str, FileColumn], given: Given) -> None:
    named = {option: given.columns[name] for option, name in OPTIONS.items() if given.columns.get(name)}
    pairs = [*named.items(), *(("attribute", name) for name in given.attributes or ())]
    for option, name in pairs:
        if name not in columns:
            raise ConfigError(f"--{option} {name!r}: the file has no such column. It has {list(columns)}")
        column = columns[name]
        if column.problem:
            raise ConfigError(f"--{option} {name!r}: {column.problem}")
        if option != "image" and column.kind in (Kind.PICTURE, Kind.BYTES):
            raise ConfigError(f"--{option} {name!r}: the column holds {column.kind}, not text")
    for name, option in NEEDED.items():
        if given.columns.get(name) == "":
            raise ConfigError(f"--{option} must name a column: there is no product without it")


def _not_found(name: str, file: Path, columns: Mapping[str, FileColumn], why: str) -> str:
    seen = ", ".join(f'"{column.name}" ({column.problem or column.fact()})' for column in columns.values())
    return (
        f"{file}: no column can be the {name}. Needed: {why}. Columns: {seen}. Name it with --{NEEDED[name]} COLUMN. "
        "The first line of a CSV or TSV file must hold the columns' names"
    )


# --- attributes -------------------------------------------------------------------------------------------------------


def _readable_rows(columns: Mapping[str, FileColumn], flag: str, rows: int) -> list[bool]:
    """Return for each sampled row whether merchants' values may be read: all, unless the column ``flag`` forbids it."""
    if not flag:
        return [True] * rows
    return [bool(texts) and texts[0].casefold() in _TRUE for texts in columns[flag].texts]


def _row_texts(columns: Mapping[str, FileColumn], roles: Mapping[str, Guess], readable: Sequence[bool]) -> list[str]:
    """Return title and description of each row whose merchants' values may be read."""
    named = [columns[roles[name].column] for name in ("title", "description") if roles[name].column in columns]
    found = [column for column in named if column.texts]
    texts = [" . ".join(text for column in found for text in column.texts[row]) for row in range(len(readable))]
    return [text for text, may in zip(texts, readable, strict=True) if may]


def _languages(columns: Mapping[str, FileColumn], roles: Mapping[str, Guess], rows: int) -> Languages:
    """Return the languages of the products: by their column, or by their texts where there is none."""
    if roles["language"].column:
        return guess_language.of_codes(columns[roles["language"].column].first_texts)
    return guess_language.of_texts(_row_texts(columns, roles, [True] * rows))


def _open(column: FileColumn, min_count: int, rows: Sequence[str]) -> OpenGuess | None:
    """Return the guess for a column of numbers, or of texts for which no list of values is possible."""
    is_number = column.kind in (Kind.WHOLE, Kind.NUMBER)
    if _about_sales(column) if is_number else _no_value(column):
        return None
    return guess_kinds.number(column) or (
        guess_kinds.text(column, rows) if not is_number and _is_short_list(column, min_count) else None
    )


def _is_short_list(column: FileColumn, min_count: int) -> bool:
    """Return whether a list of the frequent values would be no list, or leave out too many of many values."""
    counts = _value_counts(column)
    covered = sum(count for _, count in counts if count >= min_count)
    is_long = len(counts) > MAX_VALUES and covered < _MOSTLY_COVERED * sum(count for _, count in counts)
    return is_long or bool(_no_list(column, min_count))


def _guess_attributes(
    columns: Sequence[FileColumn], min_count: int, rows: Sequence[str]
) -> tuple[dict[str, str], dict[str, str], dict[str, OpenGuess]]:
    """Return column -> why it is taken as an attribute, column -> why it is not, and the open attributes among those
    that are taken. ``rows``: title and description of each row."""
    taken: dict[str, str] = {}
    refused: dict[str, str] = {}
    kinds: dict[str, OpenGuess] = {}
    seen: list[FileColumn] = []
    for column in columns:
        if found := _open(column, min_count, rows):
            kinds[column.name], taken[column.name] = found, found.why
            continue
        refusal = _no_attribute(column, min_count)
        twin = next((other for other in seen if not refusal and _is_repeated(column, other)), None)
        if twin is not None and column.characters > twin.characters + 1 and twin.characters <= _CODE:
            # a code and its name: people read the name
            refused[twin.name] = f'it says the same as "{column.name}", in codes'
            del taken[twin.name]
            seen.remove(twin)
            twin = None
        if refusal or twin is not None:
            refused[column.name] = refusal or f'it says the same as "{twin.name if twin else ""}"'
        else:
            taken[column.name] = _fact(column, min_count)
            seen.append(column)
    return taken, refused, kinds


def _no_attribute(column: FileColumn, min_count: int) -> str:
    """Return why the column is no attribute with a closed list of values; empty if it is."""
    return _no_value(column) or _no_list(column, min_count)


def _no_value(column: FileColumn) -> str:
    """Return why a column says nothing about what a product is; empty if it may."""
    if column.kind not in (Kind.TEXT, Kind.LIST):
        return column.problem or str(column.kind)
    if about_sales := _about_sales(column):
        return about_sales
    if column.looks_like_files:
        return "its values are addresses or files"
    if column.looks_like_pairs:
        return "its values are keys with values, in a form that is not read"
    if column.looks_like_times:
        return "its values are dates or times"
    return ""


def _about_sales(column: FileColumn) -> str:
    words = sorted(set(_ABOUT_SALES.split(", ")) & set(column.words.split()))
    return f'its name ("{words[0]}") says how a product is sold or recorded, not what it is' if words else ""


def _no_list(column: FileColumn, min_count: int) -> str:
    """Return why the column's values are no closed list; empty if they are."""
    counts = _value_counts(column)
    frequent = [count for _, count in counts if count >= min_count]
    if len(counts) < 2:
        return "one value everywhere" if counts else "no value in the rows that may be read"
    if len(frequent) < 2:
        return f"{len(counts):,} different values, {len(frequent) or 'none'} of them in at least {min_count} rows"
    if len(frequent) > MAX_VALUES:
        return f"{len(frequent):,} values in at least {min_count} rows each; at most {MAX_VALUES} are guessed"
    if sum(frequent) < _COVERED * sum(count for _, count in counts) or column.words_per_text > _WORDS_PER_VALUE:
        return f"free text: {len(counts):,} different values"
    return ""


def _value_counts(column: FileColumn) -> list[tuple[str, int]]:
    """Return (value, rows) pairs of an attribute, the most frequent first."""
    return by_value([(text, 1) for texts in column.texts for text in texts])


def _has_several(column: FileColumn) -> bool:
    return any(len(texts) > 1 for texts in column.texts)


def _fact(column: FileColumn, min_count: int) -> str:
    """Return the attribute in a few words."""
    counts = _value_counts(column)
    frequent = sum(count >= min_count for _, count in counts)
    filled = f"filled in {percent(column.filled)} of {len(column.texts):,} rows"
    several = "; several values per product" if _has_several(column) else ""
    return f"{frequent} of {len(counts):,} values in at least {min_count} rows; {filled}{several}"


def _is_repeated(column: FileColumn, other: FileColumn) -> bool:
    """Return whether each value of one column stands for one of the other, and most rows have both or none."""
    both = [(tuple(a), tuple(b)) for a, b in zip(column.texts, other.texts, strict=True) if a and b]
    pairs = set(both)
    related = set(column.words.split()) & set(other.words.split())
    if len(pairs) < (2 if related else _BY_CHANCE) or len(both) < 0.9 * max(
        len(column.first_texts), len(other.first_texts)
    ):
        return False
    return len({a for a, _ in pairs}) == len({b for _, b in pairs}) == len(pairs)


def _attribute_names(columns: Collection[FileColumn]) -> dict[str, str]:
    """Return column -> the attribute's name: its words in lower case, joined by underscores; no two are the same."""
    names: dict[str, str] = {}
    for column in columns:
        plain = column.words[:_LONGEST_NAME].strip().replace(" ", "_") or "attribute"
        number, name = 2, plain
        while name in names.values():
            name, number = f"{plain}_{number}", number + 1
        names[column.name] = name
    return names
