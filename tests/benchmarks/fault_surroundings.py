"""A full disk, a read-only folder, a locked MLflow store: the documented exit code, and the next run ends equal."""

from __future__ import annotations

import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from .fault_catalog import World, run_here
from .fault_outcomes import Outcome
from .fault_states import difference

TMPFS = ("mount", "-t", "tmpfs", "-o")


def faults(world: World) -> Iterator[Outcome]:
    """Each fault under the first enrichment, or the first import; skipped with a note where mounting is not allowed."""
    enrichment, first_import = 1, 0
    for fault, number, expected, broken in (
        ("full disk, import", first_import, 4, _small_disk),
        ("full disk, enrichment", enrichment, 4, _small_disk),
        ("read-only catalog, enrichment", enrichment, 2, _read_only),
        ("locked MLflow store, enrichment", enrichment, 4, _locked_store),
    ):
        outcome = Outcome(fault, "other")
        world.restore(number)
        try:
            _inflict(world, number, outcome, expected, broken)
        except PermissionError as problem:
            outcome.notes.append(f"skipped: {problem}")
        yield outcome


def _inflict(
    world: World,
    number: int,
    outcome: Outcome,
    expected: int,
    broken: Callable[[World], AbstractContextManager[Callable[[], None]]],
) -> None:
    step = world.steps[number]
    with broken(world) as mend:
        code, summary = run_here(step.job, world.arguments(step))
        outcome.times += 1
        outcome.ended(code)
        if code != expected:
            outcome.unexplained += code != 1  # ended() has counted a bug
            outcome.notes.append(f"expected {expected}: {summary.get('error')}: {summary.get('message', '')[:300]}")
        mend()
        code, summary = run_here(step.job, world.arguments(step))
        found = difference(world.contents(), world.expected[number])
    outcome.equal += code == 0 and found.equal
    outcome.lost, outcome.duplicated = found.lost, found.duplicated
    if code or not found.equal:
        outcome.notes.append(f"run again: {code} {summary.get('message', '')[:200]} {found.examples}")


@contextmanager
def _disk(world: World, kibibytes: int) -> Iterator[str]:
    """The catalog's folder on a file system of its own, with its content and so much free space."""
    catalog, aside = world.catalog, world.folder / "aside"
    used = sum(-(-file.stat().st_size // 4096) * 4 for file in catalog.rglob("*") if file.is_file())
    catalog.rename(aside)
    catalog.mkdir()
    try:
        _mount(*TMPFS, f"size={used + kibibytes}k", "tmpfs", str(catalog))
        try:
            subprocess.run(["cp", "-a", f"{aside}/.", str(catalog)], check=True)
            yield str(catalog)
        finally:
            subprocess.run(["umount", "-l", str(catalog)], check=True)
    finally:
        catalog.rmdir()
        aside.rename(catalog)


@contextmanager
def _small_disk(world: World) -> Iterator[Callable[[], None]]:
    """Room for the first files of a run; mended by more of it."""
    with _disk(world, kibibytes=48) as mounted:
        yield lambda: _mount("mount", "-o", "remount,size=200m", mounted)


@contextmanager
def _read_only(world: World) -> Iterator[Callable[[], None]]:
    with _disk(world, kibibytes=200_000) as mounted:
        _mount("mount", "-o", "remount,ro", mounted)
        yield lambda: _mount("mount", "-o", "remount,rw", mounted)


@contextmanager
def _locked_store(world: World) -> Iterator[Callable[[], None]]:
    """Another process writes to the store's sqlite file and does not end."""
    other = sqlite3.connect(world.sample.folder / "mlflow.db")
    other.execute("BEGIN EXCLUSIVE")
    try:
        yield other.rollback
    finally:
        other.close()


def _mount(*command: str) -> None:
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise PermissionError(ended.stderr.strip() or f"{command[0]} ended with {ended.returncode}")
