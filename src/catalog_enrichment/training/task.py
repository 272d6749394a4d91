"""The data of a fit: products are read, grouped by content, split into folds and tokenized; and its networks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from catalog_enrichment.config.proposer import ProposerConfig
from catalog_enrichment.config.schema import Config, TrainingConfig
from catalog_enrichment.dictionary import Dictionary
from catalog_enrichment.errors import ConfigError, DataContractError, GateRefused
from catalog_enrichment.inputs.text import TextTokenizer
from catalog_enrichment.models.compute_types import default_device
from catalog_enrichment.models.fusion import fusion_class
from catalog_enrichment.models.network import MultiModalNet, build_network
from catalog_enrichment.models.spec import Ensemble, FitSpec, Head, ModelSpec, Recipe
from catalog_enrichment.models.text_encoders import build_tokenizer
from catalog_enrichment.precision.units import Bools, Ints
from catalog_enrichment.records import EarlierUses, stable_hash
from catalog_enrichment.training.dataset import Dataset, LoadOptions, load_dataset
from catalog_enrichment.training.examples import Examples
from catalog_enrichment.training.folds import (
    CertificationRound,
    Folds,
    GroupedProducts,
    Index,
    content_groups,
    empty_folds,
    folds_of_round,
    half_of_groups,
    remember,
    resumed,
    where,
)
from catalog_enrichment.training.labels import Labels

if TYPE_CHECKING:
    import pyarrow as pa

MIN_LABELLED = 100
"""With fewer labelled products the folds are too small to measure anything."""

ModalitiesUsed = Literal["text", "image", "both"]


@dataclass(frozen=True, slots=True)
class Split:
    """The data set with its content groups and folds."""

    dataset: Dataset
    groups: Ints
    """(N,) content group of each product."""
    folds: Folds
    certification_round: CertificationRound = field(default_factory=CertificationRound)


@dataclass(frozen=True, slots=True)
class Task:
    """The data that a model is fitted to: the inputs, their tokenizers, the labels of every attribute, the folds."""

    examples: Examples
    tokenizers: Mapping[str, TextTokenizer]
    """Text encoder -> its tokenizer."""
    labels: Mapping[str, Labels]
    folds: Folds
    groups: Ints
    """(N,) content group of each product."""

    @property
    def train(self) -> Index:
        """The train fold's products with a learned or refused value of at least one attribute."""
        in_loss = np.any([label.in_loss for label in self.labels.values()], axis=0)
        return where(self.folds.train, in_loss)

    @property
    def self_supervised(self) -> Index:
        """Products for self-supervision: the train fold, and the unlabelled products of half of the content groups, but
        for those of a gold sample. The other half stays unseen, for the comparison with labelled products. No product
        shares a content group with a held-out fold."""
        dataset, groups = self.examples.dataset, self.groups
        usable = half_of_groups(dataset.ids, groups, "self-supervision") & ~np.isin(groups, groups[dataset.asked])
        usable[self.folds.train] = True
        return np.flatnonzero(usable & ~np.isin(groups, groups[self.folds.held_out])).astype(np.int64)

    @property
    def heads(self) -> dict[str, Head]:
        """A head per attribute, its labels in the order of the truth's columns."""
        return {name: Head(label.cardinality, label.values) for name, label in self.labels.items()}

    def new_network(self, model: ModelSpec, spec: FitSpec, name: str = "") -> MultiModalNet:
        """Build a network for one fit, initialised with the fit's seed, on the GPU if there is any.

        ``name``: the text encoder, for a model with a single text encoder. Raises ConfigError if the network cannot be
        built or does not accept pictures of the fit's size.
        """
        torch.manual_seed(spec.seed)
        tokenizers = {"text": self.tokenizers[name]} if name in self.tokenizers else self.tokenizers
        network = build_network(model, self.heads, tokenizers)
        fixed_size = None if network.image is None else network.image.only_side
        if spec.picture_size and fixed_size not in (None, spec.picture_size):
            raise ConfigError(
                f"picture_size is {spec.picture_size}, but {model.image.name} reads pictures of {fixed_size} pixels "
                "only"
            )
        return network.to(default_device())


