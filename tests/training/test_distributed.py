"""Two real processes under Spark's TorchDistributor, over gloo."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from catalog_enrichment.training import distributed
from catalog_enrichment.training.distributed import distributed_fitter
from catalog_enrichment.training.fit import fit
from catalog_enrichment.training.task import Task

from .toy import easy, recipe, silent


def test_epochs_of_another_process_are_followed_line_by_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "_LOOK_SECONDS", 0.05)
    told: list[tuple[str, float]] = []
    file = tmp_path / "epochs.jsonl"
    lines: list[str] = []
    with distributed._followed(file, lambda stage, row: told.append((stage, row["epoch"])), lines.append):
        distributed._write_epoch(file, "toy", {"epoch": 1.0})
        with file.open("a") as half:
            half.write('["toy", {"ep')
            half.flush()
            until = time.monotonic() + 10
            while not told and time.monotonic() < until:
                time.sleep(0.02)
            assert told == [("toy", 1.0)]
            half.write('och": 2.0}]\n')
        distributed._write_epoch(file, "toy", {"epoch": 3.0})
        distributed._write_line(file, "toy: no improvement")
    assert lines == ["toy: no improvement"]
    assert told == [("toy", 1.0), ("toy", 2.0), ("toy", 3.0)]


# pyspark's distributor does not close the pipe from the processes it starts
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_processes_give_the_weights_of_one(toy_task: Callable[..., Task], spark, tmp_path) -> None:
    """With every product labelled and no random masking, the mean of two halves' gradients is the whole batch's."""
    task = toy_task([easy(number) for number in range(120)], attributes=["color"])
    deterministic = recipe(fusion="concat", epochs=2, augment=False, image_dropout=0.0, optimizer="sgd", batch_size=20)
    task = replace(task, folds=replace(task.folds, train=task.folds.train[:56]))  # the last batch is smaller
    lines: list[str] = []
    fit_distributed = distributed_fitter(tmp_path / "group", processes=2)
    told: list[tuple[str, float]] = []
    grouped = fit_distributed(
        deterministic, task, lines.append, None, lambda stage, row: told.append((stage, row["train_loss"]))
    )
    assert told == [("toy", row["train_loss"]) for row in grouped.history], "the first process tells, once"
    single = fit(deterministic, task, silent)
    assert "2 processes" in lines[0]
    assert [line.partition(",")[0] for line in lines[1:]] == ["toy: epoch 1/2", "toy: epoch 2/2"]
    assert [row["epoch"] for row in grouped.stages] == [1.0, 2.0]
    assert [row["train_loss"] for row in grouped.history] == pytest.approx(
        [row["train_loss"] for row in single.history], rel=0.2
    )
    first, second = single.network.state_dict(), grouped.network.state_dict()
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, atol=2e-4, rtol=1e-3)
