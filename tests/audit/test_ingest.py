"""What verdicts do to the catalog: values retracted and blocked, human values, estimates, alarms, confirmations."""

from __future__ import annotations

from typing import Any

import pytest

from catalog_enrichment.audit import consequences, revoke
from catalog_enrichment.audit.items import Answer, Item
from catalog_enrichment.catalog import runs, switches, verdicts
from catalog_enrichment.catalog.lake import LakeCatalog
from catalog_enrichment.catalog.switches import Scope, State, Switch
from catalog_enrichment.errors import ConfigError, GateRefused
from catalog_enrichment.operations import rollback

from ..sample_catalog import SampleCatalog, change, enrich, killed_at, register, table, values
from .reviewers import drawn, ingested, items_of, judge

COLOR = {"attributes": ("color",), "uniform": 50, "near": 0}


def other_color(value: str) -> str:
    return next(one for one in ("Red", "Green", "Blue") if one != value)


def events(sample: SampleCatalog, run_id: str) -> list[tuple[Any, ...]]:
    """What a run wrote to the ledger, without times."""
    names = ("product_id", "attribute", "value", "op", "source", "reason")
    rows = [row for row in table(sample, "attribute_values") if row["run_id"] == run_id]
    return sorted(tuple(row[name] for name in names) for row in rows)


def promote_new(sample: SampleCatalog, seed: int) -> None:
    """Another version that may write everything becomes the champion."""
    before = sample.registry.champion()
    version = register(sample, sample.folder / f"scratch-{seed}", seed=seed)
    sample.registry.promote(version, expected_current=before)


def test_a_no_retracts_and_blocks_a_correction_is_a_human_value(enriched: SampleCatalog) -> None:
    """One story on one catalog, because every run of Spark costs seconds."""
    colors = {key: value for key, value in values(enriched, "model").items() if key[1] == "color"}
    (no, color_no), (other, color_other), *_ = sorted(colors.items())
    summary = drawn(enriched, **COLOR)
    assert summary["items"] == len(colors)

    def answer(item: Item) -> Any:
        if item.product_id == no[0]:
            return Answer.NO
        return (other_color(item.value),) if item.product_id == other[0] else Answer.YES

    judge(enriched, summary["sample_id"], answer)
    dry = ingested(enriched, dry_run=True)
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
    said = {row["product_id"]: row for row in table(enriched, "verdicts")}
    assert said[other[0]]["right_values"] == [other_color(color_other[0])]
    assert said[no[0]]["reviewers"] == ["ann"]

    again = ingested(enriched)
    assert (again["status"], again["verdicts"], again["events"]) == ("nothing_to_do", 0, 0)
    assert len(table(enriched, "verdicts")) == len(colors)

    # the same value of another version, and of other content, is not written either
    assert verdicts.refused(enriched.context().catalog) == {(*no, color_no[0]), (*other, color_other[0])}
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
    assert (*other, color_other[0]) not in verdicts.refused(enriched.context().catalog)


@pytest.mark.slow
def test_a_refused_value_uncovers_nothing_and_is_not_written_by_another_version(enriched: SampleCatalog) -> None:
    colors = {key: value for key, value in values(enriched, "model").items() if key[1] == "color"}
    promote_new(enriched, 34)
    enrich(enriched)
    newer = {key: value for key, value in values(enriched, "model").items() if key[1] == "color"}
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
    assert refused == {(row["product_id"], row["value"]) for row in rows} & {
        (one, newer[one, a][0]) for one, a in differing
    }
    assert refused, "the third version repeats no refused value: choose another seed"
    assert all(values(enriched).get((one, "color")) != (value,) for one, value in refused)

    # a rollback of the verdicts brings the values back, and lifts the block
    rollback.rollback_run(enriched.context().catalog, first["run_id"])
    assert verdicts.refused(enriched.context().catalog) == set()


@pytest.mark.slow
def test_i1_a_merchants_value_is_not_touched_by_a_correction(enriched: SampleCatalog) -> None:
    summary = drawn(enriched, **COLOR)
    item = items_of(enriched, summary["sample_id"])[0]
    judge(
        enriched,
        summary["sample_id"],
        lambda one: ("Green",) if one == item and one.value != "Green" else ("Red",) if one == item else None,
    )
    change(enriched, int(item.product_id[1:]), color="Blue")
    ingested(enriched)
    assert values(enriched)[item.product_id, "color"] == ("Blue",)
    assert [row for row in table(enriched, "attribute_values") if row["source"] == "human"] == []


