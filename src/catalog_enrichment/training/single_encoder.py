"""What the fit of a single encoder needs: model spec, examples, network, heads, device."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Literal

import torch

from catalog_enrichment.errors import ConfigError
from catalog_enrichment.models.compute_types import default_device
from catalog_enrichment.models.fusion import fusion_class
from catalog_enrichment.models.network import MultiModalNet, build_network
from catalog_enrichment.models.spec import FitSpec, FusionSpec, Head, ModelSpec
from catalog_enrichment.training.dataset import Labels
from catalog_enrichment.training.examples import Examples

if TYPE_CHECKING:
    from catalog_enrichment.training.task import Task

ModalitiesUsed = Literal["text", "image", "both"]


def single_encoder_spec(model: ModelSpec, name: str) -> ModelSpec:
    """The model with the encoder ``name`` only (text, second_text or image), unfrozen."""
    if name == "image":
        return unfrozen(replace(model, second_text=None, fusion=FusionSpec(kind="image_only")))
    return unfrozen(replace(model, text=model.texts[name], second_text=None, fusion=FusionSpec(kind="text_only")))


def single_encoder_examples(examples: Examples, name: str) -> Examples:
    """The examples as inputs of :func:`single_encoder_spec`: the texts of the encoder ``name``."""
    source = name if name in examples.texts else "text"
    return replace(examples, texts={"text": examples.texts[source]})


def unfrozen(model: ModelSpec) -> ModelSpec:
    """The model with every encoder unfrozen: a stage of its own fits an encoder that the whole model keeps frozen."""
    second = None if model.second_text is None else replace(model.second_text, frozen=False)
    return replace(
        model, text=replace(model.text, frozen=False), second_text=second, image=replace(model.image, frozen=False)
    )


def spec_without_unused_encoders(model: ModelSpec) -> dict[str, Any]:
    """The spec as plain data, without the encoders that the fusion does not use: they do not influence the fit."""
    kind, plain = fusion_class(model.fusion.kind), asdict(model)
    unused = [*(() if kind.uses_text else ("text", "second_text")), *(() if kind.uses_image else ("image",))]
    return {name: value for name, value in plain.items() if name not in unused}


def new_network(model: ModelSpec, spec: FitSpec, task: Task, name: str = "") -> MultiModalNet:
    """A network for one fit, initialised with the fit's seed, on :func:`device`. ``name``: the text encoder of a model
    that has only one.

    Raises ConfigError if it cannot be built or does not accept pictures of the fit's size.
    """
    torch.manual_seed(spec.seed)
    tokenizers = {"text": task.tokenizers[name]} if name in task.tokenizers else task.tokenizers
    network = build_network(model, heads_of(task.labels), tokenizers)
    fixed_size = None if network.image is None else network.image.only_side
    if spec.picture_size and fixed_size not in (None, spec.picture_size):
        raise ConfigError(
            f"picture_size is {spec.picture_size}, but {model.image.name} reads pictures of {fixed_size} pixels only"
        )
    return network.to(device())


def modalities_used(models: Iterable[ModelSpec]) -> ModalitiesUsed:
    """The modalities that the models use, taken together."""
    kinds = [fusion_class(model.fusion.kind) for model in models]
    text, image = any(kind.uses_text for kind in kinds), any(kind.uses_image for kind in kinds)
    return "both" if text and image else "text" if text else "image"


def heads_of(labels: Mapping[str, Labels]) -> dict[str, Head]:
    """A head per attribute, its labels in the order of the truth's columns."""
    return {name: Head(label.cardinality, label.values) for name, label in labels.items()}


def device() -> str:
    """The device on which models are fitted and scored: the GPU, if there is one."""
    return default_device()
