"""The review store: one SQLite file with what reviewers are asked and what they answer.

The page's server and jobs use it at the same time, from several processes and threads of one machine. It is in
write-ahead mode, which needs a local disk: SQLite does not support it on a network file system. Rows are never changed
or deleted but for a verdict's time of withdrawal and a request's end, so that every answer stays known.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from catalog_enrichment.audit import review_rows
from catalog_enrichment.audit.items import Item, ItemState, Outcome, Sample, Verdict
from catalog_enrichment.audit.review_file import ReviewFile
from catalog_enrichment.audit.review_outcomes import outcome_of, said, state_of
from catalog_enrichment.audit.review_requests import Request, RequestState
from catalog_enrichment.errors import DataContractError
from catalog_enrichment.records import stable_hash


@dataclass(frozen=True, slots=True)
class Progress:
    """Of one sample, and of one person in it."""

    items: int
    open: int
    disputed: int
    settled: int
    mine: int
    """Items that the person judged."""
    left: int
    """Items that still need the person's verdict or another one's."""


class ReviewStore(ReviewFile):
    """The store in the file ``path``, made with its folder if it is not there. For several threads and processes.

    Raises DataContractError for a file that is no review store or one of another version, and TemporaryFailure where
    the file is locked, the disk is full or the storage does not answer.
    """

    # samples and items

    def add_sample(self, sample: Sample, items: Sequence[Item]) -> bool:
        """Add a sample with its items; False, and nothing changes, if it is there already with the same items.

        Raises DataContractError if it is there with other items, and for items that are not the sample's or repeat.
        """
        review_rows.check_sample(sample, items)
        with self._writing():
            known = {
                row["item_id"] for row in self._rows("SELECT item_id FROM items WHERE sample_id = ?", sample.sample_id)
            }
            if self._rows("SELECT 1 FROM samples WHERE sample_id = ?", sample.sample_id):
                if known == {item.item_id for item in items}:
                    return False
                raise DataContractError(
                    f"{self.path}: the sample {sample.sample_id} is there with {len(known)} other items. Nothing was "
                    "written; draw the new sample under a new id"
                )
            self._connection.execute(
                "INSERT INTO samples VALUES (?, ?, ?, ?, ?)",
                (
                    sample.sample_id,
                    sample.purpose.value,
                    review_rows.text(sample.drawn_at),
                    sample.reviewers,
                    sample.title,
                ),
            )
            self._connection.executemany(
                f"INSERT INTO items ({', '.join(review_rows.OF_ITEM)}, position) VALUES ({', '.join('?' * 13)})",
                [(*review_rows.item_row(item), position) for position, item in enumerate(items)],
            )
        return True

    def samples(self) -> list[Sample]:
        """All samples, newest first."""
        return [
            review_rows.sample(row) for row in self._rows("SELECT * FROM samples ORDER BY drawn_at DESC, sample_id")
        ]

    def sample(self, sample_id: str) -> Sample:
        """Raises DataContractError if there is none of this id."""
        for row in self._rows("SELECT * FROM samples WHERE sample_id = ?", sample_id):
            return review_rows.sample(row)
        raise DataContractError(
            f"{self.path} has no sample {sample_id!r}; it has {[s.sample_id for s in self.samples()]}"
        )

    def items(self, sample_id: str) -> list[Item]:
        """In the order in which they were added. Raises DataContractError for an unknown sample."""
        self.sample(sample_id)
        return [
            review_rows.item(row)
            for row in self._rows("SELECT * FROM items WHERE sample_id = ? ORDER BY position", sample_id)
        ]

    def item(self, item_id: str) -> Item:
        """Raises DataContractError if there is none of this id."""
        for row in self._rows("SELECT * FROM items WHERE item_id = ?", item_id):
            return review_rows.item(row)
        raise DataContractError(f"{self.path} has no item {item_id!r}: it was not drawn into this store")

    # verdicts

    def add_verdict(self, verdict: Verdict, request: Request | None = None) -> bool:
        """Keep a verdict; False if the person's verdict on the item is the same already.

        ``request``: kept with it, or not at all. Raises DataContractError for an unknown item, right values that the
        answer or the attribute cannot have, a name that is blank, an adjudicator who judged the item before, and an
        adjudication of an item that is not disputed.
        """
        with self._writing():
            item = self.item(verdict.item_id)
            review_rows.check_verdict(verdict, item, self.sample(item.sample_id).purpose)
            counting = self.verdicts_of(verdict.item_id)
            mine = [
                one
                for one in counting
                if review_rows.person_key(one.reviewer) == review_rows.person_key(verdict.reviewer)
            ]
            same_role = [one for one in mine if one.adjudicates == verdict.adjudicates]
            if any(said(one) == said(verdict) for one in same_role):
                return False
            if verdict.adjudicates:
                self._check_adjudication(item, verdict, counting)
            elif mine and not same_role:
                raise DataContractError(
                    f"{verdict.reviewer} adjudicated the item {verdict.item_id} and has seen the others' verdicts: "
                    "another person reviews it"
                )
            self._connection.execute(
                "INSERT INTO verdicts (item_id, reviewer, person, answer, right_values, adjudicates, answered_at, "
                "seconds) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(
                        verdict.item_id,
                        review_rows.plain_name(verdict.reviewer),
                        review_rows.person_key(verdict.reviewer),
                    ),
                    *(verdict.answer.value, json.dumps(verdict.right_values, ensure_ascii=False)),
                    *(int(verdict.adjudicates), review_rows.text(verdict.answered_at), float(verdict.seconds)),
                ),
            )
            self._withdraw_requests(verdict.item_id, verdict.reviewer)
            if request is not None:
                self.add_request(request)
        return True

    def withdraw_verdict(self, item_id: str, reviewer: str, at: datetime | None = None) -> bool:
        """Take back the person's newest verdict on the item, and the request that came with it if it still waits; an
        older verdict of the person counts again. False if there is none."""
        with self._writing():
            changed = self._connection.execute(
                "UPDATE verdicts SET withdrawn_at = ? WHERE verdict_id = (SELECT max(verdict_id) FROM verdicts "
                "WHERE item_id = ? AND person = ? AND withdrawn_at IS NULL)",
                (review_rows.text(at or datetime.now(UTC)), item_id, review_rows.person_key(reviewer)),
            ).rowcount
            self._withdraw_requests(item_id, reviewer)
        return changed > 0

    def withdraw_answer(self, item_id: str, reviewer: str) -> bool:
        """Take back the person's answer to a suggestion, so that it is asked again; False if there is none.

        Of several answers the newest one; the older ones, too, unless one was applied: their requests are gone.
        """
        with self._writing():
            found = self.withdraw_verdict(item_id, reviewer)
            while not self.applied_answers(item_id, reviewer) and self.withdraw_verdict(item_id, reviewer):
                pass
        return found

    def verdicts(self, sample_id: str) -> dict[str, list[Verdict]]:
        """Item id -> the verdicts that count, oldest first; items without one are left out."""
        return dict(self._counting("i.sample_id = ?", sample_id))

    def verdicts_of(self, item_id: str) -> list[Verdict]:
        """The verdicts on one item that count, oldest first."""
        return self._counting("v.item_id = ?", item_id)[item_id]

    def outcomes(self, sample_id: str) -> list[Outcome]:
        """Every item of the sample and what its verdicts come to. Raises DataContractError for an unknown sample."""
        reviewers = self.sample(sample_id).reviewers
        counting = self._counting("i.sample_id = ?", sample_id)
        return [outcome_of(item, reviewers, counting.get(item.item_id, [])) for item in self.items(sample_id)]

    def outcome(self, item_id: str) -> Outcome:
        """Of one item."""
        item = self.item(item_id)
        return outcome_of(item, self.sample(item.sample_id).reviewers, self.verdicts_of(item_id))

    def newest_of(self, sample_id: str, reviewer: str, limit: int = 1, adjudicates: bool = False) -> list[Verdict]:
        """The person's newest verdicts in the sample as a reviewer, or as an adjudicator; newest first."""
        rows = self._rows(
            "SELECT c.* FROM counting c JOIN items i USING (item_id) WHERE i.sample_id = ? AND c.person = ? "
            "AND c.adjudicates = ? ORDER BY c.verdict_id DESC LIMIT ?",
            *(sample_id, review_rows.person_key(reviewer), int(adjudicates), limit),
        )
        return [review_rows.verdict(row) for row in rows]

    # what to ask next

    def queue(self, sample_id: str, reviewer: str, limit: int = 1, shop_id: str = "") -> list[Item]:
        """The next items for a person: those that the person has not judged and that have too few verdicts.

        First those that others have begun, so that items get settled; the rest in an order of the person's own, so that
        several people seldom judge the same item at the same moment, with the items about one product after each
        other. The order stays the same from call to call.
        """
        reviewers = self.sample(sample_id).reviewers
        person = review_rows.person_key(reviewer)
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
        """``shop_id``: of this shop's items alone. Asked for with every verdict: the items' texts are not read."""
        reviewers, person = self.sample(sample_id).reviewers, review_rows.person_key(reviewer)
        counting = self._counting("i.sample_id = ?", sample_id)
        ids = self._rows(
            "SELECT item_id FROM items WHERE sample_id = ? AND (? = '' OR shop_id = ?)", sample_id, shop_id, shop_id
        )
        of_items = [counting.get(row["item_id"], []) for row in ids]
        states = [state_of(reviewers, verdicts)[0] for verdicts in of_items]
        mine = [any(review_rows.person_key(one.reviewer) == person for one in verdicts) for verdicts in of_items]
        return Progress(
            items=len(of_items),
            open=states.count(ItemState.OPEN),
            disputed=states.count(ItemState.DISPUTED),
            settled=states.count(ItemState.SETTLED),
            mine=sum(mine),
            left=sum(state is ItemState.OPEN and not own for state, own in zip(states, mine, strict=True)),
        )

    # requests

    def add_request(self, request: Request) -> int:
        """Keep a request for the next job; returns its id."""
        if not request.by.strip():
            raise DataContractError("a request needs the name of the person who asks")
        with self._writing():
            cursor = self._connection.execute(
                'INSERT INTO requests (kind, product_id, attribute, "values", run_id, "by", reason, asked_at, item_id, '
                "state, outcome) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, '')",
                (
                    *(request.kind.value, request.product_id, request.attribute, json.dumps(request.values)),
                    *(
                        request.run_id,
                        review_rows.plain_name(request.by),
                        request.reason,
                        review_rows.text(request.asked_at),
                    ),
                    *(request.item_id, RequestState.WAITING.value),
                ),
            )
        return int(cursor.lastrowid or 0)

    def requests(self, after: int = 0, state: RequestState | None = None) -> list[Request]:
        """Requests with an id above ``after``, oldest first; of one ``state``, if given."""
        rows = self._rows(
            "SELECT * FROM requests WHERE request_id > ? AND (? IS NULL OR state = ?) ORDER BY request_id",
            *(after, state, state),
        )
        return [review_rows.request(row) for row in rows]

    def requests_about(self, product_id: str) -> list[Request]:
        """Everything that was asked about a product, oldest first."""
        rows = self._rows("SELECT * FROM requests WHERE product_id = ? ORDER BY request_id", product_id)
        return [review_rows.request(row) for row in rows]

    def applied_answers(self, item_id: str, person: str = "") -> list[Request]:
        """The requests that a suggestion's answers were and that a job has applied, oldest first; of one person or of
        all."""
        rows = self._rows(
            "SELECT * FROM requests WHERE item_id = ? AND item_id != '' AND state = ? ORDER BY request_id",
            *(item_id, RequestState.APPLIED.value),
        )
        found = [review_rows.request(row) for row in rows]
        return [one for one in found if not person or review_rows.person_key(one.by) == review_rows.person_key(person)]

    def mark_applied(
        self,
        request_id: int,
        outcome: str,
        at: datetime,
        state: RequestState = RequestState.APPLIED,
        run_id: str = "",
    ) -> bool:
        """Note what became of a waiting request; False, and nothing changes, if it waits no more.

        ``state``: REFUSED where it cannot be done, WITHDRAWN where the person took it back. ``run_id``: of the run that
        wrote a set, for :attr:`Request.run_id`.
        """
        with self._writing():
            changed = self._connection.execute(
                "UPDATE requests SET state = ?, outcome = ?, ended_at = ?, run_id = CASE ? WHEN '' THEN run_id ELSE ? "
                "END WHERE request_id = ? AND state = ?",
                (
                    *(state.value, outcome, review_rows.text(at), run_id, run_id),
                    *(request_id, RequestState.WAITING.value),
                ),
            ).rowcount
        return changed > 0

    def withdraw_request(self, request_id: int, by: str) -> bool:
        """Take back a waiting request, and the answer to a suggestion that it came with; False if it waits no more."""
        with self._writing():
            now = datetime.now(UTC)
            if not self.mark_applied(request_id, f"taken back by {by}", now, RequestState.WITHDRAWN):
                return False
            (row,) = self._rows("SELECT * FROM requests WHERE request_id = ?", request_id)
            request = review_rows.request(row)
            if request.item_id:
                self.withdraw_answer(request.item_id, request.by)
        return True

    def _withdraw_requests(self, item_id: str, reviewer: str) -> None:
        for request in self.requests(state=RequestState.WAITING):
            if request.item_id == item_id and review_rows.person_key(request.by) == review_rows.person_key(reviewer):
                self.mark_applied(request.request_id, "", datetime.now(UTC), RequestState.WITHDRAWN)

    # checks and rows

    def _check_adjudication(self, item: Item, verdict: Verdict, counting: Sequence[Verdict]) -> None:
        if any(
            not one.adjudicates and review_rows.person_key(one.reviewer) == review_rows.person_key(verdict.reviewer)
            for one in counting
        ):
            raise DataContractError(
                f"{verdict.reviewer} judged the item {item.item_id}: another person adjudicates what is disputed"
            )
        outcome = outcome_of(item, self.sample(item.sample_id).reviewers, counting)
        if outcome.state is not ItemState.DISPUTED and not any(one.adjudicates for one in counting):
            raise DataContractError(
                f"the item {item.item_id} is {outcome.state.value}, not disputed: there is nothing to adjudicate"
            )

    def _counting(self, condition: str, value: str) -> defaultdict[str, list[Verdict]]:
        """Item id -> the verdicts that count, in the order in which they came. ``condition`` is text of this file."""
        rows = self._rows(
            f"SELECT v.* FROM counting v JOIN items i USING (item_id) WHERE {condition} ORDER BY v.verdict_id", value
        )
        found: defaultdict[str, list[Verdict]] = defaultdict(list)
        for row in rows:
            found[row["item_id"]].append(review_rows.verdict(row))
        return found
