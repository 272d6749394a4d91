"""Pretrained weights of image encoders: those in a file, or those that an installed package brings."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from catalog_enrichment.errors import ConfigError
from catalog_enrichment.models.pretrained import is_package, package_folders

_KEY = "model.image.weights"
_SUFFIXES = (".pth", ".pt", ".bin")


def weights_file(weights: str) -> Path:
    """The file that ``weights`` names: a path, or the first file with weights in the package of `package:NAME`.

    Raises ConfigError if there is none.
    """
    if not is_package(weights):
        if not Path(weights).is_file():
            raise ConfigError(f"{_KEY}: no such file: {Path(weights).resolve()}")
        return Path(weights)
    roots = package_folders(weights, _KEY)
    files = sorted(file for root in roots for file in Path(root).rglob("*") if file.suffix in _SUFFIXES)
    if not files:
        raise ConfigError(f"{_KEY}: no file of {roots[0]} ends with {', '.join(_SUFFIXES)}")
    return files[0]


def load_from_package(model: nn.Module, weights: str) -> None:
    """Put the weights of `package:NAME` into a timm model without classifier.

    Another implementation of the same architecture names its tensors otherwise but makes them in the same order: they
    are taken by that order where all shapes and the last parts of the names (`running_mean`) agree, and only a
    classifier is left over. Raises ConfigError where they do not.
    """
    file = weights_file(weights)
    stored = torch.load(file, map_location="cpu", weights_only=True)
    wanted = model.state_dict()
    if not wanted.keys() <= stored.keys():
        pairs = list(zip(wanted.items(), stored.items(), strict=False))
        agree = all(
            mine.shape == theirs.shape and name.rpartition(".")[2] == other.rpartition(".")[2]
            for (name, mine), (other, theirs) in pairs
        )
        if not agree or not 0 <= len(stored) - len(wanted) <= len(("weight", "bias")):
            raise ConfigError(f"{_KEY}: the weights in {file} are those of another architecture than model.image.name")
        stored = {name: theirs for (name, _), (_, theirs) in pairs}
    model.load_state_dict({name: stored[name] for name in wanted})
