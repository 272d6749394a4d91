"""Which verdicts count for the alarm and for the bounds, and what they ask for; but for one test no Spark."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from catalog_enrichment.audit import consequences, estimates, ingest
from catalog_enrichment.audit.fresh_labels import audited_fold
from catalog_enrichment.audit.items import Answer
from catalog_enrichment.catalog import people_labels, switches, verdicts
from catalog_enrichment.catalog.lake import LakeCatalog
from catalog_enrichment.catalog.switches import Scope, State, Switch
from catalog_enrichment.dictionary import Attribute, Dictionary
from catalog_enrichment.records import Cardinality

from ..catalog.catalog_rows import frame, product, run_row, stamp

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

START = datetime(2026, 5, 1, tzinfo=UTC)


def drawn(number: int, **given: Any) -> dict[str, Any]:
    usual = {
        "item_id": f"i{number}", "sample_id": "s", "purpose": "audit", "stratum": "uniform", "attribute": "color",
        "certificate_id": "c1", "weight": 1.0, "highest_weight": 1.0, "drawn_at": START, "score": 0.9,
        "product_id": f"p{number}", "content_hash": f"h{number}", "value": "red", "model_version": "3",
        "run_id": "sample-1", "probability": 0.1, "threshold": 0.5,
    }  # fmt: skip
    return usual | given


def said(number: int, answer: str, *right: str, **given: Any) -> dict[str, Any]:
    usual = {
        "item_id": f"i{number}", "purpose": "audit", "product_id": f"p{number}", "attribute": "color", "value": "red",
        "answer": answer, "right_values": list(right), "settled_at": START + timedelta(minutes=number),
    }  # fmt: skip
    return usual | given


def by_item(*rows: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["item_id"]: row for row in rows}


def test_the_alarm_counts_uniform_rows_that_somebody_could_tell() -> None:
    rows = [drawn(1), drawn(2), drawn(3), drawn(4, stratum="near_threshold"), drawn(5), drawn(6, purpose="label")]
    verdicts = by_item(said(1, "no"), said(2, "yes"), said(3, "cannot_tell"), said(4, "no"), said(6, "no"))
    judged = estimates.judged(rows, verdicts, disputed={"i5"})
    assert [one.row["item_id"] for one in judged] == ["i1", "i2", "i3", "i4", "i5"]
    audit = estimates.by_attribute(judged, {}, 0.05)["color"]
    assert (audit.verdicts, audit.wrong, audit.unsure, audit.disputed, audit.alarm) == (3, 1, 1, 1, False)
    wrong_twice = estimates.judged(rows, verdicts | by_item(said(2, "other", "green")), disputed=())
    alarmed = estimates.by_attribute(wrong_twice, {}, 0.05)["color"]
    assert (alarmed.verdicts, alarmed.wrong, alarmed.alarm) == (2, 2, True)
    assert "2 of 2 uniformly drawn values of model version 3 are wrong" in alarmed.why()


def test_what_an_older_version_wrote_right_does_not_count_for_a_new_one() -> None:
    new = {"model_version": "4", "certificate_id": "c2"}
    rows = [*[drawn(n) for n in range(200)], *[drawn(n, **new) for n in range(200, 204)]]
    rows += [drawn(n, **new, attribute="size") for n in range(204, 206)]
    verdicts = by_item(*(said(n, "yes" if n < 201 else "no") for n in range(206)))
    audits = estimates.by_attribute(estimates.judged(rows, verdicts, ()), {}, 0.05)
    color = audits["color"]
    assert (color.model_version, color.verdicts, color.wrong, color.alarm) == ("4", 4, 3, True)
    assert list(audits) == ["color", "size"]
    old = [one for one in rows if one["model_version"] == "3"]
    right = estimates.by_attribute(estimates.judged(old, verdicts, ()), {}, 0.05)["color"]
    assert (right.model_version, right.alarm) == ("3", False)


def test_samples_from_before_the_attribute_was_switched_on_do_not_count() -> None:
    rows = [drawn(1), drawn(2, drawn_at=START + timedelta(hours=2))]
    judged = estimates.judged(rows, by_item(said(1, "no"), said(2, "yes")), ())
    assert estimates.by_attribute(judged, {"color": START + timedelta(hours=1)}, 0.05)["color"].wrong == 0
    assert estimates.by_attribute(judged, {"color": START}, 0.05)["color"].wrong == 1
    assert estimates.by_attribute(judged, {"color": START + timedelta(hours=3)}, 0.05) == {}


def test_the_bounds_count_both_strata_and_disputed_rows_as_unsure() -> None:
    rows = [
        *[drawn(n, weight=1.25, highest_weight=1.25) for n in range(80)],
        *[drawn(n, stratum="near_threshold", weight=0.5, highest_weight=1.25, score=0.6) for n in range(80, 120)],
        drawn(120, certificate_id=None),
        drawn(121, stratum="same_product"),
    ]
    verdicts = by_item(*(said(n, "no" if n in (85, 90, 121) else "yes") for n in range(122) if n != 3))
    found = estimates.by_certificate(estimates.judged(rows, verdicts, {"i3"}), 0.05)
    one = found["color", "c1"]
    assert list(found) == [("color", "c1")]
    assert (one.rows, one.wrong, one.unsure) == (120, 2, 1)
    assert one.precision == pytest.approx(1 - 1.0 / (79 * 1.25 + 40 * 0.5))


def test_who_was_not_asked_or_cannot_tell_counts_as_wrong_in_a_new_certificate() -> None:
    rows = [drawn(n, content_hash=f"h{n // 2}", score=0.9 + n / 100) for n in range(4)]
    verdicts = by_item(said(0, "yes"), said(1, "cannot_tell"), said(2, "no"))
    fold = audited_fold(rows, rows, verdicts, Cardinality.ONE)
    assert fold.wrong_scores.tolist() == [-np.inf, 0.91, 0.92, 0.93]
    assert fold.weights.tolist() == [1, 1, 1, 1]
    assert fold.groups.tolist() == [0, 0, 1, 1]
    assert fold.scores.tolist() == [0.9, 0.91, 0.92, 0.93]
    assert fold.data_window == "2026-05-01/2026-05-01"
    assert len(audited_fold([], [], {}, Cardinality.ONE).groups) == 0


WORDS = Dictionary(
    {
        "color": Attribute(name="color", cardinality=Cardinality.ONE, values=("red", "green", "blue")),
        "material": Attribute(name="material", cardinality=Cardinality.MANY, values=("cotton", "wool", "silk")),
    }
)


def test_what_verdicts_ask_for() -> None:
    new = [said(1, "no"), said(2, "other", "green"), said(3, "yes"), said(4, "cannot_tell"), said(5, "other", "pink")]
    plan_ = consequences.wanted(new, {}, WORDS)
    assert plan_.refused == {(f"p{n}", "color", "red") for n in (1, 2, 5)}
    assert plan_.human == {("p2", "color"): ("green",)}
    assert (plan_.allowed, plan_.unknown) == (frozenset(), 1)


def test_a_changed_mind_allows_again_and_takes_the_human_set_back() -> None:
    before = by_item(said(1, "no"), said(2, "other", "green"))
    plan_ = consequences.wanted([said(1, "yes"), said(2, "no", settled_at=START + timedelta(days=1))], before, WORDS)
    assert plan_.allowed == {("p1", "color", "red")}
    assert plan_.refused == {("p2", "color", "red")}
    assert plan_.human == {("p2", "color"): ()}


def test_a_refused_value_comes_back_only_by_the_same_item_or_a_managers_accept() -> None:
    key, later = ("p1", "color", "red"), START + timedelta(days=1)
    no = said(1, "no")
    before = by_item(no)

    def of(number: int, answer: str, **given: Any) -> dict[str, Any]:
        return said(number, answer, **{"product_id": "p1", "settled_at": later} | given)

    for answer in ("cannot_tell", "yes"):  # another item, of another sample
        assert verdicts.refused_values([no, of(7, answer)]) == {key}
        assert consequences.wanted([of(7, answer)], before, WORDS).allowed == frozenset()
    for answer in ("cannot_tell", "yes"):
        assert verdicts.refused_values([of(1, answer)]) == set()
        assert consequences.wanted([of(1, answer)], before, WORDS).allowed == {key}
    accept = of(7, "yes", purpose="suggestions")
    assert verdicts.refused_values([no, accept]) == set()
    assert consequences.wanted([accept], before, WORDS).allowed == {key}
    earlier = of(7, "yes", purpose="suggestions", settled_at=START)
    assert verdicts.refused_values([no, earlier]) == {key}, "the no is the newer word"
    again = of(8, "no", settled_at=later + timedelta(days=1))
    assert consequences.wanted([again], by_item(no, accept), WORDS).refused == {key}


def test_a_set_that_the_verdicts_gave_before_is_not_asked_for_again() -> None:
    blue = said(1, "other", "blue")
    assert consequences.wanted([said(7, "yes", product_id="p1", value="green")], by_item(blue), WORDS).human == {}
    newer = said(7, "other", "green", product_id="p1", settled_at=START + timedelta(days=1))
    plan_ = consequences.wanted([newer], by_item(blue), WORDS)
    assert plan_.human == {("p1", "color"): ("green",)}
    assert plan_.said_at == {("p1", "color"): START + timedelta(days=1)}


def test_what_a_rolled_back_run_took_in_does_not_count_and_is_not_taken_in_again(tmp_path: Path) -> None:
    catalog = LakeCatalog(tmp_path / "catalog")
    rows = [said(1, "no"), said(2, "no"), said(3, "other", "green", attribute="size")]
    given = {"sample_id": "s", "reviewers": ["ann"]}
    first = said(2, "yes", settled_at=START) | given | {"run_id": "ingest-0"}
    catalog.append_rows("verdicts", [first, *(row | given | {"run_id": "ingest-1"} for row in rows)], "verdicts")
    confirmed = {"lower_bound": 0.96, "rows": 300, "wrong": 2, "alpha": 0.05, "confirmed_at": START}
    confirmed |= {"certificate_id": "c1", "attribute": "color", "run_id": "ingest-1"}
    catalog.append_rows("confirmations", [confirmed], "confirmations")
    times = [{"finished_at": START + timedelta(hours=hour), "attempt": 1} for hour in range(3)]
    ingests = [run_row(f"ingest-{number}", kind="audit", **times[number]) for number in (0, 1)]
    catalog.append_rows("runs", ingests, "ingests")
    assert set(verdicts.newest(catalog)) == {"i1", "i2", "i3"}
    assert verdicts.confirmed(catalog) == {"c1"}
    window = '{"run_id": "ingest-1", "attribute": "color"}'
    back = run_row("back", kind="rollback", parent_run_id="ingest-1", window=window, **times[2])
    catalog.append_rows("runs", [back], "back")
    assert {item: row["answer"] for item, row in verdicts.newest(catalog).items()} == {"i2": "yes", "i3": "other"}
    assert {item: row["answer"] for item, row in verdicts.ingested(catalog).items()} == {
        "i1": "no", "i2": "no", "i3": "other"
    }  # fmt: skip
    assert verdicts.refused(catalog) == {("p3", "size", "red")}
    assert set(people_labels.labels(catalog)) == {"p2", "p3"}
    assert verdicts.confirmed(catalog) == frozenset()


def test_only_samples_that_are_asked_for_and_complete_are_read_in_the_order_of_the_draw(tmp_path: Path) -> None:
    catalog = LakeCatalog(tmp_path / "catalog")
    runs = [
        run_row(f"sample-{number}", kind="sample", finished_at=START + timedelta(hours=number)) for number in (1, 2)
    ]
    catalog.append_rows("runs", runs, "runs")
    rows = [
        drawn(5, run_id="sample-2", sample_id="b", draw_order=0),
        *[drawn(n, draw_order=3 - n) for n in (1, 2)],
        drawn(9, run_id="killed", sample_id="c", draw_order=0),
    ]
    catalog.append_rows("audits", [row | {"population": 9, "decided_by": "run-1"} for row in rows], "audits")
    assert [row["item_id"] for row in verdicts.drawn(catalog)] == ["i2", "i1", "i5"]
    assert [row["item_id"] for row in verdicts.drawn(catalog, {"s"})] == ["i2", "i1"]
    assert verdicts.drawn(catalog, set()) == []


def test_a_newer_set_of_a_person_stands(spark: SparkSession) -> None:
    """Only of people: what an earlier ingest wrote is replaced."""
    by_merchant = product("p4", merchant_attributes={"color": ["green"]})
    products = frame(spark, "products", [product("p1"), product("p2"), product("p3"), product("p5"), by_merchant])
    people = {"attribute": "color", "source": "human", "op": "assert", "value": "green"}
    sets = [("p1", "person", 2), ("p2", "person", 0), ("p3", "ingest-1", 2)]
    events = [
        people | {"event_id": one, "product_id": one, "run_id": run_id, "asserted_at": START + timedelta(hours=hours)}
        for one, run_id, hours in sets
    ]
    human = {(one, "color"): ("blue",) for one, _, _ in sets} | {(one, "color"): ("",) for one in ("p4", "p5")}
    said_at = dict.fromkeys(human, START + timedelta(hours=1))
    plan_ = consequences.LedgerPlan(frozenset(), frozenset(), human, 0, said_at)
    active = frame(spark, "attribute_values", events)
    rows, _ = consequences._human_events(products, active, plan_, stamp("ingest-2", 9), {"ingest-1"})
    assert {row["product_id"]: row["reason"] for row in rows} == {
        "p2": "set_by_person", "p3": "set_by_person", "p5": "removed_by_person"
    }  # fmt: skip


def test_an_alarm_is_told_once_also_where_the_attribute_is_paused_already(tmp_path: Path) -> None:
    catalog = LakeCatalog(tmp_path / "catalog")

    def paused(name: str, run_id: str | None) -> Switch:
        who = "ann" if run_id is None else "audit_ingest"
        return Switch(scope=Scope.ATTRIBUTE, attribute=name, state=State.PAUSED, who=who, why="alarm", run_id=run_id)

    switches.write(catalog, [paused("told", "ingest-1"), paused("person", None), paused("killed", "ingest-2")])
    catalog.append_rows("runs", [run_row("ingest-1", kind="audit", attempt=1)], "ingest-1")
    stopped = ingest._stopped(catalog)
    assert stopped == {"told", "person"}, "the pause of a run that was killed was told to nobody"
    wrong = estimates.AttributeAudit(model_version="3", verdicts=9, wrong=9, unsure=0, wealth=99.0, disputed=0)
    names = ("told", "person", "killed", "new")
    before = ingest.Active(alarms=frozenset({("told", "3")}), stopped=stopped, confirmed=frozenset())
    audit = ingest.Audit(dict.fromkeys(names, wrong), {}, before, (0.95, 0.05))
    assert audit.alarms() == ["person", "killed", "new"]
    assert [one.attribute for one in audit.pauses("ingest-3")] == ["killed", "new"]
    assert "Draw and judge before you take back" in ingest._alarm(audit, ())
    other = dict.fromkeys(names, replace(wrong, model_version="4"))
    assert "told" in ingest.Audit(other, {}, before, (0.95, 0.05)).alarms(), "another version's alarm is a new one"


def test_a_set_of_several_values_keeps_what_was_confirmed_and_drops_what_was_refused() -> None:
    about = {"attribute": "material", "product_id": "p1"}
    cotton, wool = said(1, "yes", **about | {"value": "cotton"}), said(2, "other", "silk", **about | {"value": "wool"})
    assert consequences.wanted([wool], by_item(cotton), WORDS).human == {("p1", "material"): ("cotton", "silk")}
    again = said(3, "no", **about | {"value": "silk"})
    assert consequences.wanted([again], by_item(cotton, wool), WORDS).human == {("p1", "material"): ("cotton",)}


def test_that_there_is_no_value_is_a_wrong_value_for_alarm_and_bounds() -> None:
    rows = [drawn(number) for number in range(4)]
    said_none = by_item(said(0, "none"), said(1, "yes"), said(2, "yes"), said(3, "cannot_tell"))
    judged = estimates.judged(rows, said_none, ())
    audit = estimates.by_attribute(judged, {}, 0.05)["color"]
    assert (audit.verdicts, audit.wrong, audit.unsure) == (3, 1, 1)
    bounds = estimates.by_certificate(judged, 0.05)["color", "c1"]
    assert (bounds.rows, bounds.wrong, bounds.unsure) == (4, 1, 1)
    assert verdicts.refused_values(said_none.values()) == {("p0", "color", "red")}


def test_values_that_were_judged_as_proposals_before_count_for_no_estimate() -> None:
    proposals = {"purpose": "proposals", "run_id": "sample-0", "sample_id": "t", "certificate_id": None}
    rows = [
        *(drawn(number, **proposals | {"item_id": f"t{number}"}) for number in (1, 2)),
        *(drawn(number, drawn_at=START + timedelta(days=1)) for number in (1, 2, 3)),
        drawn(4, **proposals | {"item_id": "t4", "drawn_at": START + timedelta(days=2)}),
        drawn(4),
    ]
    given = by_item(*(said(number, "yes") for number in (1, 2, 3, 4)), said(1, "yes", item_id="t1"))
    given |= by_item(said(4, "yes", item_id="t4"))
    judged = estimates.judged(rows, given, ())
    assert [one.row["item_id"] for one in judged] == ["i2", "i3", "i4"]


NONE = ("",)
P1 = ("p1", "color")


def test_that_there_is_no_value_becomes_the_human_set_and_the_newest_word_counts() -> None:
    none = said(1, "none")
    for purpose in ("audit", "gold", "proposals"):
        plan_ = consequences.wanted([none | {"purpose": purpose}], {}, WORDS)
        assert (plan_.human, plan_.refused) == ({P1: NONE}, {(*P1, "red")})
    gold = none | {"purpose": "gold", "value": ""}
    plan_ = consequences.wanted([gold], {}, WORDS)
    assert (plan_.human, plan_.refused) == ({P1: NONE}, frozenset())
    for purpose in ("label", "suggestions"):
        assert consequences.wanted([none | {"purpose": purpose}], {}, WORDS).human == {}
    assert consequences.wanted([gold], by_item(gold), WORDS).human == {}, "the same word is not written again"

    blue = said(2, "other", "green", product_id="p1", item_id="later")
    earlier = blue | {"settled_at": START}
    assert consequences.wanted([blue], by_item(gold), WORDS).human == {P1: ("green",)}
    assert consequences.wanted([gold], by_item(earlier), WORDS).human == {P1: NONE}
    unknown = blue | {"right_values": ["mauve"]}
    plan_ = consequences.wanted([unknown], by_item(gold), WORDS)
    assert (plan_.human, plan_.unknown) == ({P1: ()}, 1)
    many = {"attribute": "material", "purpose": "gold", "value": "", "product_id": "p1"}
    wool = said(2, "other", "cotton", "wool", **many)
    assert consequences.wanted([wool], by_item(said(1, "none", **many)), WORDS).human == {
        ("p1", "material"): ("cotton", "wool")
    }
    assert consequences.wanted([said(3, "none", **many)], by_item(wool), WORDS).human == {("p1", "material"): NONE}


def test_where_there_is_a_value_after_all_only_values_that_are_still_refused_stay_away() -> None:
    none = said(1, "none", value="", purpose="gold")
    refused = said(2, "no", product_id="p1", value="green")
    plan_ = consequences.wanted([none | {"answer": "cannot_tell"}], by_item(none, refused), WORDS)
    assert (plan_.human, plan_.freed) == ({P1: ()}, {P1: frozenset({"green"})})
    assert consequences.wanted([none], by_item(refused), WORDS).freed == {}


def test_answers_for_labels_become_no_human_value_but_refuse() -> None:
    plan_ = consequences.wanted(
        [said(1, "other", "green", purpose="label"), said(2, "no", purpose="label", value="")], {}, WORDS
    )
    assert plan_.human == {}
    assert plan_.refused == {("p1", "color", "red")}


def test_a_value_that_is_also_among_the_right_ones_is_not_wrong() -> None:
    row = said(1, "other", "cotton", "wool", attribute="material", value="wool")
    assert consequences.wanted([row], {}, WORDS).refused == frozenset()
    (one,) = estimates.judged([drawn(1, attribute="material", value="wool")], by_item(row), ())
    assert (one.wrong, one.answer) == (False, Answer.OTHER)
