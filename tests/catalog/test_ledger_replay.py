"""I6 over random histories: the ledger against a small model that replays runs instead of reading events.

The replay of a few rows is compared with the replay in Spark.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from catalog_enrichment.catalog import ledger

from .catalog_rows import frame, prediction, product, stamp

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

PRODUCTS = [f"p{i}" for i in range(6)]
ATTRIBUTES = ["color", "material"]
VALUES = ["Red", "Blue", "Wool"]
Key = tuple[str, str]


WHY_NOT = {
    "judged": ("abstain", "below_threshold"),
    "suggested": ("suggest", "near_miss"),
    "administrative": ("abstain", "no_certificate"),
}
"""What a run of the model decides where it publishes nothing -> decision and reason of its row."""


@dataclass
class LedgerRun:
    """One run of the model: what it asserted, which runs' values it retracted, or which run it undid."""

    run_id: str
    sets: dict[Key, set[str]] = field(default_factory=dict)
    content: dict[str, str] = field(default_factory=dict)
    retracts: set[tuple[str, Key]] = field(default_factory=set)
    target: str | None = None
    attributes: set[str] = field(default_factory=set)
    """The attributes of an undo for which its target was in force when it ran."""


class Replay:
    def __init__(self) -> None:
        self.entries: list[LedgerRun] = []

    def in_force(self, run_id: str, attribute: str) -> bool:
        undoers = [e for e in self.entries if e.target == run_id and attribute in e.attributes]
        return not any(self.in_force(undoer.run_id, attribute) for undoer in undoers)

    def is_active(self, entry: LedgerRun, key: Key) -> bool:
        retracted = [e for e in self.entries if (entry.run_id, key) in e.retracts and self.in_force(e.run_id, key[1])]
        return key in entry.sets and self.in_force(entry.run_id, key[1]) and not retracted

    def enrich(self, run_id: str, sets: dict[Key, set[str]], abstains: dict[Key, str], content: dict[str, str]) -> None:
        """``abstains``: key of :data:`WHY_NOT` per product and attribute without a published set."""
        contradicted = {
            (earlier.run_id, key)
            for earlier in self.entries
            for key in earlier.sets
            if self.is_active(earlier, key) and key in abstains
            if earlier.content[key[0]] != content[key[0]] or abstains[key] in ("judged", "suggested")
        }
        self.entries.append(LedgerRun(run_id, sets, content, contradicted))

    def undo(self, run_id: str, target: str, attribute: str | None) -> None:
        wanted = [attribute] if attribute else ATTRIBUTES
        self.entries.append(
            LedgerRun(run_id, target=target, attributes={a for a in wanted if self.in_force(target, a)})
        )

    def view(self) -> dict[Key, list[str]]:
        shown: dict[Key, list[str]] = {}
        for entry in self.entries:
            shown |= {key: sorted(values) for key, values in entry.sets.items() if self.is_active(entry, key)}
        return shown


def views(spark: SparkSession, rows: list[dict[str, Any]], steps: int) -> list[dict[Key, list[str]]]:
    """What readers saw after each step. One query: every step is a marketplace of its own, with renamed products."""
    ledgers = [
        {**row, "product_id": f"{step}/{row['product_id']}"}
        | {name: row[name] and f"{step}/{row[name]}" for name in ("event_id", "refers_to", "undoes")}
        for step in range(steps)
        for row in rows
        if row["step"] <= step
    ]
    products = [product(f"{step}/{name}") for step in range(steps) for name in PRODUCTS]
    found = ledger.current_values(
        frame(spark, "products", products), ledger.active(frame(spark, "attribute_values", ledgers))
    )
    shown: list[dict[Key, list[str]]] = [{} for _ in range(steps)]
    for row in found.collect():
        step, _, name = row["product_id"].partition("/")
        shown[int(step)][name, row["attribute"]] = row["values"]
    return shown


def enrich(
    model: Replay, spark: SparkSession, events: DataFrame, run: ledger.RunStamp, dice: random.Random
) -> DataFrame:
    content = {name: f"content-{dice.randint(1, 2)}" for name in PRODUCTS}
    keys = [(name, attribute) for name in PRODUCTS for attribute in ATTRIBUTES]
    sets = {key: set(dice.sample(VALUES, dice.randint(1, 2))) for key in keys if dice.random() < 0.5}
    abstains = {key: dice.choice(list(WHY_NOT)) for key in keys if key not in sets and dice.random() < 0.9}
    model.enrich(run.run_id, sets, abstains, content)
    decided = [prediction(*key, value, content_hash=content[key[0]]) for key in sets for value in sets[key]]
    for key, why in abstains.items():
        decision, reason = WHY_NOT[why]
        decided.append(prediction(*key, "Red", content_hash=content[key[0]], decision=decision, reason=reason))
    rows = frame(spark, "predictions", decided)
    return ledger.assertions(rows, run).union(ledger.retract(ledger.contradicted(ledger.active(events), rows), run))


@pytest.mark.parametrize("seed", [1, *[pytest.param(seed, marks=pytest.mark.slow) for seed in (2, 3, 4)]])
def test_readers_see_the_replay_of_the_runs_that_nothing_has_undone_i6(spark: SparkSession, seed: int) -> None:
    dice, model = random.Random(seed), Replay()
    rows: list[dict[str, Any]] = []
    expected = []
    for step in range(12):
        run, events = stamp(f"run-{step}", step), frame(spark, "attribute_values", rows)
        if step < 3 or dice.random() < 0.2:
            new = enrich(model, spark, events, run, dice)
        else:
            target, attribute = f"run-{dice.randrange(step)}", dice.choice([None, None, *ATTRIBUTES])
            model.undo(run.run_id, target, attribute)
            new = ledger.undo(events, target, attribute, run)
        rows += [{**row.asDict(), "step": step} for row in new.collect()]
        expected.append(model.view())

    assert views(spark, rows, len(expected)) == expected
    assert len({row["event_id"] for row in rows}) == len(rows)
    by_spark = ledger.active(frame(spark, "attribute_values", rows)).collect()
    assert {row["event_id"] for row in by_spark} == {row["event_id"] for row in ledger.active_rows(rows)}


def test_undo_and_undo_of_undo_restore_exactly_what_was_seen_i6(spark: SparkSession) -> None:
    dice, model = random.Random(3), Replay()
    rows: list[dict[str, Any]] = []
    for step, target in enumerate([None, None, None, "run-2", "run-3", "run-4", "run-1"]):
        run, events = stamp(f"run-{step}", step), frame(spark, "attribute_values", rows)
        new = ledger.undo(events, target, None, run) if target else enrich(model, spark, events, run, dice)
        rows += [{**row.asDict(), "step": step} for row in new.collect()]

    seen = views(spark, rows, 7)
    assert seen[3] == seen[1] != seen[2]
    assert seen[4] == seen[2]
    assert seen[5] == seen[1]
    assert seen[6] == seen[0]
