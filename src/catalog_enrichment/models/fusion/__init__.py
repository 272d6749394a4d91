"""Fusions: from the encoders' outputs to logits. The name of a module is the fusion's name in a recipe.

To add a fusion, add a module with one subclass of :class:`~catalog_enrichment.models.fusion.base.Fusion`; nothing else
changes.
"""

from __future__ import annotations

from importlib import import_module
from inspect import isclass

from catalog_enrichment.config import strict
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.models.fusion.base import Fusion, FusionShape
from catalog_enrichment.models.spec import FusionSpec, fusion_kinds


def fusion_class(kind: str) -> type[Fusion]:
    """The class of the fusion ``kind``. Raises ConfigError for an unknown name."""
    if kind not in fusion_kinds():
        raise ConfigError(f"model.fusion.kind: there is no fusion {kind!r}. Available: {fusion_kinds()}")
    module = import_module(f"{__name__}.{kind}")
    (fusion,) = (
        item
        for item in vars(module).values()
        if isclass(item) and issubclass(item, Fusion) and item.__module__ == module.__name__
    )
    return fusion


def build_fusion(spec: FusionSpec, shape: FusionShape) -> Fusion:
    """The fusion that ``spec`` names, with random weights. Raises ConfigError for options that it does not have."""
    kind = fusion_class(spec.kind)
    return kind(shape, strict.build(kind.Options, spec.options, where=f"model.fusion.options of {spec.kind}"))
