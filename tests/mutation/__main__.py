"""How many small changes of the code do the tests notice?

    make mutants                                    (all rooms, 20 mutants of every file, less than an hour on 2 cores)
    make mutants ROOM=precision SAMPLE=5            (a try)
    python -m tests.mutation --room catalog --file catalog/ledger.py --sample 0          (all mutants of a file)

A mutant is a function with one change (`<` to `<=`, `and` to `or`, an argument less, ...; mutants.py). It is killed if
a test of the room fails with it. Survivors that no test could notice are listed with the reason in argued.toml; a
survivor that is not listed, or less than 95% killed, is exit code 1. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "catalog_enrichment"
TEST_SECONDS = 300
"""Limit of one test, for mutants that never end."""
ENOUGH = 0.95
"""Share of the mutants to kill."""


@dataclass(frozen=True, slots=True)
class Room:
    files: tuple[str, ...]
    """Glob patterns below the package."""
    tests: tuple[str, ...]


_DECISION_TESTS = tuple(
    f"tests/enrichment/test_{name}.py"
    for name in (
        "decide",
        "decide_once",
        "landed",
        "pending",
        "pending_waiting",
        "provisional_cap",
        "publish",
        "select",
        "withdrawn",
    )
)
"""Those of a part; tests of whole jobs take too long to try every mutant with them."""

ROOMS = {
    "precision": Room(("precision/*.py",), ("tests/precision",)),
    "catalog": Room(
        ("catalog/*.py",),
        (
            *("tests/catalog", "tests/operations/test_rollback.py", "tests/training/test_labels_by_people.py"),
            *("tests/audit/test_estimates.py", "tests/audit/test_ingest.py", "tests/audit/test_suggestion_answers.py"),
            *("tests/audit/page/test_products.py", "tests/delivery/test_feed.py", "tests/delivery/test_sink.py"),
            *_DECISION_TESTS,
        ),
    ),
    "decisions": Room(
        (
            *(f"enrichment/{name}.py" for name in ("decide", "pending", "provisional_cap", "withdrawn", "publish")),
            *("enrichment/landed.py", "enrichment/request.py", "enrichment/select.py", "registry/promotion_gate.py"),
        ),
        (
            *_DECISION_TESTS,
            "tests/enrichment/test_provisional_cap_runs.py",
            "tests/registry/test_promotion_gate.py",
            "tests/registry/test_promotion_gate_limits.py",
        ),
    ),
}


def main() -> int:
    arguments = _arguments()
    outcomes: dict[str, Any] = {}
    begin = time.monotonic()
    for name in [arguments.room] if arguments.room else ROOMS:
        results = Path(arguments.results or tempfile.mkdtemp()) / f"{name}.jsonl"
        if arguments.in_session:
            return _session(name, results, arguments)
        outcomes[name] = _outcomes(name, results, arguments)
    return _report(outcomes, arguments, time.monotonic() - begin)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests.mutation", description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--room", choices=sorted(ROOMS), help="default: all")
    parser.add_argument("--file", default="", help="only this file, below src/catalog_enrichment")
    parser.add_argument("--sample", type=int, default=20, help="mutants per file, drawn by --seed; 0: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=120, help="of tests per mutant; then it has survived")
    parser.add_argument("--results", default="", help="folder of the outcomes: with the same one a run continues")
    parser.add_argument("--in-session", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def _mutants(room: Room, arguments: argparse.Namespace) -> dict[str, tuple[list[Any], int]]:
    """File -> the sampled mutants and the number of all."""
    from .mutants import mutants_of

    files = sorted(str(path.relative_to(PACKAGE)) for pattern in room.files for path in PACKAGE.glob(pattern))
    sampled = {}
    for file in files:
        if arguments.file in ("", file) and (mutants := mutants_of(PACKAGE, file)):
            count = min(arguments.sample or len(mutants), len(mutants))
            chosen = random.Random(f"{arguments.seed} {file}").sample(range(len(mutants)), count)
            sampled[file] = [mutants[index] for index in sorted(chosen)], len(mutants)
    return sampled


def _session(name: str, results: Path, arguments: argparse.Namespace) -> int:
    """The pytest session with mutants, in this process."""
    import pytest

    from .session import MutationSession, Results

    mutants = [mutant for chosen, _ in _mutants(ROOMS[name], arguments).values() for mutant in chosen]
    plugin = MutationSession(mutants, Results(results), arguments.seconds)
    options = ["-m", "not slow", "--tb=no", "--no-header", "--no-summary", "-q", "-p", "no:cacheprovider"]
    limits = ["-o", "addopts=", "--timeout", str(TEST_SECONDS)]
    return int(pytest.main([*ROOMS[name].tests, *options, *limits], plugins=[plugin]))


def _outcomes(name: str, results: Path, arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """File -> counts and survivors. Sessions follow each other until every mutant has an outcome."""
    from .session import Results

    results.parent.mkdir(parents=True, exist_ok=True)
    sampled = _mutants(ROOMS[name], arguments)
    again = [*sys.argv[1:], "--in-session", "--room", name, "--results", str(results.parent)]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    while True:
        known = Results(results).outcomes
        if all(known.get(m.key, "repeat") != "repeat" for chosen, _ in sampled.values() for m in chosen):
            return {file: _counts(chosen, total, known) for file, (chosen, total) in sampled.items()}
        with results.with_suffix(".log").open("a") as log:
            subprocess.run([sys.executable, "-m", "tests.mutation", *again], cwd=ROOT, env=environment, stdout=log)
        if Results(results).outcomes == known:
            raise SystemExit(f"no mutant was tried; see {results.with_suffix('.log')}")


def _argued() -> set[str]:
    reasons = tomllib.loads((Path(__file__).parent / "argued.toml").read_text())["argued"]
    return {mutant for one in reasons for mutant in one["mutants"]}


def _counts(chosen: list[Any], total: int, outcomes: dict[str, str]) -> dict[str, Any]:
    argued = _argued()
    tried = [mutant for mutant in chosen if outcomes[mutant.key] != "cannot be applied"]
    alive = [mutant for mutant in tried if outcomes[mutant.key] in ("", "no test")]
    return {
        "all": total,
        "tried": len(tried),
        "killed": len(tried) - len(alive),
        "argued": sum(mutant.key in argued for mutant in alive),
        "survivors": [f"{mutant.key} (line {mutant.line})" for mutant in alive if mutant.key not in argued],
    }


def _report(outcomes: dict[str, dict[str, Any]], arguments: argparse.Namespace, seconds: float) -> int:
    """The table, the survivors and the JSON line; the exit code."""
    columns = ("all", "tried", "killed", "argued")
    print(f"\n{'file':36}" + "".join(f"{name:>9}" for name in (*columns, "survivors")))
    rooms = {}
    for room, files in outcomes.items():
        for file, row in files.items():
            print(f"{file:36}" + "".join(f"{row[name]:9}" for name in columns) + f"{len(row['survivors']):9}")
        sums = {name: sum(row[name] for row in files.values()) for name in columns}
        sums["survivors"] = sum(len(row["survivors"]) for row in files.values())
        rooms[room] = sums | {"killed_share": round(sums["killed"] / max(sums["tried"], 1), 4)}
        print(f"{room:36}" + "".join(f"{sums[name]:9}" for name in (*columns, "survivors")))
    for files in outcomes.values():
        for row in files.values():
            print(*(f"survives: {one}" for one in row["survivors"]), sep="\n", end="\n" if row["survivors"] else "")
    from .mutants import mutants_of

    for file in sorted({file for files in outcomes.values() for file in files}):
        existing = {mutant.key for mutant in mutants_of(PACKAGE, file)}
        gone = sorted(name for name in _argued() if name.startswith(f"{file} ") and name not in existing)
        print(*(f"argued, and does not exist any more: {name}" for name in gone), sep="\n", end="\n" if gone else "")
    settings = {"seed": arguments.seed, "sample": arguments.sample, "seconds": round(seconds)}
    print(json.dumps({"mutants": rooms, **settings}))
    return int(any(room["survivors"] or room["killed_share"] < ENOUGH for room in rooms.values()))


if __name__ == "__main__":
    sys.exit(main())
