"""The write lease in an object store: one holder, taken over when it is dead, and nothing from one that lost it."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from catalog_enrichment.catalog import lease
from catalog_enrichment.catalog.lake import LakeCatalog
from catalog_enrichment.catalog.lease import FENCE, Lease, LeaseRecord
from catalog_enrichment.catalog.object_storage import ObjectStorage
from catalog_enrichment.errors import GateRefused, TemporaryFailure

from .catalog_rows import START, product

if TYPE_CHECKING:
    from ..object_store import ObjectStoreServer

SECONDS = 2.0


@pytest.fixture
def place(object_store: ObjectStoreServer) -> ObjectStorage:
    return ObjectStorage(object_store.uri(f"lease/{uuid.uuid4()}"), object_store.settings())


def event(number: int) -> dict[str, Any]:
    return {
        "event_id": f"event-{number}", "op": "assert", "source": "model", "asserted_at": START,
        "product_id": "p", "attribute": "color", "value": "Red", "run_id": f"run-{number}",
    }  # fmt: skip


def writing(place: ObjectStorage) -> Lease:
    return Lease(place, "writing", SECONDS)


class Asleep(Lease):
    """A holder that gives no sign of life, as a stopped process does not."""

    def _beat(self, done: threading.Event) -> None:
        done.wait()


def asleep(place: ObjectStorage) -> LakeCatalog:
    lake = LakeCatalog(place, lease_seconds=SECONDS)
    lake._lease = Asleep(place, "writing", SECONDS, lake.largest_token)
    return lake


def overtaken(
    before: Callable[[LakeCatalog], Any], act: Callable[[LakeCatalog, Any], None], place: ObjectStorage
) -> None:
    """``before`` happens under the lease, then the holder sleeps until another job has taken over, and ``act``s."""
    first, second = asleep(place), LakeCatalog(place, lease_seconds=SECONDS)
    with first.writing():
        opened = before(first)
        with second.writing():
            second.append_rows("attribute_values", [event(2)], "run-2")
            act(first, opened)


def away(*_: Any) -> None:
    raise OSError("no route to the store")


def test_who_asks_while_the_holder_lives_is_refused_and_told_who_it_is(place: ObjectStorage) -> None:
    told = r"another job is writing .*_leases/writing.*process"
    with writing(place).held(0), pytest.raises(GateRefused, match=told), writing(place).held(0):
        pytest.fail("two hold the lease")
    with writing(place).held(0):
        pass


def test_a_lease_that_was_given_back_is_taken_at_once_and_needs_no_fence(place: ObjectStorage) -> None:
    tokens, fenced = [], []
    begin = time.monotonic()
    for _ in range(3):
        held = writing(place)
        with held.held(0, fenced.append):
            tokens.append(held.token)
    assert (tokens, fenced, held.token) == ([1, 2, 3], [], None)
    assert time.monotonic() - begin < SECONDS


def test_the_lease_of_a_dead_holder_is_taken_over_when_it_has_expired(place: ObjectStorage) -> None:
    dead = writing(place)
    dead._acquire(0)
    begin, fenced = time.monotonic(), []
    with writing(place).held(0, fenced.append):
        assert SECONDS - 1 < time.monotonic() - begin < 3 * SECONDS
        assert fenced == [2]


def test_a_lease_is_not_taken_over_while_its_holder_gives_signs_of_life(place: ObjectStorage) -> None:
    with writing(place).held(0) as _:
        time.sleep(1.6 * SECONDS)
        with pytest.raises(GateRefused), writing(place).held(0):
            pytest.fail("taken over")


@pytest.mark.parametrize(("seconds_ago", "expired"), [(SECONDS + 0.4, False), (SECONDS + 2.5, True)])
def test_a_lease_that_nobody_watched_expires_by_the_clock_of_the_store_and_a_second(
    seconds_ago: float, expired: bool, place: ObjectStorage
) -> None:
    present = LeaseRecord("somebody", "a process", token=1, seconds=SECONDS, fenced=True)
    assert writing(place)._expired(present, time.time() - seconds_ago, unchanged_since=lease._now()) is expired
    assert not list(place.files("_leases")), "what asked the clock is gone"


def test_a_fence_that_failed_is_made_by_the_next_holder(place: ObjectStorage) -> None:
    writing(place)._acquire(0)
    fenced: list[int] = []

    def fail(_: int) -> None:
        raise OSError("the store is away")

    with pytest.raises(OSError, match="away"), writing(place).held(0, fail):
        pytest.fail("not fenced")
    with writing(place).held(0, fenced.append):
        assert fenced == [3]


def test_of_many_that_want_a_free_lease_one_gets_it(place: ObjectStorage) -> None:
    got: list[int | None] = []
    ready, over = threading.Barrier(6), threading.Event()

    def try_it() -> None:
        one = writing(place)
        ready.wait()
        try:
            with one.held(0):
                got.append(one.token)
                over.wait(30)
        except GateRefused:
            got.append(None)

    threads = [threading.Thread(target=try_it) for _ in range(6)]
    for thread in threads:
        thread.start()
    while len(got) < 6:
        time.sleep(0.05)
    over.set()
    for thread in threads:
        thread.join()
    assert sorted(one or 0 for one in got) == [0, 0, 0, 0, 0, 1]


def test_a_put_whose_answer_was_lost_does_not_lose_the_lease(place: ObjectStorage) -> None:
    """The store has the new object, and the client, trying again, is told that the tag is another."""
    held = writing(place)
    with held.held(0):
        mine = held._mine
        assert mine is not None
        place.put(held._path, replace(mine, beats=mine.beats + 1).to_json())
        held._change(lambda one: one)
        held._change(lambda one: one)
        held.require()


def test_a_holder_out_of_reach_of_the_store_stops_writing(
    place: ObjectStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, clock = writing(place), lease._now
    with held.held(0):
        with monkeypatch.context() as patch:
            patch.setattr(ObjectStorage, "replace_tagged", away)
            patch.setattr(lease, "_now", lambda: clock() + 0.7 * SECONDS)
            held.require()
            patch.setattr(lease, "_now", lambda: clock() + 1.1 * SECONDS)
            with pytest.raises(TemporaryFailure, match=r"no sign of life for 2 s.*Run it again"):
                held.require()
        held.require()  # nobody has taken it over: the store is there again, and so is the lease


def test_a_holder_that_slept_cannot_commit_to_a_table_that_it_had_opened(place: ObjectStorage) -> None:
    """The commit conflicts with the fence in Delta itself: the holder does not ask for its lease any more."""

    def commit(lake: LakeCatalog, opened: Any) -> None:
        lake.require_lease = lambda *_: None  # type: ignore[method-assign]
        parts = lake._row_parts("products", [product("late")])
        assert not lake._commit(opened, parts, "append", "run-1", {"run-1": 1})

    overtaken(lambda lake: lake._create("products"), commit, place)
    assert [row["product_id"] for row in scanned(place, "products")] == []


@pytest.mark.parametrize("mode", ["append", "overwrite"])
def test_a_holder_that_slept_cannot_open_a_table_and_commit(place: ObjectStorage, mode: str) -> None:
    """Even where nothing tells it that its lease has expired: the table knows a larger token."""

    def write(lake: LakeCatalog, _: Any) -> None:
        assert lake._lease is not None
        lake._lease.require = lambda: None  # type: ignore[method-assign]
        with pytest.raises(TemporaryFailure, match="no sign of life"):
            lake._write("attribute_values", mode, "run-1", lambda _: lake._row_parts("attribute_values", [event(1)]))

    overtaken(lambda _: None, write, place)
    assert [row["event_id"] for row in scanned(place, "attribute_values")] == ["event-2"]


def test_a_holder_that_slept_cannot_make_a_table_and_commit(place: ObjectStorage) -> None:
    """It was stopped in a catalog's first import; the fence makes the tables that decide what a run has done."""
    first, second = asleep(place), LakeCatalog(place, lease_seconds=SECONDS)
    with first.writing():
        with second.writing():
            assert first._lease is not None
            first._lease.require = lambda: None  # type: ignore[method-assign]
            for table, row in (("products", product("p")), ("attribute_values", event(1))):
                with pytest.raises(TemporaryFailure, match="no sign of life"):
                    first.append_rows(table, [row], "run-1")
        assert scanned(place, "products") == scanned(place, "attribute_values") == []


