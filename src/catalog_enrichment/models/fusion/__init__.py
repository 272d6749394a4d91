"""Fusions: from the encoders' outputs to logits.

To add a fusion, add a file with a subclass of :class:`~catalog_enrichment.models.fusion.base.Fusion` that has a
``kind``, its name in a recipe. Nothing else changes.
"""

from __future__ import annotations

from importlib import import_module
from inspect import isclass

from catalog_enrichment.config import strict
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.models.fusion.base import Fusion, FusionShape
from catalog_enrichment.models.spec import FusionSpec, fusion_files


def fusion_class(kind: str) -> type[Fusion]:
    """Return the class of the fusion ``kind``. Raises ConfigError for an unknown name."""
    files = fusion_files()
    if kind not in files:
        raise ConfigError(f"model.fusion.kind: there is no fusion {kind!r}. Available: {sorted(files)}")
    module = import_module(f"{__name__}.{files[kind]}")
    classes = [item for item in vars(module).values() if isclass(item) and issubclass(item, Fusion)]
    return next(fusion for fusion in classes if vars(fusion).get("kind") == kind)


def build_fusion(spec: FusionSpec, shape: FusionShape) -> Fusion:
    """Return the fusion that ``spec`` names, with random weights.

    Raises ConfigError for options that it does not have.
    """
    fusion = fusion_class(spec.kind)
    return fusion(shape, strict.build(fusion.Options, spec.options, where=f"model.fusion.options of {spec.kind}"))
