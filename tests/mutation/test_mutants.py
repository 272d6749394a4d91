"""The mutation tool: what it changes, and that a mutant is applied and taken back."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest

from catalog_enrichment.precision import grid

from .__main__ import PACKAGE, ROOMS
from .mutants import applied, live_function, mutants_of

SOURCE = '''
def f(rows, low=3):
    """Text."""
    if not rows or low > 2:
        raise ValueError(f"{low + 1} rows")
    log(rows)
    first = rows[0]
    return sorted(min(first, key=low, strict=True))


class C:
    @property
    def g(self):
        return self.frame.join(self.other, "id", "left").where(self.a & ~self.b)
'''


@pytest.fixture
def changes(tmp_path: Path) -> list[str]:
    (tmp_path / "module.py").write_text(SOURCE)
    return [f"{mutant.function}: {mutant.change}" for mutant in mutants_of(tmp_path, "module.py")]


def test_each_part_of_a_function_is_changed(changes: list[str]) -> None:
    assert set(changes) == {
        "f: `if not rows or low > 2` negated",
        "f: `not rows or low > 2` -> `not rows and low > 2`",
        "f: `not rows` -> `rows`",
        "f: `low > 2` -> `low >= 2`",
        "f: `2` -> `3`",
        "f: `raise ValueError(f'{low + 1} rows')` -> `pass`",
        "f: `log(rows)` -> `pass`",
        "f: `rows[0]` -> `rows[-1]`",
        "f: `0` -> `1`",
        "f: `return sorted(min(first, key=low, strict=True))` -> `return None`",
        "f: `sorted(min(first, key=low, strict=True))` -> `min(first, key=low, strict=True)`",
        "f: `min(...)` without `key=low`",
        "f: `min` -> `max`",
        "C.g: `return self.frame.join(self.other, 'id', 'left').where(self.a & ~self.b)` -> `return None`",
        "C.g: `self.frame.join(self.other, 'id', 'left').where(self.a & ~self.b)` -> `self.frame.join(self.other, 'id', 'left')`",  # noqa: E501
        "C.g: `self.frame.join(...)` without `'left'`",
        "C.g: `'left'` -> `'inner'`",
        "C.g: `self.a & ~self.b` -> `self.a | ~self.b`",
        "C.g: `~self.b` -> `self.b`",
    }


def test_the_same_change_twice_has_a_number(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text("def f(a, b):\n    return a[0] + b * 0\n")
    assert [m.change for m in mutants_of(tmp_path, "module.py") if m.change.startswith("`0`")] == [
        "`0` -> `1`", "`0` -> `1` (2)",
    ]  # fmt: skip


def test_a_mutant_is_in_force_for_everybody_who_imported_the_function_and_then_gone() -> None:
    imported = grid.smallest_sample
    mutant = next(m for m in mutants_of(PACKAGE, "precision/grid.py") if m.change.endswith("-> `return None`"))
    assert mutant.function == "smallest_sample"
    with applied(mutant):
        assert imported(0.95, 0.05) is None  # type: ignore[comparison-overlap]
    assert imported(0.95, 0.05) == 59


def test_functions_are_found_below_decorators() -> None:
    assert live_function("precision/certificate.py", "Certificate.pool").__name__ == "pool"
    assert live_function("catalog/lake.py", "LakeCatalog.locked").__code__.co_name == "locked"
    assert live_function("precision/cluster.py", "AcceptedSample.of").__code__.co_name == "of"
    assert live_function("precision/cluster.py", "AcceptedSample.accepted").__name__ == "accepted"


def test_every_argued_mutant_has_a_reason_and_a_file() -> None:
    """Whether the mutants still exist is told by `make mutants`: code may change without regard to this list."""
    argued = tomllib.loads((Path(__file__).parent / "argued.toml").read_text())["argued"]
    named = [mutant for one in argued for mutant in one["mutants"]]
    assert [name for name in named if not (PACKAGE / name.split(" ")[0]).is_file()] == []
    assert len(set(named)) == len(named)
    assert all(one["reason"].endswith(".") for one in argued)


@pytest.mark.parametrize("room", ROOMS)
def test_the_files_and_tests_of_a_room_exist(room: str) -> None:
    for pattern in ROOMS[room].files:
        assert any(ast.parse(path.read_text()) for path in PACKAGE.glob(pattern)), pattern
    assert [test for test in ROOMS[room].tests if not (PACKAGE.parents[1] / test).exists()] == []
