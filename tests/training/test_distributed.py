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
def test_two_processes_end_where_one_does(toy_task: Callable[..., Task], spark, tmp_path) -> None:
    """With every product labelled and nothing drawn at random, the mean of two halves' gradients is the whole's."""
    set_threads(1)
    task = toy_task([easy(number) for number in range(120)], attributes=["color"])
    everything = recipe(fusion="concat", epochs=2, augment=False, image_dropout=0.0, optimizer="sgd", batch_size=20)
    task = replace(task, folds=replace(task.folds, train=task.folds.train[:56]))  # the last batch is a smaller one
    lines: list[str] = []
    together = distributed_fitter(spark, tmp_path / "group", processes=2, local=True)(everything, task, lines.append)
    alone = fit(everything, task, silent)
    assert "2 processes" in lines[0]
    assert [row["train_loss"] for row in together.history] == pytest.approx(
        [row["train_loss"] for row in alone.history], rel=0.2
    )
    first, second = alone.network.state_dict(), together.network.state_dict()
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, atol=2e-4, rtol=1e-3)
