"""Small files of products in every format that init_project reads."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

COLOURS = ("Red", "Green", "Navy Blue")
SEPARATORS = {"csv": ",", "tsv": "\t"}


def product(number: int, **changes: Any) -> dict[str, Any]:
    """A row; every fourth product has no colour."""
    row = {
        "sku": f"A-{number:04d}",
        "Product Name": f"Cotton shirt number {number} for summer",
        "description": f"A light shirt of the sort {number}, " + "made for warm days and long evenings outside. " * 2,
        "category": "Apparel/Topwear" if number % 3 else "Home/Textiles",
        "Colour": None if number % 4 == 0 else COLOURS[number % 3],
        "price": f"{number % 90}.99",
        "in_stock": "true" if number % 2 else "false",
    }
    return row | changes


def products(count: int = 240, **changes: Any) -> list[dict[str, Any]]:
    return [product(number, **changes) for number in range(count)]


def write(file: Path, rows: Sequence[Mapping[str, Any]], names: Sequence[str] | None = None) -> Path:
    """The rows as a file of the format that its name ends with. ``names``: another header for CSV and TSV."""
    kind = file.name.removesuffix(".gz").rsplit(".", 1)[-1]
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(list(rows)), file)
        return file
    if kind == "jsonl":
        text = "".join(json.dumps(row) + "\n" for row in rows)
        file.write_bytes(gzip.compress(text.encode()) if file.suffix == ".gz" else text.encode())
        return file
    with file.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened, delimiter=SEPARATORS[kind])
        writer.writerow(names or list(rows[0]))
        writer.writerows(["" if value is None else value for value in row.values()] for row in rows)
    return file