def test_a_holder_that_slept_may_say_that_it_failed(place: ObjectStorage) -> None:
    """And jobs without a lease add their rows, whoever holds it."""

    def journal(lake: LakeCatalog, _: Any) -> None:
        with pytest.raises(TemporaryFailure):
            lake.append_rows("predictions", [], "run-1")
        assert lake.append_rows("label_uses", [], "run-1") == 0
        assert LakeCatalog(place).append_rows("label_uses", [], "training-1") == 0

    overtaken(lambda _: None, journal, place)


def test_a_holder_that_slept_deletes_nothing(place: ObjectStorage) -> None:
    """Another job may have the same run id by now: what it keeps below it stays."""

    def clean_up(lake: LakeCatalog, _: Any) -> None:
        place.put("_staging/run-1/scores-1/part", b"of the job that took over")
        with pytest.raises(TemporaryFailure, match="no sign of life"):
            lake.require_held()
        with lake.dropping_checkpoints("run-1"):
            pass
        assert [one.path for one in place.files("_staging/run-1")] == ["_staging/run-1/scores-1/part"]

    overtaken(lambda _: None, clean_up, place)


def test_a_holder_deletes_its_checkpoints_when_it_is_done(place: ObjectStorage) -> None:
    lake = LakeCatalog(place, lease_seconds=SECONDS)
    with lake.writing(), lake.dropping_checkpoints("run-1", keep=["inputs"]):
        for name in ("scores-1", "inputs-2"):
            place.put(f"_staging/run-1/{name}/part", b"x")
    assert [one.path for one in place.files("_staging/run-1")] == ["_staging/run-1/inputs-2/part"]


