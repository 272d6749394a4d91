"""The changes that verdicts ask for: values that are refused or allowed again, and the sets that people give."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from catalog_enrichment.audit.consequences import LedgerPlan, ledger_plan, planned_events
from catalog_enrichment.catalog import review_tables
from catalog_enrichment.dictionary import Attribute, Dictionary
from catalog_enrichment.records import Cardinality

from ..catalog.catalog_rows import frame, product, stamp
from ..open_words import OPEN_WORDS
from .audit_rows import START, by_item, said

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

WORDS = Dictionary(
    {
        "color": Attribute(name="color", cardinality=Cardinality.ONE, values=("red", "green", "blue")),
        "material": Attribute(name="material", cardinality=Cardinality.MANY, values=("cotton", "wool", "silk")),
    }
)
P1 = ("p1", "color")
NONE = ("",)


def test_what_verdicts_ask_for() -> None:
    new = [said(1, "no"), said(2, "other", "green"), said(3, "yes"), said(4, "cannot_tell"), said(5, "other", "pink")]
    plan = ledger_plan(new, {}, WORDS)
    assert plan.refused == {(f"p{n}", "color", "red") for n in (1, 2, 5)}
    assert plan.human == {("p2", "color"): ("green",)}
    assert (plan.allowed, plan.unknown) == (frozenset(), 1)


def test_a_changed_mind_allows_again_and_takes_the_human_set_back() -> None:
    before = by_item(said(1, "no"), said(2, "other", "green"))
    plan = ledger_plan([said(1, "yes"), said(2, "no", settled_at=START + timedelta(days=1))], before, WORDS)
    assert plan.allowed == {("p1", "color", "red")}
    assert plan.refused == {("p2", "color", "red")}
    assert plan.human == {("p2", "color"): ()}


def test_a_refused_value_comes_back_only_by_the_same_item_or_a_managers_accept() -> None:
    key, later = ("p1", "color", "red"), START + timedelta(days=1)
    no = said(1, "no")
    before = by_item(no)

    def of(number: int, answer: str, **given: Any) -> dict[str, Any]:
        return said(number, answer, **{"product_id": "p1", "settled_at": later} | given)

    for answer in ("cannot_tell", "yes"):  # another item, of another sample
        assert review_tables.refused_values([no, of(7, answer)], WORDS) == {key}
        assert ledger_plan([of(7, answer)], before, WORDS).allowed == frozenset()
    for answer in ("cannot_tell", "yes"):
        assert review_tables.refused_values([of(1, answer)], WORDS) == set()
        assert ledger_plan([of(1, answer)], before, WORDS).allowed == {key}
    accept = of(7, "yes", purpose="suggestions")
    assert review_tables.refused_values([no, accept], WORDS) == set()
    assert ledger_plan([accept], before, WORDS).allowed == {key}
    earlier = of(7, "yes", purpose="suggestions", settled_at=START)
    assert review_tables.refused_values([no, earlier], WORDS) == {key}, "the no is the newer word"
    again = of(8, "no", settled_at=later + timedelta(days=1))
    assert ledger_plan([again], by_item(no, accept), WORDS).refused == {key}


def test_a_set_that_the_verdicts_gave_before_is_not_asked_for_again() -> None:
    blue = said(1, "other", "blue")
    assert ledger_plan([said(7, "yes", product_id="p1", value="green")], by_item(blue), WORDS).human == {}
    newer = said(7, "other", "green", product_id="p1", settled_at=START + timedelta(days=1))
    plan = ledger_plan([newer], by_item(blue), WORDS)
    assert plan.human == {("p1", "color"): ("green",)}
    assert plan.given_at == {("p1", "color"): START + timedelta(days=1)}


def test_a_set_of_several_values_keeps_what_was_confirmed_and_drops_what_was_refused() -> None:
    about = {"attribute": "material", "product_id": "p1"}
    cotton, wool = said(1, "yes", **about | {"value": "cotton"}), said(2, "other", "silk", **about | {"value": "wool"})
    assert ledger_plan([wool], by_item(cotton), WORDS).human == {("p1", "material"): ("cotton", "silk")}
    again = said(3, "no", **about | {"value": "silk"})
    assert ledger_plan([again], by_item(cotton, wool), WORDS).human == {("p1", "material"): ("cotton",)}


def test_that_there_is_no_value_becomes_the_human_set_and_the_newest_word_counts() -> None:
    none = said(1, "none")
    for purpose in ("audit", "gold", "proposals"):
        plan = ledger_plan([none | {"purpose": purpose}], {}, WORDS)
        assert (plan.human, plan.refused) == ({P1: NONE}, {(*P1, "red")})
    gold = none | {"purpose": "gold", "value": ""}
    plan = ledger_plan([gold], {}, WORDS)
    assert (plan.human, plan.refused) == ({P1: NONE}, frozenset())
    for purpose in ("label", "suggestions"):
        assert ledger_plan([none | {"purpose": purpose}], {}, WORDS).human == {}
    assert ledger_plan([gold], by_item(gold), WORDS).human == {}, "the same word is not written again"

    blue = said(2, "other", "green", product_id="p1", item_id="later")
    earlier = blue | {"settled_at": START}
    assert ledger_plan([blue], by_item(gold), WORDS).human == {P1: ("green",)}
    assert ledger_plan([gold], by_item(earlier), WORDS).human == {P1: NONE}
    unknown = blue | {"right_values": ["mauve"]}
    plan = ledger_plan([unknown], by_item(gold), WORDS)
    assert (plan.human, plan.unknown) == ({P1: ()}, 1)
    many = {"attribute": "material", "purpose": "gold", "value": "", "product_id": "p1"}
    wool = said(2, "other", "cotton", "wool", **many)
    assert ledger_plan([wool], by_item(said(1, "none", **many)), WORDS).human == {
        ("p1", "material"): ("cotton", "wool")
    }
    assert ledger_plan([said(3, "none", **many)], by_item(wool), WORDS).human == {("p1", "material"): NONE}


def test_where_there_is_a_value_after_all_only_values_that_are_still_refused_stay_away() -> None:
    none = said(1, "none", value="", purpose="gold")
    refused = said(2, "no", product_id="p1", value="green")
    plan = ledger_plan([none | {"answer": "cannot_tell"}], by_item(none, refused), WORDS)
    assert (plan.human, plan.freed) == ({P1: ()}, {P1: frozenset({"green"})})
    assert ledger_plan([none], by_item(refused), WORDS).freed == {}


def test_answers_for_labels_become_no_human_value_but_refuse() -> None:
    plan = ledger_plan(
        [said(1, "other", "green", purpose="label"), said(2, "no", purpose="label", value="")], {}, WORDS
    )
    assert plan.human == {}
    assert plan.refused == {("p1", "color", "red")}


def test_a_value_that_is_also_among_the_right_ones_is_not_refused() -> None:
    row = said(1, "other", "cotton", "wool", attribute="material", value="wool")
    assert ledger_plan([row], {}, WORDS).refused == frozenset()


def test_i1_values_of_merchants_and_newer_human_sets_are_kept(spark: SparkSession) -> None:
    by_merchant = product("p4", merchant_attributes={"color": ["green"]})
    products = frame(spark, "products", [product("p1"), product("p2"), product("p3"), product("p5"), by_merchant])
    people = {"attribute": "color", "source": "human", "op": "assert", "value": "green"}
    sets = [("p1", "person", 2), ("p2", "person", 0), ("p3", "ingest-1", 2)]
    events = [
        people | {"event_id": name, "product_id": name, "run_id": run_id, "asserted_at": START + timedelta(hours=hours)}
        for name, run_id, hours in sets
    ]
    human = {(name, "color"): ("blue",) for name, _, _ in sets} | {(name, "color"): NONE for name in ("p4", "p5")}
    given_at = dict.fromkeys(human, START + timedelta(hours=1))
    plan = LedgerPlan(frozenset(), frozenset(), human, 0, given_at)
    ledger = frame(spark, "attribute_values", events)
    rows = planned_events(products, ledger, plan, stamp("ingest-2", 9), {"ingest-1"}, WORDS).collect()
    assert {(row["product_id"], row["op"], row["reason"]) for row in rows} == {
        ("p2", "assert", "set_by_person"),
        ("p3", "assert", "set_by_person"),
        ("p5", "assert", "removed_by_person"),
    }


def test_what_is_refused_of_a_number_or_text_is_refused_in_every_spelling(spark: SparkSession) -> None:
    width, brand = {"attribute": "width"}, {"attribute": "brand"}
    no = said(1, "no", value="109 cm", **width)
    later = {"settled_at": START + timedelta(days=1)}
    accepted = said(2, "yes", product_id="p1", value="1.09 m", purpose="suggestions", **width, **later)
    assert review_tables.refused_values([no], OPEN_WORDS) == {("p1", "width", "109 cm")}
    assert review_tables.refused_values([no, accepted], OPEN_WORDS) == set(), "a manager accepted the same value"
    other = accepted | {"value": "112 cm"}
    assert review_tables.refused_values([no, other], OPEN_WORDS) == {("p1", "width", "109 cm")}

    wrong = ledger_plan([no, said(3, "no", value="HP", **brand)], {}, OPEN_WORDS)
    values = [
        ("p1", "width", "109.9 cm"), ("p1", "width", "1.09 m"), ("p1", "width", "112 cm"), ("p3", "width", "109 cm"),
        ("p3", "brand", "hewlett packard"), ("p1", "brand", "HP"),
    ]  # fmt: skip
    events = [
        {"event_id": f"{name} {value}", "product_id": name, "attribute": attribute, "value": value, "op": "assert",
         "source": "model", "run_id": "run-1", "asserted_at": START}
        for name, attribute, value in values
    ]  # fmt: skip
    products = frame(spark, "products", [product("p1"), product("p3")])
    given = frame(spark, "attribute_values", events)
    planned = planned_events(products, given, wrong, stamp("ingest-1", 2), set(), OPEN_WORDS).collect()
    assert {(row["product_id"], row["value"]) for row in planned if row["reason"] == "refused_by_person"} == {
        ("p1", "109.9 cm"),
        ("p1", "1.09 m"),
        ("p3", "hewlett packard"),
    }
    allowed = ledger_plan([no | {"answer": "yes"} | later], by_item(no), OPEN_WORDS)
    assert allowed.allowed == {("p1", "width", "109 cm")}
    after = frame(spark, "attribute_values", [*events, *(row.asDict() for row in planned)])
    again = planned_events(products, after, allowed, stamp("ingest-2", 3), set(), OPEN_WORDS).collect()
    assert {(row["op"], row["product_id"], row["value"]) for row in again} == {
        ("reinstate", "p1", "109.9 cm"),
        ("reinstate", "p1", "1.09 m"),
    }
    twice = said(4, "no", product_id="p1", value="109.5 cm", **width)
    assert ledger_plan([no | {"answer": "yes"}], by_item(no, twice), OPEN_WORDS).allowed == frozenset(), (
        "the same value is refused by another item"
    )


def test_the_same_number_in_another_spelling_is_no_other_human_set(spark: SparkSession) -> None:
    first = said(1, "other", "109 cm", value="50 cm", attribute="width")
    again = first | {"right_values": ["109.5 cm"], "settled_at": START + timedelta(hours=1)}
    assert ledger_plan([again], by_item(first), OPEN_WORDS).human == {}
    other = again | {"right_values": ["112 cm"]}
    assert ledger_plan([other], by_item(first), OPEN_WORDS).human == {("p1", "width"): ("112 cm",)}

    people = {"attribute": "width", "source": "human", "op": "assert", "value": "109 cm", "run_id": "ingest-1"}
    events = [people | {"event_id": name, "product_id": name, "asserted_at": START} for name in ("p1", "p2", "p3")]
    human = {("p1", "width"): ("1.095 m",), ("p2", "width"): ("112 cm",), ("p3", "width"): NONE}
    products = frame(spark, "products", [product(name) for name in ("p1", "p2", "p3")])
    given = frame(spark, "attribute_values", events)
    plan = LedgerPlan(frozenset(), frozenset(), human)
    rows = planned_events(products, given, plan, stamp("ingest-2", 9), {"ingest-1"}, OPEN_WORDS).collect()
    assert {(row["product_id"], row["value"]) for row in rows if row["op"] == "assert"} == {
        ("p2", "112 cm"),
        ("p3", ""),
    }


def test_the_right_value_is_given_as_the_dictionary_prints_it_now() -> None:
    right = said(1, "other", "0.5 m", value="109 cm", attribute="width")
    assert ledger_plan([right], {}, OPEN_WORDS).human == {("p1", "width"): ("50 cm",)}
    lost = said(1, "other", "900 cm", value="109 cm", attribute="width")
    assert ledger_plan([lost], {}, OPEN_WORDS).unknown == 1
