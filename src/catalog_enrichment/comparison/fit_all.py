"""Several recipes on one data set, fitted in turn and scored on the same held-out products.

What comes out are scores; :mod:`catalog_enrichment.comparison.tables` makes numbers of them. Nothing is certified,
and the certification fold is not looked at: it stays fresh for the model that is chosen.
"""

from __future__ import annotations

import glob
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from catalog_enrichment.comparison.models import Entrant, compare_settings, entrants_of, seeded
from catalog_enrichment.comparison.reference import Reference
from catalog_enrichment.config.comparison import REFERENCES, CompareConfig
from catalog_enrichment.config.schema import Config
from catalog_enrichment.dictionary import Dictionary
from catalog_enrichment.errors import DataContractError
from catalog_enrichment.models.predictor import Predictor
from catalog_enrichment.models.spec import Recipe
from catalog_enrichment.models.vote import majority
from catalog_enrichment.records import stable_hash
from catalog_enrichment.stages import Stages
from catalog_enrichment.training.dataset import Dataset, Labels
from catalog_enrichment.training.distributed import Fitter
from catalog_enrichment.training.evaluation import BOTH, ModelScores
from catalog_enrichment.training.fit import check_buildable, fit, set_threads
from catalog_enrichment.training.folds import Index, twins_share
from catalog_enrichment.training.loop import Progress
from catalog_enrichment.training.scoring import MaskedInput, score, temperatures
from catalog_enrichment.training.single_encoder import ModalitiesUsed, device, modalities_used
from catalog_enrichment.training.task import Split, Task, labels_of, load, settings_of, split_of, task_of

if TYPE_CHECKING:
    import pyarrow as pa

VIEWS: dict[str, MaskedInput] = {BOTH: "nothing", "image_masked": "image", "text_masked": "text"}
"""What the model is shown: everything, or one of its inputs hidden."""

