"""The training loop: optimizer, schedule, batches, mixed precision, checkpoints. It keeps the weights of the epoch with
the lowest held-out loss. The loss is an :class:`Objective`.

With several processes (:mod:`catalog_enrichment.training.distributed`) each runs this loop over its share of every
batch, and the gradients are averaged.
"""

from __future__ import annotations

import copy
import hashlib
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import distributed, nn

from catalog_enrichment.errors import DataContractError
from catalog_enrichment.models import compute_types
from catalog_enrichment.models.fusion import fusion_class
from catalog_enrichment.models.network import ModelInputs, MultiModalNet, parameter_groups
from catalog_enrichment.models.spec import FitSpec, ModelSpec
from catalog_enrichment.monitoring.stages import duration
from catalog_enrichment.precision.units import Bools
from catalog_enrichment.records import stable_hash
from catalog_enrichment.training.examples import Examples
from catalog_enrichment.training.folds import Index
from catalog_enrichment.training.objectives import Objective

BUCKET = 16
"""Products are sorted by length within buckets of this many batches, which saves padding."""

Progress = Callable[[str], None]
"""Gets one line of text per stage or epoch."""

OnEpoch = Callable[[str, Mapping[str, float]], None]
"""Gets the name of a fit and the numbers of each of its epochs, after the epoch."""


