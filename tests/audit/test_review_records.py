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
    """8 of 10 pairs agree; 12 of 20 answers are yes and 8 no: by chance .36 + .16 = .52, (.8 - .52) / .48."""
    verdicts = _pairs(*[(Answer.YES, Answer.YES)] * 5, *[(Answer.NO, Answer.NO)] * 3, *[(Answer.YES, Answer.NO)] * 2)
    found = agreement(verdicts)
    assert (found.pairs, found.agreeing, found.raw) == (10, 8, 0.8)
    assert found.kappa == pytest.approx((0.8 - 0.52) / 0.48)


def test_single_verdicts_and_adjudicators_make_no_pair() -> None:
    verdicts = [verdict(item(1), "Ana"), verdict(item(1), "Eve", Answer.NO, adjudicates=True)]
    found = agreement({"1": verdicts, "2": [verdict(item(2), "Ana")]})
    assert (found.pairs, found.raw, found.kappa) == (0, None, None)


def test_kappa_is_not_known_where_everybody_says_the_same() -> None:
    found = agreement(_pairs((Answer.YES, Answer.YES), (Answer.YES, Answer.YES)))
    assert (found.raw, found.kappa) == (1.0, None)


def test_three_reviewers_make_three_pairs() -> None:
    answers = (("A", Answer.YES), ("B", Answer.YES), ("C", Answer.OTHER, "Blue"))
    found = agreement({"1": [verdict(item(1), *answer) for answer in answers]})
    assert (found.pairs, found.agreeing) == (3, 1)
