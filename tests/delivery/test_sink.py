"""Deliveries to a real PostgreSQL server: exactly once, all of a run or none, merchants' values untouched."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from catalog_enrichment.delivery import deliver, feed
from catalog_enrichment.delivery.feed import Step
from catalog_enrichment.errors import ConfigError, DataContractError, TemporaryFailure

from ..sample_catalog import KilledError
from .conftest import ROLE, Database, with_settings
from .histories import KINDS, Versions, World, value

S = "enriched"


def test_the_database_has_what_readers_saw_after_every_step(database: Database, versions: Versions) -> None:
    world, delivered = World(products={"a", "b", "c"}), 0
    for step, kind in enumerate(("run", "merchant", "run", *KINDS, "run", "roll_back", "roll_back"), 1):
        world.act(kind, ({"a", "b"}, {"b", "c"}, {"a"})[step % 3], step)
        versions.show(world.seen(), f"run-{step}")
        if step % 2:
            summary = database.deliver(versions)
            delivered += summary["steps"]
            assert database.rows() == versions.seen() == world.seen()
            assert summary["position"] == str(versions.position())
    recorded = database.query(f"SELECT kind, after, version, run_ids FROM {S}.deliveries ORDER BY id")
    assert len(recorded) == delivered
    assert recorded[0] == ("snapshot", -1, 1, ["run-1"])
    assert [row[1] for row in recorded[2:]] == [row[2] for row in recorded[1:-1]], "no commit is missing or twice"
    assert all(row[0] == "changes" and len(row[3]) == 1 for row in recorded[1:])


def test_numbers_are_delivered_with_their_unit(database: Database, versions: Versions) -> None:
    width = value("51 cm") | {"number": 51.0, "unit": "cm"}
    versions.show({("a", "width"): width, ("b", "brand"): value("Acme")}, "run-1")
    database.deliver(versions)
    assert database.rows() == versions.seen()
    assert database.rows()["a", "width"]["number"] == 51.0
    seen = f"SELECT product_id, number, unit FROM {S}.catalog_values ORDER BY product_id"
    assert database.query(seen) == [("a", 51.0, "cm"), ("b", None, None)]
    versions.show({("a", "width"): width | {"unit": "mm"}, ("b", "brand"): value("Acme")}, "run-2")
    assert database.deliver(versions)["upserted"] == 1, "another unit is another row"
    versions.show({("a", "width"): width | {"number": 52.0}, ("b", "brand"): value("Acme")}, "run-3")
    assert database.deliver(versions)["upserted"] == 1, "another number is another row"
    assert database.rows() == versions.seen()
    merchant = f'INSERT INTO {S}.merchant_values (product_id, attribute, "values", number, unit) VALUES '
    database.query(f"{merchant} ('a', 'width', ARRAY['0.5 m'], 50, 'cm')")
    assert database.query(seen)[0] == ("a", 50.0, "cm")


def test_running_again_changes_nothing_and_says_so(database: Database, versions: Versions) -> None:
    """I5"""
    versions.show({("a", "color"): value("Red"), ("b", "color"): value("Red")}, "run-1")
    first = database.deliver(versions)
    assert (first["status"], first["upserted"], first["snapshot"]) == (
        "succeeded", 2, "the consumer has no position yet",
    )  # fmt: skip
    again = database.deliver(versions)
    assert (again["status"], again["steps"], again["staged"]) == ("nothing_to_do", 0, 0)
    assert again["position"] == again["since"] == first["position"]
    assert len(database.query(f"SELECT 1 FROM {S}.deliveries")) == 1


def test_rows_keep_the_version_that_changed_them(database: Database, versions: Versions) -> None:
    """Readers of the database find what changed by it; a snapshot of the same rows touches none of them."""
    versions.show({("a", "color"): value("Red"), ("b", "color"): value("Red")}, "run-1")
    database.deliver(versions)
    newest = versions.show({("a", "color"): value("Red"), ("b", "color"): value("Blue")}, "run-2")
    database.deliver(versions)
    by_version = f"SELECT product_id, version, xmin::text FROM {S}.delivered_values ORDER BY 1"
    before = database.query(by_version)
    assert [row[:2] for row in before] == [("a", newest.version - 1), ("b", newest.version)]
    stray = "('stray', 'color', '{x}', null, null, 'model', null, null, null, null, 1)"
    database.query(f"INSERT INTO {S}.delivered_values VALUES {stray}")
    summary = database.deliver(versions, snapshot=True)
    assert (summary["upserted"], summary["deleted"], summary["snapshot"]) == (0, 1, "it was asked for")
    assert database.query(by_version) == before


def test_a_product_that_is_twice_in_the_catalog_is_not_delivered(database: Database, versions: Versions) -> None:
    versions.show_twice({("a", "color"): value("Red"), ("b", "color"): value("Red")}, ("b", "color"))
    with pytest.raises(DataContractError, match=r"current_values has a product's attribute twice.*RUNBOOK"):
        database.deliver(versions)
    assert database.rows() == {}


def test_many_waiting_commits_are_one_step(database: Database, versions: Versions) -> None:
    versions.show({}, "run-0")
    database.deliver(versions)
    for number in range(1, 5):
        versions.show({("a", "color"): value("Red", step=number)}, f"run-{number}")
    few = with_settings(database, merge_after=3)
    assert (few.deliver(versions)["steps"], database.rows()) == (1, versions.seen())
    recorded = database.query(f"SELECT run_ids, kind FROM {S}.deliveries ORDER BY id")
    assert recorded[-1] == ([f"run-{number}" for number in range(1, 5)], "changes")


def test_a_dry_run_writes_nothing(database: Database, versions: Versions) -> None:
    versions.show({("a", "color"): value("Red")}, "run-1")
    database.deliver(versions)
    versions.show({("b", "color"): value("Red")}, "run-2")
    summary = database.deliver(versions, dry_run=True)
    assert (summary["status"], summary["steps"], summary["upserted"], summary["deleted"]) == ("dry_run", 1, 1, 1)
    assert set(database.rows()) == {("a", "color")}


# --- merchants' values ------------------------------------------------------------------------------------------------


def test_i1_the_role_is_refused_at_merchants_columns(database: Database) -> None:
    """Merchants' values are in a table of this schema and in the marketplace's own tables."""
    database.query("CREATE TABLE products (product_id text PRIMARY KEY, title text, merchant_colour text)")
    database.query("INSERT INTO products VALUES ('a', 'Shirt', 'Green')")
    for statement in (
        "UPDATE products SET merchant_colour = 'Red'",
        "DELETE FROM products",
        f"INSERT INTO {S}.merchant_values VALUES ('a', 'color', '{{Red}}')",
        f"UPDATE {S}.merchant_values SET \"values\" = '{{Red}}'",
        f"DELETE FROM {S}.merchant_values",
        f"TRUNCATE {S}.merchant_values",
        f"DELETE FROM {S}.deliveries",
        f"DROP TABLE {S}.delivered_values",
        f"CREATE TABLE {S}.another (n int)",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            database.query(statement, user=ROLE)


def test_i1_a_role_that_may_change_merchants_values_is_not_used(database: Database, versions: Versions) -> None:
    versions.show({("a", "color"): value("Red")}, "run-1")
    as_owner = with_settings(database, uri=database.config.migration_uri)
    with pytest.raises(ConfigError, match=r"may change enriched.merchant_values"):
        as_owner.deliver(versions)
    database.query(f'GRANT UPDATE ("values") ON {S}.merchant_values TO {ROLE}')
    with pytest.raises(ConfigError, match=r"may change enriched.merchant_values"):
        database.deliver(versions)
    assert database.rows() == {}


@pytest.fixture(params=["INHERIT", "NOINHERIT"])
def member(database: Database, request: pytest.FixtureRequest) -> Iterator[Database]:
    """Deliveries connect as a role of their own, a member of the role shop_owner."""
    database.query("CREATE ROLE shop_owner")
    database.query(f"CREATE ROLE shop_delivery LOGIN {request.param} IN ROLE shop_owner")
    uri = database.server.uri(database.name, "shop_delivery")
    found = with_settings(database, role="shop_delivery", uri=uri)
    deliver.migrate(found.config, say=lambda _: None)
    yield found
    both = "shop_owner, shop_delivery"
    database.query(f"REASSIGN OWNED BY shop_owner TO tests; DROP OWNED BY {both}; DROP ROLE {both}")


@pytest.mark.parametrize(
    "given",
    [
        f"GRANT INSERT ON {S}.merchant_values TO shop_owner",
        f'GRANT UPDATE ("values") ON {S}.merchant_values TO shop_owner',
        f"ALTER TABLE {S}.merchant_values OWNER TO shop_owner; REVOKE ALL ON {S}.merchant_values FROM shop_owner",
        f"ALTER SCHEMA {S} OWNER TO shop_owner",
        "ALTER ROLE shop_owner SUPERUSER",
    ],
)
def test_i1_a_member_of_a_role_that_may_change_merchants_values_is_not_used(
    given: str, member: Database, versions: Versions
) -> None:
    """A NOINHERIT member has no such right, until it says SET ROLE. An owner can take back what was revoked."""
    versions.show({("a", "color"): value("Red")}, "run-1")
    assert member.deliver(versions, dry_run=True)["upserted"] == 1
    member.query(given)
    with pytest.raises(ConfigError, match=r"may change enriched\.merchant_values( as a member of shop_owner)?\. A"):
        member.deliver(versions)
    assert member.rows() == {}


def test_i1_a_merchants_value_set_meanwhile_wins_at_once(database: Database, versions: Versions) -> None:
    versions.show({("a", "color"): value("Red"), ("b", "color"): value("Red")}, "run-1")
    database.deliver(versions)
    database.query(f"INSERT INTO {S}.merchant_values VALUES ('a', 'color', '{{Green}}'), ('c', 'color', '{{Blue}}')")
    merchants = {("a", "color"): (["Green"], "merchant"), ("c", "color"): (["Blue"], "merchant")}
    assert database.readers_see() == merchants | {("b", "color"): (["Red"], "model")}
    versions.show({("a", "color"): value("Blue", step=2), ("b", "color"): value("Blue", step=2)}, "run-2")
    database.deliver(versions)
    assert database.readers_see() == merchants | {("b", "color"): (["Blue"], "model")}
    assert len(database.query(f"SELECT 1 FROM {S}.merchant_values")) == 2
    database.query(f"UPDATE {S}.merchant_values SET \"values\" = '{{}}' WHERE product_id = 'a'")
    assert database.readers_see()["a", "color"] == (["Blue"], "model"), "no value of the merchant's any more"


def test_i1_what_a_merchant_has_removed_is_not_shown_as_his(database: Database, versions: Versions) -> None:
    """The delivered row is as old as the last import; the marketplace's table is the truth about merchants."""
    versions.show({("a", "color"): value("Red", source="merchant"), ("b", "color"): value("Red", source="human")}, "r")
    database.deliver(versions)
    assert database.rows()["a", "color"]["source"] == "merchant"
    assert database.readers_see() == {("b", "color"): (["Red"], "human")}


