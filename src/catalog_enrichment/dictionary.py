"""The attribute dictionary (contract `attributes`): which attributes exist, their values, and where they apply."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from math import isfinite
from pathlib import Path
from typing import Any, Literal

from catalog_enrichment.config import strict
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.records import ANY_VALUE, Cardinality, stable_hash
from catalog_enrichment.values import numbers, same, units
from catalog_enrichment.values.kinds import DEFAULT_TOLERANCE, Kind, NumberRule, OpenRule
from catalog_enrichment.values.spelling import TURKIC, fold, primary_language, spelling, text_key

LEVELS = r"\s*(?:(?:&gt;|>|\||›|»|→)+|/)\s*"
"""What stands between the levels of a category path in merchants' files, for Java and Python."""

_NAME = re.compile(r"[^\W_][\w-]{0,59}")
"""Attributes' names: parts of metrics in MLflow, of files and of keys."""


@dataclass(frozen=True, kw_only=True)
class Attribute:
    name: str
    """Its name in the config, the catalog and the reports."""
    cardinality: Cardinality
    """`one` or `many`: how many values a product can have."""
    values: tuple[str, ...] = ()
    """Canonical values, where the kind is `closed`."""
    kind: Kind = Kind.CLOSED
    """What its values are, and so when two of them are the same."""
    number: NumberRule | None = None
    """The unit and the range of its numbers; given if and only if the kind is `number`."""
    aliases: dict[str, dict[str, str]] = field(default_factory=dict)
    """Language (ISO 639-1) -> spelling -> canonical value; of the kind `text`, the text that it is stored as."""
    categories: tuple[str, ...] = ()
    """Category paths it applies to, each with everything below it; empty: all."""
    enabled: bool = True
    """false: nothing is predicted, and the next run retracts the model values."""
    was: dict[str, str] = field(default_factory=dict)
    """Earlier name -> the canonical value that it is called now; several of a value: they were merged."""

    def applies_to(self, category: str | None) -> bool:
        """Return whether a product of this category can have the attribute; True for a product without a category.

        Case does not count.
        """
        return not self.categories or not category or any(is_below(category, root) for root in self.categories)

    @property
    def is_open(self) -> bool:
        """True where no list holds its values."""
        return self.kind is not Kind.CLOSED

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of a head that predicts all its values: the values, or :data:`ANY_VALUE`."""
        return (ANY_VALUE,) if self.is_open else self.values

    def rule(self, language: str | None = None) -> OpenRule:
        """Return what the values of an open attribute are, with the aliases of ``language`` before others."""
        own = primary_language(language)
        if own not in self._rules:
            ordered = sorted(self.aliases.items(), key=lambda item: primary_language(item[0]) == own)
            aliases = {text: value for _, of in ordered for text, value in of.items()}
            self._rules[own] = OpenRule(kind=self.kind, number=self.number, aliases=aliases)
        return self._rules[own]

    @cached_property
    def _rules(self) -> dict[str | None, OpenRule]:
        """Language -> what :meth:`rule` has returned for it."""
        return {}

    def spellings(self, language: str | None = None) -> dict[str, str]:
        """Return spelling (:func:`spelling`) -> canonical value, also of earlier names and of the aliases of all
        languages.

        Canonical values come before aliases, and those of ``language`` before others. An alias that has two meanings in
        other languages has none here.
        """
        language = primary_language(language)
        own = {value: value for value in self.values} | self.was
        mine = [aliases for name, aliases in self.aliases.items() if primary_language(name) == language]
        texts = [pair for names in (own, *mine) for pair in names.items()]
        found = {spelling(text, language): value for text, value in reversed(texts)}
        if language in TURKIC:  # WHITE in capitals has another i there than White
            for text, value in texts:
                found.setdefault(spelling(text.upper(), language), value)
        others: dict[str, set[str]] = {}
        for name, aliases in self.aliases.items():
            for text, value in aliases.items() if primary_language(name) != language else ():
                others.setdefault(spelling(text, language), set()).add(value)
        return {key: min(values) for key, values in others.items() if len(values) == 1} | found

    def canonical(self, text: str, language: str | None = None) -> str | None:
        """Return the canonical value that ``text`` is a spelling of; None if it is of none.

        The canonical value of an open attribute is the text that it is stored as: a number in the attribute's unit
        ("51 cm"), a text with single spaces.
        """
        if self.is_open:
            return same.stored(text, self.rule(language), language)
        return self.spellings(language).get(spelling(text, language))

    def lists(self, value: str) -> bool:
        """Return whether ``value`` is a canonical value."""
        return same.stored(value, self.rule()) == value if self.is_open else value in self.values

    def renewed(self, value: str) -> str | None:
        """Return what a stored value is called by this dictionary; None if it is no value any more.

        The unit of a number and the aliases of texts may have been others when it was stored.
        """
        return same.stored(value, self.rule()) if self.is_open else value if value in self.values else None

    def is_same(self, first: str, second: str) -> bool:
        """Return whether two canonical values are the same value."""
        return same.is_same(first, second, self.rule()) if self.is_open else first == second

    def is_same_as_any(self, value: str, others: Iterable[str]) -> bool:
        """Return whether a canonical value is the same value as one of the ``others``."""
        return any(self.is_same(value, other) for other in others)

    def why_not(self, text: str, language: str | None = None) -> str | None:
        """Return why ``text`` is a spelling of no value, as the rest of a sentence; None if it is of one."""
        if self.is_open:
            return same.why_not(text, self.rule(language), language)
        return None if self.canonical(text, language) is not None else "no value of the dictionary has this spelling"

    def with_name(self, name: str, value: str) -> Attribute:
        """Return the attribute with ``name`` as a canonical value (``name`` is ``value``), or as an earlier name of the
        canonical value ``value``, which then has the other spellings of ``name`` too."""
        kept = tuple(other for other in self.values if other != name)
        values = kept if value in kept else (*kept, value)
        was = {text: meaning for text, meaning in self.was.items() if text not in (name, value)}
        if name == value:
            return replace(self, values=values, was=was)
        aliases = {language: _renamed(texts, name, value) for language, texts in self.aliases.items()}
        return replace(self, values=values, aliases=aliases, was={**_renamed(was, name, value), name: value})

    def has_spelling(self, text: str) -> bool:
        """Return whether ``text`` is a spelling of a value in any language."""
        if self.is_open:
            return self.canonical(text) is not None
        languages = (None, *self.aliases)
        ambiguous = {spelling(alias) for aliases in self.aliases.values() for alias in aliases}
        return spelling(text) in ambiguous or any(self.canonical(text, language) for language in languages)


@dataclass(frozen=True, slots=True)
class Dictionary:
    attributes: dict[str, Attribute]

    def __getitem__(self, name: str) -> Attribute:
        return self.attributes[name]

    def __contains__(self, name: object) -> bool:
        return name in self.attributes

    @property
    def open_attributes(self) -> dict[str, Attribute]:
        """Return the attributes that have no closed list of values, by name."""
        return {name: attribute for name, attribute in self.attributes.items() if attribute.is_open}

    def is_same(self, attribute: str, first: str, second: str) -> bool:
        """Return whether two stored values are the same value, by the kind of their attribute; of an attribute that the
        dictionary does not have, whether they are the same text."""
        if attribute not in self.attributes:
            return first == second
        return self.attributes[attribute].is_same(first, second)

    def is_same_set(self, attribute: str, first: Sequence[str], second: Sequence[str]) -> bool:
        """Return whether two sorted sets of stored values are the same set. A set of several values has only the same
        texts: numbers and texts have one value."""
        if len(first) == len(second) == 1:
            return self.is_same(attribute, first[0], second[0])
        return list(first) == list(second)

    @property
    def enabled(self) -> list[str]:
        """Return the names of the attributes that may be predicted, in the file's order."""
        return [name for name, attribute in self.attributes.items() if attribute.enabled]

    def words(self) -> set[str]:
        """Return every folded spelling of every value, all attributes together."""
        return {
            fold(text)
            for attribute in self.attributes.values()
            for texts in (attribute.values, attribute.was, *attribute.aliases.values())
            for text in texts
        }

    def hash(self) -> str:
        return stable_hash([repr(attribute) for attribute in self.attributes.values()])

    def numbers_hash(self) -> int:
        """Return a number that is equal for dictionaries with the same names, units and ranges of numbers; 0 where no
        attribute is a number."""
        rules = [(name, each.number) for name, each in self.attributes.items() if each.number is not None]
        found = sorted((name, rule.unit, rule.low, rule.high) for name, rule in rules)
        return int(stable_hash(found)[:15], 16) if found else 0

    def to_plain(self) -> list[dict[str, Any]]:
        """Return the attributes as plain data, for :meth:`from_plain`."""
        return [
            asdict(each) | {"values": list(each.values), "categories": list(each.categories)}
            for each in self.attributes.values()
        ]

    @classmethod
    def from_plain(cls, content: Iterable[Mapping[str, Any]]) -> Dictionary:
        """Return the dictionary that :meth:`to_plain` wrote. Raises KeyError or ValueError for other content."""
        given = [
            Attribute(
                name=row["name"],
                cardinality=Cardinality(row["cardinality"]),
                values=tuple(row["values"]),
                kind=Kind(row["kind"]),
                number=row["number"] and NumberRule(**row["number"] | {"units": tuple(row["number"]["units"])}),
                aliases=row["aliases"],
                categories=tuple(row["categories"]),
                enabled=row["enabled"],
                was=row["was"],
            )
            for row in content
        ]
        return cls({attribute.name: attribute for attribute in given})


