from __future__ import annotations

from typing import Any

import pytest

from catalog_enrichment.inputs.product_batch import ProductBatch


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ((["a", "b"], [""], [None]), "2 titles, 1 descriptions and 1 pictures"),
        ((["a"], ["", ""], [None]), "1 titles, 2 descriptions and 1 pictures"),
        ((["a"], [""], []), "1 titles, 1 descriptions and 0 pictures"),
    ],
)
def test_columns_of_different_lengths_raise(columns: tuple[Any, Any, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ProductBatch(*columns)