# --- exactly once -----------------------------------------------------------------------------------------------------


@contextmanager
def killed_before(monkeypatch: pytest.MonkeyPatch, part: str) -> Iterator[None]:
    """The delivery dies before the server gets the statement that has ``part`` in it."""
    original = psycopg.Cursor.execute

    def execute(cursor: Any, query: Any, *arguments: Any, **named: Any) -> Any:
        text = query if isinstance(query, str) else query.as_string(cursor)
        if part in text:
            raise KilledError
        return original(cursor, query, *arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(psycopg.Cursor, "execute", execute)
        with pytest.raises(KilledError):
            yield


@pytest.mark.parametrize("part", ["staged (", "ANALYZE", "DELETE FROM", "INSERT INTO", ".position SET", "deliveries"])
def test_i4_a_delivery_that_dies_anywhere_leaves_the_step_before_and_is_finished_by_the_next(
    database: Database, versions: Versions, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    versions.show({("a", "color"): value("Red"), ("b", "color"): value("Red")}, "run-1")
    database.deliver(versions)
    before = database.rows()
    versions.show({("a", "color"): value("Blue", step=2), ("c", "color"): value("Red", step=2)}, "run-2")
    with killed_before(monkeypatch, part):
        database.deliver(versions)
    assert database.rows() == before
    summary = database.deliver(versions)
    assert (summary["steps"], summary["upserted"], summary["deleted"]) == (1, 2, 1)
    assert database.rows() == versions.seen()


class Raced:
    """Batches during which something else happens; ``then`` is called when the first batch is asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, then: Any) -> None:
        original = Step.changes

        def changes(step: Step, catalog: Any) -> Iterator[Any]:
            monkeypatch.setattr(Step, "changes", original)
            then()
            yield from original(step, catalog)

        monkeypatch.setattr(Step, "changes", changes)


def test_of_two_deliveries_at_once_the_second_gives_up_and_nothing_is_applied_twice(
    database: Database, versions: Versions, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions.show({("a", "color"): value("Red")}, "run-1")
    refused: list[str] = []

    def second() -> None:
        with pytest.raises(TemporaryFailure, match=r"another delivery.*is at work") as raised:
            database.deliver(versions)
        refused.append(str(raised.value))

    Raced(monkeypatch, second)
    assert database.deliver(versions)["upserted"] == 1
    assert len(refused) == 1
    assert database.query(f"SELECT count(*) FROM {S}.deliveries") == [(1,)]


def test_a_step_begins_only_from_the_position_that_it_starts_at(database: Database, versions: Versions) -> None:
    """A delivery that planned before another delivery finished does not apply its old plan."""
    first = versions.show({("a", "color"): value("Red")}, "run-1")
    (old,) = feed.steps(versions.catalog, None, 100)
    database.deliver(versions)
    versions.show({("a", "color"): value("Blue")}, "run-2")
    database.deliver(versions)
    with deliver.open_sink(database.config) as sink:
        for since in (None, first, replace(first, catalog_id="another")):
            with pytest.raises(TemporaryFailure, match=r"now it is at .*: another delivery or program changed it"):
                sink.apply(old, since, old.changes(versions.catalog))
    assert database.rows() == versions.seen()


def test_the_position_is_compared_when_it_is_moved_too(
    database: Database, versions: Versions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where somebody resets the position by hand in the middle of a delivery."""
    versions.show({("a", "color"): value("Red")}, "run-1")
    database.deliver(versions)
    versions.show({("a", "color"): value("Blue")}, "run-2")
    Raced(monkeypatch, lambda: database.query(f"UPDATE {S}.position SET catalog_id = NULL, version = NULL"))
    with pytest.raises(TemporaryFailure, match="another delivery or program changed it"):
        database.deliver(versions)
    assert database.rows()["a", "color"]["values"] == ["Red"]
    assert database.deliver(versions)["snapshot"]
    assert database.rows() == versions.seen()


def test_i4_readers_see_all_of_a_run_or_none_of_it(database: Database, versions: Versions) -> None:
    seen: set[tuple[str, ...]] = set()
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            found = database.query(f'SELECT DISTINCT "values"[1] FROM {S}.catalog_values ORDER BY 1')
            seen.add(tuple(row[0] for row in found))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for number in range(8):
            state = {(f"p{n}", "color"): value(f"v{number}", step=number) for n in range(200)}
            versions.show(state, f"run-{number}")
            database.deliver(versions)
    finally:
        stop.set()
        reader.join()
    assert seen <= {()} | {(f"v{number}",) for number in range(8)}


# --- rows that the server refuses ------------------------------------------------------------------------------------


LONG = "".join(chr(0x4E00 + n * 7919 % 20_000) for n in range(3000))
"""An id that no index can hold, also compressed."""


def left_out(summary: dict[str, Any]) -> dict[tuple[str, str], str]:
    assert summary["skipped"] == len(summary["skipped_rows"])
    return {(row["product_id"], row["attribute"]): row["why"] for row in summary["skipped_rows"]}


def test_i7_rows_that_the_database_refuses_are_left_out_and_named_and_all_others_are_delivered(
    database: Database, versions: Versions
) -> None:
    good = {(f"p{n}", "color"): value("Red") for n in range(300)} | {("c\\N\t\n'", "color"): value('{a,"b"}')}
    bad = {(LONG, "color"): value("Red"), ("a\0", "color"): value("Red"), ("b", "color"): value("R\0d")}
    versions.show(good | bad, "run-1")
    lines: list[str] = []
    summary = deliver.deliver_values(versions.catalog, database.config, say=lines.append)
    assert database.rows() == {key: versions.seen()[key] for key in good}
    assert (summary["staged"], summary["upserted"], summary["skipped"]) == (304, 301, 3)
    assert summary["position"] == str(versions.position())
    why = left_out(summary)
    assert why["a\0", "color"] == why["b", "color"] == "PostgreSQL can hold no NUL character"
    assert "index row" in why[LONG[:200], "color"]
    (warning,) = (line for line in lines if line.startswith("warning: 3 rows were left out"))
    assert "color of 'b': PostgreSQL can hold no NUL character" in warning
    assert database.query(f"SELECT skipped, version FROM {S}.deliveries") == [(3, versions.position().version)]
    assert database.deliver(versions)["status"] == "nothing_to_do", "the position has moved"


def test_a_refused_row_leaves_no_older_value_and_is_tried_again_when_it_changes(
    database: Database, versions: Versions
) -> None:
    database.query(f"ALTER TABLE {S}.delivered_values ADD CHECK (NOT 'Mauve' = ANY (\"values\"))")
    others = {(f"p{n}", "color"): value("Red") for n in range(20)}
    for number, (of_a, skipped) in enumerate(
        (("Red", 0), ("Mauve", 1), ("Blue", 0), ("R\0d", 1), ("Blue", 0), ("Mauve", 1))
    ):
        versions.show(others | {("a", "color"): value(of_a, step=number)}, f"run-{number}")
        summary = database.deliver(versions, snapshot=number == 5)
        assert summary["skipped"] == skipped
        shown = versions.seen() if not skipped else others.keys()
        assert database.rows().keys() == set(shown)
    assert "violates check constraint" in left_out(summary)["a", "color"]
    versions.show(others | {("a", "color"): value("Mauve", step=9), ("b", "color"): value("Red")}, "run-9")
    again = database.deliver(versions, snapshot=True)
    assert (again["skipped"], again["upserted"]) == (1, 1)
    versions.show(others, "run-10")
    assert database.deliver(versions)["skipped"] == 0, "a delete of what is not there is refused by nobody"
    assert database.rows() == versions.seen()


@pytest.fixture
def latin_database(shared_database: Database) -> Iterator[Database]:
    """A database whose encoding has few characters."""
    server, name = shared_database.server, "latin"
    shared_database.query(f"CREATE DATABASE {name} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    config = replace(shared_database.config, uri=server.uri(name, ROLE), migration_uri=server.uri(name))
    deliver.migrate(config, say=lambda _: None)
    yield Database(server, name, config)
    shared_database.query(f"DROP DATABASE {name}")


def test_characters_that_the_encoding_of_the_database_lacks(latin_database: Database, versions: Versions) -> None:
    versions.show({("b", "color"): value("Blue"), ("c", "color"): value("Red")}, "run-0")
    latin_database.deliver(versions)
    versions.show(
        {("ä", "color"): value("Weiß"), ("商", "color"): value("Red"), ("b", "color"): value("红"),
         ("c", "color"): value("Red")},
        "run-1",
    )  # fmt: skip
    summary = latin_database.deliver(versions)
    assert {key: row["values"] for key, row in latin_database.rows().items()} == {
        ("ä", "color"): ["Weiß"], ("c", "color"): ["Red"],
    }  # fmt: skip
    assert set(left_out(summary)) == {("商", "color"), ("b", "color")}
    assert all("has no equivalent in encoding" in why for why in left_out(summary).values())


def test_a_table_that_refuses_every_row_stops_the_delivery(database: Database, versions: Versions) -> None:
    """An administrator's column is no fault of a row: nothing is left out, and the position stays."""
    database.query(f"ALTER TABLE {S}.delivered_values ADD COLUMN more text NOT NULL")
    versions.show({("a", "color"): value("Red")}, "run-1")
    with pytest.raises(DataContractError, match="violates not-null constraint"):
        database.deliver(versions)
    assert database.query(f"SELECT version FROM {S}.position") == [(None,)]


# --- what the server answers ------------------------------------------------------------------------------------------


def test_terminated_connections_and_a_killed_server_end_with_a_temporary_failure_and_nothing_is_lost(
    database: Database, versions: Versions, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions.show({("a", "color"): value("Red")}, "run-1")
    database.deliver(versions)
    versions.show({("a", "color"): value("Blue")}, "run-2")

    def restarted() -> None:
        database.server.kill()
        database.server.start()

    for happens in (database.server.kill_backends, restarted):
        Raced(monkeypatch, happens)
        with pytest.raises(TemporaryFailure):
            database.deliver(versions)
        assert database.rows()["a", "color"]["values"] == ["Red"]
    assert database.deliver(versions)["upserted"] == 1
    assert database.rows() == versions.seen()


def test_a_table_that_somebody_has_locked_is_waited_for_and_then_given_up(
    database: Database, versions: Versions
) -> None:
    versions.show({("a", "color"): value("Red")}, "run-1")
    impatient = with_settings(database, lock_seconds=1)
    with psycopg.connect(database.config.migration_uri) as other:
        other.execute(f"LOCK TABLE {S}.delivered_values IN SHARE MODE")
        with pytest.raises(TemporaryFailure, match="holds a lock"):
            impatient.deliver(versions)
    assert impatient.deliver(versions)["upserted"] == 1


def test_a_database_that_refuses_every_row_moves_no_position(database: Database, versions: Versions) -> None:
    """A trigger for maintenance is no property of the rows: they would be skipped until they change."""
    versions.show({("a", "color"): value("Red")}, "run-1")
    database.deliver(versions)
    before = database.rows()
    database.query(f"ALTER TABLE {S}.delivered_values ADD CHECK (product_id = 'a')")
    versions.show({(f"p{n}", "color"): value("Red") for n in range(300)}, "run-2")
    with pytest.raises(DataContractError, match=r"refuses every row, 200 so far.*violates check constraint"):
        database.deliver(versions)
    assert database.rows() == before
    database.query(f"ALTER TABLE {S}.delivered_values DROP CONSTRAINT delivered_values_product_id_check")
    assert database.deliver(versions)["upserted"] == 300
    assert database.rows() == versions.seen()
