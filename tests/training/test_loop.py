from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from catalog_enrichment.errors import DataContractError
from catalog_enrichment.models import compute_types
from catalog_enrichment.models.network import MultiModalNet, build_network
from catalog_enrichment.models.spec import FitSpec
from catalog_enrichment.training import loop
from catalog_enrichment.training.loop import FitInputs, learning_rate_factor
from catalog_enrichment.training.objectives import Classification, targets_of
from catalog_enrichment.training.task import Task

from .toy import easy, recipe, silent


@pytest.fixture(scope="module")
def task(toy_task: Callable[..., Task]) -> Task:
    return toy_task([easy(number) for number in range(160)])


def network(task: Task, seed: int = 0) -> MultiModalNet:
    torch.manual_seed(seed)
    return build_network(recipe().model, task.heads, task.tokenizers)


def run(task: Task, spec: FitSpec, progress=silent, start: MultiModalNet | None = None, **fit_inputs) -> MultiModalNet:
    fitted = start or network(task)
    arguments = {"name": "toy", "train": task.train, "held_out": task.folds.choosing, **fit_inputs}
    loop.run(
        fitted, Classification(targets_of(task.labels)), spec, FitInputs(examples=task.examples, **arguments), progress
    )
    return fitted


def same(first: MultiModalNet, second: MultiModalNet) -> bool:
    other = second.state_dict()
    return all(torch.equal(value, other[name]) for name, value in first.state_dict().items())


def test_learning_rate_schedules() -> None:
    spec = replace(recipe().fit, warmup_share=0.1, epochs=20)
    factors = [learning_rate_factor(step, 100, spec) for step in range(101)]
    assert factors[:11] == pytest.approx([*np.arange(1, 11) / 10, 1.0])
    assert factors[55] == pytest.approx(0.5)
    assert factors[100] == pytest.approx(0)
    line = [learning_rate_factor(step, 100, replace(spec, schedule="warmup_linear")) for step in (4, 10, 28, 55, 100)]
    assert line == pytest.approx([0.5, 1.0, 0.8, 0.5, 0.0])
    steps = replace(spec, schedule="step", step_epochs=5, step_factor=0.1)
    assert [learning_rate_factor(step, 100, steps) for step in (0, 24, 25, 49, 50, 99)] == pytest.approx(
        [1, 1, 0.1, 0.1, 0.01, 0.001]
    )
    assert learning_rate_factor(3, 100, replace(spec, schedule="constant")) == 1


def test_few_products_are_passed_more_often_until_the_steps_are_enough(task: Task) -> None:
    spec, rows = replace(recipe().fit, epochs=2, batch_size=16), task.train[:40]
    assert spec.steps_per_epoch(40) == 3  # the last batch has 8 products
    taken = {}
    for min_steps in (6, 7):
        lines: list[str] = []
        run(task, replace(spec, min_steps=min_steps), lines.append, train=rows)
        taken[min_steps] = len(lines)
        assert lines[-1].startswith(f"toy: epoch {len(lines)}/{len(lines)}")
    assert taken == {6: 2, 7: 3}
    assert replace(spec, accumulate=2).steps_per_epoch(40) == 2
    assert replace(spec, accumulate=2, min_steps=7).for_products(40).epochs == 4
    assert spec.for_products(1).epochs == 2
    limited = replace(spec, min_steps=700, max_epochs=9)
    assert [limited.for_products(products).epochs for products in (40, 1600)] == [9, 7]
    assert replace(limited, max_epochs=1).for_products(40).epochs == 2


def test_every_epoch_but_the_last_says_how_long_the_rest_takes_at_most(task: Task, tmp_path) -> None:
    spec, lines = replace(recipe().fit, epochs=4), list[str]()
    with pytest.MonkeyPatch.context() as patch:
        seconds = itertools.count(0.0, 300.0)  # every look at the clock is 5 minutes later, three in an epoch
        patch.setattr(loop, "time", SimpleNamespace(perf_counter=seconds.__next__))
        run(task, spec, lines.append, checkpoints=tmp_path)
        assert [line.rpartition("products/s")[2] for line in lines] == [
            ", at most 45 min more", ", at most 30 min more", ", at most 15 min more", "",
        ]  # fmt: skip
        lines.clear()
        for file in tmp_path.iterdir():
            content = torch.load(file, weights_only=True)
            torch.save(content | {"history": content["history"][:2]}, file)
        run(task, spec, lines.append, checkpoints=tmp_path)
    assert lines[1].endswith(", at most 15 min more"), "the epochs of an earlier process are not in the rate"
    assert re.search(r"epoch 3/4, loss [\d.]+, validation [\d.]+, \d+ products/s", lines[1])


