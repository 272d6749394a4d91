"""The attribute dictionary (contract `attributes`): which attributes exist, their values, and where they apply."""

from __future__ import annotations

import json
import re
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

from catalog_enrichment.errors import ConfigError
from catalog_enrichment.records import Cardinality, stable_hash


@dataclass(frozen=True, kw_only=True, slots=True)
class Attribute:
    name: str
    """Its name in the config, the catalog and the reports."""
    cardinality: Cardinality
    """`one` or `many`: how many values a product can have."""
    values: tuple[str, ...]
    """Canonical values."""
    aliases: dict[str, dict[str, str]] = field(default_factory=dict)
    """Language (ISO 639-1) -> spelling -> canonical value."""
    categories: tuple[str, ...] = ()
    """Category paths it applies to, each with everything below it; empty: all."""
    enabled: bool = True
    """false: nothing is predicted, and the next run retracts the model values."""

    def applies_to(self, category: str | None) -> bool:
        """Return whether a product of this category can have the attribute; True for a product without a category."""
        if not self.categories or not category:
            return True
        return any(category == root or category.startswith(root + "/") for root in self.categories)

    def spellings(self, language: str | None = None) -> dict[str, str]:
        """Folded spelling (:func:`fold`) -> canonical value, of the canonical values and the aliases of all languages.

        A spelling in several languages has the meaning it has in ``language``; canonical values come before aliases.
        """
        canonical: dict[str, str] = {}
        for name in sorted(self.aliases, key=lambda name: name == language):  # ``language`` last: it overwrites
            canonical.update({fold(spelling): value for spelling, value in self.aliases[name].items()})
        return canonical | {fold(value): value for value in self.values}


@dataclass(frozen=True, slots=True)
class Dictionary:
    attributes: dict[str, Attribute]

    def __getitem__(self, name: str) -> Attribute:
        return self.attributes[name]

    def __contains__(self, name: object) -> bool:
        return name in self.attributes

    @property
    def enabled(self) -> list[str]:
        """Names of the attributes that may be predicted, in the file's order."""
        return [name for name, attribute in self.attributes.items() if attribute.enabled]

    def words(self) -> set[str]:
        """Every folded spelling of every value, all attributes together."""
        return {spelling for attribute in self.attributes.values() for spelling in attribute.spellings()}

    def hash(self) -> str:
        return stable_hash([repr(attribute) for attribute in self.attributes.values()])


def fold(text: str) -> str:
    """Comparison key of a spelling: NFKC, case-folded, runs of spaces and punctuation replaced by one space."""
    return re.sub(r"[\W_]+", " ", unicodedata.normalize("NFKC", text).casefold()).strip()


def load(path: Path) -> Dictionary:
    """Read a dictionary file.

    Raises ConfigError for broken JSON, unknown fields, an attribute that is defined twice or has no values, and
    aliases of values that are not listed.
    """
    try:
        content = json.loads(path.read_text())
        rows = content["attributes"]
        attributes = [_attribute(row) for row in rows]
    except (ValueError, KeyError, TypeError) as problem:
        raise ConfigError(f"{path} is not a usable attribute dictionary: {problem!r}") from None
    if len({a.name for a in attributes}) < len(attributes):
        raise ConfigError(f"{path}: an attribute is defined twice: {[a.name for a in attributes]}")
    for attribute in attributes:
        unknown = {v for spellings in attribute.aliases.values() for v in spellings.values()} - set(attribute.values)
        if unknown or not attribute.values:
            raise ConfigError(f"{path}: {attribute.name}: aliases of values that are not listed: {sorted(unknown)}")
    return Dictionary({attribute.name: attribute for attribute in attributes})


def _attribute(row: dict[str, object]) -> Attribute:
    known = {"name", "cardinality", "values", "aliases", "categories", "enabled", "doc"}
    if unknown := set(row) - known:
        raise ValueError(f"unknown fields {sorted(unknown)}; available: {sorted(known)}")
    return Attribute(
        name=str(row["name"]),
        cardinality=Cardinality(str(row["cardinality"])),
        values=tuple(row["values"]),  # type: ignore[arg-type]
        aliases=dict(row.get("aliases", {})),  # type: ignore[call-overload]
        categories=tuple(row.get("categories", ())),  # type: ignore[arg-type]
        enabled=bool(row.get("enabled", True)),
    )
