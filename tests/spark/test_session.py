"""What the driver sends to the JVM, and frames without rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from py4j.clientserver import ClientServerConnection

from catalog_enrichment import contract
from catalog_enrichment.spark import session
from catalog_enrichment.spark.frames import empty_frame

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

REFLECTION = "r\n"
"""A message that asks what the JVM has."""


def test_the_jvm_is_asked_once_for_a_function(spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    from pyspark.sql import functions as F

    sent: list[str] = []
    send = ClientServerConnection.send_command

    def recorded(self: ClientServerConnection, command: str, *rest: Any, **more: Any) -> Any:
        sent.append(command)
        return send(self, command, *rest, **more)

    session.remember_functions(spark)
    column = F.upper(F.coalesce(F.col("title"), F.lit("")))
    monkeypatch.setattr(ClientServerConnection, "send_command", recorded)
    again = F.upper(F.coalesce(F.col("title"), F.lit("")))
    assert str(again) == str(column)
    assert sent
    assert [command for command in sent if command.startswith(REFLECTION)] == []


def test_a_function_that_the_jvm_lacks_is_an_error_as_before(spark: SparkSession) -> None:
    session.remember_functions(spark)
    functions: Any = spark.sparkContext._jvm.functions  # type: ignore[union-attr]
    with pytest.raises(Exception, match="no_such_function"):
        functions.no_such_function()


@pytest.mark.parametrize("table", ["predictions", "products", "runs"])
def test_an_empty_frame_has_the_contracts_columns(spark: SparkSession, table: str) -> None:
    schema = contract.spark_schema(table)
    frame = empty_frame(spark, schema)
    assert [(f.name, f.dataType.simpleString()) for f in frame.schema] == [
        (f.name, f.dataType.simpleString()) for f in schema
    ]
    assert frame.count() == 0


def test_what_is_joined_to_an_empty_frame_is_left_out(spark: SparkSession) -> None:
    empty = empty_frame(spark, contract.spark_schema("predictions"))
    rows = spark.range(3).selectExpr("cast(id as string) as product_id")
    plan = rows.join(empty, "product_id", "left_anti")._jdf.queryExecution().optimizedPlan().toString()
    assert "Join" not in plan
    assert rows.join(empty, "product_id", "left_anti").count() == 3
