"""Nights after the dictionary was edited: values are renamed, merged or removed, attributes go, products move."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from catalog_enrichment.catalog.lake import Catalog

from ..sample_catalog import DICTIONARY, SampleCatalog, change, killed_at, run_job, table, values


def edit(sample: SampleCatalog, attribute: str, **changes: Any) -> None:
    """Change an attribute of the dictionary; ``gone=True``: leave it out."""
    path = sample.folder / "attributes.json"
    rows = json.loads(path.read_text())["attributes"]
    kept = [row | changes if row["name"] == attribute else row for row in rows]
    if changes.get("gone"):
        kept = [row for row in rows if row["name"] != attribute]
    path.write_text(json.dumps({"attributes": kept}))


def night(sample: SampleCatalog, *arguments: str) -> tuple[int, dict[str, Any], str]:
    """Import the feed again and enrich; the exit code is the import's unless that is 0."""
    code, summary, said = run_job("import_products", "--config", str(sample.file), *arguments)
    if code:
        return code, summary, said
    return run_job("enrich_catalog", "--config", str(sample.file), "--no-report")


def colors(sample: SampleCatalog, source: str | None = None) -> dict[str, str]:
    return {product: of[0] for (product, name), of in values(sample, source).items() if name == "color"}


def renamed_by(sample: SampleCatalog) -> list[str]:
    return [row["run_id"] for row in table(sample, "runs") if row["kind"] == "rename"]


def named(given: dict[str, str], **names: str) -> dict[str, str]:
    return {product: names.get(value, value) for product, value in given.items()}


def test_a_renamed_value_has_its_new_name_everywhere_until_it_is_rolled_back(
    enriched: SampleCatalog,
) -> None:
    before, merchants = colors(enriched), colors(enriched, "merchant")
    assert {"Red", "Green", "Blue"} <= set(merchants.values())
    model = colors(enriched, "model")
    product, wrote = next((product, value) for product, value in sorted(model.items()))
    new = f"Dark {wrote}"
    names = [{"value": new, "was": [wrote]} if value == wrote else value for value in ("Red", "Green", "Blue")]
    edit(enriched, "color", values=names)

    code, summary, said = night(enriched)
    assert (code, summary["status"]) == (0, "nothing_to_do"), "what was decided stays decided"
    renamed = named(before, **{wrote: new})
    assert colors(enriched) == renamed
    assert colors(enriched, "merchant") == named(merchants, **{wrote: new})
    (run_id,) = renamed_by(enriched)
    row = next(row for row in table(enriched, "runs") if row["run_id"] == run_id)
    seen = sum(value == wrote for value in before.values())
    assert (dict(row["counts"])["products.color"], dict(row["counts"])["events.color"]) == (seen, 1)
    assert night(enriched)[1]["status"] == "nothing_to_do"
    assert renamed_by(enriched) == [run_id], "written once"

    code, explained, said = run_job(
        "explain_value", "--product-id", product, "--attribute", "color", "--config", str(enriched.file)
    )
    assert (code, explained["current"]["values"], explained["renames"][0]["was"]) == (0, [new], wrote)

    # content that changes is decided under the new name, by the certificate of the old
    number = int(product.removeprefix("p"))
    change(enriched, number, description="A thing of another sort", color=None)
    code, summary, _ = run_job("enrich_catalog", "--config", str(enriched.file), "--no-report")
    assert (code, summary["attributes"]["color"]["written"]) == (0, 1)
    assert colors(enriched)[product] in {new, "Red", "Green", "Blue"} - {wrote}

    undo = run_job("rollback_run", "--config", str(enriched.file), "--run-id", run_id)[1]
    assert (undo["status"], undo["events"]) == ("succeeded", {"color": 1})
    others = {other: value for other, value in before.items() if other != product}
    assert {other: value for other, value in colors(enriched).items() if other != product} == others
    code, _, said = night(enriched)
    assert code == 0
    assert "was rolled back" in said
    assert {other: value for other, value in colors(enriched).items() if other != product} == others
    again = run_job("rollback_run", "--config", str(enriched.file), "--run-id", undo["run_id"])[1]
    assert again["status"] == "succeeded"
    assert {k: v for k, v in colors(enriched).items() if k != product} == {
        k: v for k, v in renamed.items() if k != product
    }


@pytest.mark.slow
def test_merged_values_are_one_value_and_the_certificate_goes_on(enriched: SampleCatalog) -> None:
    before = colors(enriched)
    edit(enriched, "color", values=["Red", {"value": "Teal", "was": ["Green", "Blue"]}])
    assert run_job("enrich_catalog", "--config", str(enriched.file), "--dry-run")[0] == 0
    assert (renamed_by(enriched), colors(enriched)) == ([], before), "a dry run writes nothing"
    with killed_at(Catalog, "refresh_current_values"):
        night(enriched)
    assert night(enriched)[0] == 0, "the run that was killed gets its row and readers its names"
    merged = named(before, Green="Teal", Blue="Teal")
    assert colors(enriched) == merged
    assert len(renamed_by(enriched)) == 1
    assert len({row["certificate_id"] for row in table(enriched, "current_values") if row["source"] == "model"}) == 2
    assert run_job("promote_model", "--config", str(enriched.file), "--dry-run")[0] == 0

    # listed again, each value is what it was: a merge is taken back without a rollback
    edit(enriched, "color", values=["Red", "Green", "Blue", "Teal"])
    assert night(enriched)[0] == 0
    assert colors(enriched) == before


