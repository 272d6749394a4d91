"""The fit of an extractor by distant supervision: merchants' values say which places of a text are right.

All places that say the product's value are right together (the logarithm of the sum of their probabilities); where no
place says it, "none of them" is right. So a product whose value is not in its text teaches the extractor to find
nothing. A label of one attribute says nothing about the others.
"""

from __future__ import annotations

import copy
import ctypes
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from catalog_enrichment.errors import ConfigError, DataContractError
from catalog_enrichment.inputs.text import TextTokenizer, clean_text
from catalog_enrichment.models import compute_types
from catalog_enrichment.models.extraction.extractor import Extractor, Judged
from catalog_enrichment.models.extraction.lexicon import Counts, Known, Lexicon
from catalog_enrichment.models.extraction.network import ExtractionNet
from catalog_enrichment.models.extraction.places import Meanings, Own, PlaceFinder
from catalog_enrichment.models.extraction.recipe import ExtractionFit, ExtractionRecipe
from catalog_enrichment.models.extraction.words import key_of, runs, shape_of, split
from catalog_enrichment.models.text_encoders import TextEncoder, build_text_encoder, build_tokenizer
from catalog_enrichment.training.loop import Progress
from catalog_enrichment.values import same
from catalog_enrichment.values.kinds import Kind, OpenRule

_RANKING_LOSS = 0.5
"""Weight of the loss of the first ranking."""
_TEMPERATURES = np.geomspace(0.25, 4.0, 33)
_BUCKET = 8
"""Batches of which the products are sorted by length together, so that little is padded."""
_TRIM_STEPS = 16
"""Steps after which free memory is given back."""
_COUNTED_TOGETHER = 512
"""Products whose words are counted at a time."""

Values = Mapping[str, Sequence[Sequence[str] | None]]
"""Attribute -> the stored values of each product, any of which is right; empty: it has none; None: no label."""


def fit_extractor(
    recipe: ExtractionRecipe,
    titles: Sequence[str],
    descriptions: Sequence[str],
    labels: Values,
    rules: Mapping[str, OpenRule],
    *,
    train: NDArray[np.int64],
    validation: NDArray[np.int64],
    progress: Progress,
) -> Extractor:
    """Return an extractor of the attributes of ``rules``, fitted to the products at ``train``.

    The epoch and the temperature are those that are best at ``validation``. The same products, recipe, machine and
    number of threads give the same weights. Raises DataContractError where no product of ``train`` is labelled or the
    loss is not finite.
    """
    most = recipe.text.max_chars
    data = _Products(
        [clean_text(text, most) for text in titles], [clean_text(text, most) for text in descriptions], labels, rules
    )
    train, validation = data.labelled(train), data.labelled(validation)
    if not any(labels[name][product] for name in rules for product in train.tolist()):
        raise DataContractError(f"no product of the train fold has a value of {', '.join(rules)}")
    torch.manual_seed(recipe.fit.seed)
    texts = [text for product in train.tolist() for text in (data.titles[product], data.descriptions[product])]
    tokenizer, encoder = _encoder(recipe, texts)
    net = ExtractionNet(encoder, len(rules))
    lexicon = _lexicon(data, train, recipe)
    device = compute_types.default_device()
    numbers = compute_types.fastest(device) if recipe.fit.precision == "auto" else recipe.fit.precision
    extractor = Extractor(recipe, rules, tokenizer, net, lexicon, device=device, numbers=numbers)
    _fit(extractor, data, train, validation, progress)
    if len(validation):
        extractor.temperature = _temperature(extractor, data, validation)
    return extractor


def check_buildable(recipe: ExtractionRecipe) -> None:
    """Build the text encoder, so that an unusable one raises ConfigError before the first fit."""
    _encoder(recipe, [recipe.name])


