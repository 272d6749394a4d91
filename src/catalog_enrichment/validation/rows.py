"""Row rules: a bad row gets a reason and does not stop the batch (I7).

The rules are in schemas/expectations/row_rules.v1.json: an ordered list of {reason, when, detail}, where ``when`` is a
Spark SQL predicate and ``detail`` a Spark SQL expression for the message. A row gets the reason of the first rule that
is true for it.
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
    """Adds ``reason`` and ``detail`` to every row, both null if no rule is true. One pass and one window.

    ``frame`` needs the columns that the rules name, and product_id, updated_at, payload and content_hash. Rules can use
    ``copy_number``, which numbers the rows of one product_id: first the rows that pass the rules before
    ``duplicate_id``, newest first. Raises ConfigError if a rule is not Spark SQL over these columns.
    """
    from pyspark.errors import AnalysisException
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    try:
        earlier_reason = _reason(takewhile(lambda rule: rule.reason != Reason.DUPLICATE_ID, rules))
        newest_first = [F.desc_nulls_last("updated_at"), F.sha2("payload", 256), "content_hash"]
        copies = Window.partitionBy("product_id").orderBy(earlier_reason.isNotNull(), *newest_first)
        numbered = frame.withColumn("copy_number", F.row_number().over(copies))
        flagged = numbered.withColumns({"reason": _reason(rules), "detail": _detail(rules)})
    except AnalysisException as problem:
        raise ConfigError(f"a row rule is not valid here: {str(problem).splitlines()[0]}") from None
    return flagged.drop("copy_number")


def _reason(rules: Iterable[RowRule]) -> Column:
    from pyspark.sql import functions as F

    return _first_true([(F.expr(rule.when), F.lit(rule.reason.value)) for rule in rules])


def _detail(rules: Iterable[RowRule]) -> Column:
    from pyspark.sql import functions as F

    return _first_true([(F.expr(rule.when), F.expr(rule.detail)) for rule in rules])


def _first_true(cases: list[tuple[Column, Column]]) -> Column:
    """The value of the first (condition, value) case whose condition is true, else null."""
    from pyspark.sql import functions as F

    null = F.lit(None).cast("string")
    return reduce(lambda rest, case: F.when(case[0], case[1]).otherwise(rest), reversed(cases), null)
