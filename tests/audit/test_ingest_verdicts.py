"""The effects of verdicts on the catalog: values retracted and blocked, human values, alarms, confirmations."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from catalog_enrichment.audit import consequences
from catalog_enrichment.audit.estimates import AttributeAudit
from catalog_enrichment.audit.ingest_verdicts import Audit, stopped_attributes
from catalog_enrichment.audit.review_records import Answer, Item
from catalog_enrichment.catalog import review_tables, runs, switches
from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.catalog.switches import Scope, State, Switch
from catalog_enrichment.errors import GateRefused
from catalog_enrichment.operations.explain import explain_value
from catalog_enrichment.operations.rollback import rollback_run
from catalog_enrichment.precision.audit_statistics import AuditEstimate

from ..catalog.catalog_rows import run_row
from ..sample_catalog import SampleCatalog, change, enrich, killed_at, register, table, values
from .reviewers import drawn, ingested, judge

COLOR = {"attributes": ("color",), "uniform": 50, "near": 0}


def other_color(value: str) -> str:
    return next(color for color in ("Red", "Green", "Blue") if color != value)


def events(sample: SampleCatalog, run_id: str) -> list[tuple[Any, ...]]:
    """Return what a run wrote to the ledger, without times."""
    names = ("product_id", "attribute", "value", "op", "source", "reason")
    rows = [row for row in table(sample, "attribute_values") if row["run_id"] == run_id]
    return sorted(tuple(row[name] for name in names) for row in rows)


def colors_of(sample: SampleCatalog) -> dict[tuple[str, str], tuple[str, ...]]:
    """Return the colours that a model wrote and readers see."""
    return {key: value for key, value in values(sample, "model").items() if key[1] == "color"}


def promote_new(sample: SampleCatalog, seed: int) -> None:
    """Make another version, which may write everything, the champion."""
    before = sample.registry.champion()
    version = register(sample, sample.folder / f"scratch-{seed}", seed=seed)
    sample.promotion.promote(version, expected_current=before)


def test_a_no_retracts_and_blocks_a_correction_is_a_human_value(enriched: SampleCatalog) -> None:
    """One story on one catalog, because every run of Spark costs seconds."""
    colors = colors_of(enriched)
    (no, color_no), (other, color_other), *_ = sorted(colors.items())
    summary = drawn(enriched, **COLOR)
    assert summary["items"] == len(colors)

    def answer(item: Item) -> Any:
        if item.product_id == no[0]:
            return Answer.NO
        return (other_color(item.value),) if item.product_id == other[0] else Answer.YES

    judge(enriched, summary["sample_id"], answer)
    said: list[str] = []
    dry = ingested(enriched, said, dry_run=True)
    [line] = [" ".join(line.split()) for line in "\n".join(said).splitlines() if line.startswith("color")]
    assert line.startswith(f"color with text and picture {len(colors)} 2 ")
    assert "retracted 2; at least" in line
    assert said[-1] == "nothing is written: this is a dry run"
    assert (dry["status"], dry["refused"], dry["human_sets"]) == ("dry_run", 2, 1)
    assert values(enriched, "model")[no] == color_no

    first = ingested(enriched)
    assert first["answers"] == {"no": 1, "other": 1, "yes": len(colors) - 2}
    assert no not in values(enriched)
    assert values(enriched, "human") == {other: (other_color(color_other[0]),)}
    assert events(enriched, first["run_id"]) == sorted(
        [
            (*no, color_no[0], "retract", "model", "refused_by_person"),
            (*other, color_other[0], "retract", "model", "refused_by_person"),
            (*other, other_color(color_other[0]), "assert", "human", "set_by_person"),
        ]
    )
    by_product = {row["product_id"]: row for row in table(enriched, "verdicts")}
    assert by_product[other[0]]["right_values"] == [other_color(color_other[0])]
    assert by_product[no[0]]["reviewers"] == ["ann"]
    [counts] = [dict(row["counts"]) for row in table(enriched, "runs") if row["run_id"] == first["run_id"]]
    assert counts == {
        "verdicts": len(colors), "wrong": 2, "retracted": 2, "reinstated": 0, "human_sets": 1, "confirmed": 0,
        "paused": 0, "events": 3,
    }  # fmt: skip

    again = ingested(enriched)
    assert (again["status"], again["verdicts"], again["events"]) == ("nothing_to_do", 0, 0)
    assert len(table(enriched, "verdicts")) == len(colors)

    # the same value of another version, and of other content, is not written either
    assert review_tables.refused(enriched.context().catalog) == {(*no, color_no[0]), (*other, color_other[0])}
    enrich(enriched)
    assert no not in values(enriched)
    number = int(no[0][1:])
    change(enriched, number, title="Another title", color=None)
    enrich(enriched)
    decided = [row for row in table(enriched, "predictions") if (row["product_id"], row["attribute"]) == no]
    blocked = [row for row in decided if row["reason"] == "refused_by_person"]
    assert blocked
    assert all(row["value"] == color_no[0] and row["decision"] == "abstain" for row in blocked)
    assert values(enriched).get(no) != color_no

    # a reviewer who changes her mind brings the value back, and the human set that followed goes
    judge(enriched, summary["sample_id"], lambda item: Answer.YES if item.product_id == other[0] else None)
    third = ingested(enriched)
    assert third["verdicts"] == 1
    assert values(enriched)[other] == color_other
    assert values(enriched, "human") == {}
    assert (*other, color_other[0]) not in review_tables.refused(enriched.context().catalog)


@pytest.mark.slow
def test_a_refused_value_uncovers_nothing_and_is_not_written_by_another_version(enriched: SampleCatalog) -> None:
    colors = colors_of(enriched)
    promote_new(enriched, 34)
    enrich(enriched)
    newer = colors_of(enriched)
    differing = sorted(key for key in newer if newer[key] != colors[key])
    assert differing, "the versions agree everywhere: choose another seed"
    summary = drawn(enriched, **COLOR)
    judge(enriched, summary["sample_id"], lambda item: Answer.NO if (item.product_id, "color") in differing else None)
    first = ingested(enriched)
    assert first["refused"] == len(differing)
    assert [key for key in differing if key in values(enriched)] == []
    reasons = [row[5] for row in events(enriched, first["run_id"])]
    assert reasons.count("superseded") == len(differing)

    promote_new(enriched, 32)
    enrich(enriched)
    version = enriched.registry.champion()
    rows = [row for row in table(enriched, "predictions") if row["model_version"] == version]
    refused = {(row["product_id"], row["value"]) for row in rows if row["reason"] == "refused_by_person"}
    taken_back = {(product, newer[product, "color"][0]) for product, _ in differing}
    assert refused == {(row["product_id"], row["value"]) for row in rows} & taken_back
    assert refused, "the third version repeats no refused value: choose another seed"
    assert all(values(enriched).get((product, "color")) != (value,) for product, value in refused)

    # a rollback of the verdicts brings the values back, and lifts the block
    rollback_run(enriched.context().catalog, first["run_id"])
    assert review_tables.refused(enriched.context().catalog) == set()


@pytest.mark.parametrize(
    ("owner", "name", "unless"),
    [
        (Catalog, "append_rows", ""),  # before the verdicts land
        (consequences, "publish", ""),  # before the commit to the ledger
        (Catalog, "refresh_current_values", "catch-up"),  # after it
        (switches, "write", ""),  # before the alarm is written
        (runs, "write", ""),  # before the row that makes the verdicts count
    ],
)
@pytest.mark.slow
def test_i5_killed_anywhere_it_ends_as_undisturbed(enriched: SampleCatalog, owner: Any, name: str, unless: str) -> None:
    summary = drawn(enriched, **COLOR)
    judge(enriched, summary["sample_id"], lambda item: Answer.NO if item.product_id < "p010" else ("Blue",))
    undisturbed = enriched.copy_to(enriched.folder.parent / "undisturbed")
    with pytest.raises(GateRefused):
        ingested(undisturbed)
    with killed_at(owner, name, unless):
        ingested(enriched)
    with pytest.raises(GateRefused, match="color is paused"):
        ingested(enriched)
    assert values(enriched) == values(undisturbed)
    run_id = table(undisturbed, "verdicts")[0]["run_id"]
    assert events(enriched, run_id) == events(undisturbed, run_id)
    assert len(table(enriched, "verdicts")) == len(table(undisturbed, "verdicts"))
    assert len(table(enriched, "switches")) == 1
    assert ingested(enriched)["status"] == "nothing_to_do"


@pytest.mark.slow
def test_an_alarm_pauses_the_attribute_until_it_is_switched_on(enriched: SampleCatalog) -> None:
    summary = drawn(enriched, **COLOR)
    before = values(enriched)
    judge(enriched, summary["sample_id"], lambda item: Answer.YES if item.product_id > "p010" else Answer.NO)
    with pytest.raises(GateRefused, match="color is paused: alarm: ") as refused:
        ingested(enriched)
    report = refused.value.summary
    wrong = report["answers"]["no"]
    assert report["attributes"]["color"]["wrong"] == wrong >= 2
    assert report["attributes"]["color"]["wealth"] >= 20
    assert report["status"] == "succeeded"
    (row,) = table(enriched, "switches")
    assert (row["scope"], row["attribute"], row["state"]) == ("attribute", "color", "paused")
    assert row["who"] == "audit_ingest"
    assert "rollback_run" in str(refused.value)
    assert "Draw and judge before you take back" in str(refused.value)

    # what stands still stands; a new product's colour abstains, its material is written
    active = {key for key in before if key[1] == "color"} - {k for k in before if k[0] <= "p010" and k[1] == "color"}
    assert active <= set(values(enriched))
    change(enriched, 1, title="A new title for it")
    change(enriched, 40, color=None)
    enrich(enriched)
    new = {row["attribute"]: row for row in table(enriched, "predictions") if row["product_id"] == "p040"}
    assert (new["color"]["decision"], new["color"]["reason"]) == ("abstain", "paused")
    assert ("p040", "color") not in values(enriched)
    assert ("p040", "material") in values(enriched)

    # nothing is decided twice while it is paused; switched on, what was paused is decided
    assert enrich(enriched)["status"] == "nothing_to_do"
    catalog = enriched.context().catalog
    on = Switch(scope=Scope.ATTRIBUTE, attribute="color", state=State.ON, who="ann", why="looked at")
    switches.write(catalog, [on])
    enrich(enriched)
    assert ("p040", "color") in values(enriched)
    assert ingested(enriched)["attributes"] == {}, "verdicts from before it was switched on do not count"


@pytest.mark.slow
def test_a_certificate_is_confirmed_and_its_cap_falls_away(sample: SampleCatalog) -> None:
    loose = ("precision.target=0.6", "precision.suggest_precision=0.5", "precision.delta=0.4")
    capped = sample.with_settings("precision.provisional_cap=5", *loose)
    enrich(capped)
    assert len(colors_of(capped)) == 5
    assert enrich(capped)["waiting"]["color"] > 0
    summary = drawn(capped, **COLOR)
    judge(capped, summary["sample_id"], lambda item: Answer.YES if item.product_id > "p002" else Answer.CANNOT_TELL)
    said: list[str] = []
    report = ingested(capped, said)
    (certificate,) = report["certificates"].values()
    assert (certificate["rows"], certificate["wrong"], certificate["precision"]) == (5, 0, 1.0)
    if certificate["unsure"]:
        judge(capped, summary["sample_id"], lambda _: Answer.YES)
        assert report["confirmed"] == []
        report = ingested(capped, said)
    assert "  confirmed" in "\n".join(said)
    assert said[-1].endswith("precision.provisional_cap: enrich_catalog --config FILE")
    product_id, name = min(colors_of(capped))
    explained = explain_value(capped.context(), product_id, name)["certificate"]
    assert (explained["status"], explained["confirmation"]["run_id"]) == ("confirmed", report["run_id"])
    assert report["confirmed"] == list(report["certificates"])
    assert report["certificates"][report["confirmed"][0]]["lower"] >= 0.6
    assert review_tables.confirmed(capped.context().catalog) == set(report["confirmed"])
    enrich(capped)
    assert len(colors_of(capped)) > 5
    assert enrich(capped)["status"] == "nothing_to_do"


def test_an_alarm_is_told_once_also_where_the_attribute_is_paused_already(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path / "catalog")

    def paused(name: str, run_id: str | None) -> Switch:
        who = "ann" if run_id is None else "audit_ingest"
        return Switch(scope=Scope.ATTRIBUTE, attribute=name, state=State.PAUSED, who=who, why="alarm", run_id=run_id)

    switches.write(catalog, [paused("told", "ingest-1"), paused("person", None), paused("killed", "ingest-2")])
    catalog.append_rows("runs", [run_row("ingest-1", kind="audit", attempt=1)], "ingest-1")
    stopped = stopped_attributes(catalog)
    assert stopped == {"told", "person"}, "the pause of a run that was killed was told to nobody"
    wrong = AttributeAudit(model_version="3", verdicts=9, wrong=9, unsure=0, wealth=99.0, disputed=0)
    names = ("told", "person", "killed", "new")
    audit = Audit(
        attributes=dict.fromkeys(names, wrong), certificates={}, earlier_alarms=frozenset({("told", "3")}),
        stopped=stopped, confirmed=frozenset(), target=0.95, alpha=0.05,
    )  # fmt: skip
    assert audit.alarms() == ["person", "killed", "new"]
    states = [audit.state(name, "c") for name in (*names, "fine")]
    assert states == ["was not on", "was not on", "paused", "paused", "open"]
    enough = AuditEstimate(rows=99, wrong=0, unsure=0, precision=1.0, lower=0.96, upper=1.0)
    found = replace(audit, certificates={("fine", "c"): enough, ("new", "c"): enough}, confirmed=frozenset({"before"}))
    states = [found.state(*of) for of in (("fine", "c"), ("fine", "before"), ("fine", "other"), ("new", "before"))]
    assert states == ["confirmed", "was confirmed", "open", "paused"]
    assert [switch.attribute for switch in audit.pauses("ingest-3")] == ["killed", "new"]
    other = replace(audit, attributes=dict.fromkeys(names, replace(wrong, model_version="4")))
    assert "told" in other.alarms(), "the alarm of another version is new"
