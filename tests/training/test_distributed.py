"""Two real processes under Spark's TorchDistributor, over gloo."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from catalog_enrichment.training.distributed import distributed_fitter
from catalog_enrichment.training.fit import fit, set_threads
from catalog_enrichment.training.task import Task

from .toy import easy, recipe, silent


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_processes_give_the_weights_of_one(toy_task: Callable[..., Task], spark, tmp_path) -> None:
    """With every product labelled and no random masking, the mean of two halves' gradients is the whole batch's."""
    set_threads(1)
    task = toy_task([easy(number) for number in range(120)], attributes=["color"])
    deterministic = recipe(fusion="concat", epochs=2, augment=False, image_dropout=0.0, optimizer="sgd", batch_size=20)
    task = replace(task, folds=replace(task.folds, train=task.folds.train[:56]))  # the last batch is smaller
    lines: list[str] = []
    fit_distributed = distributed_fitter(spark, tmp_path / "group", processes=2, local=True)
    distributed = fit_distributed(deterministic, task, lines.append)
    single = fit(deterministic, task, silent)
    assert "2 processes" in lines[0]
    assert [row["epoch"] for row in distributed.stages] == [1.0, 2.0]
    assert [row["train_loss"] for row in distributed.history] == pytest.approx(
        [row["train_loss"] for row in single.history], rel=0.2
    )
    first, second = single.network.state_dict(), distributed.network.state_dict()
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, atol=2e-4, rtol=1e-3)