class Spellings:
    """Looks up canonical values, and remembers the spellings of each attribute and language.

    ``decimal_marks``: attribute -> what stands before the decimals of its numbers, whatever the language.
    """

    def __init__(self, dictionary: Dictionary, decimal_marks: Mapping[str, str] | None = None) -> None:
        self._dictionary = dictionary
        self._decimal_marks = decimal_marks or {}
        self._known: dict[tuple[str, str | None], dict[str, str]] = {}

    def canonical(self, attribute: str, language: str | None, text: str) -> str | None:
        """Return the canonical value that ``text`` is a spelling of; None if it is of none, or there is no such
        attribute."""
        if attribute not in self._dictionary:
            return None
        if (found := self._dictionary[attribute]).is_open:
            marked = found.number is not None and attribute in self._decimal_marks
            own = numbers.LANGUAGE_OF_MARK[self._decimal_marks[attribute]] if marked else language
            return found.canonical(text, own)
        key = (attribute, language)
        if key not in self._known:
            self._known[key] = self._dictionary[attribute].spellings(language)
        return self._known[key].get(spelling(text, language))


def _renamed(meanings: dict[str, str], name: str, value: str) -> dict[str, str]:
    """Return spelling -> value with ``value`` in place of the value ``name``."""
    return {text: value if meaning == name else meaning for text, meaning in meanings.items()}


