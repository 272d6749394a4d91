from __future__ import annotations

import pytest

from catalog_enrichment.monitoring.stages import Stages, add_seconds


def test_stages_of_one_name_are_added_up_and_each_is_kept() -> None:
    lines: list[str] = []
    stages = Stages(say=lines.append)
    for rows in (10, 20):
        with stages("score") as stage:
            stage.count(rows, rows - 1, 1, note="a note")
    first, second = stages.done
    first.seconds, second.seconds = 1.25, 2.5
    assert stages.seconds == {"score": 3.75}
    assert [(row["rows_in"], row["rows_out"], row["quarantined"], row["note"]) for row in stages.rows()] == [
        (10, 9, 1, "a note"), (20, 19, 1, "a note"),
    ]  # fmt: skip
    assert [line.split()[0] for line in lines] == ["score", "score"]
    assert "in 10  out 9  quarantined 1" in lines[0]


def test_a_stage_that_raises_is_not_counted() -> None:
    lines: list[str] = []
    stages = Stages(say=lines.append)
    with pytest.raises(OSError, match="full"), stages("score"):
        raise OSError("full")
    assert (stages.done, lines) == ([], [])


def test_seconds_of_several_runs_are_added_by_stage() -> None:
    assert add_seconds({"score": 1.0, "land": 0.5}, {"score": 2.004}) == {"score": 3.0, "land": 0.5}
    assert add_seconds() == {}
