"""What a run remembers of its first attempt, without Spark."""

from __future__ import annotations

from pathlib import Path

import pytest

from catalog_enrichment.catalog.lake import LakeCatalog
from catalog_enrichment.errors import ConfigError


def test_a_run_remembers_what_its_first_attempt_found(tmp_path: Path) -> None:
    first = {"color": {"coverage": 0.25, "applicable": 4}}
    lake = LakeCatalog(tmp_path)
    assert lake.remember("run-1", "coverage", first) == first
    assert LakeCatalog(tmp_path).remember("run-1", "coverage", {"color": {}}) == first
    assert lake.remember("run-1", "other", {}) == {}
    assert lake.remember("run-2", "coverage", {"color": {}}) == {"color": {}}
    assert not lake.has_checkpoint("run-1", "coverage")  # a note is none


def test_notes_are_kept_and_dropped_as_checkpoints_are(tmp_path: Path) -> None:
    lake = LakeCatalog(tmp_path)
    with lake.dropping_checkpoints("run-1", keep=("coverage",)):
        lake.remember("run-1", "coverage", {"n": 1})
        lake.remember("run-1", "passing", {"n": 1})
    assert lake.remember("run-1", "coverage", {"n": 2}) == {"n": 1}
    assert lake.remember("run-1", "passing", {"n": 2}) == {"n": 2}
    lake.drop_checkpoints("run-1")
    assert lake.remember("run-1", "coverage", {"n": 3}) == {"n": 3}


def test_a_half_written_note_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = LakeCatalog(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            lake.remember("run-1", "coverage", {"n": 1})
    assert lake.remember("run-1", "coverage", {"n": 2}) == {"n": 2}


def test_a_run_id_that_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot name a checkpoint"):
        LakeCatalog(tmp_path).remember("..", "coverage", {})