def _encoder(recipe: ExtractionRecipe, texts: Sequence[str]) -> tuple[TextTokenizer, TextEncoder]:
    """Return the tokenizer, which one from scratch learns from ``texts``, and the encoder."""
    try:
        tokenizer = build_tokenizer(recipe.text, texts)
        return tokenizer, build_text_encoder(recipe.text, len(tokenizer))
    except ConfigError as problem:
        raise ConfigError(f"{recipe.name}: {problem}") from None


@dataclass(slots=True)
class _Products:
    """The products of a fit, with clean texts."""

    titles: list[str]
    descriptions: list[str]
    labels: Values
    rules: Mapping[str, OpenRule]

    def labelled(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the products at ``index`` with a label of any attribute."""
        known = [any(values[product] is not None for values in self.labels.values()) for product in index.tolist()]
        return np.asarray(index[np.array(known, dtype=bool)], dtype=np.int64)

    def texts(self, index: Sequence[int]) -> tuple[list[str], list[str]]:
        return [self.titles[product] for product in index], [self.descriptions[product] for product in index]

    def own(self, index: Sequence[int], unknown: NDArray[np.bool_]) -> Own:
        """Return the labels of the products at ``index``."""
        keys, shapes, found = {}, {}, {}
        for name, rule in self.rules.items():
            values = [self.labels[name][product] or () for product in index]
            shape = (len(index), max(map(len, values), default=0))
            keys[name], shapes[name] = np.zeros(shape, dtype=np.uint64), np.zeros(shape, dtype=np.uint64)
            found[name] = np.full(shape, np.nan)
            for row, of_product in enumerate(values):
                for column, value in enumerate(of_product):
                    keys[name][row, column], shapes[name][row, column] = key_of(value), shape_of(value)
                    number = same.number_of(value, rule)
                    found[name][row, column] = np.nan if number is None else number
        asked = {
            name: np.array([self.labels[name][product] is not None for product in index], dtype=bool)
            for name in self.rules
        }
        return Own(keys, shapes, asked, unknown, found, self.rules)


def _lexicon(data: _Products, train: NDArray[np.int64], recipe: ExtractionRecipe) -> Lexicon:
    """Count the values and shapes of the train fold's labels, and how often they stand in its texts."""
    known = {}
    for name, rule in data.rules.items():
        values = [value for product in train.tolist() for value in data.labels[name][product] or ()]
        logs = np.array([math.log(max(abs(same.number_of(value, rule) or 0.0), 1e-6)) for value in values])
        if rule.kind is Kind.TEXT or not len(logs):
            logs = np.zeros(1)
        shapes = [shape_of(value) for value in values] if rule.kind is Kind.TEXT else []
        spread = (float(logs.mean()), max(float(logs.std()), 0.1))
        known[name] = Known(Counts.of([key_of(value) for value in values]), Counts.of(shapes), spread)
    lexicon = Lexicon(known)
    finder = PlaceFinder(
        {name: rule for name, rule in data.rules.items() if rule.kind is Kind.NUMBER}, Lexicon(), recipe.candidates
    )
    numbers = list(finder.rules)
    for start in range(0, len(train), _COUNTED_TOGETHER):
        words = split(*data.texts(train[start : start + _COUNTED_TOGETHER].tolist()), recipe.candidates.read_words)
        of = runs(words, recipe.candidates.most_words)
        for name, rule in data.rules.items():
            if rule.kind is Kind.TEXT:
                known[name].values.add_texts(Meanings.of(rule).meant(of.key))
                known[name].shapes.add_texts(of.shape)
        if numbers:
            places = finder.of_words(words)
            for number, name in enumerate(numbers):
                known[name].values.add_texts(places.key[places.attribute == number])
    return lexicon


def _fit(
    extractor: Extractor,
    data: _Products,
    train: NDArray[np.int64],
    validation: NDArray[np.int64],
    progress: Progress,
) -> None:
    """Fit the network in place, and leave the weights of the best epoch."""
    spec, net = extractor.recipe.fit, extractor.net
    epochs = spec.passes(len(train))
    steps = epochs * math.ceil(len(train) / spec.batch_size)
    optimizer = torch.optim.AdamW(_parameters(net, spec))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _factor(step, steps, spec.warmup_share))
    dice = np.random.default_rng(spec.seed)
    best, best_loss, waited = copy.deepcopy(net.state_dict()), math.inf, 0
    for epoch in range(1, epochs + 1):
        net.train()
        losses = []
        for step, batch in enumerate(_shuffled(data, train, spec.batch_size, dice)):
            if step % _TRIM_STEPS == 0:
                _give_memory_back()
            unknown = dice.random(len(batch)) < spec.unknown_share
            own = data.own(batch, unknown)
            loss = _loss(extractor.judged(*data.texts(batch), own), own, data, batch)
            if loss is None:
                continue
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(net.parameters(), spec.gradient_norm)
            optimizer.step()
            schedule.step()
            losses.append(float(loss.detach()))
        net.eval()
        if not losses:
            progress("extractor: no text of the train fold says a value that it could find: it finds none")
            return
        fitted = float(np.mean(losses))
        held_out = _held_out_loss(extractor, data, validation)
        if held_out is None:
            held_out = fitted
        progress(f"extractor: epoch {epoch}/{epochs}, loss {fitted:.3f}, validation {held_out:.3f}")
        if held_out < best_loss:
            best, best_loss, waited = copy.deepcopy(net.state_dict()), held_out, 0
        else:
            waited += 1
        if spec.patience and waited >= spec.patience:
            break
    if not math.isfinite(best_loss):
        raise DataContractError("extractor: the loss is not finite. Lower the learning rates")
    net.load_state_dict(best)
    net.eval()