def is_below(category: str, root: str) -> bool:
    """Return whether a category path is ``root`` or lies below it. Case does not count."""
    return f"{category.lower()}/".startswith(f"{root.lower()}/")


def category_path(text: str) -> str:
    """Return a category path with one slash between its levels and none around it."""
    return re.sub("/+", "/", re.sub(LEVELS, "/", text.strip())).strip("/")


@dataclass(frozen=True, kw_only=True, slots=True)
class _ValueRow:
    """A value that has, or had, other names in the catalog."""

    value: str
    was: list[str]
    """Its earlier names, of which several were merged into it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _AttributeRow:
    """An attribute as the file has it (schemas/attributes)."""

    name: str
    cardinality: Literal["one", "many"] = "one"
    kind: Literal["closed", "number", "text"] = "closed"
    values: list[str | _ValueRow] = field(default_factory=list)
    unit: str | None = None
    units: list[str] = field(default_factory=list)
    tolerance: float = DEFAULT_TOLERANCE
    range: list[float | None] = field(default_factory=list)
    aliases: dict[str, dict[str, str]] = field(default_factory=dict)
    categories: list[str] = field(default_factory=list)
    enabled: bool = True
    doc: str = ""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(
                f"name {self.name!r} must be at most 60 letters, digits, _ and -, and begin with a letter or digit: it "
                "becomes part of metrics and files"
            )
        if self.kind != "number":
            self._check_has_no("number", unit=self.unit, units=self.units, range=self.range)
        if self.kind != "closed":
            self._check_open()
            return
        names, earlier = self.canonical(), [text for text, _ in self.earlier()]
        if not names:
            raise ValueError(f"{self.name}: values must not be empty")
        if unusable := [value for value in (*names, *earlier) if not value.strip() or value != value.strip()]:
            raise ValueError(f"{self.name}: values must not be blank or have blanks around them: {unusable[:5]}")
        if repeated := sorted({value for value in (*names, *earlier) if (*names, *earlier).count(value) > 1}):
            raise ValueError(
                f"{self.name}: a value is repeated: {repeated[:5]}. A name is in the list once, as a value or as an "
                'earlier name ("was") of a value'
            )
        named = {value for aliases in self.aliases.values() for value in aliases.values()}
        if unknown := sorted(named - set(names)):
            raise ValueError(f"{self.name}: aliases of values that are not listed: {unknown}")
        for language in (None, TURKIC[0], *self.aliases):
            self._check_spellings(language)

    def _check_has_no(self, kind: str, **given: object) -> None:
        """Raise ValueError for keys that only attributes of another ``kind`` have."""
        if mistaken := [key for key, content in given.items() if content not in (None, [], {})]:
            raise ValueError(f"{self.name}: {mistaken[0]} is a key of attributes of kind {kind!r}, not {self.kind!r}")

    def _check_open(self) -> None:
        self._check_has_no("closed", values=self.values)
        if self.cardinality != "one":
            raise ValueError(f"{self.name}: an attribute of kind {self.kind!r} has cardinality 'one', not 'many'")
        if self.kind == "text":
            self._check_aliases_of_texts()
            return
        self._check_has_no("text", aliases=self.aliases)
        if self.unit is None:
            raise ValueError(f'{self.name}: a number needs a unit, such as "cm"; "" for numbers without one')
        if unknown := [text for text in (self.unit, *self.units) if text and units.unit_of_attribute(text) is None]:
            raise ValueError(
                f"{self.name}: {unknown[0]!r} is no known unit. Known are, for example, cm, kg, ml, GB, pcs"
            )
        own = units.unit_of_attribute(self.unit)
        for text in self.units:
            if own is None or units.conversion(str(units.unit_of_attribute(text)), own) is None:
                raise ValueError(f"{self.name}: {text!r} cannot be converted into {self.unit!r}")
        if not 0 <= self.tolerance < 1:
            raise ValueError(f"{self.name}: tolerance must lie in [0, 1), not {self.tolerance}")
        if len(self.range) not in (0, 2) or not all(limit is None or isfinite(limit) for limit in self.range):
            raise ValueError(f"{self.name}: range must be [smallest, largest], each a number or null, not {self.range}")
        low, high = self.range or (None, None)
        if low is not None and high is not None and low > high:
            raise ValueError(f"{self.name}: range must be [smallest, largest], not {self.range}")

    def _check_aliases_of_texts(self) -> None:
        """Raise ValueError for aliases that say nothing, stand for two texts, or stand for an alias of another text."""
        meanings: dict[str, set[str]] = {}
        for language, texts in self.aliases.items():
            of_language: dict[str, str] = {}
            for alias, text in texts.items():
                for said in (alias, text):
                    if why := same.why_not(said, OpenRule(kind=Kind.TEXT)):
                        raise ValueError(f"{self.name}: {said!r} in the aliases of {language} is no value: {why}")
                if of_language.setdefault(text_key(alias), text) != text:
                    raise ValueError(
                        f"{self.name}: {alias!r} stands for {of_language[text_key(alias)]!r} and {text!r} in {language}"
                    )
                meanings.setdefault(text_key(alias), set()).add(text)
        for text in sorted({text for texts in self.aliases.values() for text in texts.values()}):
            if others := meanings.get(text_key(text), set()) - {text}:
                raise ValueError(
                    f"{self.name}: {text!r} is what aliases stand for, and is an alias of {min(others)!r} itself"
                )

    def number(self) -> NumberRule | None:
        """Return the rule of the numbers; None where the kind is another."""
        if self.kind != "number" or self.unit is None:
            return None
        low, high = self.range or (None, None)
        return NumberRule(unit=self.unit, units=tuple(self.units), tolerance=self.tolerance, low=low, high=high)

    def canonical(self) -> list[str]:
        """Return the values, by the names that they have now."""
        return [value if isinstance(value, str) else value.value for value in self.values]

    def earlier(self) -> list[tuple[str, str]]:
        """Return every earlier name with the value that it is called now."""
        return [(text, row.value) for row in self.values if not isinstance(row, str) for text in row.was]

    def _check_spellings(self, language: str | None) -> None:
        """Raise ValueError for two spellings of one language that are the same for the import and mean two values."""
        meanings: dict[str, tuple[str, str]] = {}
        aliases, names = self.aliases.get(language, {}) if language else {}, self.canonical()
        for text, value in [*((value, value) for value in names), *self.earlier(), *aliases.items()]:
            first, meaning = meanings.setdefault(spelling(text, language), (text, value))
            if meaning != value or (first != text and {first, text} <= set(names)):
                where = f" in {language}" if language else ""
                raise ValueError(
                    f"{self.name}: {first!r} and {text!r} cannot be told apart{where}, and stand for "
                    f"{meaning!r} and {value!r}: leave out one of them"
                )


@dataclass(frozen=True, kw_only=True, slots=True)
class _File:
    attributes: list[_AttributeRow]
    name: str = ""
    doc: str = ""


def load(path: Path) -> Dictionary:
    """Read a dictionary file.

    Raises ConfigError, naming the key, for broken JSON, repeated keys, unknown fields, wrong types, a name that cannot
    be used, an attribute that is defined twice or has no values, aliases of values that are not listed, and two
    spellings that cannot be told apart and mean different values.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_without_repetition)
    except OSError as problem:
        raise ConfigError(f"{path} cannot be read: {problem.strerror}") from None
    except ValueError as problem:
        raise ConfigError(f"{path} is not a usable attribute dictionary: {problem}") from None
    rows = strict.build(_File, content, where=str(path)).attributes
    if len({unicodedata.normalize("NFKC", row.name).casefold() for row in rows}) < len(rows):
        raise ConfigError(
            f"{path}: an attribute is defined twice: {[row.name for row in rows]}. Names that differ in case alone are "
            "the same file and the same metric on some systems"
        )
    return Dictionary({row.name: _attribute(row) for row in rows})


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"the key {repeated[0]!r} is repeated in one object")
    return dict(pairs)


def _attribute(row: _AttributeRow) -> Attribute:
    return Attribute(
        name=row.name,
        cardinality=Cardinality(row.cardinality),
        values=tuple(row.canonical()),
        kind=Kind(row.kind),
        number=row.number(),
        was=dict(row.earlier()),
        aliases=row.aliases,
        categories=tuple(map(category_path, row.categories)),
        enabled=row.enabled,
    )
