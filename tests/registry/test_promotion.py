"""Moves of the champion alias: compared with the expected champion, and one at a time."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from filelock import FileLock

from catalog_enrichment.errors import CatalogEnrichmentError, GateRefused, RegistryError, TemporaryFailure
from catalog_enrichment.registry import promotion_lock
from catalog_enrichment.registry.model_registry import Registry
from catalog_enrichment.registry.promotion import describe, former_champions

from ..clock import set_back
from ..lost_lock import WHY, lost_lock
from .tiny_version import MODEL, config_in


def test_promotion_is_refused_where_the_champion_is_not_the_expected_one(two_versions: Registry) -> None:
    two_versions.promote("1", expected_current=None)
    with pytest.raises(GateRefused, match="version 1 now, expected was none"):
        two_versions.promote("2", expected_current=None)
    two_versions.promote("2", expected_current="1")
    assert two_versions.champion() == "2"
    tags = two_versions.connect().get_model_version(MODEL, "2").tags
    assert tags["previous_champion"] == "1"


def test_the_first_champion_has_no_predecessor_to_go_back_to(two_versions: Registry) -> None:
    two_versions.promote("1", expected_current=None)
    with pytest.raises(RegistryError, match="cannot go back"):
        two_versions.go_back()


def test_of_two_promotions_that_expect_the_same_champion_one_wins(two_versions: Registry, tmp_path: Path) -> None:
    errors: dict[str, CatalogEnrichmentError | None] = {}
    start = threading.Barrier(2)

    def promote(version: str) -> None:
        other = Registry(config_in(tmp_path))
        other.connect()
        start.wait()
        try:
            other.promote(version, expected_current=None)
            errors[version] = None
        except GateRefused as refused:
            errors[version] = refused

    threads = [threading.Thread(target=promote, args=(version,)) for version in ("1", "2")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    promoted = [version for version, error in errors.items() if error is None]
    assert len(errors) == 2
    assert promoted == [two_versions.champion()]


def test_going_back_twice_restores_the_predecessors_predecessor(two_versions: Registry, tmp_path: Path) -> None:
    two_versions.connect().create_model_version(MODEL, source=str(tmp_path))
    for version, current in (("1", None), ("2", "1"), ("3", "2")):
        two_versions.promote(version, expected_current=current)
    summary = two_versions.go_back()
    assert (summary["model_version"], summary["champion_before"]) == ("2", "3")
    assert two_versions.go_back()["model_version"] == two_versions.champion() == "1"


def test_a_promotion_while_another_process_holds_the_lock_is_refused(two_versions: Registry, tmp_path: Path) -> None:
    other = Registry(config_in(tmp_path, timeout_seconds=1))
    with (
        FileLock(tmp_path / f".{MODEL}.promotion.lock"),
        pytest.raises(GateRefused, match="another process is promoting"),
    ):
        other.promote("1", expected_current=None)
    assert two_versions.champion() is None


def test_a_process_that_slept_past_its_lease_moves_no_alias(
    two_versions: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    two_versions.promote("1", expected_current=None)
    two_versions.promote("2", expected_current="1")
    monkeypatch.setattr(promotion_lock, "held", lost_lock)
    for act in (lambda: two_versions.promote("1", expected_current="2"), two_versions.go_back):
        with pytest.raises(TemporaryFailure, match=WHY):
            act()
    assert two_versions.champion() == "2"


def test_history_of_a_promotion_by_release_0_1_0_has_what_its_tags_say(two_versions: Registry) -> None:
    client = two_versions.connect()
    client.set_model_version_tag(MODEL, "1", "promoted_at", "2026-01-01T00:00:00+00:00")
    client.set_model_version_tag(MODEL, "1", "previous_champion", "")
    client.set_registered_model_alias(MODEL, "champion", "1")
    two_versions.promote("2", expected_current="1")
    first, second = two_versions.history()
    assert first == {
        "version": "1", "at": "2026-01-01T00:00:00+00:00", "action": "promoted", "champion_before": None,
    }  # fmt: skip
    assert describe(first) == "2026-01-01T00:00  version 1 promoted after none, by unknown"
    assert (second["version"], second["champion_before"]) == ("2", "1")


def test_former_champions_are_those_promoted_and_not_withdrawn_since(two_versions: Registry) -> None:
    def former() -> list[str]:
        return sorted(former_champions(two_versions.connect().search_model_versions(f"name='{MODEL}'")))

    assert former() == []
    two_versions.promote("1", expected_current=None)
    two_versions.promote("2", expected_current="1")
    assert former() == ["1", "2"]
    two_versions.go_back()
    assert former() == ["1"]
    two_versions.promote("2", expected_current="1")
    assert former() == ["1", "2"]


def test_promotions_keep_their_order_where_the_clock_is_set_back(
    two_versions: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    two_versions.promote("1", expected_current=None)
    two_versions.promote("2", expected_current="1")
    set_back(monkeypatch, days=1)
    two_versions.go_back()
    assert former_champions(two_versions.connect().search_model_versions(f"name='{MODEL}'")) == ["1"]
    assert [event["action"] for event in two_versions.history()] == ["promoted", "promoted", "went_back"]