def _batches(order: NDArray[np.int64], size: int) -> Iterator[list[int]]:
    for start in range(0, len(order), size):
        yield order[start : start + size].tolist()


def _shuffled(data: _Products, index: NDArray[np.int64], size: int, dice: np.random.Generator) -> Iterator[list[int]]:
    """Yield batches of products of similar length, in random order."""
    lengths = np.array([len(data.titles[product]) + len(data.descriptions[product]) for product in index.tolist()])
    order, batches = dice.permutation(len(index)), []
    for start in range(0, len(order), size * _BUCKET):
        bucket = order[start : start + size * _BUCKET]
        batches += list(_batches(index[bucket[np.argsort(lengths[bucket], kind="stable")]], size))
    for position in dice.permutation(len(batches)).tolist():
        yield batches[position]


def _give_memory_back() -> None:
    """Give free pages back to the system. Every batch has another number of places, and the gaps that tensors of other
    sizes leave would take some gigabytes in an hour. Does nothing where the C library cannot."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):
        return


def _parameters(net: ExtractionNet, spec: ExtractionFit) -> list[dict[str, object]]:
    """Return the optimizer's groups: the encoder and the rest, biases and normalisation without weight decay."""
    groups: list[dict[str, object]] = []
    for of_encoder, rate in ((True, spec.text_learning_rate), (False, spec.learning_rate)):
        own = [
            weight
            for name, weight in net.named_parameters()
            if name.startswith("encoder.") == of_encoder and weight.requires_grad
        ]
        for decay, members in (
            (spec.weight_decay, [weight for weight in own if weight.ndim > 1]),
            (0.0, [weight for weight in own if weight.ndim <= 1]),
        ):
            if members:
                groups.append({"params": members, "lr": rate, "weight_decay": decay})
    return groups


def _factor(step: int, steps: int, warmup: float) -> float:
    first = max(warmup * steps, 1.0)
    if step < first:
        return (step + 1) / first
    return 0.5 * (1 + math.cos(math.pi * min((step - first) / max(steps - first, 1.0), 1.0)))


