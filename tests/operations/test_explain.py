"""Who wrote a value, why readers see it or none, and how to undo it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.catalog.switches import Scope, State, Switch, Switches
from catalog_enrichment.config.schema import EnrichConfig
from catalog_enrichment.dictionary import Attribute
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.operations import used_certificates
from catalog_enrichment.operations.explain import (
    PersonSet,
    ValueFacts,
    _in_words,
    _undo_options,
    explain_value,
    seen_in_words,
    why,
)
from catalog_enrichment.records import Cardinality

from ..catalog.catalog_rows import START, prediction
from ..open_words import WIDTH
from ..sample_catalog import SampleCatalog, values
from ..sample_certificate import SCORED_BY, certificate

CERTIFICATE = certificate()
RUN = {"certificates": [CERTIFICATE.to_dict()]}
IMAGES = {"max_bytes": SCORED_BY.max_image_bytes, "max_pixels": 7}
SWITCHES = EnrichConfig(disabled_shops=["off"], disabled_categories=["Apparel/Hats"])
PRODUCT = {
    "product_id": "a", "shop_id": "s", "category": "Apparel", "opt_out": False, "content_hash": "content-1",
    "merchant_attributes": None, "language": "en",
}  # fmt: skip


def decided(reason: str, decision: str = "abstain", **given: Any) -> dict[str, Any]:
    row = prediction("a", "color", "Red", reason=reason, decision=decision, score=0.71, run_id="run-1")
    facts = {"category": "Apparel", "language": "en", "certificate_id": CERTIFICATE.certificate_id}
    of_run = {"attributes": json.dumps(RUN), "config": json.dumps({"images": IMAGES}), "decided_at": START}
    return row | facts | {"compute_type": SCORED_BY.compute_type} | of_run | given


def seen(source: str, run: str | None = "run-1") -> dict[str, Any]:
    return {"values": ["Red"], "source": source, "run_id": run}


def quarantined(**given: Any) -> list[dict[str, Any]]:
    return [{"content_hash": "content-1", "reason": "scoring_failed", "detail": "OSError"} | given]


def switched(scope: Scope, state: State = State.OFF, **given: str) -> Switch:
    return Switch(scope=scope, state=state, who="ann", why="wrong feed", **given)


LOW = decided("below_threshold")
ASSERTED = {"event_id": "e1", "op": "assert", "reason": None, "undoes": None, "run_id": "run-1"}
ROLLED_BACK = [ASSERTED, {"event_id": "e2", "op": "retract", "reason": "rolled_back", "undoes": "e1", "run_id": "back"}]
REFUSED = ASSERTED | {"event_id": "e0", "op": "retract", "reason": "refused_by_person"}
REINSTATED = ASSERTED | {"event_id": "e3", "op": "reinstate", "reason": "rolled_back", "undoes": "e2"}

CASES: dict[str, tuple[dict[str, Any], str]] = {
    "merchant": (
        {"current": seen("merchant", None), "product": {"merchant_attributes": {"color": ["Blue"]}}},
        "the merchant gave 'Blue', and a merchant's value is never changed.",
    ),
    "human": ({"current": seen("human")}, "a person gave a value, which stands"),
    "human, with who and why": (
        {"current": seen("human"), "person": PersonSet(values=("Red",), run_id="run-1", by="ann", reason="see seam")},
        "a person gave a value (ann: see seam), which stands before a model's; only a person changes it.",
    ),
    "removed": (
        {"person": PersonSet(values=(), run_id="run-1", by="ann"), "decisions": [decided("certified", "publish")]},
        "a person said that there is no color (ann): no model writes a value until that is undone.",
    ),
    "merchant before a person": (
        {"current": seen("merchant", None), "product": {"merchant_attributes": {"color": ["Blue"]}},
         "person": PersonSet(values=(), run_id="run-1")},
        "the merchant gave 'Blue', and a merchant's value is never changed.",
    ),
    "taken back by the person": (
        {"decisions": [decided("human_value_stands")]},
        "color was left to a person, whose word was taken back: the next run of enrich_catalog decides it.",
    ),
    "written": (
        {"current": seen("model"), "decisions": [decided("certified", "publish", score=0.95)]},
        "'Red' is written: its score 0.950 is at or above the certified threshold 0.900.",
    ),
    "stands": (
        {"current": seen("model"),
         "decisions": [decided("certificate_mismatch", run_id="run-2"), decided("certified", "publish")]},
        "It stands, although in the newest decision color of this product abstains: the certificate is about other "
        "scores, which differ in images.max_pixels (certificate 50000000, run 7)",
    ),
    "rolled back newest": (
        {"current": seen("model"), "rolled_back": ["run-2"],
         "decisions": [decided("certified", "publish", run_id="run-2", value="Blue"),
                       decided("certified", "publish", score=0.95)]},
        "is at or above the certified threshold 0.900. It is seen because run run-2, which wrote 'Blue' instead, was "
        "rolled back; rolling back the rollback undoes that.",
    ),
    "rolled back abstention": (
        {"current": seen("model"), "rolled_back": ["run-3"],
         "decisions": [LOW | {"run_id": "run-3"}, decided("no_certificate", run_id="run-2"),
                       decided("certified", "publish")]},
        "It is seen because run run-3, which did not write it, was rolled back; rolling back the rollback undoes that. "
        "It stands, although in the newest decision color of this product is not written",
    ),
    "no decision stored": (
        {"current": seen("model")}, "'Red' was written by run run-1, whose decision about it is not stored."
    ),
    "older content": (
        {"current": seen("model"), "decisions": [decided("certified", "publish")],
         "history": [{"run_id": run, "content_hash": f"content-{n}"} for n, run in enumerate(["run-1", "run-0"])]},
        "It was written for older content: the next run decides on the new content, or retracts it.",
    ),
    "seen until the next run": (
        {"current": seen("model"), "decisions": [decided("certified", "publish")], "product": {"shop_id": "off"}},
        "The next run retracts it: ",
    ),
    "opted out": ({"product": {"opt_out": True}, "decisions": [LOW]}, "the merchant opted out"),
    "shop": ({"product": {"shop_id": "off"}}, "shop off is in enrich.disabled_shops"),
    "shop by a switch": (
        {"switched": Switches((switched(Scope.SHOP, target="s"),))},
        "shop s is switched off by ann (wrong feed): set_switch --state on switches it on again.",
    ),
    "attribute by a switch, value seen": (
        {"current": seen("model"), "switched": Switches((switched(Scope.ATTRIBUTE, attribute="color"),))},
        "The next run retracts it: attribute color is switched off by ann",
    ),
    "category by a switch": (
        {"switched": Switches((switched(Scope.CATEGORY, target="Apparel"),))}, "category Apparel is switched off"
    ),
    "others by switches": (
        {"switched": Switches((
            switched(Scope.SHOP, target="other"), switched(Scope.ATTRIBUTE, attribute="material"),
            switched(Scope.CATEGORY, target="Home"), switched(Scope.SHOP, target="s", state=State.PAUSED),
        ))},
        "no finished run has decided color",
    ),
    "attribute": ({"enabled": False, "decisions": [LOW]}, "color is switched off"),
    "not applicable": ({"product": {"category": "Home"}}, "color does not apply to category Home"),
    "category": (
        {"product": {"category": "Apparel/Hats/Caps"}}, "category Apparel/Hats is in enrich.disabled_categories"
    ),
    "never scored": ({}, "no finished run has decided color of this product yet"),
    "quarantined": ({"quarantined": quarantined()}, "could not score this content (scoring_failed: OSError)"),
    "quarantined before": ({"quarantined": quarantined(content_hash="content-0")}, "no finished run has decided"),
    "quarantined since": (
        {"quarantined": quarantined(), "decisions": [LOW | {"content_hash": "content-0"}]}, "could not score"
    ),
    "abstains": (
        {"decisions": [LOW, decided("near_miss", "suggest", rank=2)]},
        "its score 0.710 is below the certified threshold 0.900; a better model, from more labelled products",
    ),
    "content changed": (
        {"decisions": [LOW | {"content_hash": "content-0"}]}, "The content has changed since: the next run decides."
    ),
    "rolled back": (
        {"decisions": [decided("certified", "publish")], "history": ROLLED_BACK}, "was taken back by a rollback"
    ),
    "retracted, rolled back and that undone": (
        {"decisions": [decided("certified", "publish")], "history": [ASSERTED, REFUSED, ROLLED_BACK[1], REINSTATED]},
        "said that this value is wrong",
    ),
    "waits under the cap": (
        {"decisions": [decided("provisional_cap")]}, "audit to confirm the certificate, or raise"
    ),
    "waited under the cap of a certificate that was confirmed": (
        {"decisions": [decided("provisional_cap")], "confirmed": {CERTIFICATE.certificate_id: {}}},
        "An audit has confirmed the certificate since: the next run of enrich_catalog decides again.",
    ),
    "not finished": ({"decisions": [decided("certified", "publish")]}, "no finished run has decided"),
    "run without attributes": ({"decisions": [LOW | {"attributes": None, "config": None}]}, "below the certified"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_why(case: str) -> None:
    given, expected = CASES[case]
    attribute = Attribute(
        name="color", cardinality=Cardinality.ONE, values=("Red",), categories=("Apparel",),
        enabled=given.get("enabled", True),
    )  # fmt: skip
    facts = ValueFacts(
        product=PRODUCT | given.get("product", {}), attribute=attribute, current=given.get("current"),
        decisions=given.get("decisions", []), history=given.get("history", []),
        quarantined=given.get("quarantined", []), rolled_back=given.get("rolled_back", ()),
        person=given.get("person"), switched=given.get("switched", Switches()), confirmed=given.get("confirmed", {}),
    )  # fmt: skip
    text = why(facts, SWITCHES)
    assert ("older content" in text) == (case == "older content")
    assert ("since: the next run of" in text) == ("confirmed" in given)
    assert expected in text
    assert text.endswith(".")


@pytest.mark.parametrize(
    ("given", "language", "expected"),
    [
        (["51 cm"], "en", ""),
        (["1.299 cm"], "de", ""),  # it is stored so, and 1299 cm is not plausible
        (["12-15 cm"], "de", " '12-15 cm' is no value of the attribute, and no label: it has several numbers."),
        (["900"], None, " '900' is no value of the attribute, and no label: the number is not in the plausible range."),
    ],
)
def test_a_merchants_text_that_is_no_number_says_why(given: list[str], language: str | None, expected: str) -> None:
    product = PRODUCT | {"merchant_attributes": {"width": given}, "language": language}
    facts = ValueFacts(product=product, attribute=WIDTH, current=seen("merchant", None), decisions=[], history=[])
    gave = f"the merchant gave {given[0]!r}, and a merchant's value is never changed."
    assert why(facts, SWITCHES) == gave + expected


BY_MODEL = {"values": ["Blue", "Red"], "source": "model", "run_id": "enrich-1", "model_version": "7"}
BY_PERSON = BY_MODEL | {"source": "human", "run_id": "set_value-1"}
BY_MERCHANT = BY_MODEL | {"source": "merchant", "run_id": None}
REMOVED = PersonSet(values=(), run_id="set_value-1", by="ann")
GIVEN = PersonSet(values=("Blue",), run_id="set_value-1", by="ann", reason="seam")


@pytest.mark.parametrize(
    ("current", "person", "words", "run_id"),
    [
        (None, None, "no value", None),
        (None, REMOVED, "no value, as ann said in run set_value-1", "set_value-1"),
        (BY_MODEL, REMOVED, "Blue, Red, by model version 7, run enrich-1", "enrich-1"),
        (BY_PERSON, GIVEN, "Blue, Red, by ann, run set_value-1", "set_value-1"),
        (BY_PERSON, None, "Blue, Red, by a person, run set_value-1", "set_value-1"),
        (BY_MERCHANT, REMOVED, "Blue, Red, by the merchant", None),
    ],
)
def test_what_readers_see_in_words_and_the_run_that_is_to_be_undone(
    current: Any, person: PersonSet | None, words: str, run_id: str | None
) -> None:
    attribute = Attribute(name="color", cardinality=Cardinality.ONE, values=("Red",))
    facts = ValueFacts(product=PRODUCT, attribute=attribute, current=current, decisions=[], history=[], person=person)
    assert seen_in_words(current, person) == words
    assert facts.run_to_undo == run_id


def test_the_evidence_is_told_after_the_reason() -> None:
    attribute = Attribute(name="color", cardinality=Cardinality.ONE, values=("Red",))
    facts = ValueFacts(product=PRODUCT, attribute=attribute, current=BY_MODEL, decisions=[], history=[])
    told = {"product_id": "a", "title": "A", "attribute": "color", "why": "because."}
    nothing: dict[str, Any] = {name: [] for name in ("decisions", "history", "renames", "certificate_numbers")}
    lines = [*_in_words(told | nothing | {"evidence": [{"sentence": 'The text says "red".'}]}, facts, None)]
    assert lines[2:] == ["  why: because.", '  The text says "red".']


def test_explain_names_writer_certificate_history_and_the_way_back(
    enriched: SampleCatalog, run: dict[str, Any]
) -> None:
    told = explain_value(enriched.context(), "p001", "color")
    assert told["current"]["source"] == "model"
    assert told["current"]["run_id"] == run["run_id"]
    assert told["certificate"]["certificate_id"] == told["current"]["certificate_id"]
    assert [event["op"] for event in told["history"]] == ["assert"]
    assert told["undo"] == "set_value --config FILE --remove p001 color"
    visible = [key for key in values(enriched, "model") if key != ("p001", "color")]
    colors = len([key for key in visible if key[1] == "color"])
    told_others = {(way["other_values"], way["other_products"]) for way in told["undo_options"]}
    number_of_products = len({product_id for product_id, _ in visible})
    number_of_values = sum(len(values(enriched)[key]) for key in visible)
    assert told_others == {(0, 0), (colors, colors), (number_of_values, number_of_products)}
    assert told["undo_options"][-1]["command"] == f"rollback_run --config FILE --run-id {run['run_id']}"
    assert "is written: its score" in told["why"]
    assert told["evidence"] == []
    assert {"N", "K", "G"} <= {number["name"] for number in told["certificate_numbers"]}
    merchants = explain_value(enriched.context(), "p003", "color")
    assert merchants["current"]["source"] == "merchant"
    assert (merchants["undo"], merchants["undo_options"]) == (None, [])
    with pytest.raises(ConfigError, match="nosuch"):
        explain_value(enriched.context(), "nosuch", "color")
    with pytest.raises(ConfigError, match="size"):
        explain_value(enriched.context(), "p001", "size")


def test_a_row_that_its_import_refused_is_explained(sample: SampleCatalog) -> None:
    catalog = sample.context().catalog
    row = {"product_id": "p030", "stage": "import", "reason": "empty_title", "run_id": "import-1"}
    catalog.append_rows("quarantine", [row | {"quarantined_at": datetime.now(UTC)}], "import-1")
    with pytest.raises(ConfigError, match="the row is in quarantine: its title is empty"):
        explain_value(sample.context(), "p030", "color")


def test_a_certificate_that_an_audit_confirmed_is_confirmed_in_its_numbers_and_words() -> None:
    decisions = [LOW | {"certificate_id": "other"}, LOW]
    before = used_certificates.used(decisions, None, {"another": {}})
    assert before is not None
    assert before.to_dict() == CERTIFICATE.to_dict()
    assert len([*before.in_words()]) == 1
    audited = {
        "rows": 120,
        "wrong": 1,
        "lower_bound": 0.9612,
        "confirmed_at": START,
        "run_id": "audit-1",
        "alpha": 0.05,
    }
    found = used_certificates.used(decisions, CERTIFICATE.certificate_id, {CERTIFICATE.certificate_id: audited})
    assert found is not None
    confirmation = found.to_dict()["confirmation"]
    assert (found.to_dict()["status"], confirmation["lower_bound"]) == ("confirmed", 0.9612)
    status = {number["name"]: number for number in found.numbers(5)}["status"]
    assert (status["value"], status["meaning"]) == ("confirmed", "an audit of the catalog confirmed it")
    assert [*found.in_words()][1] == (
        "confirmed on 2026-03-29 01:30 UTC by audit run audit-1: 1 of 120 judged values wrong, at least 96.1% right"
    )


def test_a_value_that_a_rollback_took_can_be_brought_back_and_no_other(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path / "catalog")
    color = Attribute(name="color", cardinality=Cardinality.ONE, values=("Red",))

    def offered(history: list[dict[str, Any]], current: Any = None) -> list[str]:
        facts = ValueFacts(product=PRODUCT, attribute=color, current=current, decisions=[], history=history)
        return [option.command for option in _undo_options(catalog, facts, ("--config", "C"))]

    assert offered(ROLLED_BACK) == ["rollback_run --config C --run-id back"]
    assert offered([*ROLLED_BACK, REINSTATED]) == []
    assert offered([ASSERTED, REFUSED]) == []
    assert offered(ROLLED_BACK, seen("merchant", None)) == []