@pytest.mark.parametrize(
    ("owner", "name", "unless"),
    [
        (LakeCatalog, "append_rows", ""),  # before the verdicts land
        (consequences, "publish", ""),  # before the commit to the ledger
        (LakeCatalog, "refresh_current_values", "catch-up"),  # after it
        (switches, "write", ""),  # before the alarm is written
        (runs, "write", ""),  # before the row that makes the verdicts count
    ],
)
@pytest.mark.slow
def test_i5_killed_anywhere_and_run_again_it_ends_as_undisturbed(
    enriched: SampleCatalog, owner: Any, name: str, unless: str
) -> None:
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
    assert (row["scope"], row["attribute"], row["state"], row["who"]) == (
        "attribute",
        "color",
        "paused",
        "audit_ingest",
    )
    assert "rollback_run" in str(refused.value)

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
    assert len([key for key in values(capped, "model") if key[1] == "color"]) == 5
    assert enrich(capped)["waiting"]["color"] > 0
    summary = drawn(capped, **COLOR)
    judge(capped, summary["sample_id"], lambda item: Answer.YES if item.product_id > "p002" else Answer.CANNOT_TELL)
    judged_yes = ingested(capped)
    (certificate,) = judged_yes["certificates"].values()
    assert (certificate["rows"], certificate["wrong"], certificate["precision"]) == (5, 0, 1.0)
    if certificate["unsure"]:
        judge(capped, summary["sample_id"], lambda _: Answer.YES)
        assert judged_yes["confirmed"] == []
        judged_yes = ingested(capped)
    report = judged_yes
    assert report["confirmed"] == list(report["certificates"])
    assert report["certificates"][report["confirmed"][0]]["lower"] >= 0.6
    assert verdicts.confirmed(capped.context().catalog) == set(report["confirmed"])
    enrich(capped)
    now = [key for key in values(capped, "model") if key[1] == "color"]
    assert len(now) > 3
    assert enrich(capped)["status"] == "nothing_to_do"


@pytest.mark.slow
def test_one_command_takes_back_what_a_certificate_wrote(enriched: SampleCatalog) -> None:
    catalog = enriched.context().catalog
    before = values(enriched)
    certificates = {row["attribute"]: row["certificate_id"] for row in table(enriched, "attribute_values")}
    with pytest.raises(ConfigError, match="nothing was written under certificate 'other'"):
        revoke.revoke(catalog, "other", "ann")
    colors = {key for key in values(enriched, "model") if key[1] == "color"}
    dry = revoke.revoke(catalog, certificates["color"], "ann", dry_run=True)
    assert (dry["status"], dry["events"]) == ("dry_run", {"color": len(colors)})
    assert table(enriched, "switches") == []
    done = revoke.revoke(catalog, certificates["color"], "ann")
    assert done["events"] == {"color": len(colors)}
    assert set(values(enriched)) == set(before) - colors
    assert revoke.revoke(catalog, certificates["color"], "ann")["status"] == "nothing_to_do"
    enrich(enriched)
    assert set(values(enriched)) == set(before) - colors, "nothing is written under it any more"
    assert {row["reason"] for row in table(enriched, "predictions") if row["decision"] == "abstain"} >= {"paused"}

    rollback.rollback_run(catalog, done["run_id"])
    assert values(enriched) == before
    switches.write(
        catalog, [Switch(scope=Scope.CERTIFICATE, target=certificates["color"], state=State.ON, who="a", why="b")]
    )
    enrich(enriched)
    assert values(enriched) == before


@pytest.mark.slow
def test_killed_while_taking_back_it_ends_the_same(enriched: SampleCatalog) -> None:
    catalog = enriched.context().catalog
    certificate = next(row["certificate_id"] for row in table(enriched, "attribute_values"))
    with killed_at(LakeCatalog, "refresh_current_values"):
        revoke.revoke(catalog, certificate, "ann")
    done = revoke.revoke(catalog, certificate, "ann")
    assert done["status"] == "succeeded"
    rows = [row for row in table(enriched, "attribute_values") if row["op"] == "retract"]
    assert len(rows) == sum(done["events"].values()) == len({row["refers_to"] for row in rows})
