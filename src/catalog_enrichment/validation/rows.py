"""Row rules: a bad row gets a reason, and the rest of the batch goes on (I7).

The rules are data (schemas/expectations/row_rules.v1.json): an ordered list of {reason, when, detail}, where ``when``
is a Spark SQL predicate and ``detail`` a Spark SQL expression for people. The first rule that holds gives the reason.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import reduce
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from catalog_enrichment.errors import ConfigError
from catalog_enrichment.records import Reason

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pyspark.sql import Column, DataFrame

_KEYS = {"reason", "when", "detail"}


@dataclass(frozen=True, slots=True)
class RowRule:
    reason: Reason
    when: str
    """Spark SQL predicate; null counts as false."""
    detail: str
    """Spark SQL expression that gives a string."""


def load_rules(path: Path) -> list[RowRule]:
    """Read a rules file. Raises ConfigError for broken JSON, unknown or missing keys, or an unknown reason."""
    try:
        rows = json.loads(path.read_text())["rules"]
        return [_rule(row) for row in rows]
    except (ValueError, KeyError, TypeError) as problem:
        raise ConfigError(f"{path} is not a usable list of row rules: {problem}") from None


def _rule(row: dict[str, str]) -> RowRule:
    if set(row) != _KEYS:
        raise ValueError(f"a rule has the keys {sorted(_KEYS)}, not {sorted(row)}")
    known = [reason.value for reason in Reason]
    if row["reason"] not in known:
        raise ValueError(f"unknown reason {row['reason']!r}; the reasons are {known}")
    return RowRule(Reason(row["reason"]), row["when"], row["detail"])


def flag_rows(frame: DataFrame, rules: list[RowRule]) -> DataFrame:
    """Adds ``reason`` and ``detail`` to every row, both null where no rule holds. One pass and one window.

    ``frame`` has the columns that the rules name, and product_id, updated_at, payload, content_hash: among the rows
    of one id that the rules before ``duplicate_id`` let pass, the newest is number 1 of ``copy_number``.
    Raises ConfigError if a rule is not Spark SQL over the frame's columns.
    """
    from pyspark.errors import AnalysisException
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    try:
        refused = _first(takewhile(lambda rule: rule.reason != Reason.DUPLICATE_ID, rules), "reason")
        newest_first = [F.desc_nulls_last("updated_at"), F.sha2("payload", 256), "content_hash"]
        copies = Window.partitionBy("product_id").orderBy(refused.isNotNull(), *newest_first)
        numbered = frame.withColumn("copy_number", F.row_number().over(copies))
        flagged = numbered.withColumns({"reason": _first(rules, "reason"), "detail": _first(rules, "detail")})
    except AnalysisException as problem:
        raise ConfigError(f"a row rule is not valid here: {str(problem).splitlines()[0]}") from None
    return flagged.drop("copy_number")


def _first(rules: Iterable[RowRule], wanted: str) -> Column:
    """CASE over the rules, in their order, giving the reason's name or the detail."""
    from pyspark.sql import functions as F

    nothing = F.lit(None).cast("string")
    rows = [(F.expr(r.when), F.lit(r.reason.value) if wanted == "reason" else F.expr(r.detail)) for r in rules]
    return reduce(lambda rest, row: F.when(row[0], row[1]).otherwise(rest), reversed(rows), nothing)
