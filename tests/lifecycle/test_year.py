"""A year of nights on a generated shop, and the parts of its harness that need no Spark."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from catalog_enrichment.catalog import ledger

from . import checks
from .checks import Seen
from .world import ABSENT_IMPORTS, Words, World
from .year import AFTER, BEFORE, PRECISION, Year

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_year_of_nights(tmp_path: Path, spark: SparkSession) -> None:
    """Every night is checked as it ends (checks.py); `python -m tests.lifecycle.year --table` prints the year."""
    year = Year(tmp_path / "shop", 2000, print)
    year.run(range(1, 53))
    summary = year.summary()
    assert (summary["nights"], summary["events"]) == (52, len(BEFORE) + len(AFTER))
    assert set(summary["exit_codes"]) == {"0"}
    assert summary["lowest_precision"] >= PRECISION
    assert summary["visible"] > 500


def event(step: int, op: str, **given: Any) -> dict[str, Any]:
    """Return a row of the ledger about the colour of p1, written by the run of this step."""
    usual = {"event_id": f"e{step}", "refers_to": None, "undoes": None, "source": "model", "run_id": f"run-{step}"}
    about = {"product_id": "p1", "attribute": "color", "value": "Red"}
    return usual | about | {"op": op, "asserted_at": datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=step)} | given


@pytest.mark.parametrize("seed", range(20))
def test_the_replay_finds_the_active_values_of_the_ledger(seed: int) -> None:
    chance, events = random.Random(seed), [event(0, "assert"), event(1, "assert", value="Blue")]
    for step in range(2, 14):
        before = chance.choice(events)
        op, target = chance.choice(("retract", "reinstate")), before["refers_to"] or before["event_id"]
        undoes = before["event_id"] if chance.random() < 0.5 else None
        events.append(event(step, op, refers_to=target, undoes=undoes, value=before["value"]))
    expected = {row["event_id"] for row in ledger.active_rows(events)}
    assert {row["event_id"] for row in checks.replay(events)} == expected


def test_readers_see_the_merchant_then_a_person_then_the_newest_run() -> None:
    products = [{"product_id": "p1", "opt_out": False, "merchant_attributes": []}]
    old, new = event(1, "assert"), event(2, "assert", value="Blue")
    person = event(0, "assert", source="human", value="Green")
    key = ("p1", "color")
    assert checks.readers_view(products, [old, new]) == {key: Seen(("Blue",), "model", "run-2")}
    assert checks.readers_view(products, [old, person]) == {key: Seen(("Green",), "human", "run-0")}
    assert checks.readers_view(products, [old, person | {"value": ""}]) == {}
    merchants = [products[0] | {"merchant_attributes": [("color", ["White"])]}]
    assert checks.readers_view(merchants, [old, person]) == {key: Seen(("White",), "merchant", None)}
    hidden = [products[0] | {"opt_out": True}]
    assert checks.readers_view(hidden, [new]) == {}
    assert checks.readers_view(hidden, [new, person]) == {key: Seen(("Green",), "human", "run-0")}
    assert checks.readers_view([], [new]) == {}


def test_a_dictionary_follows_its_renames() -> None:
    words = Words()
    words.rename("color", "Grey", "Gray")
    words.rename("color", "Charcoal", "Gray")
    assert words.values["color"] == ["Black", "White", "Gray", "Red", "Blue", "Green", "Beige"]
    assert {words.canonical("color", name) for name in ("Grey", "Charcoal", "Gray")} == {"Gray"}
    words.rename("color", "Gray", "Silver")
    assert words.canonical("color", "Grey") == "Silver"
    assert words.canonical("color", "Nosuch") is None


def test_the_same_seed_gives_the_same_year(tmp_path: Path) -> None:
    worlds = [World(50), World(50)]
    for world in worlds:
        world.usual_week()
        world.leave_out([world.some(1)[0].product_id])
    first, second = ([listing.row() for listing in world.listings.values()] for world in worlds)
    assert first == second
    (gone,) = worlds[0].absent
    for imports in range(1, ABSENT_IMPORTS + 1):
        assert gone in worlds[0].stored()
        rows = worlds[0].write_feed(tmp_path / "feed.jsonl")
        assert len((tmp_path / "feed.jsonl").read_text().splitlines()) == rows == 57 + 2
        assert (gone in worlds[0].stored()) is (imports < ABSENT_IMPORTS)