def test_fits_of_as_many_epochs_share_a_checkpoint_whatever_asked_for_them(task: Task, tmp_path) -> None:
    spec, rows = replace(recipe().fit, epochs=3, batch_size=16), task.train[:40]
    run(task, spec, train=rows, checkpoints=tmp_path)
    lines: list[str] = []
    run(task, replace(spec, epochs=1, min_steps=9), lines.append, train=rows, checkpoints=tmp_path)
    assert lines == [f"toy: continues after epoch 3 from {tmp_path}"]
    run(task, replace(spec, epochs=1, min_steps=10), lines.append, train=rows, checkpoints=tmp_path)
    assert lines[1].startswith("toy: epoch 1/4")


def test_the_learning_rate_ends_at_0_after_the_epochs_that_min_steps_adds(task: Task) -> None:
    spec = replace(recipe().fit, epochs=1, batch_size=16, min_steps=12, warmup_share=0.1)
    rows: list[Mapping[str, float]] = []
    run(task, spec, train=task.train[:40], on_epoch=lambda _stage, row: rows.append(row))
    rates = [row["learning_rate"] for row in rows]  # the largest at the start of each epoch
    assert len(rates) == 4
    assert rates[1] > rates[2] > rates[3] > 0
    assert rates[3] < 0.25 * rates[1]


def test_an_interrupted_fit_gives_the_weights_of_an_uninterrupted_one(task: Task, tmp_path) -> None:
    spec = replace(recipe(epochs=3).fit, image_dropout=0.3)
    uninterrupted = run(task, spec)

    class Killed(Exception):
        pass

    def kill_in_the_second_epoch(line: str) -> None:
        if "epoch 2/" in line:  # reported before the second epoch's checkpoint is written
            raise Killed

    with pytest.raises(Killed):
        run(task, spec, kill_in_the_second_epoch, checkpoints=tmp_path)
    lines: list[str] = []
    resumed = run(task, spec, lines.append, checkpoints=tmp_path)
    assert "continues after epoch 1" in lines[0]
    assert same(uninterrupted, resumed)


def test_every_epoch_is_told_with_the_loss_of_each_attribute_also_by_a_fit_that_continues(task: Task, tmp_path) -> None:
    told: list[tuple[str, dict[str, float]]] = []
    spec = recipe(epochs=2).fit
    fitted = run(task, spec, checkpoints=tmp_path, on_epoch=lambda stage, row: told.append((stage, dict(row))))
    assert [(stage, row["epoch"]) for stage, row in told] == [("toy", 1.0), ("toy", 2.0)]
    for _, row in told:
        parts = {name: loss for name, loss in row.items() if name.startswith("validation_loss/")}
        assert set(parts) == {"validation_loss/color", "validation_loss/material"}
        assert sum(parts.values()) == pytest.approx(row["validation_loss"], rel=1e-5)
    rows, targets = task.folds.choosing, targets_of(task.labels)
    of_color = Classification({"color": targets["color"]}).held_out(fitted, task.examples, rows).loss
    best = min((row for _, row in told), key=lambda row: row["validation_loss"])
    assert best["validation_loss/color"] == pytest.approx(of_color, rel=1e-5)
    first, told = told, []
    run(task, spec, checkpoints=tmp_path, on_epoch=lambda stage, row: told.append((stage, dict(row))))
    assert told == first


def test_a_finished_fit_is_loaded_and_a_changed_one_is_fitted(task: Task, tmp_path) -> None:
    spec, model = recipe(epochs=1).fit, recipe().model
    first = run(task, spec, checkpoints=tmp_path)
    lines: list[str] = []
    again = run(task, spec, lines.append, checkpoints=tmp_path)
    assert len(lines) == 1
    assert same(first, again)
    changes = [
        {"start": network(task, seed=1)},
        {"train": task.train[:-1]},
        {"held_out": task.folds.choosing[:-1]},
        {"model": replace(model, text=replace(model.text, pooling="cls"))},  # changes no weight
    ]
    for change in changes:
        lines.clear()
        run(task, spec, lines.append, checkpoints=tmp_path, **change)
        assert "continues" not in lines[0]
    run(task, replace(spec, seed=5), lines.append, checkpoints=tmp_path)
    assert not any("continues" in line for line in lines)


