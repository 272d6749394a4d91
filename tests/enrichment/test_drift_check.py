"""Drift checks in whole runs: a stratum beyond the bounds pauses, everything else is published."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from catalog_enrichment.catalog import switches
from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.catalog.switches import Scope, State, Switch, Switches
from catalog_enrichment.config.operations import DriftConfig
from catalog_enrichment.enrichment import drift_check
from catalog_enrichment.enrichment import summary as run_summary
from catalog_enrichment.errors import GateRefused
from catalog_enrichment.precision.drift import StratumScores

from ..catalog.catalog_rows import run_row
from ..sample_catalog import SampleCatalog, change, enrich, killed_at, register, table, values

SETTINGS = ("drift.min_products=5", "drift.masked_products=0")
FAR = {"products": 1000, "accepted": 0, "histogram": [1000] + [0] * 19, "masked": {}}
APPAREL = "both/en/Apparel"


def entry(attribute: str, *strata: dict[str, Any]) -> dict[str, Any]:
    return {"attribute": attribute, "modality": "both", "compute_type": "fp32-cpu", "strata": list(strata)}


def as_found(sample: SampleCatalog, attribute: str, category: str, **changes: Any) -> dict[str, Any]:
    """The stratum's scores as the first run gave them, ten times each."""
    rows = [
        row
        for row in table(sample, "predictions")
        if row["attribute"] == attribute and row["rank"] == 1 and row["modality"] == "both"
        if row["category"].startswith(category) and row["reason"] == "certified"
    ]
    bins = Counter(min(int(row["score"] * 20), 19) for row in rows)
    found = {"products": 10 * len(rows), "accepted": 10 * len(rows), "histogram": [10 * bins[n] for n in range(20)]}
    return {"language": "en", "category": category, "masked": {}} | found | changes


def with_reference(sample: SampleCatalog, *entries: dict[str, Any]) -> SampleCatalog:
    """The champion is a version with these references and the weights of the first version."""
    version = register(sample, sample.folder / "scratch", seed=1, drift=entries)
    sample.promotion.promote(version, expected_current="1")
    return sample.with_settings(*SETTINGS)


def test_only_strata_that_are_on_are_paused_so_that_off_stays_off() -> None:
    before, now = StratumScores(1000, 0, (1000, *[0] * 19)), StratumScores(1000, 1000, (*[0] * 19, 1000))
    both = {("color", name): (before, now) for name in ("on", "paused", "off", "on again")}
    both["color", "as before"] = (before, before)

    def moved(target: str, state: State) -> Switch:
        return Switch(scope=Scope.STRATUM, attribute="color", target=target, state=state, who="ann", why="")

    entries = [moved("paused", State.PAUSED), moved("off", State.OFF), moved("on again", State.OFF)]
    switched = Switches().with_more([*entries, moved("on again", State.ON)])
    found = drift_check.new_pauses(both, switched, DriftConfig())
    assert [(pause.target, pause.state) for pause in found] == [("on", State.PAUSED), ("on again", State.PAUSED)]


@pytest.mark.parametrize("moves", [(State.OFF,), (State.OFF, State.ON), (State.PAUSED,)])
def test_a_pause_that_is_caught_up_leaves_what_a_person_moved_meanwhile(
    tmp_path: Path, moves: tuple[State, ...]
) -> None:
    catalog = Catalog(tmp_path / "catalog")

    def move(target: str, state: State, who: str = "ann") -> None:
        moved = Switch(scope=Scope.STRATUM, attribute="color", target=target, state=state, who=who, why="")
        switches.write(catalog, [moved])

    move("before", State.OFF)
    move("before", State.ON)
    pauses = [
        {"attribute": "color", "stratum": name, "why": "far"}
        for name in ("moved", "moved later", "before", "not moved")
    ]
    attributes = json.dumps({"drift": {"compared": 3, "pauses": pauses}})
    begun = datetime.now(UTC)
    for state in moves:  # while the run is going on
        move("moved", state)
    times = {"started_at": begun, "finished_at": datetime.now(UTC)}
    catalog.append_rows("runs", [run_row("enrich-1", attempt=1, attributes=attributes, **times)], "enrich-1#1")
    move("moved later", State.OFF)

    drift_check.write_missing_pauses(catalog)
    now = {switch.target: (switch.state, switch.who) for switch in switches.read(catalog).entries}
    moved = {"moved": (moves[-1], "ann")} if moves[-1] is not State.ON else {}
    pause = (State.PAUSED, "drift check")
    assert now == moved | {"moved later": (State.OFF, "ann"), "before": pause, "not moved": pause}

    move("not moved", State.ON)
    drift_check.write_missing_pauses(catalog)
    assert "not moved" not in {switch.target for switch in switches.read(catalog).entries}, "written once"


