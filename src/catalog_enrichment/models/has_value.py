"""The has-value heads of a model version: the probability that a product has a value at all.

A score is P(the value is v) x P(the product has a value). The second factor comes from the encoders' vectors, by a
linear head per attribute and modality that tells labelled from unlabelled products
(:mod:`catalog_enrichment.training.alikeness`): min(1, labelled density / unlabelled density), as in learning from
positive and unlabelled examples (Elkan and Noto 2008). An attribute without a head keeps its probabilities.

Shapes: B products, D width of the vectors, V values of an attribute.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from catalog_enrichment.errors import ModelContractError
from catalog_enrichment.records import Modality

FILE = "has_value.safetensors"

Heads = Mapping[tuple[str, Modality], NDArray[np.float32]]
"""Attribute and modality -> (D + 1,): weights of the vector, then the bias."""


def has_value(head: NDArray[np.float32], vectors: NDArray[Any]) -> NDArray[np.float32]:
    """Return the probability of having a value, (B,) in (0, 1]; ``vectors``: (B, D)."""
    logs = vectors.astype(np.float32) @ head[:-1] + head[-1]
    return np.asarray(np.exp(np.minimum(logs, 0.0)), dtype=np.float32)


def factors(heads: Heads, attribute: str, vectors: NDArray[Any], has_image: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return the factors (B,) of the probabilities of ``attribute``, by the head of each product's modality.

    They are 1 without such a head. ``vectors`` is (B, D), ``has_image`` (B,).
    """
    factor = np.ones(len(vectors), dtype=np.float32)
    for modality, rows in ((Modality.BOTH, has_image), (Modality.TEXT_ONLY, ~has_image)):
        if (attribute, modality) in heads and rows.any():
            factor[rows] = has_value(heads[attribute, modality], vectors[rows])
    return factor


def save(directory: Path, heads: Heads) -> None:
    """Write the heads into a model version's folder; no file without heads. Its checksums are not renewed."""
    if heads:
        save_file({f"{modality.value}/{name}": head for (name, modality), head in heads.items()}, directory / FILE)


def load(directory: Path) -> Heads:
    """Return the heads in a model version's folder, if any. Raises ModelContractError for a damaged file."""
    if not (directory / FILE).is_file():
        return {}
    try:
        content = load_file(directory / FILE)
        parts = {key: key.partition("/") for key in content}
        return {(name, Modality(path)): content[key] for key, (path, _, name) in parts.items()}
    except (SafetensorError, ValueError, OSError) as problem:
        raise ModelContractError(f"{directory / FILE} cannot be read: {problem}") from problem
