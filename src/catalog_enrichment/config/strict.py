"""Plain data (TOML, JSON) to frozen dataclasses, strictly: the only parser of configs, recipes and policies.

Uses the standard library alone, because recipes are read on machines that have only torch, transformers and timm.
"""

from __future__ import annotations

import ipaddress
import tomllib
import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from datetime import date, time
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from catalog_enrichment import masking
from catalog_enrichment.errors import ConfigError

T = TypeVar("T")


def build(kind: type[T], content: Any, where: str) -> T:
    """Build an instance of the dataclass ``kind`` from plain data. ``where``, usually a file name, starts the message.

    Raises ConfigError with every problem, each with its dotted key: an unknown key (with the available keys),
    a missing key, a wrong type, or a value for which the class raises ValueError.
    """
    problems: list[str] = []
    value = _dataclass(kind, content, "", problems)
    if problems:
        raise ConfigError(f"{where}: " + "; ".join(problems))
    return value  # type: ignore[no-any-return]


def read_toml(file: Path) -> dict[str, Any]:
    """Return the content of a TOML file. Raises ConfigError, naming the file, if it is not TOML or not UTF-8."""
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise ConfigError(f"{file} is not valid TOML: {problem}") from None


def construct(kind: type[T], values: dict[str, Any], where: str) -> T:
    """Return ``kind(**values)``. Raises ConfigError where the class raises ValueError."""
    try:
        return kind(**values)
    except ValueError as problem:
        raise ConfigError(f"{where}: {problem}") from None


def check_ranges(section: str, values: Any, **ranges: tuple[float, float]) -> None:
    """Raise ValueError unless every attribute of ``values`` that is a key of ``ranges`` lies in its closed range."""
    for name, (low, high) in ranges.items():
        value = getattr(values, name)
        if not low <= value <= high:
            raise ValueError(f"{section}.{name} must lie in [{low:g}, {high:g}], not {value!r}")


def check_folder(option: str, path: str) -> None:
    """Raise ValueError for a URI where a folder is needed."""
    if "://" in path:
        raise ValueError(f"{option} is a folder, not a URI like {path!r}")


def check_hosts(option: str, hosts: tuple[str, ...]) -> None:
    """Raise ValueError for a host that is written as a network and is none."""
    for host in hosts:
        if "/" in host:
            try:
                ipaddress.ip_network(host)
            except ValueError as problem:
                raise ValueError(f"{option}: {problem}") from None


def _dataclass(kind: type[Any], content: Any, key: str, problems: list[str]) -> Any:
    """Return the instance; None if a problem was added to ``problems``."""
    if not isinstance(content, Mapping):
        problems.append(f"{key or 'the content'} must be a table of keys, not {_shown(content, key)}")
        return None
    hints, problems_before = get_type_hints(kind), len(problems)
    required = {f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING}
    for complaint, names in (("unknown", set(content) - set(hints)), ("missing", required - set(content))):
        problems += [
            f"{complaint} key {_join(key, name)!r}. Available keys: {sorted(hints)}" for name in sorted(map(str, names))
        ]
    values = {
        name: _value(hints[name], value, _join(key, name), problems) for name, value in content.items() if name in hints
    }
    if len(problems) > problems_before:
        return None
    try:
        return kind(**values)
    except ValueError as problem:
        problems.append(str(problem) if not key or str(problem).startswith(key) else f"{key}: {problem}")
        return None


def _value(annotation: Any, value: Any, key: str, problems: list[str]) -> Any:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is Any:
        return value
    if origin is types.UnionType:  # "X | None", "str | list[str]" and "str | dataclass" occur
        if value is None and type(None) in arguments:
            return None
        lists = [kind for kind in arguments if isinstance(value, list) and get_origin(kind) is list]
        tables = [kind for kind in arguments if isinstance(value, Mapping) and is_dataclass(kind)]
        return _value((lists or tables or arguments)[0], value, key, problems)
    if origin is Literal:
        if value not in arguments:
            problems.append(f"{key} must be one of {list(arguments)}, not {_shown(value, key)}")
        return value
    if origin in (list, tuple, dict):
        return _CONTAINERS[origin](arguments, value, key, problems)
    if is_dataclass(annotation):
        return _dataclass(annotation, value, key, problems)  # type: ignore[arg-type]
    if annotation is float and type(value) is int:
        return float(value)
    if annotation is str and isinstance(value, date | time):  # TOML has date and time literals
        return str(value)
    if type(value) is not annotation:  # not isinstance: bool is a subclass of int
        problems.append(f"{key} must be of type {annotation.__name__}, not {_shown(value, key)}")
    return value


def _list(arguments: tuple[Any, ...], value: Any, key: str, problems: list[str]) -> Any:
    if not isinstance(value, list | tuple):
        problems.append(f"{key} must be a list, not {_shown(value, key)}")
        return None
    return [_value(arguments[0], item, f"{key}.{number}", problems) for number, item in enumerate(value)]


def _tuple(arguments: tuple[Any, ...], value: Any, key: str, problems: list[str]) -> Any:
    if arguments[-1] is Ellipsis:
        items = _list(arguments, value, key, problems)
        return None if items is None else tuple(items)
    if not isinstance(value, list | tuple) or len(value) != len(arguments):
        problems.append(f"{key} must be a list of {len(arguments)} values, not {_shown(value, key)}")
        return None
    return tuple(
        _value(kind, item, f"{key}.{number}", problems)
        for number, (kind, item) in enumerate(zip(arguments, value, strict=True))
    )


def _dict(arguments: tuple[Any, ...], value: Any, key: str, problems: list[str]) -> Any:
    if not isinstance(value, Mapping):
        problems.append(f"{key} must be a table of keys, not {_shown(value, key)}")
        return None
    return {name: _value(arguments[1], item, _join(key, str(name)), problems) for name, item in value.items()}


_CONTAINERS: dict[Any, Callable[[tuple[Any, ...], Any, str, list[str]], Any]] = {
    list: _list,
    tuple: _tuple,
    dict: _dict,
}


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def _shown(value: Any, key: str) -> str:
    return f"a {type(value).__name__} (not shown)" if masking.tells_secret(key) else repr(value)[:200]
