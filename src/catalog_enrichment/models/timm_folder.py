"""Image encoders kept in a folder, as timm writes them, read without timm."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from catalog_enrichment.errors import ConfigError

_WEIGHTS = ("model.safetensors", "pytorch_model.bin", "model.pth")
_OF_THE_CLASSIFIER = ("num_classes",)
"""Arguments that the exported model was made with, and which say nothing about the encoder."""


def image_folder(start: Path, name: str) -> dict[str, Any]:
    """What a folder of `timm.models.save_for_hf` says: name, args, weights, and the mean and std that its pictures had.
    Empty if ``name`` is no folder.

    Relative names start at ``start``. Raises ConfigError for a folder without a usable config.json.
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
    seen = content.get("pretrained_cfg") or {}
    colours = {key: tuple(map(float, seen[key])) for key in ("mean", "std") if key in seen}
    return colours | {
        "name": architecture,
        "args": {name: value for name, value in args.items() if name not in _OF_THE_CLASSIFIER},
        "weights": str(weights[0]) if weights else "",
    }
