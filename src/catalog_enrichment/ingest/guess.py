"""All guesses about one file: the source mapping, the attributes, and what was not taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from catalog_enrichment.errors import ConfigError, DataContractError
from catalog_enrichment.ingest.file_columns import Column, Kind, columns_of
from catalog_enrichment.ingest.file_sample import FileSample
from catalog_enrichment.ingest.frequent_values import MIN_COUNT
from catalog_enrichment.ingest.guess_columns import (
    ROLES,
    Guess,
    attribute_fact,
    guess_attributes,
    guess_role,
    readable_rows,
    value_counts,
)
from catalog_enrichment.ingest.guess_pictures import Pictures, guess_pictures, no_pictures, pictures_in

OPTIONS = {
    "id": "product_id",
    "title": "title",
    "description": "description",
    "category": "category",
    "shop": "shop_id",
    "image": "image",
}
"""Argument of init_project -> the catalog's column that it names; `image` feeds image_bytes or image_uris."""
_LONGEST_NAME = 30
"""Characters of an attribute's name."""
NEEDED = {"product_id": "id", "title": "title"}
"""Columns that a source must have -> the argument that names them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Given:
    """What the user has named himself."""

    columns: Mapping[str, str]
    """Column of the catalog (the values of OPTIONS) -> column of the file; empty: the file has none."""
    attributes: Sequence[str] | None = None
    """Columns of the file; None: guess them."""
    min_count: int = MIN_COUNT
    """Rows that a value of an attribute needs."""


@dataclass(frozen=True, slots=True)
class Guesses:
    roles: dict[str, Guess]
    """Key of `source.mapping` -> its column."""
    image_folder: Guess
    empty_texts: dict[str, float]
    """Texts that mean "no value" -> share of a column's cells."""
    attributes: dict[str, Guess]
    """Attribute's name -> its column."""
    counts: dict[str, list[tuple[str, int]]]
    """Attribute's name -> (value, rows) pairs, the most frequent first."""
    several: frozenset[str]
    """Attributes of which a product can have several values."""
    labelled: dict[str, int]
    """Attribute's name -> sampled rows with a value."""
    unused: dict[str, str]
    """Column of the file that nothing reads -> why it is no attribute."""


def guess(sample: FileSample, file: Path, given: Given) -> Guesses:
    """The guesses about ``file``, whose rows are sampled in ``sample``.

    Raises ConfigError for a given column that the file does not have or that cannot be mapped, and DataContractError
    where no column can be the product id or the title.
    """
    columns, empty = columns_of(sample)
    _check_given(columns, given)
    roles: dict[str, Guess] = {}
    reserved = {*given.columns.values(), *(given.attributes or ())}

    def free() -> list[Column]:
        taken = reserved | {one.column for one in roles.values()}
        return [column for column in columns.values() if column.name not in taken]

    pictures: Pictures | None = None
    for name in ROLES:
        roles[name] = _role(name, columns, free(), given)
        if name in NEEDED and not roles[name].column:
            raise DataContractError(_not_found(name, file, columns, roles[name].why))
        if name == "title":  # before the others: a description is no list of addresses
            pictures = _pictures(columns, columns[roles["product_id"].column], free(), file, given)
            roles |= {"image_bytes": pictures.data, "image_uris": pictures.references}
    assert pictures is not None
    flag = roles["attributes_when"].column
    readable = readable_rows(columns, flag, sample.rows)
    if given.attributes is None:
        taken, unused = guess_attributes(free(), readable, given.min_count)
    else:
        unused = {column.name: "not among the given --attribute columns" for column in free()}
        taken = dict.fromkeys(given.attributes, "as given")
    cells = {name: [texts for texts, may in zip(columns[name].texts, readable, strict=True) if may] for name in taken}
    names = _attribute_names([columns[name] for name in taken])
    counts = {names[name]: value_counts(cells[name]) for name in taken}
    for name, why in taken.items():
        if why == "as given":
            shown = Column(name, columns[name].kind, cells[name])
            fact = attribute_fact(counts[names[name]], shown, given.min_count, len(shown.texts))
            taken[name] = f"as given; {fact}"
    return Guesses(
        roles,
        pictures.folder,
        empty,
        {names[name]: Guess(name, why) for name, why in taken.items()},
        counts,
        frozenset(names[name] for name in taken if any(len(texts) > 1 for texts in cells[name])),
        {names[name]: sum(map(bool, cells[name])) for name in taken},
        unused,
    )


def _role(name: str, columns: Mapping[str, Column], free: Sequence[Column], given: Given) -> Guess:
    if name not in given.columns:
        return guess_role(name, free)
    if not given.columns[name]:
        return Guess("", "none, as given")
    column = columns[given.columns[name]]
    doubt = ROLES[name].unsuitable(column)
    return Guess(column.name, f"as given; {column.fact()}" + (f"; check it: {doubt}" if doubt else ""))


def _pictures(
    columns: Mapping[str, Column], product_id: Column, free: Sequence[Column], file: Path, given: Given
) -> Pictures:
    if "image" not in given.columns:
        return guess_pictures(free, product_id, file)
    name = given.columns["image"]
    return pictures_in(columns[name], file) if name else no_pictures()


def _check_given(columns: Mapping[str, Column], given: Given) -> None:
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


def _not_found(name: str, file: Path, columns: Mapping[str, Column], why: str) -> str:
    seen = ", ".join(f'"{column.name}" ({column.problem or column.fact()})' for column in columns.values())
    return (
        f"{file}: no column can be the {name}. Needed: {why}. Columns: {seen}. Name it with --{NEEDED[name]} COLUMN. "
        "The first line of a CSV or TSV file must hold the columns' names"
    )


def _attribute_names(columns: Sequence[Column]) -> dict[str, str]:
    """Column -> the attribute's name: its words in lower case, joined by underscores; no two are the same."""
    names: dict[str, str] = {}
    for column in columns:
        plain = column.words[:_LONGEST_NAME].strip().replace(" ", "_") or "attribute"
        number, name = 2, plain
        while name in names.values():
            name, number = f"{plain}_{number}", number + 1
        names[column.name] = name
    return names
