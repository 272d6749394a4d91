"""One fit: optimizer, schedule, batches, mixed precision, checkpoints; the epoch that is best on held-out products
is kept. What is learned is the objective's business.

On several processes (:mod:`catalog_enrichment.training.distributed`) every one runs this loop over its share of each
batch, and the gradients are averaged.
"""

from __future__ import annotations

import copy
import hashlib
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import distributed, nn

from catalog_enrichment.errors import ConfigError, DataContractError
from catalog_enrichment.models.network import ModelInputs, MultiModalNet, parameter_groups
from catalog_enrichment.models.spec import FitSpec
from catalog_enrichment.records import stable_hash
from catalog_enrichment.training.examples import Examples
from catalog_enrichment.training.folds import Index
from catalog_enrichment.training.objectives import Objective

Progress = Callable[[str], None]
"""Gets one line of text per stage or epoch."""

BUCKET = 16
"""Batches are cut from this many batches' worth of products sorted by length, so that padding costs little."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FitInputs:
    """What one fit learns from."""

    name: str
    """Of the fit, in progress lines and as the checkpoint's file name."""
    examples: Examples
    train: Index
    held_out: Index
    model: dict[str, Any] = field(default_factory=dict)
    """The spec of what is fitted, as plain data: pooling or regions change a fit, and no weight's shape."""
    hidden: NDArray[np.bool_] | None = None
    """(N,): products whose picture is never shown."""
    checkpoints: Path | None = None
    """Folder in which an interrupted fit is found again; None: it starts anew."""


@dataclass(slots=True)
class _State:
    """Where a fit stands after an epoch."""

    best: dict[str, torch.Tensor]
    best_loss: float = math.inf
    waited: int = 0
    history: list[dict[str, float]] = field(default_factory=list)

    @property
    def epoch(self) -> int:
        return len(self.history)


def run(
    network: MultiModalNet, objective: Objective, spec: FitSpec, inputs: FitInputs, progress: Progress
) -> list[dict[str, float]]:
    """Fit ``network`` in place; returns a row per epoch: epoch, train_loss, validation_loss, learning_rate (the
    largest), products_per_second.

    Same seed, data, machine and number of threads and processes: same weights, also when it was interrupted and goes
    on from a checkpoint.
    """
    for what, index in (("train on", inputs.train), ("be judged by", inputs.held_out)):
        if not len(index):
            raise DataContractError(
                f"{inputs.name}: no product is left to {what}. Do the labelled products have pictures, and do enough "
                "of them stand in the train and validation folds?"
            )
    loop = _Loop(network, objective, spec, inputs)
    state = loop.resume() or _State(copy.deepcopy(network.state_dict()))
    if state.epoch:
        progress(f"{inputs.name}: goes on after epoch {state.epoch} from {inputs.checkpoints}")
    while state.epoch < spec.epochs and not (spec.patience and state.waited >= spec.patience):
        row = {"epoch": float(state.epoch + 1), **loop.epoch()}
        row["validation_loss"] = loop.agreed(objective.held_out(network, inputs.examples, inputs.held_out))
        state.history.append(row)
        progress(
            f"{inputs.name}: epoch {state.epoch}/{spec.epochs}, loss {row['train_loss']:.3f}, "
            f"validation {row['validation_loss']:.3f}, {row['products_per_second']:.0f} products/s"
        )
        if row["validation_loss"] < state.best_loss:
            state.best, state.best_loss, state.waited = (
                copy.deepcopy(network.state_dict()),
                row["validation_loss"],
                0,
            )
        else:
            state.waited += 1
        loop.save(state)
    if state.epoch < spec.epochs:
        progress(f"{inputs.name}: no better for {state.waited} epochs, stopped")
    if not math.isfinite(state.best_loss):
        raise DataContractError(
            f"{inputs.name}: after {state.epoch} epochs the loss is no number. Lower the learning rates, or use fp32"
        )
    network.load_state_dict(state.best)
    network.eval()
    return state.history