def ignored(*_: object) -> None:
    """Discard a line of progress or the numbers of an epoch."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FitInputs:
    """The data of one fit."""

    name: str
    """The fit's name in progress lines and in the checkpoint's file name."""
    examples: Examples
    train: Index
    held_out: Index
    """Products whose loss decides which epoch is kept."""
    model: ModelSpec | None = None
    """The spec is part of the checkpoint's file name: pooling or regions change a fit, but not the shape of any
    weight."""
    masked_images: Bools | None = None
    """(N,): products whose picture is left out of the fit."""
    checkpoints: Path | None = None
    """Folder of checkpoints, from which an interrupted fit continues; None: no checkpoints."""
    on_epoch: OnEpoch = ignored


@dataclass(slots=True)
class _State:
    """The state of a fit after an epoch."""

    best: dict[str, torch.Tensor]
    """Weights of the best epoch."""
    best_loss: float = math.inf
    waited: int = 0
    """Epochs since the best."""
    history: list[dict[str, float]] = field(default_factory=list)

    @property
    def epoch(self) -> int:
        return len(self.history)


def run(
    network: MultiModalNet, objective: Objective, spec: FitSpec, inputs: FitInputs, progress: Progress
) -> list[dict[str, float]]:
    """Fit ``network`` in place; returns a row per epoch: epoch, train_loss, validation_loss, learning_rate (the
    largest), products_per_second, and for an objective about attributes `validation_loss/ATTRIBUTE`.

    The weights depend only on seed, data, machine and number of threads and processes; continuing from a checkpoint
    gives the same weights. Raises DataContractError if there are no products or the loss is not finite.
    """
    for purpose, index in (("train on", inputs.train), ("choose the epoch on", inputs.held_out)):
        if not len(index):
            raise DataContractError(
                f"{inputs.name}: no product is left to {purpose}. Check that labelled products have pictures, and that "
                "enough of them are in the train and choosing folds"
            )
    spec = spec.for_products(len(inputs.train))
    loop = _Loop(network, objective, spec, inputs)
    state = loop.resume() or _State(copy.deepcopy(network.state_dict()))
    if state.epoch:
        progress(f"{inputs.name}: continues after epoch {state.epoch} from {inputs.checkpoints}")
    for row in state.history:
        inputs.on_epoch(inputs.name, row)
    started, before = time.perf_counter(), state.epoch
    while state.epoch < spec.epochs and not (spec.patience and state.waited >= spec.patience):
        row = {"epoch": float(state.epoch + 1), **loop.epoch()}
        held_out = objective.held_out(network, inputs.examples, inputs.held_out)
        row["validation_loss"] = loop.broadcast_from_first(held_out.loss)
        row |= {f"validation_loss/{name}": loss for name, loss in held_out.by_attribute.items()}
        state.history.append(row)
        inputs.on_epoch(inputs.name, row)
        left = (spec.epochs - state.epoch) * (time.perf_counter() - started) / (state.epoch - before)
        progress(
            f"{inputs.name}: epoch {state.epoch}/{spec.epochs}, loss {row['train_loss']:.3f}, "
            f"validation {row['validation_loss']:.3f}, {row['products_per_second']:,.0f} products/s"
            + (f", at most {duration(left)} more" if left else "")
        )
        if row["validation_loss"] < state.best_loss:
            state.best, state.best_loss = copy.deepcopy(network.state_dict()), row["validation_loss"]
            state.waited = 0
        else:
            state.waited += 1
        loop.save(state)
    if state.epoch < spec.epochs:
        progress(f"{inputs.name}: no improvement for {state.waited} epochs, stopped")
    if not math.isfinite(state.best_loss):
        raise DataContractError(
            f"{inputs.name}: the loss is not finite after {state.epoch} epochs. Lower the learning rates, or use fp32"
        )
    network.load_state_dict(state.best)
    network.eval()
    return state.history


def learning_rate_factor(step: int, steps: int, spec: FitSpec) -> float:
    """Return the factor on the configured learning rates at ``step`` of ``steps``.

    `warmup_cosine`, `warmup_linear`: linear warm-up, then cosine or linear decay to 0. `step`: multiplied by
    ``step_factor`` every ``step_epochs``. `constant`: 1.
    """
    if spec.schedule == "constant":
        return 1.0
    if spec.schedule == "step":
        return float(spec.step_factor ** (step * spec.epochs // max(1, steps) // spec.step_epochs))
    warmup = max(1, round(spec.warmup_share * steps))
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return 0.5 * (1.0 + math.cos(math.pi * progress)) if spec.schedule == "warmup_cosine" else max(0.0, 1.0 - progress)


class _LossModule(nn.Module):
    """Network and objective as one module, so that DistributedDataParallel averages the gradients of both."""

    def __init__(self, network: MultiModalNet, objective: Objective) -> None:
        super().__init__()
        self.network, self.objective = network, objective

    def forward(self, inputs: ModelInputs, index: torch.Tensor) -> torch.Tensor:
        loss: torch.Tensor = self.objective(self.network, inputs, index)
        return loss


class _Loop:
    """Optimizer, schedule and batches of one fit."""

    def __init__(self, network: MultiModalNet, objective: Objective, spec: FitSpec, inputs: FitInputs) -> None:
        single = not (distributed.is_available() and distributed.is_initialized())
        self._rank, self._ranks = (0, 1) if single else (distributed.get_rank(), distributed.get_world_size())
        self._device = next(network.parameters()).device
        self._network, self._objective = network, objective.to(self._device)
        if spec.precision == "auto":
            spec = replace(spec, precision="bf16" if compute_types.fastest(str(self._device)) == "bf16" else "fp32")
        self._spec, self._inputs = spec, inputs
        self._epoch = 0
        self._shared_random = self._process_random = np.random.default_rng(spec.seed)
        self._fingerprint = self._hash_of_fit() if inputs.checkpoints is not None else ""
        self._optimizer = _optimizer(network, objective, spec)
        steps = spec.epochs * spec.steps_per_epoch(len(inputs.train))
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._optimizer, lambda step: learning_rate_factor(step, steps, spec)
        )
        self._loss_module: nn.Module = _LossModule(network, objective)
        if self._ranks > 1:
            self._loss_module = nn.parallel.DistributedDataParallel(self._loss_module, find_unused_parameters=True)

    def epoch(self) -> dict[str, float]:
        """Pass once over the training products.

        Random numbers depend only on seed, epoch and process, so that checkpoints need not store their state. The order
        of the batches is the same in all processes; masked pictures and dropout differ.
        """
        started, losses = time.perf_counter(), []
        self._shared_random = np.random.default_rng([self._spec.seed, self._epoch])
        self._process_random = np.random.default_rng([self._spec.seed, self._epoch, self._rank + 1])
        torch.manual_seed(int(self._process_random.integers(2**62)))
        self._epoch += 1
        self._network.train()
        self._objective.train()
        rate = max(group["lr"] for group in self._optimizer.param_groups)
        batches = list(self._batches())
        for number, index in enumerate(batches, start=1):
            losses.append(self._backward(index[self._rank :: self._ranks]) * len(index))
            if number % self._spec.accumulate and number < len(batches):
                continue
            nn.utils.clip_grad_norm_(self._loss_module.parameters(), self._spec.gradient_norm)
            self._optimizer.step()
            self._schedule.step()
            self._optimizer.zero_grad(set_to_none=True)
        self._broadcast_buffers()
        seconds = time.perf_counter() - started
        products = sum(map(len, batches))
        return {
            "train_loss": float(torch.stack(losses).sum()) / products,
            "learning_rate": float(rate),
            "products_per_second": products / seconds,
        }

    def broadcast_from_first(self, number: float) -> float:
        """Return the first process's ``number``, so that all processes stop at the same epoch."""
        if self._ranks == 1:
            return number
        value = torch.tensor([number], dtype=torch.float64, device=self._device)
        distributed.broadcast(value, 0)
        return float(value)

    def save(self, state: _State) -> None:
        """Write the checkpoint atomically; only the first process does."""
        if self._inputs.checkpoints is None or self._rank:
            return
        content = {field.name: getattr(state, field.name) for field in fields(state)}
        content |= {name: part.state_dict() for name, part in self._parts().items()}
        file = self._file()
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".partial")
        torch.save(content, partial)
        os.replace(partial, file)  # noqa: PTH105

    def resume(self) -> _State | None:
        """Restore the checkpoint of the same fit; None if there is none."""
        if self._inputs.checkpoints is None or not self._file().is_file():
            return None
        content = torch.load(self._file(), map_location=self._device, weights_only=True)
        for name, part in self._parts().items():
            part.load_state_dict(content[name])
        self._epoch = len(content["history"])
        return _State(**{field.name: content[field.name] for field in fields(_State)})

    def _parts(self) -> dict[str, Any]:
        """Return the parts of the fit whose state a checkpoint has, beside :class:`_State`."""
        return {
            "network": self._network,
            "objective": self._objective,
            "optimizer": self._optimizer,
            "schedule": self._schedule,
        }

    def _file(self) -> Path:
        """Return the checkpoint's path. Its name has a hash of all that the fit depends on, so that recipes share
        stages."""
        assert self._inputs.checkpoints is not None
        slug = self._inputs.name.replace("/", "-").replace(" ", "-")
        return self._inputs.checkpoints / f"{slug}-{self._fingerprint[:16]}.pt"

    def _hash_of_fit(self) -> str:
        """Hash settings, initial weights, products, texts, pictures, labels and number of processes."""
        examples, train, model = self._inputs.examples, self._inputs.train, self._inputs.model
        masked = b"" if self._inputs.masked_images is None else self._inputs.masked_images.tobytes()
        return stable_hash(
            asdict(self._spec),
            {} if model is None else _used_part(model),
            self._objective.identity(),
            hashlib.sha256(b"".join(_bytes(self._network.state_dict()))).hexdigest(),
            [[examples.dataset.ids[row] for row in rows.tolist()] for rows in (train, self._inputs.held_out)],
            hashlib.sha256(b"".join(_text_bytes(examples)) + masked).hexdigest(),
            [picture or "" for picture in examples.dataset.pictures],
            self._ranks,
        )

    def _backward(self, index: Index) -> torch.Tensor:
        """Add the gradients of a batch; returns its mean loss."""
        augment = self._process_random if self._spec.augment else None
        inputs = self._inputs.examples.batch(index, self._masked_images(index), augment).to(self._device)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._spec.precision == "bf16"):
            loss: torch.Tensor = self._loss_module(inputs, torch.from_numpy(index))
        (loss / self._spec.accumulate).backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def _masked_images(self, index: Index) -> Bools:
        """(B,): products whose picture is masked in this step. A single remaining picture is masked too, because batch
        statistics need at least two."""
        masked = self._process_random.random(len(index)) < self._spec.image_dropout
        if self._inputs.masked_images is not None:
            masked |= self._inputs.masked_images[index]
        single = np.count_nonzero(self._inputs.examples.has_image[index] & ~masked) == 1
        return np.asarray(masked | single)

    def _batches(self) -> Iterator[Index]:
        """Shuffled batches of products of similar length, in shuffled order; the same in every process."""
        size, lengths = self._spec.batch_size, self._inputs.examples.lengths
        order = self._shared_random.permutation(self._inputs.train)
        batches: list[Any] = []
        for start in range(0, len(order), size * BUCKET):
            bucket = order[start : start + size * BUCKET]
            bucket = bucket[np.argsort(lengths[bucket], kind="stable")]
            batches += [bucket[first : first + size] for first in range(0, len(bucket), size)]
        for position in self._shared_random.permutation(len(batches)):
            if len(batches[position]) >= self._ranks:
                yield batches[position]

    def _broadcast_buffers(self) -> None:
        """Copy the first process's buffers (batch statistics) to all: they differ between processes."""
        if self._ranks > 1:
            for buffer in self._network.buffers():
                distributed.broadcast(buffer, 0)


