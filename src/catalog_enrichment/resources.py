"""Finds the files shipped with the code: schemas, recipes, the promotion policy, configs.

In a wheel they are inside the package (pyproject force-includes them), in a checkout in folders of the repository.
A reference ``kind:relative/path``, for example ``schemas:attributes/demo.v1.json``, names a shipped file; any other
text is the path of a user's file. Also sets how threads wait, which must happen before torch is imported.
"""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path

from catalog_enrichment.errors import ConfigError

_CHECKOUT_FOLDERS = {"schemas": "schemas", "recipes": "mlflow/recipes", "policy": "mlflow", "config": "deploy/config"}


def folder(kind: str) -> Path:
    """Return the folder of shipped files of a kind: ``schemas``, ``recipes``, ``policy`` or ``config``."""
    if kind not in _CHECKOUT_FOLDERS:
        raise ConfigError(f"no shipped files of kind {kind!r}; the kinds are {sorted(_CHECKOUT_FOLDERS)}")
    packaged = Path(str(files("catalog_enrichment"))) / "_shipped" / kind
    if packaged.is_dir():
        return packaged
    return Path(__file__).resolve().parents[2] / _CHECKOUT_FOLDERS[kind]


def locate(reference: str, base: Path | None = None) -> Path:
    """Return the absolute path of a shipped file (``kind:path``) or of a user's file (relative to ``base``).

    Raises ConfigError, listing the files of the folder, if the file does not exist.
    """
    kind, colon, rest = reference.partition(":")
    shipped = bool(colon) and kind in _CHECKOUT_FOLDERS
    path = folder(kind) / rest if shipped else (base or Path.cwd()) / Path(reference).expanduser()
    if not path.is_file():
        neighbours = sorted(p.name for p in path.parent.glob("*")) if path.parent.is_dir() else []
        raise ConfigError(f"{reference}: no such file ({path}). Files in that folder: {neighbours or 'none'}")
    return path.resolve()


def sleep_while_waiting() -> None:
    """Let the threads of torch sleep while they wait for each other, unless the environment says otherwise.

    By default they spin: if another program runs on a core, each of thousands of short waits then takes the scheduler's
    whole time slice. Without effect after torch has been imported.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
