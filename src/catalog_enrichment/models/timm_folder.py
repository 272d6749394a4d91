"""Reads folders that `timm.models.save_for_hf` wrote, without importing timm."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from catalog_enrichment.errors import ConfigError

_WEIGHTS = ("model.safetensors", "pytorch_model.bin", "model.pth")
_CLASSIFIER_ARGS = ("num_classes",)
"""Arguments of the exported model that concern its classifier only."""


def image_folder(start: Path, name: str) -> dict[str, Any]:
    """Fields of ImageSpec from a folder of `timm.models.save_for_hf`: name, args, weights, and mean and std if given.

    Empty if ``name`` is not a folder. Relative names start at ``start``. Raises ConfigError for a folder
    without a usable config.json.
    """
    folder = (start / name).resolve()
    if not folder.is_dir():
        return {}
    try:
        content = json.loads((folder / "config.json").read_text())
        architecture, args = str(content["architecture"]), dict(content.get("model_args") or {})
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise ConfigError(
            f"model.image.name: {folder} has no config.json with an architecture, as timm writes it: {problem!r}"
        ) from None
    weights = [folder / file for file in _WEIGHTS if (folder / file).is_file()]
    pretrained = content.get("pretrained_cfg") or {}
    normalisation = {key: tuple(map(float, pretrained[key])) for key in ("mean", "std") if key in pretrained}
    return normalisation | {
        "name": architecture,
        "args": {name: value for name, value in args.items() if name not in _CLASSIFIER_ARGS},
        "weights": str(weights[0]) if weights else "",
    }
