"""The feed: whoever applies its steps in order has what readers see, with no gap and nothing twice."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog_enrichment.catalog.maintenance import Maintenance
from catalog_enrichment.delivery import differences, feed
from catalog_enrichment.delivery.change_files import rows_of
from catalog_enrichment.delivery.differences import TABLE
from catalog_enrichment.delivery.feed import Position, Step
from catalog_enrichment.errors import ConfigError, DataContractError, MissingFileError, TemporaryFailure

from ..catalog.catalog_rows import run_row
from .histories import KINDS, State, Versions, World, applied, value

PRODUCTS = [f"p{number}" for number in range(6)]


def changes(versions: Versions, steps: list[Step]) -> list[dict[str, Any]]:
    return [row for batch in rows_of(versions.catalog, steps) for row in batch.to_pylist()] if steps else []


def told(versions: Versions, since: Position | None, merge_after: int = 100) -> list[tuple[Any, ...]]:
    """op, version, product, attribute and values of the changes since a position."""
    rows = changes(versions, feed.steps(versions.catalog, since, merge_after))
    names = ("op", "version", "product_id", "attribute", "values")
    return [tuple(row[name] for name in names) for row in rows if row["op"] != "end"]


acts = st.lists(
    st.tuples(st.sampled_from(KINDS), st.sets(st.sampled_from(PRODUCTS), min_size=1), st.booleans(), st.booleans()),
    min_size=1, max_size=12,
)  # fmt: skip


@given(acts)
@settings(max_examples=12, deadline=None)
def test_a_consumer_that_comes_when_it_likes_has_what_readers_see(history: list[Any]) -> None:
    """I4: also where it comes rarely, and where it takes many commits at once."""
    with tempfile.TemporaryDirectory() as folder:
        versions, world = Versions(Path(folder) / "catalog"), World(products=set(PRODUCTS[:3]))
        have: State = {}
        position: Position | None = None
        for step, (kind, chosen, comes, at_once) in enumerate(history, 1):
            world.act(kind, chosen, step)
            newest = versions.show(world.seen(), f"run-{step}")
            if comes:
                have, position = check_visit(versions, have, position, merge_after=1 if at_once else 100)
                assert position == newest
        have, position = check_visit(versions, have, position, merge_after=100)
        assert feed.steps(versions.catalog, position, 100) == []


def check_visit(
    versions: Versions, have: State, position: Position | None, merge_after: int
) -> tuple[State, Position | None]:
    """The consumer applies every step; after each it has exactly what readers saw at that version."""
    for step in feed.steps(versions.catalog, position, merge_after):
        rows = changes(versions, [step])
        keys = [(row["product_id"], row["attribute"]) for row in rows if row["op"] in ("upsert", "delete")]
        assert len(set(keys)) == len(keys), "a change is told once"
        before, have = have, applied(have, rows)
        assert step.snapshot or all(before.get(key) != have.get(key) for key in keys), "only what changed is told"
        position = step.position
        assert have == versions.seen(position.version)
    assert have == versions.seen()
    return have, position


def test_changes_are_told_commit_by_commit_and_in_order(versions: Versions) -> None:
    first = versions.show({("a", "color"): value("Red"), ("b", "color"): value("Red")}, "run-1")
    versions.show({("a", "color"): value("Blue", step=2), ("c", "color"): value("Red", step=2)}, "run-2")
    versions.show({("a", "color"): value("Blue", step=2), ("b", "color"): value("Red", step=3)}, "run-3")
    v = first.version
    assert told(versions, first) == [
        ("upsert", v + 1, "a", "color", ["Blue"]),
        ("delete", v + 1, "b", "color", None),
        ("upsert", v + 1, "c", "color", ["Red"]),
        ("upsert", v + 2, "b", "color", ["Red"]),
        ("delete", v + 2, "c", "color", None),
    ]
    assert told(versions, first, merge_after=1) == [
        ("upsert", v + 2, "a", "color", ["Blue"]),
        ("upsert", v + 2, "b", "color", ["Red"]),
    ]
    assert len(feed.steps(versions.catalog, first, 2)) == 2
    assert [step.run_ids for step in feed.steps(versions.catalog, first, 1)] == [("run-2", "run-3")]


@pytest.mark.parametrize(
    "other",
    [
        value("Red", "Blue"), value("Red\x1fBlue"), value(""), value(), value("Red\x1e"), value("Red\\u"),
        value("Red", source="human"), value("Red", run_id=None), value("Red", run_id="n"), value("Red", step=2),
        value("Red", source="merchant"), value("v", "v"), value("vv"), value("Réd"),
    ],
)  # fmt: skip
def test_every_column_of_a_row_counts(versions: Versions, other: dict[str, Any]) -> None:
    first = versions.show({("a", "color"): value("Red"), ("b", "color"): other}, "run-1")
    versions.show({("a", "color"): other, ("b", "color"): value("Red")}, "run-2")
    assert [row[:4] for row in told(versions, first)] == [
        ("upsert", first.version + 1, "a", "color"),
        ("upsert", first.version + 1, "b", "color"),
    ]


def test_texts_with_the_separator_are_not_taken_for_others(versions: Versions) -> None:
    state = {("a", "b\x1fvc"): value("Red", "Blue"), ("a\x1fvb", "c"): value("Red\x1fvBlue")}
    first = versions.show(state, "run-1")
    versions.show(dict(zip(state, reversed(state.values()), strict=True)), "run-2")
    assert [row[2:] for row in told(versions, first)] == [
        ("a", "b\x1fvc", ["Red\x1fvBlue"]),
        ("a\x1fvb", "c", ["Red", "Blue"]),
    ]
    second = versions.position()
    versions.show({("a", "b\x1fvc"): value("Red\x1fvBlue")}, "run-3")
    assert [row[:1] + row[2:4] for row in told(versions, second)] == [("delete", "a\x1fvb", "c")]


def test_a_row_that_lies_in_another_file_is_no_change(versions: Versions) -> None:
    state = {(f"p{number}", "color"): value("Red") for number in range(9)}
    first = versions.show(state, "run-1", files=3)
    versions.show(dict(reversed(state.items())), "run-2", files=1)
    assert told(versions, first) == []
    assert feed.steps(versions.catalog, first, 100)[-1].position == versions.position(), "the position moves"


def test_upkeep_that_joins_files_changes_nothing_but_the_position(versions: Versions) -> None:
    state = {(f"p{number}", "color"): value("Red") for number in range(9)}
    first = versions.show(state, "run-1", files=3)
    maintenance = Maintenance(versions.catalog, 0)
    assert maintenance.compact(TABLE, maintenance.files_to_join(TABLE, 2), "maintain-1") == 1
    assert versions.position().version > first.version
    assert told(versions, first) == []


def test_a_consumer_whose_version_upkeep_has_deleted_gets_a_snapshot(versions: Versions) -> None:
    """There is never a gap: the consumer is told to discard what it has."""
    first = versions.show({("a", "color"): value("Red"), ("b", "color"): value("Red")}, "run-1")
    second = versions.show({("a", "color"): value("Blue")}, "run-2")
    versions.show({("a", "color"): value("Blue"), ("c", "color"): value("Red")}, "run-3")
    Maintenance(versions.catalog, 0).unreferenced_files(TABLE).delete()
    (step,) = feed.steps(versions.catalog, first, 100)
    assert "upkeep has deleted files" in step.snapshot
    assert step.run_ids == ("run-3",)
    rows = changes(versions, [step])
    assert [row["op"] for row in rows] == ["reset", "upsert", "upsert", "end"]
    assert applied({("b", "color"): value("Red")}, rows) == versions.seen()
    assert feed.steps(versions.catalog, second, 100)[0].snapshot


@pytest.mark.parametrize("start", [{}, {("a", "color"): value("Red")}])
def test_a_consumer_whose_version_outlasts_a_later_version_gets_one_step(versions: Versions, start: State) -> None:
    """A version without rows has no files that upkeep could delete, and those of a version that came back are used."""
    first = versions.show(start, "run-1")
    delta = versions.catalog.tables.open(TABLE)
    assert delta is not None
    kept = {uri.rpartition("/")[2] for uri in delta.file_uris()}
    versions.show({("a", "color"): value("Blue")}, "run-2")
    versions.show({("a", "color"): value("Green"), ("b", "color"): value("Red")}, "run-3")
    for file in Maintenance(versions.catalog, 0).unreferenced_files(TABLE).paths:
        if file.name not in kept:
            versions.catalog.storage.delete([file.path])
    (step,) = feed.steps(versions.catalog, first, 100)
    assert (step.snapshot, step.after, step.position) == ("", first.version, versions.position())
    assert step.run_ids == ("run-2", "run-3")
    assert applied(start, changes(versions, [step])) == versions.seen()
    assert feed.steps(versions.catalog, versions.position(), 100) == []
    with pytest.raises(ConfigError, match="upkeep has deleted files of it"):
        feed.steps_of_run(versions.catalog, "run-2")


def test_a_product_that_another_program_added_twice_is_named(versions: Versions) -> None:
    first = versions.show({("a", "color"): value("Red")}, "run-1")
    versions.show_twice({("b", "size"): value("L"), ("a", "color"): value("Red")}, ("b", "size"))
    with pytest.raises(DataContractError, match=r"several rows of the product 'b' and the attribute 'size'.*RUNBOOK"):
        changes(versions, feed.steps(versions.catalog, first, 1))


def test_a_damaged_table_is_no_upkeep(versions: Versions) -> None:
    first = versions.show({("a", "color"): value("Red")}, "run-1")
    versions.show({("a", "color"): value("Blue")}, "run-2", files=1)
    delta = versions.catalog.tables.open(TABLE)
    assert delta is not None
    (file,) = delta.file_uris()
    Path(file.removeprefix("file://")).unlink()
    with pytest.raises(MissingFileError, match="is not there"):
        changes(versions, feed.steps(versions.catalog, first, 100))


def test_commits_that_the_log_does_not_list_any_more_leave_no_gap(versions: Versions) -> None:
    first = versions.show({("a", "color"): value("Red"), ("b", "color"): value("Red")}, "run-1")
    versions.show({("a", "color"): value("Blue")}, "run-2")
    versions.show({("a", "color"): value("Blue"), ("c", "color"): value("Red")}, "run-3")
    versions.catalog.tables.open(TABLE).create_checkpoint()  # type: ignore[union-attr]
    (versions.catalog.storage.folder / TABLE / "_delta_log" / f"{first.version + 1:020d}.json").unlink()
    with pytest.raises(TemporaryFailure, match="was deleted while it was read"):
        changes(versions, [Step(first.catalog_id, first.version + 1, first.version + 2)])
    have = applied(versions.seen(first.version), changes(versions, feed.steps(versions.catalog, first, 100)))
    assert have == versions.seen()


def test_files_that_are_deleted_while_they_are_read_make_the_job_come_again(versions: Versions) -> None:
    first = versions.show({("a", "color"): value("Red")}, "run-1")
    versions.show({("a", "color"): value("Blue")}, "run-2")
    steps = feed.steps(versions.catalog, first, 100)
    Maintenance(versions.catalog, 0).unreferenced_files(TABLE).delete()
    with pytest.raises(TemporaryFailure, match="was deleted while it was read"):
        changes(versions, steps)


def test_a_position_of_another_catalog_or_of_the_future_gives_a_snapshot(versions: Versions, tmp_path: Path) -> None:
    """A catalog that was made anew counts its versions from 0 again."""
    here = versions.show({("a", "color"): value("Red")}, "run-1")
    there = Versions(tmp_path / "other").show({("a", "color"): value("Red")}, "run-1")
    assert here.version == there.version
    (step,) = feed.steps(versions.catalog, there, 100)
    assert "of another catalog" in step.snapshot
    (step,) = feed.steps(versions.catalog, Position(here.catalog_id, here.version + 1), 100)
    assert "is not there" in step.snapshot
    assert feed.steps(versions.catalog, here, 100) == []


def test_a_catalog_without_values_is_said_so(versions: Versions) -> None:
    with pytest.raises(ConfigError, match="run import_products first"):
        feed.steps(versions.catalog, None, 100)


def test_the_changes_of_a_run_and_of_a_backfills_chunks(versions: Versions) -> None:
    versions.show({("a", "color"): value("Red")}, "run-1")
    versions.show({("a", "color"): value("Red"), ("b", "color"): value("Red")}, "chunk-1")
    versions.show({("a", "color"): value("Blue"), ("b", "color"): value("Red")}, "run-2")
    versions.show({("a", "color"): value("Blue")}, "chunk-2")
    versions.show({}, "undone")
    rows = [run_row(name, parent_run_id="backfill-1") for name in ("chunk-1", "chunk-2")]
    rows += [run_row("undone", parent_run_id="backfill-1", kind="rollback")]
    versions.catalog.append_rows("runs", rows, "rows")

    def of_run(run_id: str) -> list[tuple[str, str]]:
        found = changes(versions, feed.steps_of_run(versions.catalog, run_id))
        return [(row["op"], row["product_id"]) for row in found if row["op"] != "end"]

    assert of_run("run-2") == [("upsert", "a")]
    assert of_run("backfill-1") == [("upsert", "b"), ("delete", "b")]
    with pytest.raises(ConfigError, match=re.escape("The newest that did: ['undone', 'chunk-2', 'run-2'")):
        of_run("nosuch")
    Maintenance(versions.catalog, 0).unreferenced_files(TABLE).delete()
    for run_id in ("run-2", "undone"):
        with pytest.raises(ConfigError, match="upkeep has deleted files of it or of the version before it"):
            of_run(run_id)


@pytest.mark.parametrize("rows_at_a_time", [7, 50])
def test_large_tables_are_compared_range_by_range_with_the_same_result(
    versions: Versions, monkeypatch: pytest.MonkeyPatch, rows_at_a_time: int
) -> None:
    ids = [f"{prefix}{number}" for number in range(30) for prefix in ("a", "é", "\U0001f600", "￿")]
    state = {(product, name): value("Red") for product in ids for name in ("color", "material")}
    first = versions.show(state, "run-1", files=3)
    for product in ids[::7]:
        state[product, "color"] = value("Blue", step=2)
        del state[product, "material"]
    versions.show(state, "run-2", files=2)
    whole = told(versions, first)
    monkeypatch.setattr(differences, "ROWS_AT_A_TIME", rows_at_a_time)
    monkeypatch.setattr(differences, "SAMPLED", 1)
    assert told(versions, first) == whole
    assert len(whole) == 2 * len(ids[::7])