def learning_rate_factor(step: int, steps: int, spec: FitSpec) -> float:
    """The factor on the configured learning rates at ``step`` of ``steps``.

    `warmup_cosine`, `warmup_linear`: linear rise, then to 0 along a cosine or a line. `step`: times ``step_factor``
    every ``step_epochs``. `constant`: 1.
    """
    if spec.schedule == "constant":
        return 1.0
    if spec.schedule == "step":
        return float(spec.step_factor ** (step * spec.epochs // max(1, steps) // spec.step_epochs))
    warmup = max(1, round(spec.warmup_share * steps))
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return 0.5 * (1.0 + math.cos(math.pi * done)) if spec.schedule == "warmup_cosine" else max(0.0, 1.0 - done)


class _Step(nn.Module):
    """Network and objective as one module, which is what several processes have to agree on."""

    def __init__(self, network: MultiModalNet, objective: Objective) -> None:
        super().__init__()
        self.network, self.objective = network, objective

    def forward(self, inputs: ModelInputs, index: torch.Tensor) -> torch.Tensor:
        loss: torch.Tensor = self.objective(self.network, inputs, index)
        return loss


class _Loop:
    """Optimizer, schedule and batches of one fit."""

    def __init__(self, network: MultiModalNet, objective: Objective, spec: FitSpec, inputs: FitInputs) -> None:
        alone = not (distributed.is_available() and distributed.is_initialized())
        self._rank, self._ranks = (0, 1) if alone else (distributed.get_rank(), distributed.get_world_size())
        self._device = next(network.parameters()).device
        self._network, self._objective = network, objective.to(self._device)
        self._spec, self._inputs = spec, inputs
        self._epoch = 0
        self._shared = self._own = np.random.default_rng(spec.seed)
        self._fingerprint = self._identity() if inputs.checkpoints is not None else ""
        self._optimizer = _optimizer(network, objective, spec)
        batches = math.ceil(len(inputs.train) / spec.batch_size)
        steps = spec.epochs * math.ceil(batches / spec.accumulate)
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._optimizer, lambda step: learning_rate_factor(step, steps, spec)
        )
        self._step: nn.Module = _Step(network, objective)
        if self._ranks > 1:
            self._step = nn.parallel.DistributedDataParallel(self._step, find_unused_parameters=True)

    def epoch(self) -> dict[str, float]:
        """One pass over the training products.

        What is drawn at random follows from seed, epoch and process alone, so that a fit that is taken up again needs
        no memory of it: the order of the batches, alike in all processes, and what each of them hides and drops out.
        """
        started, losses = time.perf_counter(), []
        self._shared = np.random.default_rng([self._spec.seed, self._epoch])
        self._own = np.random.default_rng([self._spec.seed, self._epoch, self._rank + 1])
        torch.manual_seed(int(self._own.integers(2**62)))
        self._epoch += 1
        self._network.train()
        self._objective.train()
        rate = max(group["lr"] for group in self._optimizer.param_groups)
        batches = list(self._batches())
        for number, index in enumerate(batches, start=1):
            losses.append(self._backward(index[self._rank :: self._ranks]) * len(index))
            if number % self._spec.accumulate and number < len(batches):
                continue
            nn.utils.clip_grad_norm_(self._step.parameters(), self._spec.gradient_norm)
            self._optimizer.step()
            self._schedule.step()
            self._optimizer.zero_grad(set_to_none=True)
        self._agree()
        seconds = time.perf_counter() - started
        products = sum(map(len, batches))
        return {
            "train_loss": float(torch.stack(losses).sum()) / products,
            "learning_rate": float(rate),
            "products_per_second": products / seconds,
        }

    def agreed(self, number: float) -> float:
        """The first process's number: all must stop at the same epoch."""
        if self._ranks == 1:
            return number
        first = torch.tensor([number], dtype=torch.float64, device=self._device)
        distributed.broadcast(first, 0)
        return float(first)

    def save(self, state: _State) -> None:
        """Write the checkpoint, whole or not at all."""
        if self._inputs.checkpoints is None or self._rank:
            return
        content = {
            "best": state.best,
            "best_loss": state.best_loss,
            "waited": state.waited,
            "history": state.history,
            "network": self._network.state_dict(),
            "objective": self._objective.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
        }
        file = self._file()
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".partial")
        torch.save(content, partial)
        os.replace(partial, file)  # noqa: PTH105

    def resume(self) -> _State | None:
        """Take up the checkpoint of the same fit; None if there is none."""
        found = self._inputs.checkpoints is not None and self._file().is_file()
        if self.agreed(float(found)) != float(found):
            raise ConfigError("training.checkpoints must be a folder that all processes see")
        if not found:
            return None
        content = torch.load(self._file(), map_location=self._device, weights_only=True)
        self._network.load_state_dict(content["network"])
        self._objective.load_state_dict(content["objective"])
        self._optimizer.load_state_dict(content["optimizer"])
        self._schedule.load_state_dict(content["schedule"])
        self._epoch = len(content["history"])
        return _State(content["best"], content["best_loss"], content["waited"], content["history"])

    def _file(self) -> Path:
        """Named by what the fit depends on, so that a stage which several recipes share is fitted once."""
        assert self._inputs.checkpoints is not None
        slug = self._inputs.name.replace("/", "-").replace(" ", "-")
        return self._inputs.checkpoints / f"{slug}-{self._fingerprint[:16]}.pt"

    def _identity(self) -> str:
        """Of all that the fit depends on beside its code: settings, start, products, texts, labels, processes."""
        examples, train = self._inputs.examples, self._inputs.train
        hidden = b"" if self._inputs.hidden is None else self._inputs.hidden.tobytes()
        return stable_hash(
            asdict(self._spec),
            self._inputs.model,
            self._objective.identity(),
            hashlib.sha256(b"".join(_bytes(self._network.state_dict()))).hexdigest(),
            [[examples.dataset.ids[row] for row in rows.tolist()] for rows in (train, self._inputs.held_out)],
            hashlib.sha256(b"".join(_text_bytes(examples)) + hidden).hexdigest(),
            [picture or "" for picture in examples.dataset.pictures],
            self._ranks,
        )

    def _backward(self, index: Index) -> torch.Tensor:
        """Add the gradients of a batch; returns its loss."""
        augment = self._own if self._spec.augment else None
        inputs = self._inputs.examples.batch(index, self._hidden(index), augment).to(self._device)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._spec.precision == "bf16"):
            loss: torch.Tensor = self._step(inputs, torch.from_numpy(index))
        (loss / self._spec.accumulate).backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def _hidden(self, index: Index) -> NDArray[np.bool_]:
        """(B,): whose picture is hidden in this step. A lone one is too: batch statistics need at least two."""
        hidden = self._own.random(len(index)) < self._spec.image_dropout
        if self._inputs.hidden is not None:
            hidden |= self._inputs.hidden[index]
        alone = np.count_nonzero(self._inputs.examples.has_image[index] & ~hidden) == 1
        return np.asarray(hidden | alone)

    def _batches(self) -> Iterator[Index]:
        """Shuffled batches of neighbours in length, in shuffled order; the same in every process."""
        size, lengths = self._spec.batch_size, self._inputs.examples.lengths
        order = self._shared.permutation(self._inputs.train)
        batches: list[Any] = []
        for start in range(0, len(order), size * BUCKET):
            bucket = order[start : start + size * BUCKET]
            bucket = bucket[np.argsort(lengths[bucket], kind="stable")]
            batches += [bucket[at : at + size] for at in range(0, len(bucket), size)]
        for position in self._shared.permutation(len(batches)):
            if len(batches[position]) >= self._ranks:
                yield batches[position]

    def _agree(self) -> None:
        """Batch statistics are each process's own: the first one's count."""
        if self._ranks > 1:
            for buffer in self._network.buffers():
                distributed.broadcast(buffer, 0)


def _bytes(state: dict[str, torch.Tensor]) -> Iterator[bytes]:
    for name in sorted(state):
        yield name.encode()
        yield state[name].detach().cpu().numpy().tobytes()


def _text_bytes(examples: Examples) -> Iterator[bytes]:
    return (ids.columns["input_ids"].tobytes() for name in sorted(examples.texts) for ids in examples.texts[name])


def _optimizer(network: MultiModalNet, objective: Objective, spec: FitSpec) -> torch.optim.Optimizer:
    groups = parameter_groups(network, spec)
    if own := list(objective.parameters()):
        groups.append({"name": "objective", "params": own, "lr": spec.learning_rate, "weight_decay": 0.0})
    if spec.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=0.9, nesterov=True)
    kind = torch.optim.Adam if spec.optimizer == "adam" else torch.optim.AdamW
    return kind(groups)
