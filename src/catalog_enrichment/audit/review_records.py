"""The records of the review store: samples, items, people's verdicts and requests, and the outcome of an item.

Items say nothing about the score, the threshold or the stratum: a reviewer who sees them judges them, too. They have
the evidence of a proposed value, which a reviewer can check in the texts.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from itertools import combinations

from catalog_enrichment.errors import DataContractError
from catalog_enrichment.records import Cardinality, stable_hash


class Purpose(StrEnum):
    """The purpose of a sample."""

    AUDIT = "audit"
    """Written values: is the value right? Estimates of precision and alarms rest on these."""
    LABEL = "label"
    """Suggestions or abstentions: what is the right value? The answers become training labels."""
    SUGGESTIONS = "suggestions"
    """Suggestions to the manager of a shop, who accepts or refuses them."""
    GOLD = "gold"
    """Products without a merchant value, drawn uniformly: which value does each have, if any? The answers certify what
    models write for such products, and train nothing."""
    PROPOSALS = "proposals"
    """Proposals of one model version, drawn uniformly: is the value right? The answers certify the version's values."""


class Answer(StrEnum):
    YES = "yes"
    NO = "no"
    """The value is wrong; the right value is not said."""
    OTHER = "other"
    """The value is wrong, and ``right_values`` say what is right."""
    NONE = "none"
    """The product has no value of the attribute, as a perfume has no colour; a value that was asked about is wrong."""
    CANNOT_TELL = "cannot_tell"


class ItemState(StrEnum):
    OPEN = "open"
    """Fewer verdicts than the sample asks for."""
    DISPUTED = "disputed"
    """The verdicts differ: an adjudicator decides."""
    SETTLED = "settled"


