"""Suggestions for the shops."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from catalog_enrichment.catalog import ledger
from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.dictionary import Attribute, Dictionary
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.operations import suggestions
from catalog_enrichment.records import Cardinality

from ..audit.audit_rows import said
from ..catalog.catalog_rows import prediction, product, run_row, stamp
from ..open_words import OPEN_WORDS
from ..sample_catalog import SampleCatalog, change, table


def export(sample: SampleCatalog, folder: Path, kind: Any = "csv") -> dict[str, Any]:
    context = sample.context()
    return suggestions.export_suggestions(context.catalog, context.dictionary, folder, kind)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_suggestions_are_exported_per_shop(
    enriched: SampleCatalog, run: dict[str, Any], tmp_path: Path, kind: Any
) -> None:
    suggested = sum(counts["suggested"] for counts in run["attributes"].values())
    assert suggested > 0
    done = export(enriched, tmp_path / "out", kind)
    assert done["suggestions"] >= suggested
    files = {f"{shop}.{kind}" for shop in done["shops"]}
    assert {entry.name for entry in (tmp_path / "out").iterdir()} == files | {suggestions.MANIFEST}
    read = {"csv": pd.read_csv, "parquet": pd.read_parquet}[kind]
    for shop, count in done["shops"].items():
        rows = read(tmp_path / "out" / f"{shop}.{kind}")
        assert (len(rows), set(rows["shop_id"])) == (count, {shop})
        assert rows["score"].is_monotonic_decreasing
    manifest = {f"gone.{kind}": "gone"} | dict.fromkeys(files, "")
    (tmp_path / "out" / suggestions.MANIFEST).write_text(json.dumps(manifest))
    (tmp_path / "out" / f"gone.{kind}").touch()  # of a shop that had suggestions before
    assert export(enriched, tmp_path / "out", kind)["suggestions"] == done["suggestions"]
    assert {entry.name for entry in (tmp_path / "out").iterdir()} == files | {suggestions.MANIFEST}


HOSTILE = ["x" * 300, "a/b", "..", "", "nul\0", "dot.", "Shop", "shop", "é" * 150, "_x", "a-0123456789abcdef", "a\nb"]


def test_file_names_are_different_and_safe_and_plain_ids_keep_theirs(tmp_path: Path) -> None:
    plain = ["shop-1", "Möbel & Co".replace("&", "und"), "007", "北海道"]
    names = suggestions.file_names([*HOSTILE, *plain])
    assert {shop: names[shop] for shop in plain} == dict(zip(plain, plain, strict=True))
    assert len({name.casefold() for name in names.values()}) == len(HOSTILE) + len(plain)
    assert not {names[shop] for shop in HOSTILE} & set(HOSTILE)
    for name in names.values():
        (tmp_path / f"{name}.csv").touch()
    assert len(list(tmp_path.iterdir())) == len(names)
    assert suggestions.file_names(["shop"]) == {"shop": "shop"}


def test_suggestions_of_shops_whose_ids_are_no_file_names_are_exported(spark: Any, tmp_path: Path) -> None:
    catalog = Catalog(tmp_path / "catalog", spark)
    shops = {"1": "x/" * 150, "2": "..\0", "3": "plain", "4": ""}
    human_owned = ledger.human_assertions(product("5"), "color", [], stamp("set_value-1", 1))
    catalog.append_rows("attribute_values", human_owned, "set_value-1")
    everything = shops | {"5": "plain"}
    given = {"1": {"color": ["Blue"]}, "3": {"size": ["S"]}}
    rows = [product(name, shop_id=shop, merchant_attributes=given.get(name)) for name, shop in everything.items()]
    catalog.append_rows("products", rows, "test")
    suggested = [prediction(name, "color", "Red", decision="suggest", evidence="=red, wool") for name in everything]
    suggested += [
        prediction("3", "size", "S", decision="abstain", reason="agrees_with_merchant"),
        prediction("3", "size", "M", decision="suggest", reason="disagrees_with_merchant", rank=2),
    ]
    catalog.append_rows("predictions", suggested, "test")
    catalog.append_rows("runs", [run_row("run-1", attempt=1)], "test")
    out = tmp_path / "out"
    color = Attribute(name="color", cardinality=Cardinality.ONE, values=("Red",))
    known = Dictionary({"color": color, "size": replace(color, name="size", cardinality=Cardinality.MANY)})
    done = suggestions.export_suggestions(catalog, known, out, "csv", say=lambda _: None)
    assert done["shops"] == dict.fromkeys(shops.values(), 1) | {"plain": 2}
    manifest = json.loads((out / suggestions.MANIFEST).read_text())
    assert sorted(manifest.values()) == sorted(shops.values())
    assert manifest["plain.csv"] == "plain"
    assert {entry.name for entry in out.iterdir()} == {*manifest, suggestions.MANIFEST}
    found = {shop: (out / name).read_text() for name, shop in manifest.items()}
    assert all(f",{name}," in found[shop].splitlines()[1] for name, shop in shops.items())
    changes = {row[1]: row[6] for shop in found.values() for row in list(csv.reader(shop.splitlines()))[1:]}
    assert "'=red, wool" in found[shops["1"]]
    assert changes == {"1": "replace", "2": "fill", "3": "add", "4": "fill"}


def test_a_number_that_the_merchant_has_or_a_person_refused_is_not_suggested(spark: Any, tmp_path: Path) -> None:
    catalog = Catalog(tmp_path / "catalog", spark)
    catalog.dictionary = OPEN_WORDS
    given = {"has": "110 cm", "has another": "112 cm", "refused": "50 cm", "text": "Acme"}
    attributes = {"text": "brand"}
    rows = [
        product(name, merchant_attributes={attributes.get(name, "width"): [value]}) for name, value in given.items()
    ]
    catalog.append_rows("products", rows, "test")
    suggested = {"has": "109 cm", "has another": "109 cm", "refused": "109 cm", "text": "ACME."}
    predictions = [
        prediction(name, attributes.get(name, "width"), value, decision="suggest") for name, value in suggested.items()
    ]
    catalog.append_rows("predictions", predictions, "test")
    catalog.append_rows("runs", [run_row("run-1", attempt=1), run_row("ingest-1", attempt=1, kind="audit")], "test")
    no = said(1, "no", product_id="refused", attribute="width", value="1.09 m", run_id="ingest-1")
    catalog.append_rows("verdicts", [no], "test")
    found = suggestions.open_suggestions(catalog, OPEN_WORDS).collect()
    assert [row["product_id"] for row in found] == ["has another"]
    assert found[0]["suggested_value"] == "109 cm"


@pytest.mark.slow
def test_a_suggestion_that_the_merchant_took_up_is_not_exported(enriched: SampleCatalog, tmp_path: Path) -> None:
    against = [row for row in table(enriched, "predictions") if row["reason"] == "disagrees_with_merchant"]
    open_before = export(enriched, tmp_path / "before")["suggestions"]
    change(enriched, int(against[0]["product_id"][1:]), color=against[0]["value"])
    assert export(enriched, tmp_path / "after")["suggestions"] == open_before - 1


def test_an_export_does_not_overwrite_a_folder_it_did_not_write(sample: SampleCatalog, tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("x")
    for manifest in ("", "{}", "not JSON"):
        (tmp_path / suggestions.MANIFEST).write_text(manifest)
        with pytest.raises(ConfigError, match=r"holds 'precious\.txt', .* choose another folder"):
            export(sample, tmp_path)
    assert (tmp_path / "precious.txt").read_text() == "x"