@pytest.mark.slow
def test_a_stratum_that_has_drifted_pauses_and_the_rest_is_published(enriched: SampleCatalog) -> None:
    wanted = values(enriched, "model")
    drifted = with_reference(
        enriched.copy_to(enriched.folder.parent / "drifted"),
        entry("color", {"language": "en", "category": "Apparel", **FAR}, as_found(enriched, "color", "Home")),
        entry("material", as_found(enriched, "material", "Apparel")),
    )
    change(drifted, 50, color=None)
    summary = enrich(drifted)
    (line,) = summary["drifted"]
    assert line.startswith(f"color {APPAREL} is paused: accept rate 100.0% instead of 0.0%; stability index")
    assert summary["paused"] == [f"stratum color {APPAREL} is paused: " + line.partition("paused: ")[2]]
    decided = [row for row in table(drifted, "predictions") if row["run_id"] == summary["run_id"]]
    paused = {(row["attribute"], row["category"].split("/")[0]) for row in decided if row["reason"] == "paused"}
    assert paused == {("color", "Apparel")}
    assert ("p050", "color") not in values(drifted)
    assert ("p050", "material") in values(drifted)
    assert values(drifted, "model").items() >= wanted.items(), "what stood before stands"
    (switch,) = switches.read(drifted.context().catalog).entries
    assert (str(switch), switch.who, switch.run_id) == (
        f"stratum color {APPAREL}", "drift check", summary["run_id"],
    )  # fmt: skip
    row = next(row for row in table(drifted, "runs") if row["run_id"] == summary["run_id"])
    assert row["status"] == "succeeded"
    assert json.loads(row["attributes"])["drift"]["compared"] == 2, "of the home textiles there are too few"

    with pytest.raises(GateRefused, match="Everything else was published") as refused:
        run_summary.refuse_if_incomplete(summary)
    assert refused.value.exit_code == 3
    assert refused.value.summary["run_id"] == summary["run_id"]

    again = enrich(drifted)
    assert again["drifted"] == []
    assert ("p050", "color") not in values(drifted)
    assert enrich(drifted)["status"] == "nothing_to_do"
    run_summary.refuse_if_incomplete(again)


@pytest.mark.slow
def test_i5_a_run_killed_before_it_could_write_the_switch_is_caught_up(sample: SampleCatalog) -> None:
    strata = [{"language": "en", "category": category, **FAR} for category in ("Apparel", "Home")]
    drifted = with_reference(sample, entry("color", *strata))
    with killed_at(switches, "write"):
        enrich(drifted)
    catalog = drifted.context().catalog
    assert switches.read(catalog).entries == ()
    assert not [key for key in values(drifted, "model") if key == ("p001", "color")]
    enrich(drifted)
    assert f"stratum color {APPAREL}" in [str(switch) for switch in switches.read(catalog).entries]
    assert ("p001", "color") not in values(drifted)


@pytest.mark.slow
def test_without_drift_or_a_reference_nothing_pauses(enriched: SampleCatalog) -> None:
    same = with_reference(enriched, entry("color", as_found(enriched, "color", "Apparel")))
    assert enrich(same)["drifted"] == []
    assert table(same, "switches") == []
    off = same.with_settings(*SETTINGS, "drift.enabled=false", "images.max_bytes=1000001")
    assert enrich(off)["drifted"] == []


@pytest.mark.slow
def test_the_use_of_a_modality_is_compared_on_a_sample(
    enriched: SampleCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    from catalog_enrichment.precision import drift as bounds

    monkeypatch.setattr(drift_check, "MIN_MASKED", 5)
    monkeypatch.setattr(bounds, "MIN_MASKED", 5)
    monkeypatch.setattr(bounds, "CHANCE", 0.4)
    monkeypatch.setattr(bounds, "MODALITY_CHANGE", 0.0)
    never, always = [0, 900], [900, 900]
    references = ({"image": never}, {"image": always}, {"image": never, "text": never}, {"text": always})
    found = []
    for number, masked in enumerate(references):
        copy = enriched.copy_to(enriched.folder.parent / f"masked-{number}")
        copy = with_reference(copy, entry("color", as_found(enriched, "color", "Apparel", masked=masked)))
        # the other numbers differ by chance, which counts here
        others = ("drift.histogram_change=100", "drift.accept_rate_change=1")
        copy = copy.with_settings("drift.min_products=5", "drift.masked_products=12", *others)
        found.append(" ".join(enrich(copy, dry_run=True)["drifted"]))
    # this random model gives the same value without the picture
    assert found[0] == ""
    assert "without the image 0.0% of the top values change instead of 100.0%" in found[1]
    assert "without the text" not in found[0] + found[1], "an older reference may lack a modality"
    assert "without the text" in found[2] + found[3], "its share cannot be both that of never and that of always"
    assert "without the image" not in found[2] + found[3]


@pytest.mark.slow
def test_new_languages_and_categories_are_refused_by_name(enriched: SampleCatalog) -> None:
    change(enriched, 60, category="Toys/Puzzles", color=None)
    summary = enrich(enriched)
    assert summary["unseen"] == {"color": {"category Toys/Puzzles": 1}}
    assert ("p060", "color") not in values(enriched)
