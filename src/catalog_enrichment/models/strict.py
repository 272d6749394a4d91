"""Plain data (TOML, JSON) to frozen dataclasses, strictly, with nothing but the standard library.

Models train and run on machines that have no pydantic, which is why :func:`catalog_enrichment.config.from_dict` is
not used here.
"""

from __future__ import annotations

import types
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from catalog_enrichment.errors import ConfigError

T = TypeVar("T")


def build(kind: type[T], content: Any, where: str) -> T:
    """The dataclass ``kind`` from plain data. ``where`` names the place in error messages.

    Raises ConfigError for an unknown key (listing the known ones), a missing key, a wrong type, or a value that the
    class itself refuses with a ValueError.
    """
    if not isinstance(content, dict):
        raise ConfigError(f"{where} must be a table of keys, not {content!r}")
    hints = get_type_hints(kind)
    if unknown := sorted(set(content) - set(hints)):
        raise ConfigError(f"{where}: unknown key {', '.join(map(repr, unknown))}. Available keys: {sorted(hints)}")
    required = {f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING}  # type: ignore[arg-type]
    if missing := sorted(required - set(content)):
        raise ConfigError(f"{where}: missing key {', '.join(map(repr, missing))}. Available keys: {sorted(hints)}")
    return made(kind, {name: _value(hints[name], value, f"{where}: {name}") for name, value in content.items()}, where)


def made(kind: type[T], values: dict[str, Any], where: str) -> T:
    """``kind(**values)``, where what the class refuses is a ConfigError."""
    try:
        return kind(**values)
    except ValueError as problem:
        raise ConfigError(f"{where}: {problem}") from None


def _value(annotation: Any, value: Any, where: str) -> Any:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is types.UnionType:  # only "X | None" occurs
        return None if value is None else _value(arguments[0], value, where)
    if origin is Literal:
        if value not in arguments:
            raise ConfigError(f"{where} must be one of {list(arguments)}, not {value!r}")
        return value
    if origin is tuple:
        if arguments[-1] is Ellipsis:
            if not isinstance(value, list | tuple):
                raise ConfigError(f"{where} must be a list, not {value!r}")
            return tuple(_value(arguments[0], item, where) for item in value)
        if not isinstance(value, list | tuple) or len(value) != len(arguments):
            raise ConfigError(f"{where} must be a list of {len(arguments)} values, not {value!r}")
        return tuple(_value(kind, item, where) for kind, item in zip(arguments, value, strict=True))
    if origin is dict:  # free-form: whoever uses it checks it
        if not isinstance(value, dict):
            raise ConfigError(f"{where} must be a table of keys, not {value!r}")
        return dict(value)
    if is_dataclass(annotation):
        return build(annotation, value, where)  # type: ignore[arg-type]
    if annotation is float and type(value) is int:
        return float(value)
    if type(value) is not annotation:  # not isinstance: true is no integer
        raise ConfigError(f"{where} must be of type {annotation.__name__}, not {value!r}")
    return value