def _loss(judged: Judged, own: Own, data: _Products, batch: Sequence[int]) -> torch.Tensor | None:
    """Return the mean loss of the labelled products and attributes; None where the batch has no place at all."""
    right = torch.from_numpy(own.right(judged.places)).to(judged.logits.device)
    labelled = _labelled(judged, data, batch)
    if not labelled.any():
        return None
    final = _nll(judged.logits, _targets(judged, right))
    ranking = _ranking_nll(judged, right)
    return (final + _RANKING_LOSS * ranking)[labelled].mean()


def _labelled(judged: Judged, data: _Products, batch: Sequence[int]) -> torch.Tensor:
    """(S,) the product has a label of the attribute."""
    names = list(data.rules)
    pairs = zip(judged.kept.product.tolist(), judged.kept.attribute.tolist(), strict=True)
    known = [data.labels[names[attribute]][batch[product]] is not None for product, attribute in pairs]
    return torch.tensor(known, dtype=torch.bool, device=judged.logits.device)


def _targets(judged: Judged, right: torch.Tensor) -> torch.Tensor:
    """(S, K + 1) bool: what is right of each segment; "none of them" where no place that was kept is."""
    kept = judged.kept
    of_places = right[kept.place] & kept.known if len(right) else kept.known
    return torch.cat([of_places, ~of_places.any(dim=1, keepdim=True)], dim=1)


def _nll(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """(S,) minus the logarithm of the probability of all that is right."""
    return torch.logsumexp(logits, dim=1) - torch.logsumexp(logits.masked_fill(~targets, float("-inf")), dim=1)


def _ranking_nll(judged: Judged, right: torch.Tensor) -> torch.Tensor:
    """(S,) the same of the first ranking, over all places of a segment; "none of them" has the logit 0."""
    places, kept, logits = judged.places, judged.kept, judged.ranking
    attributes = int(kept.attribute.max()) + 1
    keys = torch.from_numpy(places.product * attributes + places.attribute).to(logits.device)
    of_segment = kept.product * attributes + kept.attribute
    segment = torch.searchsorted(of_segment, keys)
    zero = logits.new_zeros(len(of_segment))
    top = zero.scatter_reduce(0, segment, logits.detach(), "amax")  # at least 0, the logit of "none"
    shifted = torch.exp(logits - top[segment])
    none = torch.exp(-top)
    total = none + zero.index_add(0, segment, shifted)
    some = zero.index_add(0, segment, right.to(logits.dtype)) > 0
    said = zero.index_add(0, segment, shifted * right.to(logits.dtype))
    return torch.log(total) - torch.log(torch.where(some, said, none).clamp(min=1e-30))


def _scored(
    extractor: Extractor, data: _Products, index: NDArray[np.int64]
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield logits and targets of the labelled segments of the products at ``index``, as the batch judges them."""
    with torch.inference_mode():
        for batch in _batches(index, 2 * extractor.recipe.fit.batch_size):
            judged = extractor.judged(*data.texts(batch))
            own = data.own(batch, np.zeros(len(batch), dtype=bool))
            right = torch.from_numpy(own.right(judged.places)).to(judged.logits.device)
            labelled = _labelled(judged, data, batch)
            yield judged.logits[labelled], _targets(judged, right)[labelled]


def _held_out_loss(extractor: Extractor, data: _Products, index: NDArray[np.int64]) -> float | None:
    """Return the mean loss at ``index``; None where no labelled product there has a place in its text."""
    losses = [_nll(logits, targets) for logits, targets in _scored(extractor, data, index)]
    together = torch.cat(losses) if losses else torch.empty(0)
    return float(together.mean()) if len(together) else None


def _temperature(extractor: Extractor, data: _Products, index: NDArray[np.int64]) -> float:
    """Return the temperature with the smallest loss at ``index``."""
    scored = list(_scored(extractor, data, index))
    if not any(len(logits) for logits, _ in scored):
        return 1.0
    logits, targets = (torch.cat(column) for column in zip(*scored, strict=True))
    losses = [float(_nll(logits / temperature, targets).mean()) for temperature in _TEMPERATURES]
    return float(_TEMPERATURES[int(np.argmin(losses))])
