"""The config's `[source]` section: the source of the products, and the meaning of its columns."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from catalog_enrichment.config.remote_source import ApiConfig, PostgresConfig, check_remote_path

REMOTE_FORMATS = ("postgres", "http_api")
"""Formats whose `path` is a URI of a server, and not of files."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MappingConfig:
    """The source column for each product column. An empty string: the source has none.

    Instead of a column name, an element of a list is allowed, `categories[0][-1]` (the last of the first), and a
    template over columns, `image_{Image_id}.jpg`. `_file_stem` is the name of the row's file without its extension.
    A list of texts that feeds the description is joined by line breaks, one that feeds the category by slashes.
    """

    product_id: str = "product_id"
    """Column with the key. A row without one goes to quarantine."""
    shop_id: str = ""
    """Column with the merchant; where it is null, `default_shop`."""
    title: str = "title"
    """Column with the product's name. A row without one goes to quarantine."""
    description: str = ""
    """Column with the text beside the title."""
    category: str = ""
    """Column with the category path, levels joined by slashes."""
    language: str = ""
    """Column with the language of the texts (ISO 639-1); where it is null, `default_language`."""
    image_bytes: str = ""
    """Column with the encoded picture."""
    image_uris: str = ""
    """Column with one path or URI, or an array of them; relative ones start at `source.image_folder`."""
    opt_out: str = ""
    """Boolean column; where it is true, readers see no model value of the product."""
    updated_at: str = ""
    """Timestamp column; without one every row counts as updated at the time of its first import."""
    attributes: dict[str, str] = field(default_factory=dict)
    """Attribute name = source column with the merchant's values: a string, an array of strings, or text with
    an array as JSON or Python writes it: `["a", "b"]`, `['a', 'b']`."""
    attributes_when: str = ""
    """Boolean source column: merchant values are read only where it is true."""
    attributes_when_values: list[str] = field(default_factory=list)
    """Makes a boolean of any column: true where `attributes_when` holds one of these."""
    default_language: str = "en"
    """Language of rows without one."""
    default_shop: str = "default"
    """Shop of rows without one."""

    def __post_init__(self) -> None:
        if self.attributes_when_values and not self.attributes_when:
            raise ValueError("source.mapping.attributes_when must name a column for attributes_when_values")


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
    format: Literal["parquet", "csv", "tsv", "jsonl", "json_files", "python_lines", "delta", "postgres", "http_api"]
    """`jsonl`: a JSON object per line. `json_files`: one per file. `python_lines`: a Python dict per line, as `repr`
    writes it. A column without a name in a CSV or TSV header is called `_c0`, `_c1`, ... by its position. `postgres`
    needs `[source.postgres]`, `http_api` needs `[source.api]`."""
    path: str
    """File, folder or Delta table; relative paths start at the config file's `root`. Of `postgres` the server's URI
    without a password (`postgresql://reader@db.example/shop`), of `http_api` the URL of the first page."""
    postgres: PostgresConfig | None = None
    """Needed for the format `postgres`: which table."""
    api: ApiConfig | None = None
    """Needed for the format `http_api`: how it pages."""
    columns: list[str] = field(default_factory=list)
    """Names of the columns of a CSV or TSV file without a header."""
    empty_texts: list[str] = field(default_factory=list)
    """Texts that mean "no value", for example NaN."""
    image_folder: str = ""
    """Base folder of relative picture paths, a URI or a path relative to `root`; empty: the folder of `path`, and for
    `postgres` none."""
    labels: LabelsConfig | None = None
    mapping: MappingConfig = field(default_factory=MappingConfig)
    snapshot_suite: str = "schemas:expectations/source_snapshot.v1.json"
    """great_expectations suite that the snapshot must pass, `schemas:PATH` or a path relative to `root`."""
    row_rules: str = "schemas:expectations/row_rules.v1.json"
    """Rules that send single rows to quarantine, `schemas:PATH` or a path relative to `root`."""
    min_volume_ratio: float = 0.5
    """The snapshot must have at least this share of the rows of the last import."""

    def __post_init__(self) -> None:
        _check_columns("source", self.format, self.columns)
        if self.labels and not self.labels.key and self.format not in ("csv", "tsv"):
            raise ValueError(f"source.labels.key is needed: {self.format} rows have no defined order")
        if not 0 <= self.min_volume_ratio <= 1:
            raise ValueError(f"source.min_volume_ratio must lie in [0, 1], not {self.min_volume_ratio!r}")
        self._check_remote()

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
        """The password or token in the named environment variable, on the driver; to mask it in what is printed."""
        section = self.postgres or self.api
        value = os.environ.get(section.auth_env, "") if section is not None and section.auth_env else ""
        return frozenset({value} - {""})

    def picture_folders(self, base: Path) -> tuple[str, ...]:
        """Where this source's pictures may be, absolute or URIs: `image_folder`, and the folder of `path`.

        ``path`` need not exist any more: the jobs after the import ask too. A name with a dot is then taken for a file.
        """
        folders = [_folder(self.image_folder, base, is_file=False)] if self.image_folder else []
        if self.format in REMOTE_FORMATS:
            return tuple(folders)
        name = self.path.rstrip("/").rsplit("/", 1)[-1]
        return (*folders, _folder(self.path, base, is_file="." in name.strip(".") and self.format != "delta"))


def _folder(path: str, base: Path, is_file: bool) -> str:
    """The absolute path or URI of a folder, or of the folder that a file is in."""
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