@dataclass(frozen=True, kw_only=True, slots=True)
class ReviewSample:
    sample_id: str
    purpose: Purpose
    drawn_at: datetime
    """UTC."""
    reviewers: int
    """Verdicts of different people that an item needs; where they differ, an adjudicator gives another."""
    title: str
    """A description of the population, for people."""

    def check(self, items: Sequence[Item]) -> None:
        """Raise DataContractError for items of another sample, repeated items, and a number of reviewers below 1."""
        if self.reviewers < 1:
            raise DataContractError(f"sample {self.sample_id}: reviewers must be 1 or more, not {self.reviewers}")
        if others := sorted({item.sample_id for item in items} - {self.sample_id}):
            raise DataContractError(f"sample {self.sample_id}: items of other samples: {others[:3]}")
        if len({item.item_id for item in items}) < len(items):
            raise DataContractError(f"sample {self.sample_id}: an item is there twice (product, attribute and value)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """A question about a product, an attribute and a value."""

    item_id: str
    sample_id: str
    product_id: str
    shop_id: str
    title: str
    description: str
    category: str
    language: str
    images: tuple[tuple[str, str], ...]
    """(uri, version) of each picture, as in the products table; the uri is empty for a picture from the feed."""
    attribute: str
    cardinality: Cardinality
    value: str
    """The value asked about; empty: the model had none, the reviewer is asked for it."""
    evidence: str = ""
    """Where the value comes from, as the proposer says; empty if it does not say it, and where none is asked about."""

    @staticmethod
    def id_of(sample_id: str, product_id: str, attribute: str, value: str) -> str:
        return stable_hash(sample_id, product_id, attribute, value)[:32]


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """A person's answer to an item; the newest verdict of a person counts."""

    item_id: str
    reviewer: str
    answer: Answer
    right_values: tuple[str, ...] = ()
    """A value of the dictionary; only with :attr:`Answer.OTHER`."""
    adjudicates: bool = False
    """An adjudicator's verdict: it settles the item, whatever the others said."""
    answered_at: datetime
    """UTC."""
    seconds: float
    """The time that the person looked at the item."""

    @property
    def content(self) -> tuple[str, ...]:
        """Answer and right values, sorted: equal for verdicts that agree.

        "No" and "no, the right value is Blue" do not agree: a right value becomes a person's value in the catalog, so
        two people have to say it, or an adjudicator.
        """
        return (self.answer.value, *sorted(self.right_values))

    def check(self, item: Item, purpose: Purpose) -> None:
        """Raise DataContractError for what cannot be a verdict on ``item`` of a sample with this ``purpose``."""
        values = self.right_values
        person_name(self.reviewer)
        if bool(values) != (self.answer is Answer.OTHER):
            raise DataContractError(
                f"the answer {self.answer.value!r} came with the right values {list(values)}: exactly the answer "
                f"{Answer.OTHER.value!r} has some"
            )
        if item.cardinality is Cardinality.ONE and len(values) > 1:
            raise DataContractError(
                f"{item.attribute} has one value per product, and these are {len(values)}: {list(values)}"
            )
        if not item.value and self.answer is Answer.YES:
            raise DataContractError(f"item {item.item_id} asks for the value and names none: it cannot be called right")
        if purpose is Purpose.GOLD and self.answer is Answer.NO:
            raise DataContractError(
                f"item {item.item_id} of a gold sample asks for the value: answer {Answer.OTHER.value!r} with the "
                f"right values, {Answer.NONE.value!r} if the product has none, or {Answer.CANNOT_TELL.value!r}, also "
                "if the dictionary lacks the right value"
            )
        if len(set(values)) < len(values) or item.value in values:
            raise DataContractError(
                f"right values {list(values)} repeat a value, or are the value that was called wrong"
            )
        if not math.isfinite(self.seconds) or self.seconds < 0:
            raise DataContractError(f"seconds must be a number of 0 or more, not {self.seconds!r}")


# --- requests -------------------------------------------------------------------------------------------------------


class RequestKind(StrEnum):
    SET = "set"
    """``values`` are all the right values; none: the product has no value, and no model is to write one."""
    ACCEPT = "accept"
    """The suggested value in ``values`` is right. Where the merchant gives a value it changes in the merchant's feed
    only (I1)."""
    REFUSE = "refuse"
    """The suggested value in ``values`` is wrong: it is not written or suggested for this product again. What an
    ACCEPT or SET of the same suggestion wrote is undone."""
    UNDO = "undo"
    """Undo what ``run_id`` did to the attribute, by `rollback_run`. Only for a run in which a person set this single
    value, so that nothing else is undone with it."""


class RequestState(StrEnum):
    WAITING = "waiting"
    APPLIED = "applied"
    REFUSED = "refused"
    """It cannot be done; ``outcome`` says why."""
    WITHDRAWN = "withdrawn"
    """The person withdrew it before it was applied."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ChangeRequest:
    """A change of the catalog that a person asks for on the page.

    The page does not write to the catalog. One job at a time may (its write lock), an enrichment can hold that lock for
    hours, and a change needs Spark: a person who clicks would wait, or be refused. So a request is kept in the review
    store and applied by the job apply_requests, which a scheduler starts every few minutes, and the page says so.
    """

    kind: RequestKind
    product_id: str
    attribute: str
    values: tuple[str, ...] = ()
    run_id: str = ""
    """For UNDO: the run to undo. For an applied ACCEPT or SET: the run that wrote the set; empty if none had to."""
    by: str
    """The person's name."""
    reason: str = ""
    asked_at: datetime
    """UTC."""
    item_id: str = ""
    """The suggestion (an item of a sample of suggestions) that ACCEPT, REFUSE or SET answers."""
    request_id: int = 0
    """Given by the store, growing."""
    state: RequestState = RequestState.WAITING
    outcome: str = ""
    """The outcome, for people."""
    ended_at: datetime | None = None


_OF_ANSWER = {
    Answer.YES: RequestKind.ACCEPT,
    Answer.NO: RequestKind.REFUSE,
    Answer.OTHER: RequestKind.SET,
    Answer.NONE: RequestKind.SET,
}
"""Answer to a suggestion -> kind of the request; "none" asks for a set without values, "cannot tell" for nothing."""


def request_of(sample: ReviewSample, item: Item, verdict: Verdict) -> ChangeRequest | None:
    """Return the request that an answer to a suggestion makes; None for other samples, and for "cannot tell"."""
    kind = _OF_ANSWER.get(verdict.answer)
    if sample.purpose is not Purpose.SUGGESTIONS or kind is None:
        return None
    return ChangeRequest(
        kind=kind,
        product_id=item.product_id,
        attribute=item.attribute,
        values=verdict.right_values if kind is RequestKind.SET else (item.value,),
        by=verdict.reviewer,
        asked_at=verdict.answered_at,
        item_id=item.item_id,
    )


# --- names, outcomes, agreement -------------------------------------------------------------------------------------


LONGEST_NAME = 80
"""Characters."""
_BLANK = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\ufe00-\ufe0f\U000e0100-\U000e01ef]")
"""Characters that show nothing, besides those of the Unicode categories C (control, format, not assigned) and Z."""


