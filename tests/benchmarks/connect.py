"""What Spark Connect costs: an import and an enrichment on a Connect server, relative to classic Spark.

    python -m tests.benchmarks.connect                                     (some minutes)
    python -m tests.benchmarks.connect --products 200 --rounds 1           (a try)

The products and the model are those of the tests: tiny, so that what is measured is Spark and not the scoring. Each
mode has a process, whose Spark is started once with the same settings (`spark.remote = "local-connect"` for Connect);
they take turns. The first round warms both up and is left out. Prints the seconds of every stage; the last line is one
JSON object with the ratios, Connect / classic, of the medians.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from .. import sample_catalog
from ..sample_catalog import SampleCatalog, listing
from ..spark.connect_client import stored
from .benchmark import arguments, in_turn, markdown, print_json

MODES = {"classic": [], "connect": ["--set", 'spark.remote="local-connect"']}
JOBS = ("import_products", "enrich_catalog")

_PROCESS = """
import json, sys, time
from catalog_enrichment import cli
for line in sys.stdin:
    for name in json.loads(sys.argv[1]):
        started = time.monotonic()
        code = getattr(cli, name)(json.loads(line))
        print(json.dumps({"seconds_of": name, "code": code, "total": time.monotonic() - started}), flush=True)
"""

Seconds = dict[str, float]
"""Seconds of a round, by job and by stage of a job (`import_products: read`)."""


class Process:
    """A process that runs the jobs of a round in one mode."""

    def __init__(self, mode: str) -> None:
        self.options = MODES[mode]
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROCESS, json.dumps(JOBS)], text=True, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def run(self, sample: SampleCatalog) -> Seconds:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(["--config", str(sample.file), *self.options]) + "\n")
        self._process.stdin.flush()
        seconds: Seconds = {}
        for name in JOBS:
            summary, timed = (json.loads(self._process.stdout.readline()) for _ in range(2))
            assert timed["code"] == 0, summary
            seconds |= {f"{name}: {stage}": taken for stage, taken in summary["seconds"].items()}
            seconds[name] = timed["total"]
        return seconds

    def end(self) -> None:
        self._process.communicate()


def measure(root: Path, products: int, rounds: int) -> dict[str, list[Seconds]]:
    """Return mode -> seconds of every round but the first."""
    template = sample_catalog.build(root / "template")
    template.feed([listing(number) for number in range(products)])
    sample_catalog.register(template, root / "artifacts")
    template.promotion.promote("1", expected_current=None)
    processes = {mode: Process(mode) for mode in MODES}
    found: dict[str, list[Seconds]] = {mode: [] for mode in MODES}
    for number in range(rounds + 1):
        samples = {mode: template.copy_to(root / f"{mode}-{number}") for mode in MODES}
        for mode in in_turn(list(MODES), number):
            found[mode].append(processes[mode].run(samples[mode]))
        ledgers = [stored(sample, "attribute_values") for sample in samples.values()]
        assert ledgers[0] == ledgers[1], "the modes wrote other values"
        assert ledgers[0], "nothing was written"
    for process in processes.values():
        process.end()
    return {mode: seconds[1:] for mode, seconds in found.items()}


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--products", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), args.products, args.rounds)
    medians = {
        name: [statistics.median(seconds.get(name, 0.0) for seconds in found[mode]) for mode in MODES]
        for name in found["classic"][0]
    }
    ratios = {name: round(connect / classic, 2) for name, (classic, connect) in medians.items() if classic}
    rows: dict[str, list[Any]] = {
        name: [*(round(taken, 2) for taken in medians[name]), ratios.get(name)] for name in medians
    }
    print("\n".join(markdown([*MODES, "ratio"], rows, "seconds of")))
    print_json({"products": args.products, "rounds": args.rounds, "ratios": {name: ratios[name] for name in JOBS}})
    return 0


if __name__ == "__main__":
    sys.exit(main())
