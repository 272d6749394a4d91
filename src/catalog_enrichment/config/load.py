"""Read a config file (TOML) and apply ``section.key=value`` overrides."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from catalog_enrichment import masking, resources
from catalog_enrichment.config import strict
from catalog_enrichment.config.schema import Config
from catalog_enrichment.errors import ConfigError


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a TOML config, apply ``section.key=value`` overrides, check all values and make ``root`` absolute.

    Raises ConfigError for a missing file, broken TOML, an unknown key, a wrong type or a value out of range.
    """
    file = resources.locate(str(path))
    content = strict.read_toml(file)
    for override in overrides:
        _apply(content, override)
    if str(path).startswith("config:") and not any(override.startswith("root=") for override in overrides):
        content["root"] = str(Path.cwd())
    content["root"] = str((file.parent / Path(str(content.get("root", "."))).expanduser()).resolve())
    return strict.build(Config, content, where=str(file))


def _apply(content: dict[str, Any], override: str) -> None:
    name, equals, text = override.partition("=")
    shown = f"{name}={masking.MASK}" if equals and masking.tells_secret(name) else masking.masked(override)
    if not equals or not all(part.strip() for part in name.split(".")):
        raise ConfigError(f"--set {shown!r} must have the form section.key=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text  # a bare word is a string, so that a shell needs no nested quotes
    *sections, key = (part.strip() for part in name.split("."))
    target = content
    for section in sections:
        target = target.setdefault(section, {})
        if not isinstance(target, dict):
            raise ConfigError(f"--set {shown!r}: {section!r} is a value, not a section")
    target[key] = value
