"""Benchmarks, examples and deployed programs name what the package has: few tests run them."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PROGRAMS = sorted(
    file for folder in ("tests/benchmarks", "examples", "deploy", "docs") for file in (ROOT / folder).rglob("*.py")
)


def module(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        return None


def imported(tree: ast.Module) -> Iterator[tuple[str, str, Any]]:
    """Yield what a program takes from the package: its name there, its full name, and the object; None where the
    package has no such name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").startswith("catalog_enrichment"):
            source = module(str(node.module))
            for name in node.names:
                full = f"{node.module}.{name.name}"
                yield name.asname or name.name, full, getattr(source, name.name, None) or module(full)


def problems(tree: ast.Module) -> Iterator[str]:
    """Yield names that the package does not have, and calls of its functions with other arguments than they take."""
    of_name: dict[str, Any] = {}
    for name, full, found in imported(tree):
        if found is None:
            yield f"no {full}"
        of_name[name] = found
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            owner = of_name.get(node.value.id)
            if inspect.ismodule(owner) and not hasattr(owner, node.attr):
                yield f"line {node.lineno}: no {node.value.id}.{node.attr}"
        if isinstance(node, ast.Call) and (called := _called(node.func, of_name)) is not None:
            stars = any(isinstance(each, ast.Starred) for each in node.args) or any(
                not key.arg for key in node.keywords
            )
            try:
                if not stars:
                    inspect.signature(called, follow_wrapped=False).bind(
                        *node.args, **{str(key.arg): None for key in node.keywords}
                    )
            except TypeError as problem:
                yield f"line {node.lineno}: {ast.unparse(node.func)}: {problem}"


def _called(function: ast.expr, of_name: dict[str, Any]) -> Any:
    """Return the package's function or class that a call names; None for others."""
    if isinstance(function, ast.Name):
        found = of_name.get(function.id)
    elif isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
        owner = of_name.get(function.value.id)
        found = getattr(owner, function.attr, None) if inspect.ismodule(owner) or inspect.isclass(owner) else None
    else:
        return None
    return found if inspect.isfunction(found) or inspect.isclass(found) or inspect.ismethod(found) else None


@pytest.mark.parametrize("file", PROGRAMS, ids=lambda file: str(file.relative_to(ROOT)))
def test_programs_name_what_the_package_has(file: Path) -> None:
    assert list(problems(ast.parse(file.read_text(encoding="utf-8")))) == []


def test_a_name_that_is_gone_and_a_wrong_argument_are_found() -> None:
    program = """
from catalog_enrichment.values import same, sane
from catalog_enrichment.values.spelling import text_key as key
same.stored("1 cm", rule)
same.key("1 cm")
key()
key("a", language="de")
"""
    assert sorted(problems(ast.parse(program))) == [
        "line 5: no same.key",
        "line 6: key: missing a required argument: 'text'",
        "line 7: key: got an unexpected keyword argument 'language'",
        "no catalog_enrichment.values.sane",
    ]
