"""The question to the workers of a run: what can they compute in?"""

from __future__ import annotations

from typing import Any

import pytest

from catalog_enrichment.inference import workers
from catalog_enrichment.models import compute_types

SLOW = "it has no bf16"


class Cluster:
    """A stand-in for a classic session of 3 cores whose machines answer one after the other."""

    def __init__(self, master: str, *answers: list[tuple[str, str]]) -> None:
        self.master, self.defaultParallelism, self.answers, self.jobs = master, 3, answers, 0
        self.sparkContext = self

    def range(self, start: int, end: int, step: int, tasks: int) -> Cluster:
        assert (start, end, step, tasks) == (0, 3 * workers.TASKS_PER_CORE, 1, 3 * workers.TASKS_PER_CORE)
        self.jobs += 1
        return self

    def mapInArrow(self, function: object, schema: str) -> Cluster:  # noqa: N802
        assert (function, schema) == (workers._answer, "numbers string, reason string")
        return self

    def distinct(self) -> Cluster:
        return self

    def collect(self) -> list[dict[str, str]]:
        return [{"numbers": numbers, "reason": why} for answer in self.answers for numbers, why in answer]


def test_one_worker_that_lacks_a_number_type_is_enough_and_they_are_asked_once() -> None:
    mixed: Any = Cluster("spark://host:7077", [], [("bf16", SLOW)])
    why_not = workers.refusals_of(mixed)
    assert why_not("fp32-cpu") == ""
    assert mixed.jobs == 0
    assert why_not("bf16-cpu") == why_not("bf16-cuda") == SLOW
    assert workers.refusals_of(mixed)("bf16-cpu") == SLOW
    assert mixed.jobs == 1
    alike: Any = Cluster("local-cluster[2,1,1024]", [], [])
    assert workers.refusals_of(alike)("bf16-cpu") == ""
    assert alike.jobs == 1


def test_with_a_local_master_the_driver_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute_types, "why_not", lambda numbers, _: SLOW if numbers == "bf16" else "")
    local: Any = Cluster("local[2]", [("bf16", "another reason")])
    assert workers.refusals_of(local)("bf16-cpu") == SLOW
    assert local.jobs == 0


def test_the_job_brings_back_what_the_machines_say(spark: Any) -> None:
    assert workers.ask(spark, 2) == dict(workers.own_refusals())
