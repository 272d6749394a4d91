"""Texts of any length in a feed: they end in quarantine, and no table or summary grows with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from .. import sample_catalog
from ..sample_catalog import listing, table

PICTURES = ",".join(f"http://127.0.0.1/{n}.jpg" for n in range(501))
TOO_LONG: dict[str, tuple[dict[str, Any], str]] = {
    "id": ({"product_id": "i" * 3_000}, "the product id has 3000 characters (at most 500)"),
    "long id": ({"product_id": "j" * 1_000_000}, "the product id has 1000000 characters (at most 500)"),
    "shop": ({"shop": "s" * 100_000}, "the shop has 100000 characters (at most 500)"),
    "category": ({"category": "c/d" * 1_700_000}, "the category has 5100000 characters (at most 2000)"),
    "picture": ({"image": "http://127.0.0.1/" + "x" * 5_000}, "an address of a picture has 5017 characters"),
    "pictures": ({"image": PICTURES}, "501 pictures (at most 500)"),
    "value": ({"color": "red " * 60_000}, "the values of the attributes have 239999 characters together"),
}
"""What is long -> the row, and why it is refused."""


@pytest.mark.slow
def test_i7_texts_of_any_length_are_quarantined_and_change_no_other_row(spark: Any, tmp_path: Path) -> None:
    sample = sample_catalog.build(tmp_path / "sample", spark)
    good = [listing(number) for number in range(60)]
    bad = [listing(100 + number) | row for number, (row, _) in enumerate(TOO_LONG.values())]
    sample.feed([*good, *bad])
    summary = sample.import_products()
    assert summary["quarantined"] == {"text_too_long": 6, "too_many_values": 1}
    assert summary["new"] == len(good) == len(table(sample, "products"))
    refused = table(sample, "quarantine")
    assert len(refused) == len(TOO_LONG)
    for _, detail in TOO_LONG.values():
        (row,) = (row for row in refused if row["detail"].startswith(detail))
        assert len(json.dumps(row, default=str)) < 12_000
    (run,) = table(sample, "runs")
    assert len(json.dumps(run, default=str)) < 50_000
    assert len(json.dumps(summary)) < 10_000

    again = sample.import_products()
    assert again["status"] == "nothing_to_do", "the rows are in quarantine already"
    sample.feed([*good, *(listing(100 + number) for number in range(len(bad)))])
    assert sample.import_products()["new"] == len(bad), "a row is a product as soon as the merchant has mended it"
