"""Which products have certified before an epoch."""

from __future__ import annotations

from catalog_enrichment.precision.earlier_uses import EarlierUses


def test_products_certified_before_an_epoch_if_their_first_one_is_older() -> None:
    uses = EarlierUses(epoch=2, first_epoch={"a": 0, "b": 1, "c": 2})
    assert uses.certified_before(0) == frozenset()
    assert uses.certified_before(1) == {"a"}
    assert uses.certified_before(2) == {"a", "b"}
