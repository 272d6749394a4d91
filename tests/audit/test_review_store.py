"""The review store: idempotent samples, verdicts that count, what is asked next, requests, files it refuses."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from catalog_enrichment.audit.review_records import Answer, ItemState, Purpose, RequestKind, RequestState
from catalog_enrichment.audit.review_store import ReviewStore
from catalog_enrichment.errors import DataContractError, TemporaryFailure
from catalog_enrichment.records import Cardinality

from .review_samples import START, asked, item, outcome, sample, verdict

ONE, TWO, THREE = item(1), item(2), item(3)
SOON = START + timedelta(minutes=9)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ReviewStore]:
    with ReviewStore(tmp_path / "made" / "reviews.sqlite") as store:
        store.add_sample(sample(), [ONE, TWO, THREE])
        yield store


def test_what_was_added_comes_back_in_order(store: ReviewStore) -> None:
    other = sample("s2", purpose=Purpose.SUGGESTIONS, reviewers=1, drawn_at=START + timedelta(days=1))
    hostile = item(7, "s2", title="<b>'; DROP TABLE items; --", images=(("a.jpg", ""), ("", "abc")), value="")
    assert store.add_sample(other, [hostile])
    assert store.samples() == [other, sample()]
    assert store.sample("s2") == other
    assert store.items("s1") == [ONE, TWO, THREE]
    assert store.items("s2") == [hostile]
    with pytest.raises(DataContractError, match="no sample 'nosuch'"):
        store.items("nosuch")
    with pytest.raises(DataContractError, match="no item 'nosuch'"):
        store.item("nosuch")


def test_a_sample_is_added_once(store: ReviewStore) -> None:
    store.add_verdict(verdict(ONE, "Ana"))
    assert not store.add_sample(sample(), [THREE, ONE, TWO])
    assert store.outcomes("s1")[0].reviewers == ("Ana",)
    with pytest.raises(DataContractError, match="with 3 other items"):
        store.add_sample(sample(), [ONE, TWO])
    with pytest.raises(DataContractError, match="is there twice"):
        store.add_sample(sample("s2"), [item(1, "s2"), item(1, "s2")])
    with pytest.raises(DataContractError, match="items of other samples"):
        store.add_sample(sample("s2"), [ONE])
    with pytest.raises(DataContractError, match="reviewers must be 1 or more"):
        store.add_sample(sample("s2", reviewers=0), [])
    assert [found.sample_id for found in store.samples()] == ["s1"]


def test_two_that_agree_settle_an_item_and_two_that_differ_dispute_it(store: ReviewStore) -> None:
    for of, answers in ((ONE, (Answer.YES, Answer.YES)), (TWO, (Answer.YES, Answer.NO)), (THREE, (Answer.NO,))):
        for reviewer, answer in zip(("Ana", "Ben"), answers, strict=False):
            store.add_verdict(
                verdict(of, reviewer, answer, answered_at=START + timedelta(seconds=len(reviewer + answer)))
            )
    settled, disputed, still_open = store.outcomes("s1")
    assert (settled.state, settled.answer, settled.reviewers) == (ItemState.SETTLED, Answer.YES, ("Ana", "Ben"))
    assert settled.settled_at == START + timedelta(seconds=6)
    assert (disputed.state, disputed.answer, disputed.settled_at) == (ItemState.DISPUTED, None, None)
    assert (still_open.state, still_open.answer) == (ItemState.OPEN, None)


@pytest.mark.parametrize(
    ("first", "second", "state"),
    [
        ((Answer.OTHER, "Blue"), (Answer.OTHER, "Blue"), ItemState.SETTLED),
        ((Answer.OTHER, "Blue"), (Answer.OTHER, "Green"), ItemState.DISPUTED),
        ((Answer.OTHER, "Blue"), (Answer.NO,), ItemState.DISPUTED),
        ((Answer.CANNOT_TELL,), (Answer.CANNOT_TELL,), ItemState.SETTLED),
        ((Answer.NONE,), (Answer.NONE,), ItemState.SETTLED),
        ((Answer.NONE,), (Answer.NO,), ItemState.DISPUTED),
    ],
)
def test_right_values_are_a_part_of_a_verdict(store: ReviewStore, first, second, state) -> None:  # type: ignore[no-untyped-def]
    store.add_verdict(verdict(ONE, "Ana", *first))
    store.add_verdict(verdict(ONE, "Ben", *second))
    found = outcome(store, ONE)
    assert found.state is state
    assert found.right_values == (first[1:] if state is ItemState.SETTLED else ())


def test_several_right_values_agree_in_any_order(store: ReviewStore) -> None:
    many = item(8, "s2", attribute="material", cardinality=Cardinality.MANY, value="Silk")
    store.add_sample(sample("s2"), [many])
    store.add_verdict(verdict(many, "Ana", Answer.OTHER, "Wool", "Cotton"))
    store.add_verdict(verdict(many, "Ben", Answer.OTHER, "Cotton", "Wool"))
    assert outcome(store, many).right_values == ("Cotton", "Wool")


def test_an_adjudicator_settles_a_dispute_and_is_a_third_person(store: ReviewStore) -> None:
    store.add_verdict(verdict(ONE, "Ana", Answer.YES))
    with pytest.raises(DataContractError, match="is open, not disputed"):
        store.add_verdict(verdict(ONE, "Eve", Answer.NO, adjudicates=True))
    store.add_verdict(verdict(ONE, "Ben", Answer.NO))
    with pytest.raises(DataContractError, match="another person adjudicates"):
        store.add_verdict(verdict(ONE, " ANA ", Answer.NO, adjudicates=True))
    now = datetime.now(UTC)
    store.add_verdict(verdict(ONE, "Eve", Answer.NO, adjudicates=True, answered_at=now))
    settled = outcome(store, ONE)
    assert (settled.state, settled.answer, settled.settled_at) == (ItemState.SETTLED, Answer.NO, now)
    assert settled.reviewers == ("Ana", "Ben", "Eve")
    store.add_verdict(verdict(ONE, "Eve", Answer.OTHER, "Blue", adjudicates=True))  # on second thoughts
    assert outcome(store, ONE).right_values == ("Blue",)
    with pytest.raises(DataContractError, match="has seen the others' verdicts"):
        store.add_verdict(verdict(ONE, "eve", Answer.NO))


def _change(store: ReviewStore, reviewer: str, **given: Any) -> None:
    store.add_verdict(verdict(ONE, reviewer, Answer.NO, **given))


@pytest.mark.parametrize("by_adjudicator", [False, True])
@pytest.mark.parametrize("change", ["third", "third adjudicates", "own", "withdraw", "file"])
def test_what_is_settled_is_changed_by_managers_alone(store: ReviewStore, change: str, by_adjudicator: bool) -> None:
    store.add_verdict(verdict(ONE, "Ana"))
    store.add_verdict(verdict(ONE, "Ben", Answer.NO if by_adjudicator else Answer.YES))
    if by_adjudicator:
        store.add_verdict(verdict(ONE, "Eve", adjudicates=True))
    settler = "Eve" if by_adjudicator else "Ben"
    changes: dict[str, Callable[[], object]] = {
        "third": lambda: _change(store, "Zed", answered_at=datetime.now(UTC)),
        "third adjudicates": lambda: _change(store, "Zed", adjudicates=True),
        "own": lambda: _change(store, settler, adjudicates=by_adjudicator, answered_at=datetime.now(UTC)),
        "withdraw": lambda: store.withdraw_verdict(ONE.item_id, settler),
        "file": lambda: _change(store, settler, adjudicates=by_adjudicator, answered_at=START + timedelta(minutes=2)),
    }
    with pytest.raises(DataContractError, match="is settled by now: only a manager may change that"):
        changes[change]()
    assert outcome(store, ONE).state is ItemState.SETTLED
    assert outcome(store, ONE).answer is Answer.YES
    store.add_verdict(verdict(ONE, "Max", Answer.NO, adjudicates=True), by_manager=True)
    assert outcome(store, ONE).answer is Answer.NO
    assert store.withdraw_verdict(ONE.item_id, "Max", by_manager=True)
    assert outcome(store, ONE).answer is Answer.YES


def test_a_mistyped_key_is_taken_back_for_ten_minutes_by_the_person_who_typed_it(store: ReviewStore) -> None:
    now = datetime.now(UTC)
    store.add_verdict(verdict(ONE, "Ana", answered_at=now - timedelta(minutes=11)))
    store.add_verdict(verdict(ONE, "Ben", answered_at=now - timedelta(minutes=9)))
    with pytest.raises(DataContractError, match="is settled"):
        store.withdraw_verdict(ONE.item_id, "Ana")
    assert store.withdraw_verdict(ONE.item_id, "Ben")
    assert outcome(store, ONE).state is ItemState.OPEN
    assert store.withdraw_verdict(ONE.item_id, "Ana"), "an open item has no time limit"


def test_a_disputed_item_takes_no_third_verdict_and_its_reviewers_may_agree(store: ReviewStore) -> None:
    store.add_verdict(verdict(ONE, "Ana"))
    store.add_verdict(verdict(ONE, "Ben", Answer.NO))
    with pytest.raises(DataContractError, match="is disputed by now: an adjudicator decides"):
        store.add_verdict(verdict(ONE, "Zed"))
    store.add_verdict(verdict(ONE, "Ben"))
    assert outcome(store, ONE).state is ItemState.SETTLED


def test_an_answer_to_a_suggestion_is_changed_later_and_by_its_person_alone(store: ReviewStore) -> None:
    asked_of = item(8, "s2")
    store.add_sample(sample("s2", purpose=Purpose.SUGGESTIONS, reviewers=1), [asked_of])
    store.add_verdict(verdict(asked_of, "Mia"))
    with pytest.raises(DataContractError, match="is settled"):
        store.add_verdict(verdict(asked_of, "Zed", Answer.NO))
    store.add_verdict(verdict(asked_of, "mia", Answer.NO))
    assert store.withdraw_answer(asked_of.item_id, "Mia")
    assert store.verdicts("s2") == {}


def test_only_its_owner_can_read_the_file_from_its_first_moment_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as without_chmod:
        without_chmod.setattr(Path, "chmod", lambda *_: pytest.fail("the file was made with another mode"))
        ReviewStore(tmp_path / "new.sqlite").close()
    assert (tmp_path / "new.sqlite").stat().st_mode & 0o777 == 0o600


def test_only_its_owner_can_read_the_file(store: ReviewStore, tmp_path: Path) -> None:
    store.add_verdict(verdict(ONE, "Ana"))
    files = sorted(store.path.parent.glob("reviews.sqlite*"))
    assert [file.name for file in files] == [f"reviews.sqlite{end}" for end in ("", "-shm", "-wal")]
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    with ReviewStore(tmp_path / "older.sqlite") as older:
        older.path.chmod(0o644)
    with ReviewStore(older.path):
        assert older.path.stat().st_mode & 0o777 == 0o600
    foreign = tmp_path / "foreign.sqlite"
    foreign.write_bytes(b"something else" * 100)
    foreign.chmod(0o644)
    with pytest.raises(DataContractError):
        ReviewStore(foreign)
    assert foreign.stat().st_mode & 0o777 == 0o644


def test_the_newest_verdict_of_a_person_counts_until_it_is_withdrawn(store: ReviewStore) -> None:
    assert store.add_verdict(verdict(ONE, "Ana", Answer.YES))
    assert store.add_verdict(verdict(ONE, "ana  ", Answer.NO))
    assert not store.add_verdict(verdict(ONE, "Ana", Answer.NO, seconds=9))  # sent again after a lost answer
    assert [given.answer for given in store.verdicts("s1")[ONE.item_id]] == [Answer.NO]
    assert store.withdraw_verdict(ONE.item_id, "Ana", SOON)
    assert [given.answer for given in store.verdicts("s1")[ONE.item_id]] == [Answer.YES]
    assert store.withdraw_verdict(ONE.item_id, "Ana", SOON)
    assert store.verdicts("s1") == {}
    assert not store.withdraw_verdict(ONE.item_id, "Ana", SOON)
    rows = sqlite3.connect(store.path).execute("SELECT answer, withdrawn_at FROM verdicts").fetchall()
    assert rows == [(answer, SOON.isoformat(timespec="microseconds")) for answer in ("yes", "no")]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (verdict(ONE, "Ana", Answer.OTHER), "came with the right values \\[\\]"),
        (verdict(ONE, "Ana", Answer.NO, "Blue"), "came with the right values \\['Blue'\\]"),
        (verdict(ONE, "Ana", Answer.OTHER, "Blue", "Green"), "one value per product, and these are 2"),
        (verdict(ONE, "Ana", Answer.OTHER, "Red"), "the value that was called wrong"),
        (verdict(ONE, "Ana", Answer.NONE, "Blue"), "came with the right values \\['Blue'\\]"),
        (verdict(ONE, " \n", Answer.NO), "give a name that can be read"),
        (verdict(ONE, "Ana", seconds=-1), "seconds must be"),
        (verdict(ONE, "Ana", seconds=float("nan")), "seconds must be"),
        (verdict(item(99), "Ana"), "has no item"),
    ],
)
def test_a_verdict_that_says_nothing_clear_is_refused(store: ReviewStore, wrong, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(DataContractError, match=message):
        store.add_verdict(wrong)
    assert store.verdicts("s1") == {}


def test_a_gold_item_is_answered_with_values_or_that_there_is_none_and_not_with_yes_or_no(store: ReviewStore) -> None:
    gold = item(8, "s2", value="")
    store.add_sample(sample("s2", purpose=Purpose.GOLD), [gold])
    with pytest.raises(DataContractError, match=r"of a gold sample .*'cannot_tell', also if the dictionary lacks"):
        store.add_verdict(verdict(gold, "Ana", Answer.NO))
    with pytest.raises(DataContractError, match="cannot be called right"):
        store.add_verdict(verdict(gold, "Ana"))
    store.add_verdict(verdict(gold, "Ana", Answer.NONE))
    store.add_verdict(verdict(gold, "Ben", Answer.OTHER, "Blue"))
    assert outcome(store, gold).state is ItemState.DISPUTED
    store.add_verdict(verdict(gold, "Eve", Answer.NONE, adjudicates=True))
    assert outcome(store, gold).answer is Answer.NONE


def test_the_items_about_one_product_come_after_each_other(store: ReviewStore) -> None:
    names = ("color", "material", "size")
    items = [item(number, "s2", attribute=name, value="") for number in range(6) for name in names]
    store.add_sample(sample("s2", purpose=Purpose.GOLD), items)
    orders = {}
    for person in ("Ana", "Ben", "Eve"):
        queue = store.queue("s2", person, limit=99)
        assert [question.attribute for question in queue] == [*names] * 6
        orders[person] = [question.product_id for question in queue[::3]]
        assert [question.product_id for question in queue[2::3]] == orders[person]
    assert len({tuple(order) for order in orders.values()}) == 3, "each person has an order of their own"


def test_times_need_a_time_zone(store: ReviewStore) -> None:
    with pytest.raises(ValueError, match="needs a time zone"):
        store.add_verdict(verdict(ONE, "Ana", answered_at=datetime(2026, 1, 1)))
    assert store.verdicts("s1") == {}


def test_a_person_is_asked_what_others_began_then_in_an_order_of_their_own(tmp_path: Path) -> None:
    with ReviewStore(tmp_path / "reviews.sqlite") as store:
        items = [item(number) for number in range(30)]
        store.add_sample(sample(), items)
        ana, ben = (store.queue("s1", name, limit=50) for name in ("Ana", "Ben"))
        assert sorted(of.item_id for of in ana) == sorted(of.item_id for of in items)
        assert ana != ben
        assert store.queue("s1", "ana ", limit=50) == ana
        store.add_verdict(verdict(ana[5], "Ana"))
        assert store.queue("s1", "Ben") == [ana[5]]
        assert ana[5] not in store.queue("s1", "Ana", limit=50)
        store.add_verdict(verdict(ana[5], "Ben"))
        assert ana[5] not in store.queue("s1", "Eve", limit=50)
        assert {of.shop_id for of in store.queue("s1", "Eve", limit=50, shop_id="shop-1")} == {"shop-1"}


ASKED = asked(RequestKind.SET, ("p001", "color"), "Blue")


def test_a_request_waits_until_a_job_says_what_became_of_it(store: ReviewStore) -> None:
    first = store.add_request(ASKED)
    second = store.add_request(
        replace(ASKED, kind=RequestKind.UNDO, values=(), run_id="set_value-1", product_id="p002")
    )
    assert [of.request_id for of in store.requests(state=RequestState.WAITING)] == [first, second]
    assert [of.request_id for of in store.requests(after=first)] == [second]
    assert store.mark_applied(first, "color is now Blue", SOON)
    assert not store.mark_applied(first, "again", SOON, RequestState.REFUSED)
    (about,) = store.requests_about("p001")
    assert (about.state, about.outcome, about.ended_at) == (RequestState.APPLIED, "color is now Blue", SOON)
    assert (about.values, about.by, about.asked_at) == (("Blue",), "Mia", START)
    assert [of.request_id for of in store.requests(state=RequestState.WAITING)] == [second]
    with pytest.raises(DataContractError, match="give a name"):
        store.add_request(replace(ASKED, by=" "))


def test_a_withdrawn_verdict_takes_its_waiting_request_with_it(store: ReviewStore) -> None:
    accept = replace(ASKED, kind=RequestKind.ACCEPT, item_id=ONE.item_id)
    store.add_verdict(verdict(ONE, "Mia"), accept)
    store.add_verdict(verdict(TWO, "Ana"), replace(accept, item_id=TWO.item_id, by="Ana"))
    store.withdraw_verdict(ONE.item_id, "mia")
    assert [of.state for of in store.requests()] == [RequestState.WITHDRAWN, RequestState.WAITING]
    with pytest.raises(DataContractError):
        store.add_verdict(verdict(THREE, "Mia", Answer.OTHER), accept)
    with pytest.raises(DataContractError, match="give a name"):
        store.add_verdict(verdict(THREE, "Mia"), replace(accept, by=" "))
    assert len(store.requests()) == 2
    assert THREE.item_id not in store.verdicts("s1")  # both or none


def test_threads_and_processes_write_at_the_same_time(store: ReviewStore) -> None:
    items = [item(number, "s2") for number in range(40)]
    store.add_sample(sample("s2"), items)
    code = (
        "import sys; from pathlib import Path; from tests.audit.review_samples import item, verdict\n"
        "from catalog_enrichment.audit.review_store import ReviewStore\n"
        "with ReviewStore(Path(sys.argv[1])) as store:\n"
        "    for number in range(40): store.add_verdict(verdict(item(number, 's2'), 'Other'))"
    )
    root = Path(__file__).parents[2]
    other = subprocess.Popen([sys.executable, "-c", code, str(store.path)], cwd=root)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda of: store.add_verdict(verdict(of, "Ana")), items))
    assert other.wait() == 0
    assert {found.state for found in store.outcomes("s2")} == {ItemState.SETTLED}


def test_a_file_that_is_something_else_is_refused_and_left_as_it_is(tmp_path: Path, store: ReviewStore) -> None:
    text, foreign, newer = (tmp_path / name for name in ("text", "foreign.sqlite", "newer.sqlite"))
    text.write_bytes(b"not a database, but long enough to look like a database" * 20)
    with sqlite3.connect(foreign) as connection:
        connection.execute("CREATE TABLE mine (a)")
    connection.close()
    with ReviewStore(newer), sqlite3.connect(newer) as connection:
        connection.execute("PRAGMA user_version = 2")
    connection.close()
    before = foreign.read_bytes()
    for file, message in ((text, "is no review store"), (foreign, "but no review store"), (newer, "of version 2")):
        with pytest.raises(DataContractError, match=message):
            ReviewStore(file)
    assert foreign.read_bytes() == before
    (tmp_path / "folder").mkdir()
    with pytest.raises(TemporaryFailure, match="cannot be used"):
        ReviewStore(tmp_path / "folder")


def test_what_was_written_is_there_after_a_restart(store: ReviewStore) -> None:
    store.add_verdict(verdict(ONE, "Ana"))
    with ReviewStore(store.path) as again:
        assert again.outcomes("s1") == store.outcomes("s1")
        assert again.samples() == [sample()]


def test_progress_tells_mine_from_the_samples_and_a_shops_from_others(page_store: ReviewStore) -> None:
    items = [item(n) for n in range(5)]  # shop-0 has three, shop-1 two
    page_store.add_sample(sample(), items)
    for of in items[:3]:
        page_store.add_verdict(verdict(of, "Ana"))
    page_store.add_verdict(verdict(items[0], "Ben"))
    page_store.add_verdict(verdict(items[2], "Ben", Answer.NO, answered_at=SOON))
    for name, shop, expected in (
        ("ana ", "", (5, 3, 1, 1, 3, 2)), ("Ben", "", (5, 3, 1, 1, 2, 3)),
        ("ana ", "shop-0", (3, 1, 1, 1, 2, 1)), ("Ben", "shop-1", (2, 2, 0, 0, 0, 2)),
    ):  # fmt: skip
        found = page_store.progress("s1", name, shop)
        assert (found.items, found.open, found.disputed, found.settled, found.mine, found.left) == expected
    newest = page_store.newest_verdict("s1", "BEN")
    assert newest is not None
    assert newest.item_id == items[2].item_id
    assert page_store.newest_verdict("s1", "BEN", adjudicates=True) is None