@pytest.mark.slow
def test_a_removed_value_goes_and_the_version_goes_on_with_its_others(enriched: SampleCatalog) -> None:
    before, model = colors(enriched), colors(enriched, "model")
    gone = sorted(model.values())[0]
    kept = [value for value in ("Red", "Green", "Blue") if value != gone]
    edit(enriched, "color", values=kept)
    code, summary, said = night(enriched)
    number = sum(value == gone for value in model.values())
    assert (code, summary["attributes"]["color"]["retracted"]) == (0, number)
    assert f"color {gone!r} is not in the dictionary any more" in said
    assert colors(enriched, "model") == {product: value for product, value in model.items() if value != gone}
    assert colors(enriched, "merchant").items() <= before.items(), "merchants' values stay as they are"
    reasons = {row["reason"] for row in table(enriched, "attribute_values") if row["op"] == "retract"}
    assert reasons == {"value_removed"}
    product = next(product for product, value in model.items() if value == gone)
    said = run_job("explain_value", "--product-id", product, "--attribute", "color", "--config", str(enriched.file))[2]
    assert "dictionary does not list" in said
    assert night(enriched)[1]["status"] == "nothing_to_do"

    imported = run_job("import_products", "--config", str(enriched.file))[1]
    assert imported["merchant_values"]["color"]["unmapped"] == sum(
        value == gone for value in colors(enriched, "merchant").values()
    )

    edit(enriched, "color", values=["Red", "Green", "Blue"])
    code, summary, _ = night(enriched)
    assert (code, summary["attributes"]["color"]["written"]) == (0, number)
    assert colors(enriched) == before


@pytest.mark.slow
def test_an_attribute_that_leaves_the_dictionary_goes_alone(enriched: SampleCatalog) -> None:
    before = colors(enriched)
    materials = {product for product, name in values(enriched, "model") if name == "material"}
    assert materials
    edit(enriched, "material", gone=True)
    code, summary, said = night(enriched)
    assert code == 0, said
    assert summary["attributes"]["material"]["retracted"] >= len(materials)
    assert colors(enriched) == before
    assert not [name for _, name in values(enriched, "model") if name == "material"]
    code, _, said = run_job(
        "explain_value", "--product-id", sorted(materials)[0], "--attribute", "material", "--config", str(enriched.file)
    )
    assert code == 0
    assert "not in the dictionary" in said
    assert night(enriched)[1]["status"] == "nothing_to_do"


@pytest.mark.slow
def test_what_is_wrong_with_an_attribute_stops_it_alone(enriched: SampleCatalog) -> None:
    before = values(enriched)
    edit(enriched, "material", cardinality="one")
    change(enriched, 1, description="Other content")
    code, summary, said = run_job("enrich_catalog", "--config", str(enriched.file), "--no-report")
    assert (code, list(summary["stopped"])) == (3, ["material"])
    assert "cardinality one" in said
    assert summary["attributes"]["color"]["written"] == 1
    stopped = summary["attributes"]["material"]
    assert [stopped[kind] for kind in ("written", "suggested", "abstained")] == [0, 0, 0]
    after = values(enriched)
    stale = {key for key in before if key[0] == "p001"}
    assert {key: value for key, value in after.items() if key[0] != "p001"} == {
        key: value for key, value in before.items() if key not in stale
    }
    code, again, _ = run_job("enrich_catalog", "--config", str(enriched.file), "--no-report")
    assert (code, again["status"]) == (3, "nothing_to_do")


@pytest.mark.slow
def test_a_new_value_and_a_new_attribute_are_named(enriched: SampleCatalog) -> None:
    path = enriched.folder / "attributes.json"
    rows = copy.deepcopy(DICTIONARY["attributes"])
    rows[0]["values"].append("Black")
    rows.append({"name": "size", "cardinality": "one", "values": ["S", "M"]})
    path.write_text(json.dumps({"attributes": rows}))
    code, summary, said = night(enriched)
    assert (code, summary["status"]) == (0, "nothing_to_do")
    assert "cannot predict size: train_model" in said
    assert "cannot predict color 'Black'" in said


@pytest.mark.slow
def test_a_product_that_moves_to_a_category_without_certificate_loses_its_value(enriched: SampleCatalog) -> None:
    model = colors(enriched, "model")
    moved, stays = sorted(product for product in model if int(product[1:]) % 7)[:2]
    change(enriched, int(moved[1:]), category="Apparel/Hats")
    change(enriched, int(stays[1:]), category="Home/Textiles")
    code, summary, _ = run_job("enrich_catalog", "--config", str(enriched.file), "--no-report")
    assert code == 0
    assert summary["attributes"]["color"]["retracted"] == 1
    assert colors(enriched, "model") == {product: value for product, value in model.items() if product != moved}
    reasons = [row["reason"] for row in table(enriched, "attribute_values") if row["op"] == "retract"]
    assert "category_changed" in reasons
    said = run_job("explain_value", "--product-id", moved, "--attribute", "color", "--config", str(enriched.file))[2]
    assert "moved to a category or language that the certificate does not cover" in said
    code, summary, _ = run_job("enrich_catalog", "--config", str(enriched.file), "--no-report")
    assert summary["status"] == "nothing_to_do"

    change(enriched, int(moved[1:]), category="Apparel/Topwear")
    assert run_job("enrich_catalog", "--config", str(enriched.file), "--no-report")[0] == 0
    assert colors(enriched, "model") == model