def settings_of(config: Config) -> TrainingConfig:
    """Return the section [training]. Raises ConfigError if there is none."""
    if config.training is None:
        raise ConfigError("the config has no section [training]: training needs at least training.recipe")
    return config.training


def checkpoint_folder(config: Config, workdir: Path) -> Path:
    """Return `training.checkpoints`; otherwise a temporary folder, through which recipes share stages."""
    checkpoints = settings_of(config).checkpoints
    return config.path(checkpoints) if checkpoints else workdir / "stages"


def modalities_used(models: Iterable[ModelSpec]) -> ModalitiesUsed:
    """Return the modalities that the models use, taken together."""
    kinds = [fusion_class(model.fusion.kind) for model in models]
    text, image = any(kind.uses_text for kind in kinds), any(kind.uses_image for kind in kinds)
    return "both" if text and image else "text" if text else "image"


def attributes_of(settings: TrainingConfig | ProposerConfig, dictionary: Dictionary) -> list[str]:
    """Return the attributes to learn or certify. Raises ConfigError for one that is not enabled in the dictionary."""
    names = settings.attributes or dictionary.enabled
    if unknown := [name for name in names if name not in dictionary.enabled]:
        raise ConfigError(f"attributes: {unknown} are not enabled in the dictionary. Enabled: {dictionary.enabled}")
    return names


def load(
    products: Iterable[pa.RecordBatch],
    dictionary: Dictionary,
    config: Config,
    recipes: Sequence[Recipe],
    workdir: Path,
    max_chars: int = 0,
) -> Dataset:
    """Read the products, with texts and pictures as ``recipes`` need them, which all have the same `model.image.size`
    and `trim`. The pictures are written to ``workdir``. At least ``max_chars`` characters of a text are kept.

    Raises GateRefused where ``recipes`` use pictures and too many of them are unusable.
    """
    settings = settings_of(config)
    options = LoadOptions(
        attributes=attributes_of(settings, dictionary),
        square=recipes[0].model.image.square,
        max_chars=max(max_chars, *(recipe.max_chars for recipe in recipes)),
        images=config.pictures(),
        workdir=workdir,
        max_unlabelled=settings.max_unlabelled,
    )
    dataset = load_dataset(products, dictionary, options)
    uses_pictures = modalities_used(recipe.model for recipe in recipes) != "text"
    if uses_pictures and dataset.unusable.too_many(config.images.max_unusable):
        raise GateRefused(
            f"{dataset.unusable.sentence()} Nothing was trained; a recipe that uses the text alone needs no pictures, "
            "and --set images.max_unusable=1 trains with what there is"
        )
    return dataset


def labels_of(dataset: Dataset, settings: TrainingConfig) -> dict[str, Labels]:
    """Return the labels of every attribute to learn, also of those for which no value can be learned."""
    names = attributes_of(settings, dataset.dictionary)
    return {name: dataset.labels(name, settings.min_label_count) for name in names}


def split_of(dataset: Dataset, settings: TrainingConfig, earlier: EarlierUses) -> Split:
    """Return content groups, and the folds of the next training after the ``earlier`` uses of labels.

    Raises DataContractError if there are too few labelled products or content groups.
    """
    labels = labels_of(dataset, settings)
    labelled = np.flatnonzero(np.any([label.labelled for label in labels.values()], axis=0))
    if len(labelled) < MIN_LABELLED:
        counts = {name: int(label.labelled.sum()) for name, label in labels.items()}
        raise DataContractError(
            f"{len(labelled)} of {dataset.counts['products_read']} products are labelled, training needs at least "
            f"{MIN_LABELLED} (per attribute: {counts}). Check source.mapping.attributes and attributes_when of the "
            "import, and that the dictionary's attribute names are those in products.merchant_attributes"
        )
    groups = content_groups(dataset.titles, dataset.pictures, dataset.dictionary.words())
    products = GroupedProducts(dataset.ids, groups, stratified_by(labels))
    folds, certification_round = folds_of_round(labelled, products, settings, list(labels), earlier)
    if empty := empty_folds(folds, settings.folds):
        raise DataContractError(
            f"{len(labelled)} labelled products make {len(np.unique(groups[labelled]))} content groups, too few "
            f"for the folds {empty}. Check that titles and pictures differ between products (one placeholder picture "
            "makes them one group), or label more"
        )
    masks = [label.labelled for label in labels.values()]
    folds = _with_people(folds, dataset, groups).without_twins_of(dataset.asked, groups, masks)
    return Split(dataset, groups, folds, certification_round)


