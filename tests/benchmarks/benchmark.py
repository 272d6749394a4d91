"""Code that the benchmarks share: arguments, tables, the last JSON line, processes and their memory, Chromium."""

from __future__ import annotations

import json
import os
import shutil
import threading
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

JOBS = Path(__file__).resolve().parents[2] / "jobs"
STAGES = ("import_products", "train_model", "promote_model", "enrich_catalog")
"""The jobs that bring a catalog from its source to written values."""
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def arguments(doc: str | None) -> ArgumentParser:
    """Return a parser whose help is the docstring of the benchmark."""
    return ArgumentParser(description=doc, formatter_class=RawDescriptionHelpFormatter)


def markdown(columns: Sequence[str], rows: Mapping[str, Sequence[object]], first: str) -> Iterator[str]:
    """Yield the lines of a Markdown table; ``rows``: name -> cells, of which None is shown as "-"."""
    yield " | ".join([f"| {first}", *columns]) + " |"
    yield "|---" * (len(columns) + 1) + "|"
    for name, cells in rows.items():
        shown = ["-" if cell is None else f"{cell:g}" if isinstance(cell, float) else str(cell) for cell in cells]
        yield " | ".join([f"| {name}", *shown]) + " |"


def print_json(figures: Any) -> None:
    """Print the last line, which is for scripts."""
    print(json.dumps(figures), flush=True)


def in_turn(names: Sequence[str], number: int) -> list[str]:
    """Return all names beginning with another name in every round, so that a busy moment falls on each of them."""
    first = number % len(names)
    return [*names[first:], *names[:first]]


def tree(pid: int) -> list[psutil.Process]:
    """Return the process and all its descendants, parents first; none if it has ended."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    return []


def called(pid: int, word: str) -> list[psutil.Process]:
    """Return the processes of the tree whose command line has ``word``."""
    found = []
    for process in tree(pid):
        with suppress(psutil.Error):
            found += [process] if word in " ".join(process.cmdline()) else []
    return found


def memory_mib(process: psutil.Process, proportional: bool = False) -> float:
    """Return the resident memory in MiB, 0 if the process has ended. A page that processes share counts in each of
    them or, with ``proportional`` (PSS), in equal parts."""
    with suppress(psutil.Error):
        used = process.memory_full_info().pss if proportional else process.memory_info().rss
        return float(used) / 2**20
    return 0.0


class PeakMemory:
    """A block that measures the largest memory of this process and all below it."""

    mib = 0.0

    def __init__(self, proportional: bool = False) -> None:
        self._proportional, self._stop = proportional, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            self.mib = max(self.mib, sum(memory_mib(process, self._proportional) for process in tree(os.getpid())))
            if self._stop.wait(0.5 if self._proportional else 0.2):
                return


def chromium() -> str:
    """Return the path of the browser. Raises SystemExit (2) where none is installed."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        print("no Chromium was found: apt-get install chromium")
        raise SystemExit(2)
    return found
