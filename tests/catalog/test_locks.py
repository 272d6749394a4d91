"""The write lease in an object store: one holder, taken over when it is dead, and nothing from a job that lost it."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from catalog_enrichment.catalog import locks
from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.catalog.locks import FENCE, Lease
from catalog_enrichment.catalog.object_storage import ObjectStorage
from catalog_enrichment.errors import GateRefused, TemporaryFailure

from .catalog_rows import event, parts_of, product, scanned

if TYPE_CHECKING:
    from ..object_store import ObjectStoreServer

SECONDS = 2.0


@dataclass(frozen=True)
class Troubled(ObjectStorage):
    """A store as a process sees it that cannot reach it, loses an answer, or finds objects of long ago."""

    away: threading.Event = field(default_factory=threading.Event)
    """Set: signs of life do not arrive, as those of a stopped process."""
    answer_lost: threading.Event = field(default_factory=threading.Event)
    """Set: the next put arrives, and its answer does not."""
    seconds_ago: float | None = None
    """How long ago the lease was put by the store's clock, which stands still; None: as the store says."""

    def replace_tagged(self, path: str, data: bytes, tag: str) -> str | None:
        if self.away.is_set():
            raise OSError("no route to the store")
        found = ObjectStorage.replace_tagged(self, path, data, tag)
        if self.answer_lost.is_set():
            self.answer_lost.clear()
            return None
        return found

    def read_tagged(self, path: str) -> tuple[bytes, str, float] | None:
        found = ObjectStorage.read_tagged(self, path)
        if found is None or self.seconds_ago is None:
            return found
        return found[0], found[1], 1e9 - (self.seconds_ago if path.endswith("writing.json") else 0)


@pytest.fixture
def place(object_store: ObjectStoreServer) -> ObjectStorage:
    return ObjectStorage(object_store.uri(f"locks/{uuid.uuid4()}"), object_store.settings())


class Fences:
    """Tables that remember the tokens that they were fenced with."""

    def __init__(self, fail: bool = False) -> None:
        self.tokens: list[int] = []
        self.fail = fail

    def largest_token(self) -> int:
        return 0

    def fence(self, token: int) -> None:
        if self.fail:
            raise OSError("the store is away")
        self.tokens.append(token)


def writing(place: ObjectStorage, fences: Fences | None = None) -> Lease:
    return Lease(place, "writing", SECONDS, fenced=fences)


def troubled(place: ObjectStorage, **given: Any) -> Troubled:
    return Troubled(place.location, place.settings, place.prefix, **given)


def dead(place: ObjectStorage) -> Any:
    """A holder of the lease that gives no sign of life any more."""
    store = troubled(place)
    holding = writing(store).held(0)
    holding.__enter__()
    store.away.set()
    return holding  # for as long as somebody has it, its block does not end


@contextmanager
def clock(ahead: float | None) -> Iterator[None]:
    """The clock of this process ``ahead`` by so many seconds; None: stopped."""
    real = time.clock_gettime
    stopped = real(time.CLOCK_BOOTTIME)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(locks.time, "clock_gettime", lambda which: stopped if ahead is None else real(which) + ahead)
        yield


def overtaken(
    before: Callable[[Catalog], Any], act: Callable[[Catalog, Any], None], place: ObjectStorage, knows: bool = True
) -> None:
    """``before`` happens under the lease, then the holder sleeps until another job has taken over, and ``act``s.

    ``knows``: False where its own clock does not tell it that it slept.
    """
    store = troubled(place)
    first, second = Catalog(store, lease_seconds=SECONDS), Catalog(place, lease_seconds=SECONDS)
    with first.writing():
        opened = before(first)
        store.away.set()
        asleep_since = time.clock_gettime(time.CLOCK_BOOTTIME)
        with second.writing():
            second.append_rows("attribute_values", [event(2)], "run-2")
            slept = time.clock_gettime(time.CLOCK_BOOTTIME) - asleep_since
            with clock(0.0 if knows else -slept):
                act(first, opened)


# the lease


def test_who_asks_while_the_holder_lives_is_refused_and_told_who_it_is(place: ObjectStorage) -> None:
    told = r"another job is writing .*_leases/writing.*process"
    with writing(place).held(0):
        with pytest.raises(GateRefused, match=told), writing(place).held(0):
            pytest.fail("two hold the lease")
        time.sleep(1.6 * SECONDS)
        with pytest.raises(GateRefused), writing(place).held(0):
            pytest.fail("taken over, although the holder gave signs of life")
    with writing(place).held(0):
        pass