def _used_part(model: ModelSpec) -> dict[str, Any]:
    """Return the spec as plain data, without the encoders that the fusion does not use: they do not influence a fit."""
    kind, plain = fusion_class(model.fusion.kind), asdict(model)
    unused = [*(() if kind.uses_text else ("text", "second_text")), *(() if kind.uses_image else ("image",))]
    return {name: value for name, value in plain.items() if name not in unused}


def _bytes(state: dict[str, torch.Tensor]) -> Iterator[bytes]:
    for name in sorted(state):
        yield name.encode()
        yield state[name].detach().cpu().numpy().tobytes()


def _text_bytes(examples: Examples) -> Iterator[bytes]:
    return (ids.columns["input_ids"].tobytes() for name in sorted(examples.texts) for ids in examples.texts[name])


def _optimizer(network: MultiModalNet, objective: Objective, spec: FitSpec) -> torch.optim.Optimizer:
    groups = parameter_groups(network, spec)
    if objective_weights := list(objective.parameters()):
        groups.append({"name": "objective", "params": objective_weights, "lr": spec.learning_rate, "weight_decay": 0.0})
    if spec.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=0.9, nesterov=True)
    kind = torch.optim.Adam if spec.optimizer == "adam" else torch.optim.AdamW
    return kind(groups)
