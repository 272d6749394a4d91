"""Row rules: a bad row gets a reason and does not stop the batch (I7).

The rules are in schemas/expectations/row_rules.v1.json: an ordered list of {reason, when, detail}. A row gets the
reason of the first rule that is true for it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog_enrichment.errors import ConfigError
from catalog_enrichment.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyspark.sql import Column, DataFrame


_ABOUT_THE_ID = frozenset({Reason.UNPARSEABLE_ROW, Reason.MISSING_ID, Reason.DUPLICATE_ID})
"""Reasons that also refuse a row that deletes its product: it needs nothing but the id."""


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
        return [_rule(row) for row in json.loads(path.read_text())["rules"]]
    except (ValueError, KeyError, TypeError) as problem:
        raise ConfigError(f"{path} is not a usable list of row rules: {problem}") from None


def _rule(row: dict[str, Any]) -> RowRule:
    keys = {"reason", "when", "detail"}
    if set(row) != keys:
        raise ValueError(f"a rule has the keys {sorted(keys)}, not {sorted(row)}")
    known = [reason.value for reason in Reason]
    if row["reason"] not in known:
        raise ValueError(f"unknown reason {row['reason']!r}; the reasons are {known}")
    return RowRule(Reason(row["reason"]), row["when"], row["detail"])


def flag_rows(frame: DataFrame, rules: list[RowRule]) -> DataFrame:
    """Add ``reason`` and ``detail`` to every row, both null if no rule is true. One pass and one window.

    ``frame`` needs the columns that the rules name, and product_id, updated_at, payload, content_hash and deleted: of
    rows that delete their product only the id is checked. Rules can use ``copy_number``, which numbers the rows of a
    product_id: first the rows that pass the rules before ``duplicate_id``, newest first, and of rows of the same time
    a row of the product before a row that deletes it. The other rules are evaluated before the window, so that it
    shuffles no texts. Raises ConfigError if a rule is not Spark SQL over these columns.
    """
    from pyspark.errors import AnalysisException
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    numbered = [n for n, rule in enumerate(rules) if "copy_number" in rule.when + rule.detail] or [len(rules)]
    first, last = numbered[0], numbered[-1]
    before_duplicates = list(takewhile(lambda rule: rule.reason != Reason.DUPLICATE_ID, rules))
    evaluated = {
        "before": _first_true(rules[:first]),
        "after": _first_true(rules[last + 1 :]),
        "refused": _first_true(before_duplicates).isNotNull(),
        "payload_hash": F.sha2("payload", 256),
    }
    newest_first = [F.desc_nulls_last("updated_at"), *map(F.col, ("deleted", "payload_hash", "content_hash"))]
    copies = Window.partitionBy("product_id").orderBy("refused", *newest_first)
    try:
        with_copies = frame.withColumns(evaluated).withColumn("copy_number", F.row_number().over(copies))
        outcome = F.coalesce("before", _first_true(rules[first : last + 1]), "after")
        flagged = with_copies.withColumn("outcome", outcome)
        _ = flagged.schema  # Spark Connect analyses a plan when it is asked for its columns
    except AnalysisException as problem:
        raise ConfigError(f"a row rule is not valid here: {str(problem).splitlines()[0]}") from None
    return flagged.select(*frame.columns, "outcome.reason", "outcome.detail")


def _first_true(rules: Sequence[RowRule]) -> Column:
    """Return the first rule that is true as struct<reason, detail>, else null."""
    from pyspark.sql import functions as F

    outcome = F.lit(None).cast("struct<reason: string, detail: string>")
    for rule in reversed(rules):
        refused = F.struct(F.lit(rule.reason.value).alias("reason"), F.expr(rule.detail).alias("detail"))
        when = F.expr(rule.when) if rule.reason in _ABOUT_THE_ID else ~F.col("deleted") & F.expr(rule.when)
        outcome = F.when(when, refused).otherwise(outcome)
    return outcome
