"""The review store: a SQLite file with the questions to reviewers, their verdicts, and the changes that people ask for.

The page's server and jobs use it at the same time, from several processes and threads of a machine. It is in
write-ahead mode, which needs a local disk: SQLite does not support it on a network file system. Rows are never changed
or deleted but for a verdict's time of withdrawal, a request's end, and the texts of products that are deleted, so that
every answer stays known.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from catalog_enrichment.audit.review_file import ReviewFile, as_text, read, to_row
from catalog_enrichment.audit.review_records import (
    ChangeRequest,
    Item,
    ItemOutcome,
    ItemState,
    Purpose,
    RequestState,
    ReviewSample,
    Verdict,
    outcome_of,
    person_key,
    person_name,
    state_of,
)
from catalog_enrichment.errors import DataContractError, TemporaryFailure
from catalog_enrichment.records import stable_hash

CORRECTED_WITHIN = timedelta(minutes=10)
"""The time after a verdict in which its person may change or withdraw it though the item is settled."""


_FORGOTTEN: dict[str, dict[str, str]] = {
    "items": {"title": "(deleted product)", "description": "", "images": "[]", "evidence": ""},
    "requests": {"reason": ""},
}
"""Table -> columns with texts of a product, and what they hold after the product is deleted."""


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a sample, and of a person in it."""

    items: int
    open: int
    disputed: int
    settled: int
    mine: int
    """Items that the person judged."""
    left: int
    """Items that still need the person's verdict or another person's."""


