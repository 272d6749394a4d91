"""The data contracts of the catalog's tables, read from schemas/tables/NAME.v1.json.

The files have the JSON form that both Spark (``StructType.fromJson``) and Delta (``deltalake.Schema.from_json``) read.
"""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING

from catalog_enrichment import resources

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql.types import StructType

TABLES = (
    *("products", "predictions", "attribute_values", "current_values", "quarantine", "runs", "label_uses"),
    *("self_derived", "audits", "verdicts", "switches", "confirmations", "renames", "proposals"),
)
"""Every table of the catalog."""


@cache
def table_json(name: str) -> str:
    """Return the contract of table ``name`` as JSON text."""
    return resources.locate(f"schemas:tables/{name}.v1.json").read_text()


def columns(name: str) -> list[str]:
    """Return the column names of table ``name``, in order."""
    return [field["name"] for field in json.loads(table_json(name))["fields"]]


def spark_schema(name: str) -> StructType:
    """Return the contract as a Spark schema."""
    from pyspark.sql.types import StructType

    return StructType.fromJson(json.loads(table_json(name)))


def arrow_schema(name: str) -> pa.Schema:
    """Return the contract as an Arrow schema; timestamps are microseconds in UTC."""
    import pyarrow as pa
    from deltalake import Schema

    return pa.schema(Schema.from_json(table_json(name)).to_arrow())
