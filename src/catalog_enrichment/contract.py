"""The data contracts of the catalog's tables, read from schemas/tables/NAME.vN.json.

The files have the JSON form that both Spark and Delta read:
``StructType.fromJson`` reads them for Spark, ``deltalake.Schema.from_json`` for the writer.
"""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING

from catalog_enrichment import resources

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql.types import StructType

TABLES = {
    "products": 2,
    "predictions": 2,
    "attribute_values": 1,
    "current_values": 1,
    "quarantine": 1,
    "runs": 3,
    "label_uses": 1,
    "self_derived": 1,
    "audits": 1,
    "verdicts": 1,
    "switches": 1,
    "confirmations": 1,
}
"""Every table of the catalog and the contract version this code writes."""


@cache
def table_json(name: str) -> str:
    """The contract of table ``name`` as JSON text."""
    return resources.locate(f"schemas:tables/{name}.v{TABLES[name]}.json").read_text()


def columns(name: str) -> list[str]:
    """Column names of table ``name``, in order."""
    return [field["name"] for field in json.loads(table_json(name))["fields"]]


def spark_schema(name: str) -> StructType:
    """The contract as a Spark schema."""
    from pyspark.sql.types import StructType

    return StructType.fromJson(json.loads(table_json(name)))


def arrow_schema(name: str) -> pa.Schema:
    """The contract as an Arrow schema; timestamps are microseconds in UTC."""
    import pyarrow as pa
    from deltalake import Schema

    return pa.schema(Schema.from_json(table_json(name)).to_arrow())