def test_accumulated_batches_give_the_step_of_one_large_batch(task: Task) -> None:
    task = replace(task, labels={"color": task.labels["color"]})
    train = task.train[: 2 * (len(task.train) // 2)]
    spec = replace(recipe(epochs=1).fit, augment=False, image_dropout=0.0, gradient_norm=1e9)
    results = []
    for size, accumulate in ((len(train), 1), (len(train) // 2, 2)):
        fitted = network(task)
        row = replace(spec, batch_size=size, accumulate=accumulate, optimizer="sgd", schedule="constant")
        run(task, row, start=fitted, train=train)
        results.append(fitted)
    first, second = (result.state_dict() for result in results)
    initial = network(task).state_dict()
    moved = [name for name, value in first.items() if not torch.equal(value, initial[name])]
    assert moved
    for name in moved:
        torch.testing.assert_close(second[name], first[name], atol=1e-4, rtol=1e-3)


def test_a_long_gradient_is_clipped_to_the_norm(task: Task) -> None:
    spec = replace(recipe(epochs=1).fit, batch_size=len(task.train), optimizer="sgd", schedule="constant")
    spec = replace(spec, text_learning_rate=1.0, image_learning_rate=1.0, learning_rate=1.0, weight_decay=0.0)
    initial, fitted = network(task).state_dict(), network(task)
    run(task, replace(spec, gradient_norm=1e-3), start=fitted)
    final = {name: value for name, value in fitted.state_dict().items() if value.is_floating_point()}
    moved = sum(float((value - initial[name]).square().sum()) for name, value in final.items())
    # the first step with Nesterov momentum is (1 + 0.9) gradients long
    assert moved**0.5 == pytest.approx(1.9e-3, rel=1e-2)


def test_mixed_precision_lowers_the_loss_and_keeps_the_weights_in_fp32(task: Task) -> None:
    spec = replace(recipe(epochs=4).fit, precision="bf16")
    initial, fitted = network(task), network(task)
    run(task, spec, start=fitted)
    objective = Classification(targets_of(task.labels))
    before, after = (objective.held_out(net, task.examples, task.folds.choosing).loss for net in (initial, fitted))
    assert after < before
    assert {weight.dtype for weight in fitted.parameters()} == {torch.float32}


def test_automatic_precision_is_bf16_where_the_machine_multiplies_it(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = replace(recipe(epochs=1).fit, precision="auto")
    explicit = {numbers: run(task, replace(spec, precision=numbers)) for numbers in ("fp32", "bf16")}  # type: ignore[arg-type]
    assert not same(explicit["fp32"], explicit["bf16"])
    for numbers, problem in (("bf16", ""), ("fp32", "the processor has no avx512_bf16")):
        monkeypatch.setattr(compute_types, "why_not", lambda name, _, no=problem: no if name == "bf16" else "")
        assert same(run(task, spec), explicit[numbers])


def test_masked_pictures_do_not_change_the_image_encoder(task: Task) -> None:
    masked_images = np.ones(len(task.examples.dataset), dtype=bool)
    initial, fitted = network(task), network(task)
    run(task, recipe(epochs=1).fit, start=fitted, masked_images=masked_images)
    image = [name for name in initial.state_dict() if name.startswith("image.") and initial.state_dict()[name].ndim > 1]
    decay = 1 - recipe().fit.image_learning_rate * recipe().fit.weight_decay
    for name in image:  # only weight decay, which shrinks all weights by the same factor
        ratio = fitted.state_dict()[name] / initial.state_dict()[name]
        assert ratio[torch.isfinite(ratio)].min() > decay**100
    text = next(name for name in initial.state_dict() if name.startswith("texts.") and name.endswith("query.weight"))
    assert not torch.equal(initial.state_dict()[text], fitted.state_dict()[text])


def test_a_fit_that_diverges_raises(task: Task) -> None:
    diverging = network(task)
    with torch.no_grad():
        next(diverging.fusion.parameters()).fill_(torch.nan)
    with pytest.raises(DataContractError, match="learning rates"):
        run(task, recipe(epochs=1).fit, start=diverging)


def test_no_training_products_raise(task: Task) -> None:
    with pytest.raises(DataContractError, match="no product is left to train on"):
        run(task, recipe(epochs=1).fit, train=task.train[:0])
