"""From what the encoders saw to scores: every fusion in a module of its own, named as a recipe names it.

A new fusion is one new module with one subclass of :class:`~catalog_enrichment.models.fusion.base.Fusion`; nothing
else knows the list.
"""

from __future__ import annotations

from importlib import import_module
from inspect import isclass

from catalog_enrichment.config import strict
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.models.fusion.base import Fusion, FusionShape
from catalog_enrichment.models.spec import FusionSpec, fusion_kinds


def fusion_class(kind: str) -> type[Fusion]:
    """The class of a fusion. Raises ConfigError for a name that is none."""
    if kind not in fusion_kinds():
        raise ConfigError(f"model.fusion.kind: there is no fusion {kind!r}. Available: {fusion_kinds()}")
    module = import_module(f"{__name__}.{kind}")
    (found,) = (
        item
        for item in vars(module).values()
        if isclass(item) and issubclass(item, Fusion) and item.__module__ == module.__name__
    )
    return found


def build_fusion(spec: FusionSpec, sizes: FusionShape) -> Fusion:
    """The fusion that ``spec`` names, with random weights. Raises ConfigError for options that it does not have."""
    kind = fusion_class(spec.kind)
    return kind(sizes, strict.build(kind.Options, spec.options, where=f"model.fusion.options of {spec.kind}"))
