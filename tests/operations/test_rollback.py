"""Taking back what a run did, and taking that back (I6)."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

from catalog_enrichment.catalog.lake import LakeCatalog
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.operations import rollback

from ..sample_catalog import SampleCatalog, killed_at, table, values


def test_i6_rollback_restores_what_readers_saw_and_so_does_its_rollback(
    template: SampleCatalog, enriched: SampleCatalog, run: dict[str, Any]
) -> None:
    before = values(template)
    after = values(enriched)
    assert after != before
    undone = rollback.rollback_run(enriched.context().catalog, run["run_id"])
    assert values(enriched) == before
    rollback.rollback_run(enriched.context().catalog, undone["run_id"])
    assert values(enriched) == after


def test_i6_a_rollback_killed_before_readers_see_it_is_finished_by_the_next(
    template: SampleCatalog, enriched: SampleCatalog, run: dict[str, Any]
) -> None:
    before = values(template)
    with killed_at(LakeCatalog, "refresh_current_values"):
        rollback.rollback_run(enriched.context().catalog, run["run_id"])
    shutil.rmtree(enriched.folder / "catalog" / "_staging")  # maintain_catalog deletes it a week later
    done = rollback.rollback_run(enriched.context().catalog, run["run_id"])
    assert done["status"] == "succeeded"
    assert values(enriched) == before
    assert [row["run_id"] for row in table(enriched, "runs") if row["kind"] == "rollback"] == [done["run_id"]]
    assert rollback.rollback_run(enriched.context().catalog, run["run_id"])["status"] == "nothing_to_do"


def test_i6_one_attribute_of_a_run_can_be_taken_back(enriched: SampleCatalog, run: dict[str, Any]) -> None:
    after = values(enriched)
    undone = rollback.rollback_run(enriched.context().catalog, run["run_id"], attribute="color")
    assert list(undone["events"]) == ["color"]
    assert values(enriched) == {
        key: v for key, v in after.items() if key[1] != "color" or key in values(enriched, "merchant")
    }
    assert (
        rollback.rollback_run(enriched.context().catalog, run["run_id"], attribute="color")["status"] == "nothing_to_do"
    )


def test_rolling_back_a_run_that_wrote_nothing_says_which_runs_did(
    enriched: SampleCatalog, run: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match=run["run_id"]):
        rollback.rollback_run(enriched.context().catalog, "enrich-nosuch")
    with pytest.raises(ConfigError, match=r"it wrote \['color', 'material'\]"):
        rollback.rollback_run(enriched.context().catalog, run["run_id"], attribute="size")
