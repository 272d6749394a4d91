"""The samples that people are asked about: what is drawn, asked, and done with the answers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from catalog_enrichment import cli
from catalog_enrichment.audit import sampling
from catalog_enrichment.audit.draws import DrawRequest, SampledPopulation
from catalog_enrichment.audit.review_records import Answer
from catalog_enrichment.audit.review_store import ReviewStore
from catalog_enrichment.audit.sampling import audit_sample, offer_suggestions, suggestion_sample
from catalog_enrichment.catalog import human_labels, review_tables, switches
from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.catalog.switches import Scope, State, Switch
from catalog_enrichment.context import load_dictionary
from catalog_enrichment.dictionary import Attribute, Dictionary
from catalog_enrichment.errors import ConfigError, DataContractError
from catalog_enrichment.operations.rollback import rollback_run
from catalog_enrichment.operations.suggestions import open_suggestions
from catalog_enrichment.records import Cardinality

from ..catalog import catalog_rows
from ..sample_catalog import DICTIONARY, SampleCatalog, build, enrich, register, table, values
from . import audit_rows
from .review_samples import START, verdict
from .reviewers import drawn, ingested, items_of, judge, store_of

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

GOLD = {"population": SampledPopulation.GOLD}
PROPOSALS = {"population": SampledPopulation.PROPOSALS, "attributes": ("color",)}
LACKING = {
    f"p{number:03d}": {
        name for name, lacks in (("color", number % 3 != 0), ("material", number % 7 != 0)) if lacks
    }
    for number in range(24)
    if number not in (0, 6, 21)
}  # fmt: skip
"""Product -> attributes that the template's merchants do not give and that apply to its category; 6 has opted out."""


def said_and_drawn(sample: SampleCatalog, **given: Any) -> tuple[list[str], dict[str, Any]]:
    """Draw a sample; return the lines that the job says, and its summary."""
    lines: list[str] = []
    request = DrawRequest.of(sample.config.audit, **{"reviewers": 1} | given)
    with store_of(sample) as store:
        context = replace(sample.context(), say=lines.append)
        return lines, audit_sample(context, store, request, ("--config", "my.toml"))


