"""Suggestions for the shops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from catalog_enrichment.errors import ConfigError
from catalog_enrichment.operations import suggestions

from ..sample_catalog import SampleCatalog, change, table


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_suggestions_are_exported_per_shop(
    enriched: SampleCatalog, run: dict[str, Any], tmp_path: Path, kind: Any
) -> None:
    suggested = sum(counts["suggested"] for counts in run["attributes"].values())
    assert suggested > 0
    done = suggestions.export_suggestions(enriched.context().catalog, tmp_path / "out", kind)
    assert done["suggestions"] >= suggested
    assert {p.name for p in (tmp_path / "out").glob("shop_id=*")} == {f"shop_id={shop}" for shop in done["shops"]}
    assert list((tmp_path / "out").rglob(f"*.{kind}"))
    assert (
        suggestions.export_suggestions(enriched.context().catalog, tmp_path / "out", kind)["suggestions"]
        == done["suggestions"]
    )


def test_a_suggestion_that_the_merchant_took_up_is_not_exported(enriched: SampleCatalog, tmp_path: Path) -> None:
    against = [row for row in table(enriched, "predictions") if row["reason"] == "disagrees_with_merchant"]
    open_before = suggestions.export_suggestions(enriched.context().catalog, tmp_path / "before", "csv")["suggestions"]
    change(enriched, int(against[0]["product_id"][1:]), color=against[0]["value"])
    open_after = suggestions.export_suggestions(enriched.context().catalog, tmp_path / "after", "csv")["suggestions"]
    assert open_after == open_before - 1


def test_an_export_does_not_overwrite_a_folder_it_did_not_write(sample: SampleCatalog, tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("x")
    with pytest.raises(ConfigError, match="choose another folder"):
        suggestions.export_suggestions(sample.context().catalog, tmp_path, "csv")
