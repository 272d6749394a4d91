"""Agreement of reviewers: raw, and Cohen's kappa against figures worked out by hand."""

from __future__ import annotations

import pytest

from catalog_enrichment.audit.review_records import Answer, Verdict, agreement

from .review_samples import item, verdict


def _pairs(*answers: tuple[Answer, Answer]) -> dict[str, list[Verdict]]:
    return {
        str(number): [verdict(item(number), name, answer) for name, answer in zip(("Ana", "Ben"), pair, strict=True)]
        for number, pair in enumerate(answers)
    }


def test_kappa_of_a_worked_example() -> None:
    """Of 10 pairs 8 agree; 12 of 20 answers are yes and 8 no: by chance .36 + .16 = .52, (.8 - .52) / .48."""
    verdicts = _pairs(*[(Answer.YES, Answer.YES)] * 5, *[(Answer.NO, Answer.NO)] * 3, *[(Answer.YES, Answer.NO)] * 2)
    found = agreement(verdicts)
    assert (found.pairs, found.agreeing, found.raw) == (10, 8, 0.8)
    assert found.kappa == pytest.approx((0.8 - 0.52) / 0.48)


def test_single_verdicts_and_adjudicators_make_no_pair() -> None:
    one = item(1)
    verdicts = [verdict(one, "Ana"), verdict(one, "Eve", Answer.NO, adjudicates=True)]
    found = agreement({one.item_id: verdicts, "x": [verdict(item(2), "Ana")]})
    assert (found.pairs, found.raw, found.kappa) == (0, None, None)


def test_kappa_is_not_known_where_everybody_says_the_same() -> None:
    found = agreement(_pairs((Answer.YES, Answer.YES), (Answer.YES, Answer.YES)))
    assert (found.raw, found.kappa) == (1.0, None)


def test_three_reviewers_make_three_pairs() -> None:
    one = item(1)
    found = agreement({"1": [verdict(one, "A"), verdict(one, "B"), verdict(one, "C", Answer.OTHER, "Blue")]})
    assert (found.pairs, found.agreeing) == (3, 1)
