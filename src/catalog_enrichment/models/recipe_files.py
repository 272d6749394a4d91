"""Reads recipe files, changes single keys, and resolves the paths in them. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from catalog_enrichment import resources
from catalog_enrichment.config import strict
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.models.spec import Ensemble, ImageSpec, Recipe

_TIMM_WEIGHTS = ("model.safetensors", "pytorch_model.bin", "model.pth")


def load_model_recipe(path: str | Path, changes: Mapping[str, Any] | None = None) -> Recipe | Ensemble:
    """Read a recipe: a path, or ``recipes:NAME.toml`` for a shipped recipe. Raises ConfigError if it is unusable.

    A file with the keys `name` and `members` is an ensemble. A member is the file name of a recipe in the same folder,
    or a table of the file name and changed keys: `{recipe = "late.toml", "fit.seed" = 2}`. `noise = false` removes the
    table `noise`. ``changes``, in the same form, apply to the recipe or to every member.
    """
    file, changes = resources.locate(str(path)), dict(changes or {})
    content = strict.read_toml(file)
    if "members" not in content:
        return _read_recipe(file, changes, where=file.name)
    if unknown := sorted(set(content) - {"name", "members"}):
        raise ConfigError(f"{file.name}: unknown key {unknown}. Available keys: ['members', 'name']")
    entries = content["members"]
    if not isinstance(entries, list) or not all(isinstance(entry, str | dict) for entry in entries):
        raise ConfigError(
            f"{file.name}: members must be a list of file names or of tables with the key recipe, not {entries!r}"
        )
    members = tuple(
        _read_member(entry, file.parent, changes, f"{file.name}: member {number}")
        for number, entry in enumerate(entries)
    )
    return strict.construct(Ensemble, {"name": str(content.get("name", file.stem)), "members": members}, file.name)


def _read_member(entry: str | dict[str, Any], folder: Path, changes: Mapping[str, Any], where: str) -> Recipe:
    """Read a member of an ensemble; ``changes`` override the member's own."""
    own_changes: dict[str, Any] = {"recipe": entry} if isinstance(entry, str) else dict(entry)
    file = (folder / str(own_changes.pop("recipe", ""))).resolve()
    if not file.is_file():
        raise ConfigError(f"{where} names no recipe: {file} is not a file")
    return _read_recipe(file, {**own_changes, **changes}, where)


def _read_recipe(file: Path, changes: Mapping[str, Any], where: str) -> Recipe:
    content = strict.read_toml(file)
    for name, value in changes.items():
        _set(content, name, value, where)
    return _with_absolute_paths(strict.build(Recipe, content, where), file.parent)


def _set(content: dict[str, Any], name: str, value: Any, where: str) -> None:
    """Set the dotted key ``name`` in place. False for a table removes the table."""
    *tables, key = name.split(".")
    for table in tables:
        content = content.setdefault(table, {})
        if not isinstance(content, dict):
            raise ConfigError(f"{where}: {name}: {table!r} is a value, not a table")
    if value is False and isinstance(content.get(key), dict):
        del content[key]
    else:
        content[key] = value


def _with_absolute_paths(recipe: Recipe, folder: Path) -> Recipe:
    """Return the recipe with absolute paths in place of the names of files and folders in ``folder``.

    A local folder of an image encoder is replaced by its content (timm name, arguments, weights), so that no artifact
    holds a path of the machine it was trained on. Keys of the recipe take precedence over the folder's.
    """
    model = recipe.model
    text = replace(model.text, name=absolute(folder, model.text.name))
    second = model.second_text and replace(model.second_text, name=absolute(folder, model.second_text.name))
    image = replace(model.image, weights=absolute(folder, model.image.weights))
    if exported := _timm_folder(folder, image.name):
        defaults = ImageSpec()
        unset = {key: value for key, value in exported.items() if getattr(image, key) == getattr(defaults, key)}
        image = replace(image, **(unset | {"name": exported["name"], "args": exported["args"] | image.args}))
    noise = recipe.noise and replace(recipe.noise, weights=absolute(folder, recipe.noise.weights))
    return replace(recipe, noise=noise, model=replace(model, text=text, second_text=second, image=image))


def absolute(folder: Path, name: str) -> str:
    """Return the absolute path of the file or folder ``name`` in ``folder``; ``name`` itself without such a file."""
    return str((folder / name).resolve()) if name and (folder / name).exists() else name


def _timm_folder(start: Path, name: str) -> dict[str, Any]:
    """Return fields of ImageSpec from a folder that `timm.models.save_for_hf` wrote, without importing timm.

    They are name, args, weights, and mean and std if the folder has them; none if ``name`` is not a folder. A relative
    name starts at ``start``. Raises ConfigError for a folder without a usable config.json.
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
    weights = [folder / file for file in _TIMM_WEIGHTS if (folder / file).is_file()]
    pretrained = content.get("pretrained_cfg") or {}
    normalisation = {key: tuple(map(float, pretrained[key])) for key in ("mean", "std") if key in pretrained}
    return normalisation | {
        "name": architecture,
        "args": {name: value for name, value in args.items() if name != "num_classes"},  # its classifier is not used
        "weights": str(weights[0]) if weights else "",
    }
