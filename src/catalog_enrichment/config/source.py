"""The config's `[source]` section: where products come from (files, a database, an HTTP API), and what columns mean."""

from __future__ import annotations

import codecs
import os
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

from catalog_enrichment.config.remote_sources import ApiConfig, PostgresConfig, check_remote_path
from catalog_enrichment.config.strict import check_ranges

TABLE_FORMATS = ("csv", "tsv", "xlsx")
"""Formats with a header and rows of cells."""
ROW_FORMATS = (*TABLE_FORMATS, "json_list", "xml")
"""Formats whose files are read row by row in Python: rows can be merged, and pairs in texts can be read."""
KEY = "key:"
"""Before the name of a key of `pair_texts` and `pair_columns`: a column of the source that the mapping can name."""
_RATIOS = ("max_gone_ratio", "min_volume_ratio", "min_attribute_ratio")
REMOTE_FORMATS = ("postgres", "http_api")
"""Formats whose `path` is a URI of a server, and not of files."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MappingConfig:
    """The source column for each product column. An empty string means that the source has no such column.

    Instead of a column name, an element of a list is allowed, `categories[0][-1]` (the last of the first), and a
    template over columns, `image_{Image_id}.jpg`. `_file_stem` is the name of the row's file without its extension.
    A list of texts is joined by line breaks for the description, and by slashes for the category.
    """

    product_id: str | list[str] = "product_id"
    """Column with the key; of a list of columns the first that has a value. A row without a key goes to quarantine."""
    shop_id: str = ""
    """Column with the merchant; where it is null, `default_shop`."""
    title: str | list[str] = "title"
    """Column with the product's name; of a list of columns the first that has a value. A row without a title goes to
    quarantine."""
    description: str | list[str] = ""
    """Column with the text beside the title; several are joined by line breaks."""
    category: str = ""
    """Column with the category path, levels joined by slashes, ` > ` or ` | `."""
    language: str = ""
    """Column with the language of the texts (ISO 639-1); where it is null, `default_language`."""
    image_bytes: str = ""
    """Column with the encoded picture."""
    image_uris: str | list[str] = ""
    """Columns with one path or URI, with an array of them, or with a text of several that are separated by commas,
    semicolons, spaces or `|`; relative ones start at `source.image_folder`."""
    opt_out: str = ""
    """Boolean column; where it is true, readers see no model value of the product."""
    deleted: str = ""
    """Boolean column; a row in which it is true needs nothing but the product id, and deletes that product."""
    updated_at: str = ""
    """Timestamp column; without it every row counts as updated at the time of its first import."""
    attributes: dict[str, str] = field(default_factory=dict)
    """Attribute name = source column with the merchant's values: a string, an array of strings, or text with
    an array as JSON or Python writes it: `["a", "b"]`, `['a', 'b']`."""
    separators: dict[str, str] = field(default_factory=dict)
    """Attribute name = text between several values in one cell, for example `|`. `category` = text between several
    category paths, of which the path with the most levels is taken."""
    decimal_marks: dict[str, str] = field(default_factory=dict)
    """Attribute name = what stands before the decimals of its numbers, `.` or `,`. Otherwise the product's language
    decides what 1.299 is; columns of numbers (not texts) have `.`."""
    attributes_when: str = ""
    """Boolean source column: merchant values are read only where it is true."""
    attributes_when_values: list[str] = field(default_factory=list)
    """Makes a boolean of any column: true where `attributes_when` holds one of these values."""
    default_language: str = "en"
    """Language of rows without a language."""
    default_shop: str = "default"
    """Shop of rows without a shop."""

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.separators) - {*self.attributes, "category"}):
            raise ValueError(f"source.mapping.separators names {unknown}, which are not in source.mapping.attributes")
        if unknown := sorted(set(self.decimal_marks) - set(self.attributes)):
            raise ValueError(
                f"source.mapping.decimal_marks names {unknown}, which are not in source.mapping.attributes"
            )
        if wrong := sorted(set(self.decimal_marks.values()) - {".", ","}):
            raise ValueError(f'source.mapping.decimal_marks must be "." or ",", not {wrong[0]!r}')
        if "" in self.separators.values():
            raise ValueError("source.mapping.separators must not be empty texts")
        if self.attributes_when_values and not self.attributes_when:
            raise ValueError("source.mapping.attributes_when must name a column for attributes_when_values")


@dataclass(frozen=True, kw_only=True, slots=True)
class VariantsConfig:
    """Rows of a file that are one product: its texts are those of its own row, or of its first row that has
    them, and its pictures and values are those of all its rows. All mapped columns of a file are kept in memory."""

    same_id: bool = True
    """Rows with the same product id are one product."""
    parent: str = ""
    """Column with the id of the product that a row is a variant of; empty in a product's own row."""
    view: str = ""
    """Column that is filled in rows that repeat a product in another language or shop: of these no value is taken."""
    kind: str = ""
    """Column that tells rows of products from rows that go on with the product above them."""
    product_kinds: list[str] = field(default_factory=list)
    """The values of `kind` in rows of products; case does not count."""

    def __post_init__(self) -> None:
        if bool(self.kind) != bool(self.product_kinds):
            raise ValueError("source.variants needs both kind and product_kinds, or neither")


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelsConfig:
    """A second file with further columns for the same products, for example the labels of a challenge.

    The mapping may name its columns; a column that both files have is taken from the source. A product that is not in
    this file has none of its values; rows of other products are ignored.
    """

    format: Literal["csv", "tsv", "jsonl", "parquet", "id_lists"]
    """`id_lists`: a JSON object, {name: [id, ...]}; it gives the columns `list` (the name) and the key."""
    path: str
    """Relative paths start at the config file's `root`."""
    key: str = ""
    """Column with the product's key in both files; empty: the rows are in the same order (CSV, TSV)."""
    columns: list[str] = field(default_factory=list)
    """Names of the columns of a CSV or TSV file without a header."""

    def __post_init__(self) -> None:
        _check_columns("source.labels", self.format, self.columns)
        if not self.key and self.format not in ("csv", "tsv"):
            raise ValueError(f"source.labels.key is needed: {self.format} rows have no defined order")


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceConfig:
    format: Literal[
        "parquet",
        "csv",
        "tsv",
        "xlsx",
        "jsonl",
        "json_list",
        "json_files",
        "python_lines",
        "xml",
        "delta",
        "postgres",
        "http_api",
    ]
    """`jsonl`: a JSON object per line. `json_list`: one JSON list of objects, or an object with such a list, per file.
    `json_files`: an object per file. `python_lines`: a Python dict per line, as `repr` writes it. `xml`: an element per
    product, as in RSS and Atom feeds. A column without a name in a CSV or TSV header is called `_c0`, `_c1`, ... by its
    position. `postgres` needs `[source.postgres]`, `http_api` needs `[source.api]`."""
    path: str
    """File, folder or Delta table; relative paths start at the config file's `root`. For `postgres`, the server's URI
    without a password (`postgresql://reader@db.example/shop`); for `http_api`, the URL of the first page."""
    postgres: PostgresConfig | None = None
    """Needed for the format `postgres`: which table."""
    api: ApiConfig | None = None
    """Needed for the format `http_api`: how it pages."""
    columns: list[str] = field(default_factory=list)
    """Names of the columns of a CSV or TSV file without a header."""
    separator: str = ""
    """Character between the columns of a `csv` file. Empty: a comma."""
    encoding: str = "utf-8"
    """Encoding of CSV, TSV and JSON lists, for example cp1252. A line that is not in it goes to quarantine."""
    header_row: int = 1
    """Row of a CSV, TSV or xlsx file that names the columns; the rows above it are not read. Blank lines do not
    count."""
    decimal: Literal[".", ","] = "."
    """Sign before the decimals of numbers in CSV, TSV and xlsx files. With a comma, `1.234,5` is read as 1234.5."""
    sheet: str = ""
    """Sheet of an `xlsx` file. Empty: the first."""
    pair_texts: list[str] = field(default_factory=list)
    """Columns with attributes as pairs in a text: `color=Black,size=M`, `Color: Black; Size: M`, or JSON. The mapping
    names a key as the column `key:color`."""
    pair_columns: dict[str, str] = field(default_factory=dict)
    """Column with an attribute's name = column with its value. The mapping names an attribute as `key:Color`."""
    variants: VariantsConfig | None = None
    """For files with several rows per product. Without this section each row is a product."""
    empty_texts: list[str] = field(default_factory=list)
    """Texts that mean "no value", for example NaN. Case does not count."""
    image_folder: str = ""
    """Base folder of relative picture paths, a URI or a path relative to `root`; empty: the folder of `path`, and for
    `postgres` none."""
    labels: LabelsConfig | None = None
    mapping: MappingConfig = field(default_factory=MappingConfig)
    snapshot_suite: str = "schemas:expectations/source_snapshot.v1.json"
    """great_expectations suite that the snapshot must pass, `schemas:PATH` or a path relative to `root`."""
    row_rules: str = "schemas:expectations/row_rules.v1.json"
    """Rules that send single rows to quarantine, `schemas:PATH` or a path relative to `root`."""
    read_changes: bool = False
    """For `delta`: an import reads only what changed since the version that the last import read, from the change data
    feed where the table keeps it, else from the files that are new."""
    watermark: str = ""
    """For `postgres`: a column of times that every change of a row sets to the present, as `updated_at`. An import
    reads rows whose time is not before the newest of the last import, and rows without a time. It needs an index."""
    watermark_overlap: float = 3600.0
    """With `watermark`: seconds that are read again, because a transaction commits later than the time that it sets.
    Longer than any transaction that writes products."""
    append_only: bool = False
    """For folders of files: an import reads only the files that are new, or have another size or time, since the last
    import. A row of a product that is in an older file too replaces it."""
    full_every_days: float = 7.0
    """Where an import reads only what changed: after so many days the next import reads and compares all rows."""
    complete: bool = False
    """True if every snapshot of the source, all its files or rows together, holds all products of the catalog: a
    product that is in no row of `absent_imports` snapshots is gone, and is removed."""
    absent_imports: int = 3
    """With `complete`: the number of new snapshots in a row that do not have a product before it is removed."""
    max_gone_ratio: float = 0.05
    """With `complete`: the largest share of the stored products that an import may remove for being absent, or 10
    products where that is more; 0 removes none. Deletions by `mapping.deleted` are not limited."""
    min_volume_ratio: float = 0.5
    """The snapshot must have at least this share of the rows of the last import."""
    min_attribute_ratio: float = 0.5
    """The share of the products that have a value of an attribute must be at least this share of that in the last
    import."""

    def __post_init__(self) -> None:
        _check_columns("source", self.format, self.columns)
        self._check_files()
        if self.labels and not self.labels.key and self.format not in ("csv", "tsv"):
            raise ValueError(f"source.labels.key is needed: {self.format} rows have no defined order")
        check_ranges("source", self, **dict.fromkeys(_RATIOS, (0, 1)), absent_imports=(1, 1000))
        self._check_changes()
        self._check_remote()

    def _check_files(self) -> None:
        """Raise ValueError for keys that the format cannot follow."""
        usable = {
            **dict.fromkeys(("pair_texts", "pair_columns", "variants"), ROW_FORMATS),
            **dict.fromkeys(("header_row", "decimal"), TABLE_FORMATS),
            "encoding": ("csv", "tsv", "json_list"),
            "separator": ("csv",),
            "sheet": ("xlsx",),
        }
        for name, formats in usable.items():
            default = next(f for f in fields(self) if f.name == name)
            unset = default.default_factory() if callable(default.default_factory) else default.default
            if getattr(self, name) != unset and self.format not in formats:
                raise ValueError(f"source.{name} is for the formats {', '.join(formats)}, not for {self.format}")
        check_ranges("source", self, header_row=(1, 100))
        if self.columns and self.header_row != 1:
            raise ValueError("source.columns is for files without a header: leave out source.header_row")
        if len(self.separator) > 1 or self.separator in ('"', "\n", "\r"):
            raise ValueError(
                f"source.separator must be a single character and no quote or line end, not {self.separator!r}"
            )
        try:
            ascii_letters = codecs.decode(b"Aa1,", self.encoding)
        except (LookupError, ValueError):
            ascii_letters = ""
        if ascii_letters != "Aa1,":
            raise ValueError(f"source.encoding {self.encoding!r} is not known, or its letters are not those of ASCII")

    def _check_changes(self) -> None:
        """Raise ValueError for keys about changes that the format cannot follow."""
        if self.read_changes and self.format != "delta":
            raise ValueError(f"source.read_changes is for the format delta, not for {self.format}")
        if self.watermark and self.format != "postgres":
            raise ValueError(f"source.watermark is for the format postgres, not for {self.format}")
        if self.append_only and self.format in ("delta", *REMOTE_FORMATS):
            raise ValueError(f"source.append_only is for folders of files, not for {self.format}")
        if self.reads_changes and self.labels:
            raise ValueError("source.labels cannot be used where an import reads only what changed: join them before")
        check_ranges("source", self, full_every_days=(0, 3650), watermark_overlap=(0, 2_592_000))

    @property
    def reads_changes(self) -> bool:
        """Return whether an import may read only what changed since the last one."""
        return self.read_changes or bool(self.watermark) or self.append_only

    def _check_remote(self) -> None:
        sections = {"postgres": ("postgres", self.postgres), "http_api": ("api", self.api)}
        for source_format, (name, section) in sections.items():
            if section is not None and self.format != source_format:
                raise ValueError(f'source.{name} is for source.format = "{source_format}", not for "{self.format}"')
            if section is None and self.format == source_format:
                raise ValueError(f'source.format = "{source_format}" needs a section [source.{name}]')
        if self.format in REMOTE_FORMATS:
            check_remote_path(self.format, self.path)

    def secrets(self) -> frozenset[str]:
        """Return the password or token in the named environment variable of the driver, to mask it in printed text."""
        section = self.postgres or self.api
        value = os.environ.get(section.auth_env, "") if section is not None and section.auth_env else ""
        return frozenset({value} - {""})

    def picture_folders(self, base: Path) -> tuple[str, ...]:
        """Return where this source's pictures may be, as absolute paths or URIs: `image_folder`, and the folder of
        `path`.

        ``path`` need not exist any more: the jobs after the import ask too. A name with a dot is then taken for a file.
        """
        folders = [_folder(self.image_folder, base, is_file=False)] if self.image_folder else []
        if self.format in REMOTE_FORMATS:
            return tuple(folders)
        name = self.path.rstrip("/").rsplit("/", 1)[-1]
        return (*folders, _folder(self.path, base, is_file="." in name.strip(".") and self.format != "delta"))


def _folder(path: str, base: Path, is_file: bool) -> str:
    """Return the absolute path or URI of a folder, or of the folder that a file is in."""
    if "://" in path and not path.startswith("file://"):
        uri = path.rstrip("/")
        return uri.rsplit("/", 1)[0] if is_file else uri
    local = (base / Path(path.removeprefix("file://")).expanduser()).resolve()
    return str(local.parent if is_file and not local.is_dir() else local)


def _check_columns(section: str, kind: str, columns: list[str]) -> None:
    if columns and kind not in ("csv", "tsv"):
        raise ValueError(f"{section}.columns is allowed for csv and tsv, not for {kind}, which names its own")
    if len(set(columns)) < len(columns) or "" in columns:
        raise ValueError(f"{section}.columns must be different names, not {columns}")