class ReviewStore(ReviewFile):
    """The review store in the file ``path``."""

    # samples and items

    def add_sample(self, sample: ReviewSample, items: Sequence[Item]) -> bool:
        """Add a sample with its items; False, and nothing changes, if it is there already with the same items.

        Raises DataContractError if it is there with other items, and for items of another sample or repeated items.
        """
        sample.check(items)
        with self._writing():
            rows = self._rows("SELECT item_id FROM items WHERE sample_id = ?", sample.sample_id)
            known = {row["item_id"] for row in rows}
            if self._rows("SELECT 1 FROM samples WHERE sample_id = ?", sample.sample_id):
                if known == {item.item_id for item in items}:
                    return False
                raise DataContractError(
                    f"{self.path}: the sample {sample.sample_id} is there with {len(known)} other items. Nothing was "
                    "written; draw the new sample under a new id"
                )
            self._insert("samples", to_row(sample))
            for position, item in enumerate(items):
                self._insert("items", to_row(item) | {"position": position})
        return True

    def samples(self) -> list[ReviewSample]:
        """Return all samples, newest first."""
        return [
            read(ReviewSample, row) for row in self._rows("SELECT * FROM samples ORDER BY drawn_at DESC, sample_id")
        ]

    def sample(self, sample_id: str) -> ReviewSample:
        """Return the sample. Raises DataContractError if there is none with this id."""
        for row in self._rows("SELECT * FROM samples WHERE sample_id = ?", sample_id):
            return read(ReviewSample, row)
        known = [sample.sample_id for sample in self.samples()]
        raise DataContractError(f"{self.path} has no sample {sample_id!r}; it has {known}")

    def items(self, sample_id: str) -> list[Item]:
        """Return the items in the order in which they were added. Raises DataContractError for an unknown sample."""
        self.sample(sample_id)
        rows = self._rows("SELECT * FROM items WHERE sample_id = ? ORDER BY position", sample_id)
        return [read(Item, row) for row in rows]

    def item(self, item_id: str) -> Item:
        """Return the item. Raises DataContractError if there is none with this id."""
        for row in self._rows("SELECT * FROM items WHERE item_id = ?", item_id):
            return read(Item, row)
        raise DataContractError(f"{self.path} has no item {item_id!r}: it was not drawn into this store")

    # products that are deleted

    def with_texts_of(self, product_ids: Sequence[str]) -> dict[str, int]:
        """Return product id -> how many items and requests have texts or pictures of it that :meth:`forget` removes."""
        found: Counter[str] = Counter()
        for table, kept in _FORGOTTEN.items():
            differs = " OR ".join(f"{name} != ?" for name in kept)
            for row in self._rows(f"SELECT product_id FROM {table} WHERE {differs}", *kept.values()):
                found[row["product_id"]] += 1
        return {name: found[name] for name in product_ids if name in found}

    def forget(self, product_ids: Sequence[str]) -> None:
        """Remove the texts and pictures of these products from items, and the reasons of requests about them.

        Answers, values and names stay, for the numbers of the audits. Raises TemporaryFailure where the review page
        reads the file at this moment, so that the old texts are still in it.
        """
        with self._lock:
            self._connection.execute("PRAGMA secure_delete = ON")  # else the bytes stay in free pages of the file
            with self._writing():
                for table, kept in _FORGOTTEN.items():
                    names = ", ".join(f"{name} = ?" for name in kept)
                    self._connection.executemany(
                        f"UPDATE {table} SET {names} WHERE product_id = ?",
                        [(*kept.values(), product_id) for product_id in product_ids],
                    )
            if self._rows("PRAGMA wal_checkpoint(TRUNCATE)")[0]["busy"]:
                raise TemporaryFailure(
                    f"the review store {self.path} is being read, so that its log still has the texts: run again"
                )

    # verdicts

    def add_verdict(self, verdict: Verdict, request: ChangeRequest | None = None, by_manager: bool = False) -> bool:
        """Keep a verdict; False if the person's verdict on the item is the same already.

        ``request``: kept with the verdict, or neither is; ``by_manager``: may change what is settled. Raises
        DataContractError for an unknown item, for what cannot be a verdict (:meth:`Verdict.check`), for an item that
        has its verdicts (:meth:`_check_open`), for an adjudicator who judged the item before, and for an adjudication
        of an item that is open.
        """
        with self._writing():
            item = self.item(verdict.item_id)
            sample = self.sample(item.sample_id)
            verdict.check(item, sample.purpose)
            counting = self.verdicts_of(verdict.item_id)
            person = person_key(verdict.reviewer)
            mine = [known for known in counting if person_key(known.reviewer) == person]
            same_role = [known for known in mine if known.adjudicates == verdict.adjudicates]
            if any(known.content == verdict.content for known in same_role):
                return False
            if verdict.adjudicates:
                self._check_adjudication(sample, verdict, counting)
            elif mine and not same_role:
                raise DataContractError(
                    f"{verdict.reviewer} adjudicated the item {verdict.item_id} and has seen the others' verdicts: "
                    "another person reviews it"
                )
            if not by_manager:
                self._check_open(sample, counting, same_role, verdict.adjudicates)
            row = to_row(verdict) | {"reviewer": person_name(verdict.reviewer), "person": person}
            self._insert("verdicts", row)
            self._withdraw_requests(verdict.item_id, person)
            if request is not None:
                self.add_request(request)
        return True

    def _check_adjudication(self, sample: ReviewSample, verdict: Verdict, counting: Sequence[Verdict]) -> None:
        person = person_key(verdict.reviewer)
        if any(not known.adjudicates and person_key(known.reviewer) == person for known in counting):
            raise DataContractError(
                f"{verdict.reviewer} judged the item {verdict.item_id}: another person adjudicates what is disputed"
            )
        if state_of(sample.reviewers, counting)[0] is ItemState.OPEN:
            raise DataContractError(f"the item {verdict.item_id} is open, not disputed: there is nothing to adjudicate")

    def _check_open(
        self, sample: ReviewSample, counting: Sequence[Verdict], own: Sequence[Verdict], adjudicates: bool = False
    ) -> None:
        """Raise DataContractError for a person who may not change the verdicts on an item any more.

        ``counting``: the verdicts on it; ``own``: the person's among them, in the role of the change. A settled item
        stays settled; only a verdict of the last :data:`CORRECTED_WITHIN`, a mistyped key, and an answer to a
        suggestion are changed by the person who gave them. A disputed item takes no verdicts but an adjudicator's.
        """
        state, _ = state_of(sample.reviewers, counting)
        if state is ItemState.OPEN or (state is ItemState.DISPUTED and (adjudicates or own)):
            return
        is_new = any(abs(datetime.now(UTC) - known.answered_at) <= CORRECTED_WITHIN for known in own)
        if is_new or (own and sample.purpose is Purpose.SUGGESTIONS):
            return
        what = "an adjudicator decides" if state is ItemState.DISPUTED else "only a manager may change that"
        raise DataContractError(f"the item {counting[0].item_id} is {state.value} by now: {what}")

    def withdraw_verdict(
        self, item_id: str, reviewer: str, at: datetime | None = None, by_manager: bool = False
    ) -> bool:
        """Withdraw the person's newest verdict on the item, and the request that came with it if it still waits.

        An older verdict of the person counts again. False if there is none. Raises DataContractError for a settled
        item, as :meth:`add_verdict`.
        """
        person = person_key(reviewer)
        with self._writing():
            counting = self.verdicts_of(item_id)
            own = [known for known in counting if person_key(known.reviewer) == person]
            if own and not by_manager:
                self._check_open(self.sample(self.item(item_id).sample_id), counting, own)
            changed = self._connection.execute(
                "UPDATE verdicts SET withdrawn_at = ? WHERE verdict_id = (SELECT max(verdict_id) FROM verdicts "
                "WHERE item_id = ? AND person = ? AND withdrawn_at IS NULL)",
                (as_text(at or datetime.now(UTC)), item_id, person),
            ).rowcount
            self._withdraw_requests(item_id, person)
        return changed > 0

    def withdraw_answer(self, item_id: str, reviewer: str) -> bool:
        """Withdraw the person's answer to a suggestion, so that it is asked again; False if there is none.

        The newest of several answers is withdrawn, and the older answers, too, unless an answer was applied: their
        requests are gone.
        """
        with self._writing():
            found = self.withdraw_verdict(item_id, reviewer)
            while not self.applied_answers(item_id, reviewer) and self.withdraw_verdict(item_id, reviewer):
                pass
        return found

    def verdicts(self, sample_id: str) -> dict[str, list[Verdict]]:
        """Return item id -> the verdicts that count, oldest first; items without a verdict are left out."""
        return dict(self._counting("i.sample_id = ?", sample_id))

    def verdicts_of(self, item_id: str) -> list[Verdict]:
        """Return the verdicts on an item that count, oldest first."""
        return self._counting("v.item_id = ?", item_id)[item_id]

    def outcomes(self, sample_id: str) -> list[ItemOutcome]:
        """Return the outcome of every item of the sample. Raises DataContractError for an unknown sample."""
        reviewers = self.sample(sample_id).reviewers
        counting = self._counting("i.sample_id = ?", sample_id)
        return [outcome_of(item, reviewers, counting.get(item.item_id, [])) for item in self.items(sample_id)]

    def newest_verdict(self, sample_id: str, reviewer: str, adjudicates: bool = False) -> Verdict | None:
        """Return the person's newest verdict in the sample as a reviewer, or as an adjudicator; None without one."""
        rows = self._rows(
            "SELECT c.* FROM counting c JOIN items i USING (item_id) WHERE i.sample_id = ? AND c.person = ? "
            "AND c.adjudicates = ? ORDER BY c.verdict_id DESC LIMIT 1",
            *(sample_id, person_key(reviewer), int(adjudicates)),
        )
        return read(Verdict, rows[0]) if rows else None

    def _counting(self, condition: str, value: str) -> defaultdict[str, list[Verdict]]:
        """Return item id -> the verdicts that count, in the order in which they came, where ``condition`` holds."""
        rows = self._rows(
            f"SELECT v.* FROM counting v JOIN items i USING (item_id) WHERE {condition} ORDER BY v.verdict_id", value
        )
        found: defaultdict[str, list[Verdict]] = defaultdict(list)
        for row in rows:
            found[row["item_id"]].append(read(Verdict, row))
        return found

    # the next questions

    def queue(self, sample_id: str, reviewer: str, limit: int = 1, shop_id: str = "") -> list[Item]:
        """Return the next items for a person: those with too few verdicts and none of the person.

        First come items that others have begun, so that items get settled; the rest in an order of the person's own, so
        that several people seldom judge the same item at the same moment, with the items about a product after each
        other. The order stays the same from call to call.
        """
        reviewers, person = self.sample(sample_id).reviewers, person_key(reviewer)
        rows = self._rows(
            "SELECT i.item_id, i.product_id, i.position, count(c.verdict_id) AS given, "
            "coalesce(max(c.adjudicates), 0) AS adjudicated, "
            "coalesce(max(c.person = ?), 0) AS mine FROM items i LEFT JOIN counting c USING (item_id) "
            "WHERE i.sample_id = ? AND (? = '' OR i.shop_id = ?) GROUP BY i.item_id",
            *(person, sample_id, shop_id, shop_id),
        )
        wanted = [row for row in rows if not row["mine"] and not row["adjudicated"] and row["given"] < reviewers]
        wanted.sort(key=lambda row: (-row["given"], stable_hash(person, row["product_id"]), row["position"]))
        return [self.item(row["item_id"]) for row in wanted[:limit]]

    def progress(self, sample_id: str, reviewer: str = "", shop_id: str = "") -> Progress:
        """Return the progress; with ``shop_id`` for this shop's items only. Does not read the items' texts: the page
        asks for it with every verdict."""
        reviewers, person = self.sample(sample_id).reviewers, person_key(reviewer) if reviewer else ""
        counting = self._counting("i.sample_id = ?", sample_id)
        ids = self._rows(
            "SELECT item_id FROM items WHERE sample_id = ? AND (? = '' OR shop_id = ?)", sample_id, shop_id, shop_id
        )
        of_items = [counting.get(row["item_id"], []) for row in ids]
        states = [state_of(reviewers, verdicts)[0] for verdicts in of_items]
        mine = [any(person_key(verdict.reviewer) == person for verdict in verdicts) for verdicts in of_items]
        return Progress(
            items=len(of_items),
            open=states.count(ItemState.OPEN),
            disputed=states.count(ItemState.DISPUTED),
            settled=states.count(ItemState.SETTLED),
            mine=sum(mine),
            left=sum(state is ItemState.OPEN and not own for state, own in zip(states, mine, strict=True)),
        )

    # requests

    def add_request(self, request: ChangeRequest) -> int:
        """Keep a request for the next job; return its id. Raises DataContractError for what is no name."""
        row = to_row(request) | {"by": person_name(request.by)}
        del row["request_id"]
        with self._writing():
            return self._insert("requests", row)

    def requests(self, after: int = 0, state: RequestState | None = None) -> list[ChangeRequest]:
        """Return the requests with an id above ``after``, oldest first; only those in ``state``, if given."""
        return self._requests("request_id > ? AND (? IS NULL OR state = ?)", after, state, state)

    def requests_about(self, product_id: str) -> list[ChangeRequest]:
        """Return the requests about a product, oldest first."""
        return self._requests("product_id = ?", product_id)

    def applied_answers(self, item_id: str, person: str = "") -> list[ChangeRequest]:
        """Return the applied requests of a suggestion's answers, oldest first; of all people, or of ``person``."""
        found = self._requests("item_id = ? AND item_id != '' AND state = ?", item_id, RequestState.APPLIED.value)
        return [request for request in found if not person or person_key(request.by) == person_key(person)]

    def mark_applied(
        self,
        request_id: int,
        outcome: str,
        at: datetime,
        state: RequestState = RequestState.APPLIED,
        run_id: str = "",
    ) -> bool:
        """Note what became of a waiting request; False, and nothing changes, if it waits no more.

        ``state``: REFUSED where it cannot be done, WITHDRAWN where the person withdrew it. ``run_id``: the run that
        wrote a set, for :attr:`ChangeRequest.run_id`.
        """
        with self._writing():
            changed = self._connection.execute(
                "UPDATE requests SET state = ?, outcome = ?, ended_at = ?, run_id = CASE ? WHEN '' THEN run_id ELSE ? "
                "END WHERE request_id = ? AND state = ?",
                (state.value, outcome, as_text(at), run_id, run_id, request_id, RequestState.WAITING.value),
            ).rowcount
        return changed > 0

    def withdraw_request(self, request_id: int, by: str) -> bool:
        """Withdraw a waiting request, and the answer to a suggestion that it came with; False if it waits no more."""
        with self._writing():
            now = datetime.now(UTC)
            if not self.mark_applied(request_id, f"taken back by {by}", now, RequestState.WITHDRAWN):
                return False
            (request,) = self._requests("request_id = ?", request_id)
            if request.item_id:
                self.withdraw_answer(request.item_id, request.by)
        return True

    def _withdraw_requests(self, item_id: str, person: str) -> None:
        for request in self._requests("item_id = ? AND state = ?", item_id, RequestState.WAITING.value):
            if person_key(request.by) == person:
                self.mark_applied(request.request_id, "", datetime.now(UTC), RequestState.WITHDRAWN)

    def _requests(self, condition: str, *values: str | int | None) -> list[ChangeRequest]:
        rows = self._rows(f"SELECT * FROM requests WHERE {condition} ORDER BY request_id", *values)
        return [read(ChangeRequest, row) for row in rows]
