"""Shared records: hashes, run and event ids, counters."""

from __future__ import annotations

import pytest

from catalog_enrichment.records import (
    EarlierUses,
    LabelUse,
    Op,
    RunKind,
    add_counts,
    event_id,
    flatten_keys,
    make_run_id,
    shortened,
    stable_hash,
    within_bytes,
)


def test_hashes_do_not_depend_on_key_order_or_process() -> None:
    assert stable_hash({"a": 1, "b": [2]}) == stable_hash({"b": [2], "a": 1})
    assert stable_hash("ab", "c") != stable_hash("a", "bc")


def test_a_run_id_names_its_kind_and_is_the_same_for_the_same_inputs() -> None:
    assert make_run_id(RunKind.ENRICH, {"w": 1}, "v1").startswith("enrich-")
    assert make_run_id(RunKind.ENRICH, {"w": 1}, "v1") == make_run_id(RunKind.ENRICH, {"w": 1}, "v1")
    assert make_run_id(RunKind.ENRICH, {"w": 1}, "v1") != make_run_id(RunKind.ENRICH, {"w": 1}, "v2")


def test_a_change_of_any_part_changes_the_event_id() -> None:
    parts = ("run", "p1", "color", "Red", Op.ASSERT)
    ids = {event_id(*parts)}
    ids |= {event_id(*(*parts[:i], "other", *parts[i + 1 : 4], parts[4])) for i in range(4)}
    ids.add(event_id(*parts[:4], Op.RETRACT))
    assert len(ids) == 6


def test_counts_merge_by_addition() -> None:
    assert add_counts({"a": 1}, {}, {"b": 2, "a": 3}) == {"a": 4, "b": 2}


def test_nested_keys_are_joined_by_dots() -> None:
    assert flatten_keys({"a": 1, "b": {"c": {"d": 2}, "e": [3]}}) == {"a": 1, "b.c.d": 2, "b.e": [3]}


def test_a_label_use_counts_itself() -> None:
    with pytest.raises(ValueError, match="at least 1, not 0"):
        LabelUse(number=0, certification_round=1)


def test_products_certified_before_a_round_if_their_first_round_is_earlier() -> None:
    uses = EarlierUses(certification_round=2, first_round={"a": 0, "b": 1, "c": 2})
    assert [uses.certified_before(number) for number in range(3)] == [frozenset(), {"a"}, {"a", "b"}]


def test_lists_of_a_summary_are_bounded_in_bytes() -> None:
    assert within_bytes([], 10) == []
    assert within_bytes(["abc", "de", "f"], 13) == ["abc", "de"]  # as JSON 7, 6 and 5 bytes, with what is between
    assert within_bytes(["abc", "de", "f"], 12) == ["abc"]
    assert within_bytes(["商" * 1000] * 20, 9_100) == ["商" * 1000] * 3
    assert within_bytes([("a", {"b": 1})], 20) == [("a", {"b": 1})]
    assert within_bytes(iter(["x" * 20_000, "y"])) == [], "the first entries, not the small ones"


def test_lines_that_are_left_out_are_counted() -> None:
    assert shortened(["a", "b"], 10) == ["a", "b"]
    assert shortened(["a", "b", "c"], 10) == ["a", "b", "and 1 more"]