def test_a_lease_that_was_given_back_is_taken_at_once_and_needs_no_fence(place: ObjectStorage) -> None:
    tokens, fences = [], Fences()
    begin = time.monotonic()
    for _ in range(3):
        lease = writing(place, fences)
        with lease.held(0):
            tokens.append(lease.token)
    assert (tokens, fences.tokens, lease.token) == ([1, 2, 3], [], None)
    assert time.monotonic() - begin < SECONDS


def test_the_lease_of_a_dead_holder_is_taken_over_when_it_has_expired(place: ObjectStorage) -> None:
    holder = dead(place)
    begin, fences = time.monotonic(), Fences()
    with writing(place, fences).held(0):
        assert SECONDS - 1 < time.monotonic() - begin < 3 * SECONDS
        assert fences.tokens == [2]
    del holder


@pytest.mark.parametrize(("seconds_ago", "at_once"), [(SECONDS + 1, False), (SECONDS + 1.1, True)])
def test_a_lease_that_nobody_watched_expires_by_the_clock_of_the_store_and_a_second(
    seconds_ago: float, at_once: bool, place: ObjectStorage
) -> None:
    holder = dead(place)
    begin = time.monotonic()
    with writing(troubled(place, seconds_ago=seconds_ago)).held(0):
        assert (time.monotonic() - begin < SECONDS * 0.9) is at_once
    assert [file.name for file in place.files("_leases")] == ["writing.json"], "what asked the clock is gone"
    del holder


def test_a_fence_that_failed_is_made_by_the_next_holder(place: ObjectStorage) -> None:
    holder = dead(place)
    with pytest.raises(OSError, match="away"), writing(place, Fences(fail=True)).held(0):
        pytest.fail("not fenced")
    fences = Fences()
    with writing(place, fences).held(0):
        assert fences.tokens == [3]
    del holder


def test_of_many_that_want_a_free_lease_one_gets_it(place: ObjectStorage) -> None:
    got: list[int | None] = []
    ready, over = threading.Barrier(6), threading.Event()

    def try_it() -> None:
        lease = writing(place)
        ready.wait()
        try:
            with lease.held(0):
                got.append(lease.token)
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
    assert sorted(token or 0 for token in got) == [0, 0, 0, 0, 0, 1]


def test_a_put_whose_answer_was_lost_does_not_lose_the_lease(place: ObjectStorage) -> None:
    """The store has the new object, and the client, trying again, is told that the tag is another."""
    store = troubled(place)
    with writing(store).held(0) as assert_held:
        store.answer_lost.set()
        while store.answer_lost.is_set():
            time.sleep(0.05)
        time.sleep(SECONDS / 2)
        assert_held()


def test_a_holder_out_of_reach_of_the_store_stops_writing(place: ObjectStorage) -> None:
    store = troubled(place)
    with writing(store).held(0) as assert_held:
        store.away.set()
        with clock(0.7 * SECONDS):
            assert_held()
        with clock(1.1 * SECONDS), pytest.raises(TemporaryFailure, match=r"no sign of life for 2 s.*Run it again"):
            assert_held()
        store.away.clear()
        assert_held()  # nobody has taken it over: the store is there again, and so is the lease


def test_a_lock_in_the_store_is_asked_for_again_before_what_cannot_be_undone(place: ObjectStorage) -> None:
    """Label uses are counted under it: two trainings that both counted would get the same number."""
    store = troubled(place)
    with Catalog(store, lease_seconds=SECONDS).locked("label_uses", 0) as assert_held:
        assert_held()
        store.away.set()
        with clock(1.1 * SECONDS), pytest.raises(TemporaryFailure, match="no sign of life"):
            assert_held()


# the fence


def test_a_holder_that_slept_cannot_commit_to_a_table_that_it_had_opened(place: ObjectStorage) -> None:
    """The commit conflicts with the fence in Delta itself: the holder does not know that it slept."""

    def commit(lake: Catalog, opened: Any) -> None:
        parts = parts_of(lake, "products", product("late"))
        assert not lake.tables.commit(opened, parts, "run-1", {"run-1": 1})

    overtaken(lambda lake: lake.tables.create("products"), commit, place, knows=False)
    assert scanned(Catalog(place), "products") == []