def test_a_lock_in_the_store_is_asked_for_again_before_what_cannot_be_undone(place: ObjectStorage) -> None:
    """Label uses are counted under it: two trainings that both counted would get the same number."""
    lake = LakeCatalog(place, lease_seconds=SECONDS)
    clock = lease._now
    with lake.locked("label_uses", 0) as assert_lease:
        assert_lease()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ObjectStorage, "replace_tagged", away)
            patch.setattr(lease, "_now", lambda: clock() + 1.1 * SECONDS)
            with pytest.raises(TemporaryFailure, match="no sign of life"):
                assert_lease()


def test_after_a_takeover_what_was_up_to_date_still_is(place: ObjectStorage) -> None:
    lake = asleep(place)
    with lake.writing():
        lake.append_rows("products", [product("p")], "import-1")
        lake.append_rows("attribute_values", [event(1)], "run-1")
        lake.confirm_current_values("refresh")
        second = LakeCatalog(place, lease_seconds=SECONDS)
        with second.writing():
            assert not second.current_values_stale()
            assert second._create("products").transaction_version(FENCE) == 2
            second.append_rows("attribute_values", [event(2)], "run-2")
        assert lake.current_values_stale()
        with second.writing():  # given back: no fence
            assert second._create("products").transaction_version(FENCE) == 2


def test_a_lease_object_that_was_deleted_starts_above_the_tokens_of_the_tables(place: ObjectStorage) -> None:
    for number in range(2):
        lake = LakeCatalog(place, lease_seconds=SECONDS)
        with lake.writing():
            lake.append_rows("attribute_values", [event(number)], f"run-{number}")
    place.discard("_leases")
    with lake.writing():
        assert lake.append_rows("attribute_values", [event(7)], "run-7") == 1
        assert lake._lease is not None
        assert lake._lease.token == 3


def scanned(place: ObjectStorage, table: str) -> list[dict[str, Any]]:
    return [row for batch in LakeCatalog(place).scan(table) for row in batch.to_pylist()]


def test_what_keeps_an_earlier_holder_away_is_no_version_that_anybody_wrote(place: ObjectStorage) -> None:
    lake = LakeCatalog(place)
    assert lake.written_versions("switches") == [-1]
    lake.fence(1)
    made = lake.version("products")
    assert lake.written_versions("products", 2) == [made - 1, made - 2], "the fence made the table and is not counted"
    lake.append_rows("attribute_values", [], "run-1")
    written = lake.version("attribute_values")
    for token in range(2, 12):
        lake.fence(token)
    lake.append_rows("attribute_values", [], "run-2")
    assert lake.written_versions("attribute_values", 2) == [lake.version("attribute_values"), written]
    lake.fence(12)
    assert lake.written_versions("attribute_values", 3) == [lake.version("attribute_values") - 1, written, made - 1]
