"""Suggestions for the shops."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from catalog_enrichment.catalog import ledger
from catalog_enrichment.catalog.lake import LakeCatalog
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.operations import suggestions

from ..catalog.catalog_rows import prediction, product, run_row, stamp
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


HOSTILE = ["x" * 300, "a/b", "..", "", "nul\0", "dot.", "Shop", "shop", "é" * 150, "_x", "a-0123456789abcdef", "a\nb"]


def test_folder_names_are_different_safe_file_names_and_plain_ids_keep_theirs(tmp_path: Path) -> None:
    plain = ["shop-1", "Möbel & Co".replace("&", "und"), "007", "北海道"]
    names = suggestions.folder_names([*HOSTILE, *plain])
    assert {shop: names[shop] for shop in plain} == dict(zip(plain, plain, strict=True))
    assert len({name.casefold() for name in names.values()}) == len(HOSTILE) + len(plain)
    assert not {names[shop] for shop in HOSTILE} & set(HOSTILE)
    for name in names.values():
        (tmp_path / f"shop_id={name}").mkdir()
    assert len(list(tmp_path.iterdir())) == len(names)
    assert suggestions.folder_names(["shop"]) == {"shop": "shop"}


def test_suggestions_of_shops_whose_ids_are_no_file_names_are_exported(spark: Any, tmp_path: Path) -> None:
    catalog = LakeCatalog(tmp_path / "catalog", spark)
    shops = {"1": "x/" * 150, "2": "..\0", "3": "plain", "4": ""}
    left_to_people = ledger.said_by_person(product("5"), "color", [], stamp("set_value-1", 1))
    catalog.append_rows("attribute_values", left_to_people, "set_value-1")
    everything = shops | {"5": "plain"}
    catalog.append_rows("products", [product(name, shop_id=shop) for name, shop in everything.items()], "test")
    suggested = [prediction(name, "color", "Red", decision="suggest") for name in everything]
    catalog.append_rows("predictions", suggested, "test")
    catalog.append_rows("runs", [run_row("run-1", attempt=1)], "test")
    out = tmp_path / "out"
    done = suggestions.export_suggestions(catalog, out, "csv", say=lambda _: None)
    assert done["shops"] == dict.fromkeys(shops.values(), 1)
    manifest = json.loads((out / suggestions.MANIFEST).read_text())
    assert sorted(manifest.values()) == sorted(shops.values())
    assert manifest["shop_id=plain"] == "plain"
    assert {folder.name for folder in out.glob("shop_id=*")} == set(manifest)
    found = {shop: next((out / folder).glob("*.csv")).read_text()[-400:] for folder, shop in manifest.items()}
    assert all(f"\n{name}," in found[shop] for name, shop in shops.items())


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