def person_name(given: str) -> str:
    """Return the name under which a person's verdicts and requests are kept, wherever it was given.

    It is in Unicode form NFKC, without characters that show nothing, with one space for each run of white space. Raises
    DataContractError if no character is left, or more than :data:`LONGEST_NAME`.
    """
    name = unicodedata.normalize("NFKC", given)
    shown = (char for char in name if char.isspace() or unicodedata.category(char)[0] != "C")
    name = " ".join(unicodedata.normalize("NFKC", _BLANK.sub("", "".join(shown))).split())
    if not name:
        raise DataContractError("give a name that can be read, so that others know whose verdict or request this is")
    if len(name) > LONGEST_NAME:
        raise DataContractError(
            f"the name {name[:20]!r}... has more than {LONGEST_NAME} characters: give a shorter name"
        )
    return name


def person_key(name: str) -> str:
    """Return a key that is equal for spellings of a name (:func:`person_name`) that differ in case only."""
    return unicodedata.normalize("NFKC", person_name(name).casefold())


@dataclass(frozen=True, kw_only=True, slots=True)
class ItemOutcome:
    """An item with the state and answer that follow from its verdicts."""

    item: Item
    state: ItemState
    answer: Answer | None
    """The settled answer; None before."""
    right_values: tuple[str, ...]
    reviewers: tuple[str, ...]
    """Everybody whose verdict counts, in order of time."""
    settled_at: datetime | None


def outcome_of(item: Item, reviewers: int, verdicts: Sequence[Verdict]) -> ItemOutcome:
    """Return the outcome of an item. Arguments as for :func:`state_of`."""
    state, settling = state_of(reviewers, verdicts)
    return ItemOutcome(
        item=item,
        state=state,
        answer=settling.answer if settling else None,
        right_values=tuple(sorted(settling.right_values)) if settling else (),
        reviewers=tuple(verdict.reviewer for verdict in verdicts),
        settled_at=settling.answered_at if settling else None,
    )


def state_of(reviewers: int, verdicts: Sequence[Verdict]) -> tuple[ItemState, Verdict | None]:
    """Return the state of an item, and the verdict that settles it.

    ``reviewers``: how many verdicts the sample asks for; ``verdicts``: those that count, at most one per person and
    role, in order of time.
    """
    by_reviewers = [verdict for verdict in verdicts if not verdict.adjudicates]
    by_adjudicators = [verdict for verdict in verdicts if verdict.adjudicates]
    if by_adjudicators:
        return ItemState.SETTLED, by_adjudicators[-1]
    if len(by_reviewers) < reviewers:
        return ItemState.OPEN, None
    if len({verdict.content for verdict in by_reviewers}) == 1:
        return ItemState.SETTLED, by_reviewers[-1]
    return ItemState.DISPUTED, None


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """The agreement of pairs of reviewers, over the items that both judged; adjudicators are not counted."""

    pairs: int
    """Pairs of verdicts about the same item."""
    agreeing: int
    kappa: float | None
    """Cohen's kappa over answer and right values: 1 is full agreement, 0 the agreement by chance. None without pairs,
    and where every verdict is the same: chance alone would then give full agreement."""

    @property
    def raw(self) -> float | None:
        """Share of agreeing pairs."""
        return self.agreeing / self.pairs if self.pairs else None


def agreement(verdicts: Mapping[str, Sequence[Verdict]]) -> Agreement:
    """Return the agreement over all pairs of reviewers of each item. ``verdicts``: item id -> the verdicts that count.

    Cohen 1960, with one distribution of answers for all reviewers (Scott's pi, Fleiss 1971, for two raters): the people
    behind the first and the second verdict change from item to item.
    """
    pairs = [
        (first.content, second.content)
        for of_item in verdicts.values()
        for first, second in combinations([verdict for verdict in of_item if not verdict.adjudicates], 2)
    ]
    agreeing = sum(first == second for first, second in pairs)
    counts = Counter(content for pair in pairs for content in pair)
    by_chance = sum((count / counts.total()) ** 2 for count in counts.values()) if pairs else 1.0
    kappa = None if by_chance >= 1 else (agreeing / len(pairs) - by_chance) / (1 - by_chance)
    return Agreement(pairs=len(pairs), agreeing=agreeing, kappa=kappa)