MIN_LABELS = 20
"""A label share that leaves fewer labelled products is not worth a fit."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One model, fitted once."""

    views: Mapping[str, ModelScores]
    """By the names of VIEWS; only `both` for a reference and for a share of the labels."""
    seconds: float
    """To fit and to score, of all members. A stage that an earlier model had fitted already costs nothing here."""
    chosen: Mapping[str, float] = field(default_factory=dict)
    """What the validation fold decided; see :class:`Fitted`."""
    history: list[dict[str, float]] = field(default_factory=list)
    search: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Entry:
    """One model of the comparison, fitted once per seed."""

    name: str
    sees: ModalitiesUsed
    outcomes: tuple[Outcome, ...]
    note: str = ""
    members: tuple[Recipe, ...] = ()
    """None: a reference."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Contest:
    """All that was fitted, and on what it is judged."""

    entries: Mapping[str, Entry]
    """By name: the recipes in their order, then the references."""
    shares: Mapping[tuple[str, float], Entry]
    """(name, share of the train fold's labels) -> the same recipe fitted with those alone."""
    labels: Mapping[str, Labels]
    """The attributes that were learned."""
    index: Index
    """Held-out products with a picture, labelled for at least one attribute."""
    groups: NDArray[np.int64]
    """(N,) content group."""
    ids: Sequence[str]
    """(N,) product id."""
    failed: Mapping[str, str] = field(default_factory=dict)
    """Model that could not be fitted -> why; it is in neither of the others."""
    lineage: dict[str, Any]


def run_contest(
    products: Callable[[], Iterable[pa.RecordBatch]],
    dictionary: Dictionary,
    config: Config,
    workdir: Path,
    progress: Progress,
    fit: Fitter = fit,
    unlabelled: bool = False,
) -> Contest:
    """Fit every model of `[compare]` and score it. ``products()``: all rows of the contract `products`, each time anew.

    ``workdir`` gets the pictures and, unless there is a folder `training.checkpoints`, the stages that models share.
    ``fit``: in this process, or by several. ``unlabelled``: score the products of no fold instead, for a benchmark that
    knows their truth. Raises ConfigError for a recipe that cannot be used and DataContractError for too little data,
    both before anything is fitted; a model whose fit fails later is left out and named.
    """
    settings, stages = compare_settings(config), Stages(say=progress)
    set_threads(settings_of(config).threads)
    entrants = entrants_of(config)
    with stages("load") as stage:
        datasets = _datasets(products, dictionary, config, entrants, workdir)
        first = next(iter(datasets.values()))
        stage.rows_in, stage.rows_out = first.counts["products_read"], len(first)
    with stages("split"):
        parts = split_of(first, settings_of(config))
        labels = labels_of(first, settings_of(config))
        judged = _judged(parts, settings, unlabelled)
        kept = config.path(settings_of(config).checkpoints) if settings_of(config).checkpoints else None
        arena = _Arena(parts, labels, datasets, settings, judged, _Means(fit, progress, workdir / "stages", kept))
        arena.prepare(entrants)
    entries: dict[str, Entry] = {}
    shares: dict[tuple[str, float], Entry] = {}
    with stages("fit") as stage:
        for key, entry in arena.fitted(entrants):
            if isinstance(key, str):
                entries[key] = entry
            else:
                shares[key] = entry
        stage.rows_in = len(arena.index)
    with stages("reference"):
        entries |= {entry.name: entry for entry in arena.references()}
    return Contest(
        entries=entries,
        shares=shares,
        labels=arena.learned,
        index=arena.index,
        groups=parts.groups,
        ids=parts.dataset.ids,
        failed=arena.failed,
        lineage=_lineage(arena) | {"seconds": stages.seconds},
    )


def kept_labels(train: Index, ids: list[str], share: float, seed: int) -> Index:
    """The products at ``train`` that keep their labels: a larger share keeps all that a smaller one does."""
    draw = sorted(train.tolist(), key=lambda product: stable_hash("label share", seed, ids[product]))
    return np.array(sorted(draw[: round(share * len(draw))]), dtype=np.int64)


def _datasets(
    products: Callable[[], Iterable[pa.RecordBatch]],
    dictionary: Dictionary,
    config: Config,
    entrants: list[Entrant],
    workdir: Path,
) -> dict[int, Dataset]:
    """Picture size -> the products with pictures of that size; the products are the same in all."""
    by_size: dict[int, list[Recipe]] = {}
    for recipe in (member for entrant in entrants for member in entrant.members):
        by_size.setdefault(recipe.model.image.size, []).append(recipe)
    found = {
        size: load(products(), dictionary, config, recipes, workdir / f"products-{size}")
        for size, recipes in by_size.items()
    }
    if len({stable_hash(dataset.ids) for dataset in found.values()}) > 1:
        raise DataContractError("the catalog's products changed while they were read. Start the comparison again")
    return found


@dataclass(frozen=True, slots=True)
class _Means:
    """How a comparison fits, and whom it tells."""

    fit: Fitter
    progress: Progress
    stages: Path
    """Folder of the stages that models share."""
    kept: Path | None
    """Folder in which an interrupted comparison is taken up again, in place of the other."""

    @property
    def checkpoints(self) -> Path:
        return self.kept or self.stages


def _judged(parts: Split, settings: CompareConfig, unlabelled: bool) -> Index:
    if not unlabelled:
        return np.concatenate([getattr(parts.folds, name) for name in settings.folds])
    labelled = np.concatenate([index for _, index in parts.folds.items()])
    return np.asarray(np.setdiff1d(np.arange(len(parts.dataset)), labelled), dtype=np.int64)


class _Arena:
    """The data that all models share, and what was fitted so far."""

    def __init__(
        self,
        parts: Split,
        labels: Mapping[str, Labels],
        datasets: Mapping[int, Dataset],
        settings: CompareConfig,
        judged: Index,
        means: _Means,
    ) -> None:
        self.parts, self._labels, self._datasets = parts, labels, datasets
        self.settings, self._means = settings, means
        self.index: Index = np.sort(judged[parts.dataset.has_image[judged]])
        self._tasks: dict[str, Task] = {}
        self._known: dict[str, Outcome | DataContractError] = {}
        self.failed: dict[str, str] = {}

    @property
    def learned(self) -> Mapping[str, Labels]:
        return next(iter(self._tasks.values())).labels

    def prepare(self, entrants: Iterable[Entrant]) -> None:
        """Tokenize for every model and build every network once, so that what cannot work fails now."""
        if not len(self.index):
            raise DataContractError(f"no product of {self.settings.folds} has a picture: there is nothing to judge by")
        for recipe in (member for entrant in entrants for member in entrant.members):
            key = stable_hash(asdict(recipe.model))
            if key not in self._tasks:
                parts = replace(self.parts, dataset=self._datasets[recipe.model.image.size])
                self._tasks[key] = task_of(parts, self._labels, recipe.model)
            check_buildable(recipe, self._tasks[key])
        for share in self.settings.label_shares:
            if (left := round(share * len(self.parts.folds.train))) < MIN_LABELS:
                raise DataContractError(
                    f"compare.label_shares: {share:g} of the train fold is {left} products, fewer than {MIN_LABELS}"
                )

    def fitted(self, entrants: list[Entrant]) -> Iterator[tuple[str | tuple[str, float], Entry]]:
        """Every model, then every share of the labels; seed by seed inside, so that stages can be shared."""
        outcomes: dict[str | tuple[str, float], list[Outcome]] = {}
        by_name = {entrant.name: entrant for entrant in entrants}
        shares = sorted(set(self.settings.label_shares))
        wanted: dict[str | tuple[str, float], tuple[Entrant, float]] = {one.name: (one, 1.0) for one in entrants}
        wanted |= {(name, at): (by_name[name], at) for at in shares for name in self.settings.label_share_recipes}
        for seed in self.settings.seeds:
            self._known.clear()
            for key, (entrant, share) in wanted.items():
                if entrant.name not in self.failed:
                    self._add(outcomes.setdefault(key, []), entrant, seed, share)
            shutil.rmtree(self._means.stages, ignore_errors=True)
        for key, found in outcomes.items():
            entrant, _ = wanted[key]
            if entrant.name not in self.failed:
                what = modalities_used(member.model for member in entrant.members)
                yield key, Entry(entrant.name, what, tuple(found), entrant.note, entrant.members)

    def _add(self, outcomes: list[Outcome], entrant: Entrant, seed: int, share: float) -> None:
        """One more outcome, or a reason why there is none: hours of other fits must not be lost to one."""
        try:
            outcomes.append(self._outcome(entrant, seed, share))
        except DataContractError as problem:
            self.failed[entrant.name] = str(problem)
            self._means.progress(f"{entrant.name}: failed, and is left out: {problem}")

    def references(self) -> Iterator[Entry]:
        """The reference models, which know the same labels as the others."""
        started, task = time.perf_counter(), next(iter(self._tasks.values()))
        reference = Reference.of(self.parts.dataset, self.learned, task.train)
        for name, what in zip(REFERENCES, ("text", "image", "both"), strict=True):
            scores = reference.scores(name, self.index)
            now = time.perf_counter()
            yield Entry(name, what, (Outcome({BOTH: scores}, now - started),))  # type: ignore[arg-type]
            started = now

    def _outcome(self, entrant: Entrant, seed: int, share: float) -> Outcome:
        members = [self._member(entrant.name, seeded(recipe, seed), seed, share) for recipe in entrant.members]
        found = members[0] if len(members) == 1 else self._voted(members)
        self._means.progress(f"{entrant.name}: seed {seed}, {share:.0%} of the labels, {found.seconds:.0f} s")
        return found

    def _member(self, entrant: str, recipe: Recipe, seed: int, share: float) -> Outcome:
        """Fit one recipe, unless another model was the same."""
        key = stable_hash(asdict(replace(recipe, name="")), share)
        if key not in self._known:
            try:
                views = VIEWS if share == 1 else {BOTH: VIEWS[BOTH]}
                task = self._task(recipe, seed, share)
                self._known[key] = self._fitted_and_scored(f"model {entrant}", recipe, task, views)
            except DataContractError as problem:
                self._known[key] = problem
        found = self._known[key]
        if isinstance(found, DataContractError):
            raise found
        return found

    def _fitted_and_scored(self, name: str, recipe: Recipe, task: Task, views: Mapping[str, MaskedInput]) -> Outcome:
        """``name``: of the fit; no stage is called so."""
        started = time.perf_counter()
        fitted = self._means.fit(replace(recipe, name=name), task, self._means.progress, self._means.checkpoints)
        if not self._means.kept:
            self._forget(name)
        predictor = Predictor(
            fitted.network, task.tokenizers, recipe.model, temperatures(fitted, self._tempered(task)), device()
        )
        scores = {
            view: score(predictor, task.examples.dataset, self.index, self._means.progress, hidden)
            for view, hidden in views.items()
        }
        return Outcome(scores, time.perf_counter() - started, fitted.chosen, fitted.history, fitted.search)

    def _forget(self, name: str) -> None:
        """Delete what the whole fit ``name`` left: no other model shares it, and it is thrice as large as the model."""
        for file in self._means.stages.glob(f"{glob.escape(name.replace('/', '-').replace(' ', '-'))}-*"):
            file.unlink()

    def _task(self, recipe: Recipe, seed: int, share: float) -> Task:
        """With a share of the labels the others' products are as if nobody had labelled them."""
        task = self._tasks[stable_hash(asdict(recipe.model))]
        train = task.folds.train
        if share < 1:
            train = kept_labels(train, self.parts.dataset.ids, share, seed)
        return replace(task, folds=replace(task.folds, train=train))

    def _tempered(self, task: Task) -> Task:
        """Temperatures come from products that nothing is judged on."""
        if "calibration" not in self.settings.folds:
            return task
        return replace(task, folds=replace(task.folds, calibration=task.folds.validation))

    def _voted(self, members: list[Outcome]) -> Outcome:
        views = {}
        for view in members[0].views:
            parts = [member.views[view] for member in members]
            votes = {
                name: majority(
                    torch.from_numpy(np.stack([part.probabilities[name] for part in parts])), labels.cardinality
                ).numpy()
                for name, labels in self.learned.items()
            }
            views[view] = ModelScores(self.index, votes)
        return Outcome(views, sum(member.seconds for member in members))


def _lineage(arena: _Arena) -> dict[str, Any]:
    dataset, folds, groups = arena.parts.dataset, arena.parts.folds, arena.parts.groups
    return {
        **dataset.counts,
        "with_image": int(dataset.has_image.sum()),
        "folds": folds.sizes(),
        "judged_on": list(arena.settings.folds),
        "judged": len(arena.index),
        "judged_groups": len(np.unique(groups[arena.index])),
        "content_groups": len(np.unique(groups)),
        "twins_share_judged": twins_share(arena.index, folds.train, groups),
        "learned_values": {name: len(labels.values) for name, labels in arena.learned.items()},
        "dictionary_hash": dataset.dictionary.hash(),
    }