def stratified_by(labels: Mapping[str, Labels]) -> Bools:
    """Return the (N, V) values whose shares the folds should have: those of closed lists, and without any, that there
    is a value.

    So an attribute without a closed list changes nothing for the others.
    """
    closed = [label.truth for label in labels.values() if not label.is_open]
    return np.concatenate(closed or [label.truth for label in labels.values()], axis=1)


def resumable_split(dataset: Dataset, config: Config, recipe: Recipe | Ensemble, earlier: EarlierUses) -> Split:
    """Return :func:`split_of`, in the certification round in which the same training was interrupted, if it was
    (`training.checkpoints`)."""
    settings = settings_of(config)
    checkpoints = config.path(settings.checkpoints) if settings.checkpoints else None
    by_people = (*filter(None, dataset.people), *filter(None, dataset.refused))
    of_products = stable_hash(dataset.ids, [sorted(values.items()) for values in (*dataset.merchant, *by_people)])
    chosen = (asdict(settings.folds), settings.attributes, settings.min_label_count)
    fingerprint = stable_hash(asdict(recipe), chosen, of_products)
    split = split_of(dataset, settings, resumed(earlier, checkpoints, fingerprint))
    remember(split.certification_round, checkpoints, fingerprint)
    return split


def _with_people(folds: Folds, dataset: Dataset, groups: Ints) -> Folds:
    """Add the products that people labelled to the train fold, where no product of their content group is in another
    fold."""
    answered = [bool(right or wrong) for right, wrong in zip(dataset.people, dataset.refused, strict=True)]
    by_people = np.flatnonzero(answered).astype(np.int64)
    more = by_people[~np.isin(groups[by_people], groups[folds.held_out])]
    return replace(folds, train=np.union1d(folds.train, more).astype(np.int64)) if len(more) else folds


def task_of(split: Split, labels: Mapping[str, Labels], model: ModelSpec) -> Task:
    """Return the task of ``model``: the attributes with a closed list that can be learned, and texts tokenized with a
    vocabulary that is built of the train fold.

    Unlabelled products add nothing to the vocabulary: held-out products would have more unknown words than they, and
    labelled and unlabelled products would differ for that reason alone. Raises DataContractError if no attribute can be
    learned."""
    train = split.folds.train
    why_not = not_learned(labels, train)
    learned = {
        name: label.people_only_in(train) for name, label in labels.items() if name not in why_not and not label.is_open
    }
    if not learned:
        reasons = "; ".join(f"{name}: {why}" for name, why in why_not.items())
        raise DataContractError(
            f"no attribute can be learned ({reasons}). Check that the merchants' values are the dictionary's (the "
            "import counts what did not map)"
        )
    dataset = split.dataset
    texts = [text for product in train for text in (dataset.titles[product], dataset.descriptions[product])]
    tokenizers = {name: build_tokenizer(text, texts) for name, text in model.texts.items()}
    return Task(Examples.of(dataset, model, tokenizers), tokenizers, learned, split.folds, split.groups)


def not_learned(labels: Mapping[str, Labels], train: Index) -> dict[str, str]:
    """Return attribute -> why no model can learn it from the products of ``train``, for those of which that is so."""
    elsewhere = "no product of the train fold has one of its learned values"
    found = {
        name: label.too_few or ("" if label.learnable[train].any() else elsewhere) for name, label in labels.items()
    }
    return {name: why for name, why in found.items() if why}
