"""What the verdicts about an item come to, and how far reviewers agree. Pure functions; the store reads the rows.

Two verdicts agree if answer and right values are the same. "No" and "no, the right value is Blue" do not: a right value
becomes a person's value in the catalog, so two people have to say it, or an adjudicator.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from catalog_enrichment.audit.items import Item, ItemState, Outcome, Verdict


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """How far pairs of reviewers agree, over the items that both judged; adjudicators are not counted."""

    pairs: int
    """Pairs of verdicts about the same item."""
    agreeing: int
    kappa: float | None
    """Cohen's kappa over answer and right values: 1 is full agreement, 0 what chance gives. None without pairs, and
    where every verdict is the same: chance alone would then give full agreement."""

    @property
    def raw(self) -> float | None:
        """Share of agreeing pairs."""
        return self.agreeing / self.pairs if self.pairs else None


def said(verdict: Verdict) -> tuple[str, ...]:
    """Answer and right values, in an order of their own: equal for verdicts that agree."""
    return (verdict.answer.value, *sorted(verdict.right_values))


def outcome_of(item: Item, reviewers: int, verdicts: Sequence[Verdict]) -> Outcome:
    """``verdicts``: those that count, at most one per person and role, in order of time; ``reviewers``: how many the
    sample asks for."""
    state, settling = state_of(reviewers, verdicts)
    return Outcome(
        item=item,
        state=state,
        answer=settling.answer if settling else None,
        right_values=tuple(sorted(settling.right_values)) if settling else (),
        reviewers=tuple(verdict.reviewer for verdict in verdicts),
        settled_at=settling.answered_at if settling else None,
    )


def state_of(reviewers: int, verdicts: Sequence[Verdict]) -> tuple[ItemState, Verdict | None]:
    """The state of an item, and the verdict that settles it; arguments as of :func:`outcome_of`."""
    by_reviewers = [verdict for verdict in verdicts if not verdict.adjudicates]
    by_adjudicators = [verdict for verdict in verdicts if verdict.adjudicates]
    if by_adjudicators:
        return ItemState.SETTLED, by_adjudicators[-1]
    if len(by_reviewers) < reviewers:
        return ItemState.OPEN, None
    if len({said(verdict) for verdict in by_reviewers}) == 1:
        return ItemState.SETTLED, by_reviewers[-1]
    return ItemState.DISPUTED, None


def agreement(verdicts: Mapping[str, Sequence[Verdict]]) -> Agreement:
    """Over all pairs of reviewers of each item (item id -> the verdicts that count).

    Cohen 1960, with one distribution of answers for all reviewers (Scott's pi, Fleiss 1971, for two raters): the people
    behind the first and the second verdict change from item to item.
    """
    pairs = [
        (said(one), said(other))
        for of_item in verdicts.values()
        for one, other in _pairs([verdict for verdict in of_item if not verdict.adjudicates])
    ]
    agreeing = sum(one == other for one, other in pairs)
    return Agreement(pairs=len(pairs), agreeing=agreeing, kappa=_kappa(pairs, agreeing))


def _kappa(pairs: Sequence[tuple[tuple[str, ...], tuple[str, ...]]], agreeing: int) -> float | None:
    counts = Counter(answer for pair in pairs for answer in pair)
    total = sum(counts.values())
    by_chance = sum((count / total) ** 2 for count in counts.values()) if total else 1.0
    return None if by_chance >= 1 else (agreeing / len(pairs) - by_chance) / (1 - by_chance)


def _pairs(verdicts: Sequence[Verdict]) -> Iterable[tuple[Verdict, Verdict]]:
    return ((verdicts[i], verdicts[j]) for j in range(len(verdicts)) for i in range(j))
