"""What certificates say in words."""

from __future__ import annotations

import numpy as np

from catalog_enrichment.precision import certify, claim
from catalog_enrichment.precision.pool import select_pool
from catalog_enrichment.precision.units import accept_scores
from catalog_enrichment.records import Cardinality, Modality

from ..sample_certificate import abstention, certificate
from .folds import certification, choosing, unlabelled_products
from .test_certify import RULE


def test_the_claim_names_its_unit_by_the_cardinality() -> None:
    one, many = (claim.in_words(certificate(), cardinality) for cardinality in (Cardinality.ONE, Cardinality.MANY))
    assert one.startswith("Of the values of color written at scores >= 0.900000 for products with text and picture")
    assert many.startswith("Of the products given values of color written at scores >= 0.900000")


def test_a_certificate_in_one_line() -> None:
    assert claim.tested(abstention()) == "abstains: poor"
    assert claim.tested(certificate()) == "8 of 400 accepted certification products wrong: at least 96.4% right"
    assert claim.nothing_claimed("size", Modality.BOTH) == (
        "Nothing is claimed: size is not written for products with text and picture."
    )


def test_how_many_labels_are_missing_for_a_test() -> None:
    """Half of the products to fill can be accepted, 59 times the pool's design effect are needed."""
    pool, filled = select_pool(choosing(), RULE), unlabelled_products(probabilities=_red_or_blue(5000))
    fold = certification(n=40)
    accept = accept_scores(filled.probabilities, pool.cardinality, pool.mask)
    size = certify.grid_size(pool, accept, 40, RULE, 1)
    why = certify.why_untestable(pool, fold, filled, RULE, 1)
    missing = int(np.ceil((size.fewest - 20) / (0.5 * 0.22)))
    assert f"of 40 labelled ones in the certification fold about 20 could be accepted, {size.fewest:.0f} are" in why
    assert why.endswith(f"needed; about {missing:,} more labelled products would be enough to test it")


def test_where_nothing_can_be_accepted_no_number_of_labels_is_named() -> None:
    pool = select_pool(choosing(), RULE)
    only_blue = unlabelled_products(probabilities=np.tile([0.1, 0.1, 0.8], (5000, 1)))
    assert "blue" not in pool.values
    why = certify.why_untestable(pool, certification(), only_blue, RULE, 1)
    fewest = certify.grid_size(pool, np.full(5000, -np.inf), 2000, RULE, 1).fewest
    assert why.endswith(f"about 0 could be accepted, {np.ceil(fewest):.0f} are needed")


def _red_or_blue(n: int) -> np.ndarray:
    """(n, 3): the best value is red, which is in the pool, or blue, which is not."""
    scores = np.full((n, 3), 0.1)
    scores[np.arange(n), np.arange(n) % 2 * 2] = 0.8
    return scores