def rows_of(sample: SampleCatalog, summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of a drawn sample in the order of the draw."""
    rows = [row for row in table(sample, "audits") if row["sample_id"] == summary["sample_id"]]
    return sorted(rows, key=lambda row: row["draw_order"])


def asked(rows: list[dict[str, Any]]) -> dict[str, set[str]]:
    """Return product -> attributes that the rows ask for."""
    found: dict[str, set[str]] = {}
    for row in rows:
        found.setdefault(row["product_id"], set()).add(row["attribute"])
    return found


def test_i5_gold_samples_ask_for_all_that_products_lack(sample: SampleCatalog) -> None:
    """One story on one catalog, because every run of Spark costs seconds."""
    lines, first = said_and_drawn(sample, **GOLD, uniform=10)
    assert table(sample, "predictions") == []
    rows = rows_of(sample, first)
    found = asked(rows)
    assert found == {product: LACKING[product] for product in found}
    assert (len(found), first["products"], first["items"]) == (10, 10, len(rows))
    assert [row["draw_order"] for row in rows] == list(range(len(rows)))
    contents = {row["product_id"]: row["content_hash"] for row in table(sample, "products")}
    assert all(row["content_hash"] == contents[row["product_id"]] for row in rows)
    same = ("purpose", "stratum", "probability", "population", "weight", "value", "score", "threshold",
            "certificate_id", "model_version", "decided_by")  # fmt: skip
    assert {tuple(row[name] for name in same) for row in rows} == {
        ("gold", "uniform", 10 / 21, 21, 1.0, "", None, None, None, None, None)
    }
    items = items_of(sample, first["sample_id"])
    assert [item.item_id for item in items] == [row["item_id"] for row in rows]
    assert {item.value for item in items} == {""}
    sample_id = first["sample_id"]
    assert lines[-3].endswith(f"sample {sample_id} on the review page: serve_audit --config my.toml")
    assert f"label_studio --config my.toml --sample {sample_id} --export" in lines[-2]
    assert "audit_ingest --config my.toml" in lines[-1]

    lines, again = said_and_drawn(sample, **GOLD, uniform=10)
    assert (again["status"], again["sample_id"]) == ("nothing_to_do", first["sample_id"])
    assert any("--seed" in line for line in lines)

    # a product that was asked about its colour alone is asked about its material later
    rows = rows_of(sample, drawn(sample, **GOLD, uniform=2, attributes=("color",), seed=1))
    without_color = {product for product, names in LACKING.items() if "color" in names} - set(found)
    colors = asked(rows)
    assert {row["population"] for row in rows} == {len(without_color)}
    assert len(colors) == 2
    assert colors == {product: {"color"} for product in colors.keys() & without_color}

    lines, rest = said_and_drawn(sample, **GOLD, uniform=50, seed=2)
    rows = rows_of(sample, rest)
    expected = {product: names - colors.get(product, set()) for product, names in LACKING.items()}
    expected = {product: names for product, names in expected.items() if names and product not in found}
    assert asked(rows) == expected
    assert {row["probability"] for row in rows} == {1.0}
    total = len(expected)
    assert f"50 products were asked for and there are only {total}: all are drawn" in lines
    counts = Counter(name for names in expected.values() for name in names)
    per_attribute = f"color {counts['color']}, material {counts['material']}"
    assert f"{total} of {total} products drawn; products per attribute: {per_attribute}" in lines
    with pytest.raises(DataContractError, match="earlier gold sample"):
        drawn(sample, **GOLD, uniform=50, seed=3)


def of_model(sample: SampleCatalog, attribute: str = "color") -> dict[str, tuple[str, ...]]:
    return {product: seen for (product, name), seen in values(sample, "model").items() if name == attribute}


def human_events(sample: SampleCatalog, product: str) -> list[tuple[str, str]]:
    rows = [row for row in table(sample, "attribute_values") if row["source"] == "human"]
    rows.sort(key=lambda row: row["asserted_at"])
    return [(row["op"], row["value"]) for row in rows if row["product_id"] == product]


def test_answers_of_a_gold_sample_become_the_catalogs_values_and_labels(enriched: SampleCatalog) -> None:
    """One story on one catalog, because every run of Spark costs seconds."""
    before = of_model(enriched)
    none, other, unsure, audited, *_ = sorted(before)
    right, another = (color for color in ("Red", "Green", "Blue") if (color,) != before[other])
    summary = drawn(enriched, **GOLD, uniform=99, attributes=("color",))
    assert set(before) <= set(asked(rows_of(enriched, summary))), "a value of a model makes no difference"
    answers: dict[str, Any] = {none: Answer.NONE, other: (right,), unsure: Answer.CANNOT_TELL}
    judge(enriched, summary["sample_id"], lambda item: answers.get(item.product_id))
    written = drawn(enriched, attributes=("color",), uniform=50, near=0)
    judge(enriched, written["sample_id"], lambda item: Answer.NONE if item.product_id == audited else None)
    report = ingested(enriched)
    counted = {"color": {"cannot_tell": 1, "none": 1, "value": 1}}
    assert (report["gold_answers"], report["human_sets"], report["without_value"]) == (counted, 1, 2)
    assert drawn(enriched, **GOLD, uniform=1, attributes=("material",))["gold_answers"] == counted

    assert of_model(enriched) == {
        product: seen for product, seen in before.items() if product not in (none, other, audited)
    }
    assert values(enriched)[other, "color"] == (right,)
    assert human_events(enriched, none) == human_events(enriched, audited) == [("assert", "")]
    events = [row for row in table(enriched, "attribute_values") if row["run_id"] == report["run_id"]]
    retracted = {row["product_id"]: row["reason"] for row in events if row["op"] == "retract"}
    assert retracted == {none: "refused_by_person", audited: "refused_by_person"}
    asserted = {row["product_id"]: row["reason"] for row in events if row["op"] == "assert"}
    assert asserted == {none: "removed_by_person", audited: "removed_by_person", other: "set_by_person"}
    catalog = enriched.context().catalog
    assert review_tables.refused(catalog) == {(audited, "color", *before[audited])}
    labels = human_labels.gold_labels(catalog)
    assert {product: of["color"].answer for product, of in labels.items()} == {
        none: "none", other: "value", unsure: "cannot_tell"
    }  # fmt: skip
    contents = {row["product_id"]: row["content_hash"] for row in table(enriched, "products")}
    assert labels[other]["color"].content_hash == contents[other]
    assert human_labels.labels(catalog) == {}

    # on second thoughts: the model's value is seen again, and the human set is gone
    second_thoughts: dict[str, Any] = {none: Answer.CANNOT_TELL, other: Answer.NONE, unsure: (another,)}
    judge(enriched, summary["sample_id"], lambda item: second_thoughts.get(item.product_id))
    judge(enriched, written["sample_id"], lambda item: Answer.YES if item.product_id == audited else None)
    second = ingested(enriched)
    assert second["gold_answers"] == counted
    assert of_model(enriched) == {product: seen for product, seen in before.items() if product not in (other, unsure)}
    assert human_events(enriched, none) == human_events(enriched, audited) == [("assert", ""), ("retract", "")]
    assert human_events(enriched, other) == [("assert", right), ("assert", "")]
    assert values(enriched, "human") == {(unsure, "color"): (another,)}

    rollback_run(catalog, second["run_id"])
    assert values(enriched, "human") == {(other, "color"): (right,)}
    assert (none, "color") not in values(enriched)
    assert human_labels.gold_labels(catalog) == labels, "what was said before the run that was rolled back counts again"


@pytest.mark.slow
def test_proposals_of_a_version_are_drawn_whatever_was_decided(enriched: SampleCatalog) -> None:
    """One story on one catalog, because every run of Spark costs seconds."""
    lines, first = said_and_drawn(enriched, **PROPOSALS, uniform=6)
    rows = rows_of(enriched, first)
    without = {product for product, names in LACKING.items() if "color" in names}
    assert len({row["product_id"] for row in rows} & without) == len(rows) == 6
    assert {(row["purpose"], row["stratum"], row["model_version"]) for row in rows} == {("proposals", "uniform", "1")}
    assert {(row["probability"], row["population"], row["weight"]) for row in rows} == {(6 / 16, 16, 1.0)}
    assert "6 of 16 products drawn; products per attribute: color 6" in lines
    top = {row["product_id"]: row for row in table(enriched, "predictions")
           if row["attribute"] == "color" and row["rank"] == 1}  # fmt: skip
    copied = ("value", "score", "modality", "certificate_id", "threshold", "content_hash", "reason")
    assert all(row[name] == top[row["product_id"]][name] for row in rows for name in copied)

    # what was judged is not asked again; the rest of the population is: published and withheld
    judged, corrected = (item.product_id for item in items_of(enriched, first["sample_id"])[:2])
    right = next(color for color in ("Red", "Green", "Blue") if color != top[corrected]["value"])
    judge(enriched, first["sample_id"], lambda item: {judged: Answer.YES, corrected: (right,)}.get(item.product_id))
    assert ingested(enriched)["attributes"] == {}, "no estimate of written values rests on proposals"
    assert values(enriched, "human") == {(corrected, "color"): (right,)}
    rows = rows_of(enriched, drawn(enriched, **PROPOSALS, uniform=99, model_version="1"))
    assert {row["product_id"] for row in rows} == without - {judged, corrected}
    assert {row["reason"] for row in rows} == {"certified", "no_certificate"}
    assert {row["threshold"] for row in rows if row["reason"] == "no_certificate"} == {None}

    scores = sorted(row["score"] for row in rows)
    high = drawn(enriched, **PROPOSALS, uniform=99, lowest=scores[6])
    assert high["products"] == sum(score >= scores[6] for score in scores) < len(scores)
    with pytest.raises(DataContractError, match="score of 1 or more"):
        drawn(enriched, **PROPOSALS, lowest=1.0)
    with pytest.raises(DataContractError, match=r"of model version 7 .* only versions \['1'\] have") as missing:
        drawn(enriched, **PROPOSALS, model_version="7")
    assert """enrich_catalog --config FILE --set 'enrich.model_version="7"'""" in str(missing.value)

    # all values of a product are asked of an attribute with several values, and the highest stands for the product
    whole = drawn(enriched, population=SampledPopulation.PROPOSALS, attributes=("material",), uniform=4)
    rows = rows_of(enriched, whole)
    assert whole["drawn"] == {"material.same_product": 4, "material.uniform": 4}
    assert {row["probability"] for row in rows} == {4 / sum("material" in names for names in LACKING.values())}
    for product in {row["product_id"] for row in rows}:
        mine = sorted((row for row in rows if row["product_id"] == product), key=lambda row: -row["score"])
        assert [row["stratum"] for row in mine] == ["uniform", "same_product"]
        assert {row["value"] for row in mine} == {"Cotton", "Wool"}


def test_without_decisions_there_are_no_proposals_to_draw(sample: SampleCatalog) -> None:
    with pytest.raises(DataContractError, match="no model version has decided") as missing:
        drawn(sample, **PROPOSALS)
    assert """enrich_catalog --config FILE --set 'enrich.model_version="V"'""" in str(missing.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--gold", "0"], "--gold must be at least 1"),
        (["--gold", "5", "--run", "enrich-1"], "--run is not for gold"),
        (["--gold", "5", "--of", "proposals"], "--of does not go with it"),
        (["--gold", "5", "--uniform", "3", "--near", "0"], "--uniform, --near does not go with it"),
        (["--gold", "5", "--whole-products"], "--whole-products does not go"),
        (["--gold", "5", "--lowest", "0", "--model-version", "1"], "--model-version, --lowest does not go"),
        (["--gold", "5", "--attribute", "size"], "'size'"),
        (["--of", "proposals", "--run", "enrich-1"], "--run is not for proposals"),
        (["--of", "proposals", "--lowest", "1.5"], "--lowest must lie in"),
        (["--of", "proposals", "--lowest", "nan"], "--lowest must lie in"),
        (["--model-version", "1"], "are for --of proposals"),
        (["--attribute", "size"], "'size'"),
        (["--uniform", "0"], "--uniform and --reviewers must be at least 1"),
    ],
)
def test_options_that_do_not_go_together_are_refused_before_spark(
    sample_folder: SampleCatalog, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert cli.audit_sample(["--config", str(sample_folder.file), *arguments]) == 2
    assert message in json.loads(capsys.readouterr().out.splitlines()[-1])["message"]


@pytest.fixture(scope="module")
def sample_folder(tmp_path_factory: pytest.TempPathFactory) -> SampleCatalog:
    """Build a catalog without products."""
    return build(tmp_path_factory.mktemp("bad") / "sample")


def test_gold_attributes_off_or_full_are_refused(
    sample_folder: SampleCatalog, spark: SparkSession, tmp_path: Path
) -> None:
    off = sample_folder.copy_to(tmp_path / "off")
    dictionary = {"attributes": [of | {"enabled": of["name"] != "color"} for of in DICTIONARY["attributes"]]}
    (off.folder / "attributes.json").write_text(json.dumps(dictionary))
    off = replace(off, spark=spark)
    with pytest.raises(ConfigError, match=r"\['color'\] is not enabled"):
        drawn(off, **GOLD, attributes=("color",))
    with pytest.raises(DataContractError, match="merchants give them for every product"):
        drawn(off, **GOLD, attributes=("material",))


# --- written values, suggestions, abstentions ------------------------------------------------------------------------


def test_i5_a_sample_is_in_the_table_and_in_the_review_store_once(enriched: SampleCatalog, run: dict[str, Any]) -> None:
    visible = [row for row in table(enriched, "current_values") if row["source"] == "model"]
    summary = drawn(enriched, uniform=5, near=2)
    rows = rows_of(enriched, summary)
    items = items_of(enriched, summary["sample_id"])
    assert [item.item_id for item in items] == [row["item_id"] for row in rows]
    assert summary["drawn"]["color.uniform"] == 5
    assert summary["items"] == len(rows) == sum(summary["drawn"].values())
    seen = {(row["product_id"], row["attribute"]): set(row["values"]) for row in visible}
    assert all(row["value"] in seen[row["product_id"], row["attribute"]] for row in rows)
    events = {row["event_id"]: row for row in table(enriched, "attribute_values")}
    for row in rows:
        event = events[row["event_id"]]
        assert (event["product_id"], event["value"], event["score"]) == (row["product_id"], row["value"], row["score"])
        assert event["certificate_id"] == row["certificate_id"]
    assert items[0].title.startswith("Shirt number")
    assert items[0].images[0][0].endswith(".jpg")
    assert not {"score", "threshold", "stratum"} & set(items[0].__dataclass_fields__)

    again = drawn(enriched, uniform=5, near=2)
    assert (summary["status"], again["status"]) == ("succeeded", "nothing_to_do")
    assert again["sample_id"] == summary["sample_id"]
    assert len(table(enriched, "audits")) == summary["items"]
    assert drawn(enriched, uniform=5, near=2, seed=1)["sample_id"] != summary["sample_id"]

    assert drawn(enriched, run_id=run["run_id"], attributes=("color",))["items"] > 0
    with pytest.raises(DataContractError, match=r"a model wrote by run enrich-other\. What was taken back"):
        drawn(enriched, run_id="enrich-other")
    with pytest.raises(DataContractError, match="no product's score was too low"):
        drawn(enriched, population=SampledPopulation.ABSTENTIONS, attributes=("material",), run_id=run["run_id"])


@pytest.mark.slow
def test_suggestions_and_abstentions_are_drawn_for_labels(sample: SampleCatalog) -> None:
    version = register(sample, sample.folder / "scratch", seed=5, thresholds={"color": 0.9999, "material": None})
    sample.promotion.promote(version, expected_current="1")
    enrich(sample)
    usual: dict[str, Any] = {"state": State.OFF, "who": "ann", "why": "what it had allowed was taken back"}
    off = Switch(scope=Scope.CERTIFICATE, target="c1", **usual)
    switches.write(sample.context().catalog, [off, replace(off, scope=Scope.ATTRIBUTE, target="", attribute="size")])
    with pytest.raises(DataContractError, match=r"no accepted values .* readers see no value of them") as nothing:
        drawn(sample)
    assert "certificate c1 is off: what it had allowed was taken back" in str(nothing.value)
    assert "attribute size" not in str(nothing.value)
    with pytest.raises(DataContractError, match=r"no suggestions .* is open"):
        drawn(sample, population=SampledPopulation.SUGGESTIONS)
    summary = drawn(sample, population=SampledPopulation.ABSTENTIONS, uniform=4)
    items = items_of(sample, summary["sample_id"])
    assert summary["drawn"] == {"color.uniform": 4}
    assert {item.value for item in items} == {""}
    assert {row["purpose"] for row in table(sample, "audits")} == {"label"}


def test_items_have_the_evidence_of_the_decision_that_was_drawn(tmp_path: Path, spark: SparkSession) -> None:
    catalog = Catalog(tmp_path / "catalog", spark)
    listing = {"title": "Red wool shirt", "description": "Of wool", "shop_id": "s", "category": "c", "language": "en"}
    catalog.append_rows("products", [catalog_rows.product(name, **listing) for name in "abc"], "import")
    decisions = [
        catalog_rows.prediction("a", "color", "Red", evidence="Red wool"),
        catalog_rows.prediction("a", "color", "Blue", evidence="blue", rank=2),
        catalog_rows.prediction("b", "color", "Red", evidence="of an older run", run_id="run-0"),
        catalog_rows.prediction("c", "color", "Red", decision="abstain", evidence="tells the answer"),
    ]
    catalog.append_rows("predictions", decisions, "predictions")
    rows = [audit_rows.drawn(number, product_id=name, value="Red") for number, name in enumerate("ab")]
    rows.append(audit_rows.drawn(3, product_id="c", value=""))  # an abstention: the reviewer is asked for the value
    color = Attribute(name="color", cardinality=Cardinality.ONE, values=("Red", "Blue"))
    items = sampling._items(catalog, Dictionary({"color": color}), rows)
    assert [(item.product_id, item.evidence) for item in items] == [("a", "Red wool"), ("b", ""), ("c", "")]


# --- offer_suggestions ------------------------------------------------------------------------------------------------


def test_suggestions_become_one_sample_with_an_id_of_their_content(sample_folder: SampleCatalog) -> None:
    dictionary = load_dictionary(sample_folder.config)
    row = {
        **{"product_id": "p1", "attribute": "color", "suggested_value": "Red", "shop_id": "s1", "title": None},
        **{"description": "d", "category": "c", "language": "en", "score": 0.9, "evidence": "red"},
        "images": [{"uri": None, "version": "v", "bytes": None}, None],
    }
    sample, (only,) = suggestion_sample(dictionary, [row], START)
    assert (sample.purpose.value, sample.reviewers, only.value, only.images) == ("suggestions", 1, "Red", (("", "v"),))
    assert only.evidence == "red"
    assert suggestion_sample(dictionary, [row], START + timedelta(days=3))[0].sample_id == sample.sample_id
    assert suggestion_sample(dictionary, [row | {"product_id": "p2"}], START)[0].sample_id != sample.sample_id


@pytest.mark.slow
def test_open_suggestions_are_offered_once_in_one_sample(enriched: SampleCatalog, tmp_path: Path) -> None:
    context = enriched.context()
    suggested = open_suggestions(context.catalog, context.dictionary).collect()
    assert len(suggested) > 1
    with ReviewStore(tmp_path / "review.sqlite") as store:
        shop = suggested[0]["shop_id"]
        of_shop = [row for row in suggested if row["shop_id"] == shop]
        first = offer_suggestions(context, store, [shop])
        assert (first["status"], first["suggestions"]) == ("succeeded", len(of_shop))
        assert offer_suggestions(context, store, [shop])["status"] == "nothing_to_do"
        items = store.items(first["sample_id"])
        assert {item.shop_id for item in items} == {shop}
        store.add_verdict(verdict(items[0], "Mia", Answer.NO))
        second = offer_suggestions(context, store)
        assert (second["status"], second["suggestions"]) == ("succeeded", len(suggested) - len(of_shop))
        items += store.items(second["sample_id"])
        offered = [(item.product_id, item.attribute, item.value, item.shop_id) for item in items]
        assert sorted(offered) == sorted(
            tuple(row[name] for name in ("product_id", "attribute", "suggested_value", "shop_id")) for row in suggested
        )
        assert all(item.images[0][0].endswith(".jpg") for item in items)
        assert offer_suggestions(context, store)["status"] == "nothing_to_do"