def test_a_holder_that_slept_cannot_open_or_make_a_table_and_commit(place: ObjectStorage) -> None:
    """Nothing tells it that its lease has expired, and the tables know a larger token: the fence makes the tables."""

    def write(lake: Catalog, _: Any) -> None:
        for table, row in (("products", product("p")), ("attribute_values", event(1))):
            with pytest.raises(TemporaryFailure, match="no sign of life"):
                lake.append_rows(table, [row], "run-1")

    overtaken(lambda _: None, write, place, knows=False)
    assert scanned(Catalog(place), "products") == []
    assert [row["event_id"] for row in scanned(Catalog(place), "attribute_values")] == ["event-2"]


def test_a_holder_that_slept_may_say_that_it_failed(place: ObjectStorage) -> None:
    """And jobs without a lease add their rows, whoever holds it."""

    def journal(lake: Catalog, _: Any) -> None:
        with pytest.raises(TemporaryFailure):
            lake.append_rows("predictions", [], "run-1")
        assert lake.append_rows("label_uses", [], "run-1") == 0
        assert Catalog(place).append_rows("label_uses", [], "training-1") == 0

    overtaken(lambda _: None, journal, place)


def test_a_holder_that_slept_deletes_nothing(place: ObjectStorage) -> None:
    """Another job may have the same run id by now: what it keeps below it stays."""

    def clean_up(lake: Catalog, _: Any) -> None:
        place.put("_staging/run-1/scores-1/part", b"of the job that took over")
        with pytest.raises(TemporaryFailure, match="no sign of life"):
            lake.tables.lock.assert_held()
        with lake.checkpoints.dropping("run-1"):
            pass
        assert [file.path for file in place.files("_staging/run-1")] == ["_staging/run-1/scores-1/part"]

    overtaken(lambda _: None, clean_up, place)
    lake = Catalog(place, lease_seconds=SECONDS)
    with lake.writing(), lake.checkpoints.dropping("run-1", keep=["inputs"]):
        place.put("_staging/run-1/inputs-2/part", b"x")
    assert [file.path for file in place.files("_staging/run-1")] == ["_staging/run-1/inputs-2/part"]


def test_after_a_takeover_what_was_up_to_date_still_is(place: ObjectStorage) -> None:
    store = troubled(place)
    lake = Catalog(store, lease_seconds=SECONDS)
    with lake.writing():
        lake.append_rows("products", [product("p")], "import-1")
        lake.append_rows("attribute_values", [event(1)], "run-1")
        lake.confirm_current_values("refresh")
        store.away.set()
        second = Catalog(place, lease_seconds=SECONDS)
        with second.writing():
            assert not second.current_values_stale()
            assert second.tables.create("products").transaction_version(FENCE) == 2
            second.append_rows("attribute_values", [event(2)], "run-2")
        assert lake.current_values_stale()
        with second.writing():  # given back: no fence
            assert second.tables.create("products").transaction_version(FENCE) == 2


def test_a_lease_object_that_was_deleted_starts_above_the_tokens_of_the_tables(place: ObjectStorage) -> None:
    for number in range(2):
        lake = Catalog(place, lease_seconds=SECONDS)
        with lake.writing():
            lake.append_rows("attribute_values", [event(number)], f"run-{number}")
    place.discard("_leases")
    with lake.writing():
        assert lake.append_rows("attribute_values", [event(7)], "run-7") == 1
        assert lake.tables.lock.token == 3


def test_what_keeps_an_earlier_holder_away_is_no_version_that_anybody_wrote(place: ObjectStorage) -> None:
    lake = Catalog(place)
    tables = lake.tables
    assert tables.written_versions("switches") == [-1]
    tables.fence(1)
    made = lake.version("products")
    assert tables.written_versions("products", 2) == [made - 1, made - 2], "the fence made the table and is not counted"
    lake.append_rows("attribute_values", [], "run-1")
    written = lake.version("attribute_values")
    for token in range(2, 12):
        tables.fence(token)
    lake.append_rows("attribute_values", [], "run-2")
    assert tables.written_versions("attribute_values", 2) == [lake.version("attribute_values"), written]
    tables.fence(12)
    newest = lake.version("attribute_values")
    assert tables.written_versions("attribute_values", 3) == [newest - 1, written, made - 1]
