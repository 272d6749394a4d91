"""Which products have certified before an certification_round."""

from __future__ import annotations

from catalog_enrichment.precision.earlier_uses import EarlierUses


def test_products_certified_before_an_epoch_if_their_first_one_is_older() -> None:
    uses = EarlierUses(certification_round=2, first_round={"a": 0, "b": 1, "c": 2})
    assert uses.certified_before(0) == frozenset()
    assert uses.certified_before(1) == {"a"}
    assert uses.certified_before(2) == {"a", "b"}
