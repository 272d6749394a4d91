"""Names of values that the dictionary renamed: what the events mean, and tables with the names in force."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from catalog_enrichment import contract
from catalog_enrichment.catalog import value_names
from catalog_enrichment.catalog.value_names import Event, Names, follow
from catalog_enrichment.dictionary import Attribute, Dictionary
from catalog_enrichment.records import Cardinality

from .catalog_rows import frame as frame_of
from .catalog_rows import product

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

AT = datetime(2026, 1, 1, tzinfo=UTC)


def words(*values: str, **was: str) -> Dictionary:
    return Dictionary({"color": Attribute(name="color", cardinality=Cardinality.ONE, values=values, was=was)})


def written(*runs: tuple[str, dict[str, str], str | None]) -> list[dict[str, Any]]:
    """Rows of `renames`: per run its id, the names, and the run that it undoes."""
    return [
        {"attribute": "color", "was": was, "value": value, "run_id": run_id, "undoes": undoes,
         "renamed_at": AT + timedelta(days=day)}
        for day, (run_id, names, undoes) in enumerate(runs)
        for was, value in names.items()
    ]  # fmt: skip


def test_a_rename_is_pending_until_it_is_written() -> None:
    dictionary = words("Gray", "Red", Grey="Gray", Silver="Gray")
    followed = follow([], dictionary)
    assert followed.pending == (Event("color", "Grey", "Gray"), Event("color", "Silver", "Gray"))
    assert [followed.names.now("color", name) for name in ("Grey", "Silver", "Gray", "Red")] == ["Gray"] * 3 + ["Red"]
    assert followed.names.now("material", "Grey") == "Grey", "another attribute's value"
    after = follow(written(("rename-1", {"Grey": "Gray", "Silver": "Gray"}, None)), dictionary)
    assert (after.pending, after.names, after.dictionary) == ((), followed.names, dictionary)


def test_a_value_that_was_renamed_twice_has_the_newest_name_also_without_was() -> None:
    rows = written(("rename-1", {"Grey": "Gray"}, None), ("rename-2", {"Gray": "Silver"}, None))
    followed = follow(rows, words("Silver", Gray="Silver"))
    assert (followed.pending, followed.names.now("color", "Grey")) == ((), "Silver")
    without = follow(rows, words("Silver"))
    assert (without.pending, without.names.now("color", "Grey")) == ((), "Silver")
    assert without.dictionary["color"].canonical("grey") == "Silver", "it stays a spelling"


def test_an_earlier_name_that_follows_another_has_an_event_of_its_own() -> None:
    first, second = ("rename-1", {"Grey": "Gray"}, None), {"Gray": "Silver", "Grey": "Silver"}
    dictionary = words("Silver", **second)
    assert set(follow(written(first), dictionary).pending) == {Event("color", *pair) for pair in second.items()}
    undone = written(first, ("rename-2", second, None), ("rollback-1", {"Grey": "Gray"}, "rename-1"))
    followed = follow(undone, dictionary)
    assert (followed.pending, followed.names.now("color", "Grey")) == ((), "Silver"), "later runs keep their effect"


def test_names_of_a_value_that_leaves_the_dictionary_are_themselves_again() -> None:
    rows = written(("rename-1", {"Grey": "Gray", "Silver": "Gray"}, None))
    for dictionary in (words("Red"), Dictionary({})):
        followed = follow(rows, dictionary)
        assert followed.pending == (Event("color", "Grey", "Grey"), Event("color", "Silver", "Silver"))
        assert followed.names.differing() == {}


def test_a_rollback_in_between_makes_no_circle() -> None:
    rows = written(
        ("rename-1", {"A": "B"}, None),
        ("rename-2", {"A": "A"}, None),
        ("rename-3", {"B": "A"}, None),
        ("rollback-1", {"A": "A"}, "rename-2"),
    )
    followed = follow(rows, words("A", B="A"))
    assert (followed.pending, followed.names.now("color", "A"), followed.names.now("color", "B")) == ((), "A", "A")


def test_a_rename_is_turned_round() -> None:
    rows = written(("rename-1", {"Grey": "Gray"}, None))
    followed = follow(rows, words("Grey", Gray="Grey"))
    assert set(followed.pending) == {Event("color", "Grey", "Grey"), Event("color", "Gray", "Grey")}
    assert {followed.names.now("color", name) for name in ("Grey", "Gray")} == {"Grey"}


def test_a_name_that_is_listed_again_is_a_value_of_its_own() -> None:
    followed = follow(written(("rename-1", {"Grey": "Gray"}, None)), words("Gray", "Grey"))
    assert followed.pending == (Event("color", "Grey", "Grey"),)
    assert followed.names.now("color", "Grey") == "Grey"


def test_what_was_rolled_back_is_not_done_again_until_the_rollback_is_rolled_back() -> None:
    renamed, undone = ("rename-1", {"Grey": "Gray"}, None), ("rollback-1", {"Grey": "Gray"}, "rename-1")
    dictionary = words("Gray", "Red", Grey="Gray")
    followed = follow(written(renamed, undone), dictionary)
    assert (followed.pending, followed.names.now("color", "Grey")) == ((), "Grey")
    assert followed.rolled_back == ((Event("color", "Grey", "Gray"), "rename-1"),)
    assert "rename-1" in followed.warnings()[0]
    color = followed.dictionary["color"]
    assert (color.canonical("grey"), color.canonical("gray")) == ("Grey", "Gray"), "merchants' values keep their names"

    again = follow(written(renamed, undone, ("rollback-2", {"Grey": "Gray"}, "rollback-1")), dictionary)
    assert (again.names.now("color", "Grey"), again.rolled_back, again.dictionary) == ("Gray", (), dictionary)


def test_a_split_that_was_rolled_back_stays_merged() -> None:
    rows = written(
        ("rename-1", {"Grey": "Gray"}, None),
        ("rename-2", {"Grey": "Grey"}, None),
        ("rollback-1", {"Grey": "Grey"}, "rename-2"),
    )
    followed = follow(rows, words("Gray", "Grey"))
    assert followed.names.now("color", "Grey") == "Gray"
    assert followed.dictionary["color"].values == ("Gray",)
    assert followed.dictionary["color"].canonical("grey") == "Gray"


def test_a_rename_that_was_done_twice_is_not_done_again_after_a_rollback() -> None:
    rows = written(
        ("rename-1", {"Grey": "Gray"}, None),
        ("rename-2", {"Grey": "Grey"}, None),
        ("rename-3", {"Grey": "Gray"}, None),
        ("rollback-1", {"Grey": "Gray"}, "rename-3"),
    )
    followed = follow(rows, words("Gray", Grey="Gray"))
    assert (followed.pending, followed.names.now("color", "Grey")) == ((), "Grey")
    assert [run_id for _, run_id in followed.rolled_back] == ["rename-3"]


def test_a_spelling_in_the_file_stands_before_an_earlier_name() -> None:
    rows = written(("rename-1", {"Grey": "Gray"}, None))
    for aliases in ({"en": {"Grey": "Slate"}}, {"en": {"grey": "Slate"}, "de": {"grey": "Gray"}}):
        values = ("Gray", "Slate")
        attribute = Attribute(name="color", cardinality=Cardinality.ONE, values=values, aliases=aliases)
        followed = follow(rows, Dictionary({"color": attribute}))
        assert followed.dictionary["color"] == attribute
        assert followed.names.now("color", "Grey") == "Gray", "what was stored keeps its meaning"


def test_a_name_that_a_rollback_gave_to_another_value_has_its_aliases() -> None:
    rows = written(
        ("rename-1", {"Grey": "Gray"}, None),
        ("rename-2", {"Grey": "Grey"}, None),
        ("back", {"Grey": "Grey"}, "rename-2"),
    )
    aliases = {"de": {"grau": "Grey"}}
    for values in (("Gray", "Grey"), ("Grey",)):
        attribute = Attribute(name="color", cardinality=Cardinality.ONE, values=values, aliases=aliases)
        found = follow(rows, Dictionary({"color": attribute})).dictionary["color"]
        assert (found.values, found.canonical("grau", "de"), found.canonical("Grey")) == (("Gray",), "Gray", "Gray")


def test_a_rename_to_a_name_that_a_rollback_gave_to_another_value_follows_it() -> None:
    rows = written(
        ("rename-1", {"D": "B"}, None), ("rename-2", {"D": "D"}, None), ("rollback-1", {"D": "D"}, "rename-2")
    )
    followed = follow(rows, words("B", "D", A="D"))
    assert {followed.names.now("color", name) for name in "ABD"} == {"B"}


NAME = st.sampled_from("ABCD")


CHANGE = st.tuples(st.dictionaries(NAME, st.lists(NAME, max_size=2), min_size=1, max_size=3), st.booleans())
"""Value -> its earlier names; and whether the change before it is rolled back first."""


@given(st.lists(CHANGE, max_size=5))
def test_after_every_change_listed_values_have_their_own_names(
    history: list[tuple[dict[str, list[str]], bool]],
) -> None:
    rows: list[dict[str, Any]] = []
    for day, (values, rolled_back) in enumerate(history):
        was = {old: value for value, earlier in values.items() for old in earlier if old not in values}
        if rolled_back and rows and rows[-1]["undoes"] is None:
            undoing = {"run_id": f"rollback-{day}", "undoes": rows[-1]["run_id"]}
            at = AT + timedelta(days=day, hours=-1)
            rows += [row | undoing | {"renamed_at": at} for row in rows if row["run_id"] == rows[-1]["run_id"]]
        followed = follow(rows, words(*values, **was))
        now = {name: followed.names.now("color", name) for name in "ABCD"}
        assert all(now[now[name]] == now[name] for name in "ABCD")
        known = followed.dictionary["color"]
        assert all(now[value] == value for value in known.values)
        assert all(known.canonical(name) in (*known.values, None) for name in "ABCD")
        refused = {event for event, _ in followed.rolled_back}
        assert refused.isdisjoint(followed.pending)
        if not refused:
            assert set(known.values) == set(values)
            assert all(now[old] == value for old, value in was.items())
        rows += [
            event._asdict() | {"run_id": f"rename-{day}", "undoes": None, "renamed_at": AT + timedelta(days=day)}
            for event in followed.pending
        ]
        after = follow(rows, words(*values, **was))
        assert (after.pending, after.names) == ((), followed.names)


# --- tables -----------------------------------------------------------------------------------------------------------

NAMES = Names({("color", "Grey"): "Silver", ("color", "Gray"): "Silver", ("size", "S"): "Small"})

PRODUCTS = [
    product("p1", merchant_attributes={"color": ["Grey", "Silver", "Red"], "material": ["Grey"]}),
    product("p2", merchant_attributes={"size": ["S", None], "color": []}),
    product("p3", merchant_attributes=None),
]
RENAMED = [[("color", ["Silver", "Red"]), ("material", ["Grey"])], [("size", ["Small", None]), ("color", [])], None]
VERDICTS = [{"attribute": "color", "value": "Grey", "right_values": ["Gray", "Red"]},
            {"attribute": "material", "value": "Grey", "right_values": None}]  # fmt: skip


def test_a_batch_has_the_names_in_force() -> None:
    batch = pa.RecordBatch.from_pylist(PRODUCTS, schema=contract.arrow_schema("products"))
    assert value_names.batch_with_names("products", batch, NAMES)["merchant_attributes"].to_pylist() == RENAMED
    assert value_names.batch_with_names("products", batch, Names()) is batch
    schema = contract.arrow_schema("verdicts")
    schema = pa.schema([schema.field(name) for name in ("attribute", "value", "right_values")])
    verdicts = value_names.batch_with_names("verdicts", pa.RecordBatch.from_pylist(VERDICTS, schema=schema), NAMES)
    assert [tuple(row.values()) for row in verdicts.to_pylist()] == [
        ("color", "Silver", ["Silver", "Red"]),
        ("material", "Grey", None),
    ]


def test_a_frame_has_the_names_in_force(spark: SparkSession) -> None:
    frame = frame_of(spark, "products", PRODUCTS)
    found = value_names.frame_with_names("products", frame, NAMES)
    assert found.dtypes == frame.dtypes
    rows = [row["merchant_attributes"] for row in found.orderBy("product_id").collect()]
    assert rows == [None if row is None else dict(row) for row in RENAMED]
    verdicts = spark.createDataFrame(VERDICTS, "attribute string, value string, right_values array<string>")
    found = value_names.frame_with_names("verdicts", verdicts, NAMES).orderBy("attribute")
    assert [tuple(row) for row in found.collect()] == [
        ("color", "Silver", ["Silver", "Red"]),
        ("material", "Grey", None),
    ]
