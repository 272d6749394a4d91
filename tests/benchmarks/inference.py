"""Scoring against what a user would otherwise run: products per second and memory of sixteen contenders.

    make bench                                                  (about two hours on 2 cores; needs 8 GiB)
    make bench DATA=FILE.parquet                                (a file as for make compare)
    python tests/benchmarks/inference.py --products 64 --rounds 1 --batch 32 --only plain ours        (a try)
    python tests/benchmarks/inference.py --data FILE.parquet --profile        (where a worker's time goes in Spark)

A model version with random weights scores the same products for all: with their pictures as they are (small) and
enlarged (large). In every round every contender has a process of its own, which starts, loads the model, warms up, and
only then scores both worlds: JVM, session, model and warm-up are never timed. Rounds take all contenders in turn, each
time from another first contender, so that a busy moment of the machine does not fall on a single contender. Nothing is
deduplicated or skipped. inference_contenders.py says how each contender is built, inference_version.py and
inference_worlds.py what is scored.

- Timed: from the Parquet files until all predictions are in the main process (on Spark as an Arrow table). Ray Data and
  Daft start new workers for every pass; the clock starts when these are warm, and stops when the last predictions
  arrive (Ray Data) or were made (Daft, which delivers them after its workers have ended).
- Memory: the largest sum of the resident sets of the contender's process tree during its timed parts, sampled five
  times per second. Shared pages count in each process; so does Ray's object store. `bare` holds all inputs.
- Same predictions: the probability of a product's best value is compared with the probability that `plain` gives to
  that value, and with its highest. The tolerance is 1e-5 in fp32 and 0.15 in bf16: random image encoders amplify
  rounding more than trained encoders. Contenders with other pixels (`_full`, and in `large` those that score scaled
  copies) only must score every product.

A file with fewer products is scored again from its first one; the JSON line says how many are different.

Exits with 3 if predictions differ from those of plain by more than the tolerance, with 1 if a contender failed. The
last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
from benchmark import arguments, in_turn, print_json
from inference_contenders import CONTENDERS, environment
from inference_job import Job, Measured, Run, Version
from inference_profile import QUERY, lines, of_tasks
from inference_results import NOT_INSTALLED, Outcome, difference, summary, table
from inference_version import HEADS, register_version
from inference_worlds import WORLDS, read_products, store_pictures, with_large_pictures, write_world

FILES_PER_WORKER = 4
"""Files of a world; in most frameworks a file is a task."""
ONE = "one"
"""A world with a product per worker: what a query costs before it scores."""
WARM_UP = 256
"""Products that every process scores before the clock starts, per worker."""
LARGE = 0.25
"""Share of the products that the large world has: its pictures take longer."""
LIMIT_SECONDS = 1800
"""A process that takes longer is ended and counts as failed."""


@dataclass(frozen=True)
class Bench:
    """What all processes have in common."""

    root: Path
    version: Version
    workers: int
    batch: int
    products: Mapping[str, int]
    """World -> its products."""
    different: int
    """How many of the products are different."""
    profile: bool = False

    def measure(self, name: str, worlds: Sequence[str]) -> list[Measured] | None:
        """Score worlds in a new process of a contender; None if it failed."""
        answer, file = self.root / "answer.json", self.root / "job.json"
        answer.unlink(missing_ok=True)
        Job(
            contender=name,
            version=self.version,
            workers=self.workers,
            pictures=str(self.root / "pictures"),
            warm_up=str(self.root / "warm_up"),
            batch=self.batch,
            runs=tuple(
                Run(folder=str(self.root / world), predictions=str(self._file(world, name))) for world in worlds
            ),
            profile=str(self.root / "profile") if self.profile else "",
            answer=str(answer),
        ).write(file)
        command = [sys.executable, str(Path(__file__).with_name("inference_contenders.py")), str(file)]
        process = subprocess.Popen(
            command,
            stdout=sys.stderr,
            env=environment(CONTENDERS[name], os.environ),
            cwd=self.root,
            start_new_session=True,
        )
        try:
            process.wait(LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            print(f"{name}: ended after {LIMIT_SECONDS} s", file=sys.stderr)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if process.returncode or not answer.exists():
            return None
        return [Measured(**measured) for measured in json.loads(answer.read_text())]

    def round(self, name: str, outcomes: dict[str, dict[str, Outcome]]) -> None:
        """Score every world once and add what was measured; a contender that fails is left out from then on."""
        found = self.measure(name, list(self.products))
        for number, world in enumerate(self.products):
            outcome = outcomes[world][name]
            if found is None:
                outcome.absent, outcome.rounds = "failed", []
                continue
            outcome.rounds.append(found[number])
            print(f"{world} {name}: {found[number].seconds:.2f} s", file=sys.stderr, flush=True)

    def compare(self, name: str, outcomes: dict[str, dict[str, Outcome]]) -> None:
        """Compare the last predictions of a contender with those of plain, if there are any."""
        labels = {attribute: head.labels for attribute, head in HEADS.items()}
        for world in self.products:
            files, outcome = (self._file(world, "plain"), self._file(world, name)), outcomes[world][name]
            if outcome.rounds and all(file.exists() for file in files):
                found = difference(*map(pq.read_table, files), labels)
                outcome.difference = max(found, outcome.difference or 0.0)

    def times(self) -> dict[str, dict[str, float]] | None:
        """Return world -> the figures of inference_profile.py for `ours`; None if it failed."""
        measured = self.measure("ours", [*self.products, ONE])
        if measured is None:
            return None
        figures = {}
        for world, run in zip(self.products, measured, strict=False):
            of_world = self.root / "profile" / world
            query = json.loads((of_world / QUERY).read_text())
            tasks = [json.loads(file.read_text()) for file in of_world.iterdir() if file.name != QUERY]
            jvm = 1024 * query["jvm_s"] / self.products[world]
            figures[world] = of_tasks(tasks) | {
                "query_s": run.seconds, "fixed_s": measured[-1].seconds, "jvm_s_per_1024": jvm,
            }  # fmt: skip
        return figures

    def _file(self, world: str, name: str) -> Path:
        return self.root / f"predictions-{world}-{name}.parquet"


def main() -> int:
    args = _arguments()
    workers = args.workers or len(os.sched_getaffinity(0))
    # an exit, unlike the signal alone, also ends the contender's processes
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        bench = prepare(Path(folder), args, workers)
        if args.profile:
            return print_times(bench)
        outcomes = measure_all(bench, args.only, args.rounds)
    print(table(outcomes))
    print_json({"products": dict(bench.products), "different": bench.different} | summary(outcomes))
    found = [outcome for world in outcomes.values() for outcome in world.values()]
    if any(outcome.absent not in ("", NOT_INSTALLED) for outcome in found):
        return 1
    return 0 if all(outcome.agrees for outcome in found) else 3


def print_times(bench: Bench) -> int:
    """Print where a worker's time goes in Spark; returns the exit code."""
    times = bench.times()
    if times is None:
        return 1
    print("\n".join(lines(times)))
    print_json({"products": dict(bench.products), "different": bench.different, "profile": times})
    return 0


def prepare(root: Path, args: argparse.Namespace, workers: int) -> Bench:
    """Write the worlds and register the model version in ``root``."""
    products = read_products(args.data, args.products)
    files = FILES_PER_WORKER * workers
    write_world(root / "small", products, files)
    write_world(root / "warm_up", products[: WARM_UP * workers], 2 * workers)
    write_world(root / ONE, products[:workers], workers)
    store_pictures(root / "pictures", products)
    if "large" in args.worlds:
        large = with_large_pictures(products[: math.ceil(LARGE * len(products))])
        write_world(root / "large", large, files)
        store_pictures(root / "pictures", large)
    sizes = {"small": len(products), "large": math.ceil(LARGE * len(products))}
    sizes = {world: sizes[world] for world in args.worlds}
    for world, number in sizes.items():
        size = sum(file.stat().st_size for file in (root / world).iterdir())
        print(f"{world}: {number:,} products, {size / number / 1000:.1f} kB each", flush=True)
    version = register_version(root, products, workers)
    return Bench(root, version, workers, args.batch, sizes, len(set(products)), args.profile)


def measure_all(bench: Bench, contenders: Sequence[str], rounds: int) -> dict[str, dict[str, Outcome]]:
    """Return world -> contender -> what was measured in ``rounds`` rounds."""
    outcomes = {
        world: {
            name: Outcome(
                products=products,
                tolerance=CONTENDERS[name].tolerance(world),
                absent="" if CONTENDERS[name].installed else NOT_INSTALLED,
            )
            for name in contenders
        }
        for world, products in bench.products.items()
    }
    for number in range(rounds):
        scored = next(iter(outcomes.values()))
        running = [name for name in in_turn(contenders, number) if not scored[name].absent]
        for name in running:
            bench.round(name, outcomes)
        for name in running:
            bench.compare(name, outcomes)
    return outcomes


def _arguments() -> argparse.Namespace:
    parser = arguments(__doc__)
    parser.add_argument("--data", type=Path, help="Parquet file as for make compare; without it products are generated")
    parser.add_argument("--products", type=int, default=8000, help="in `small`; `large` has a quarter")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, default=list(CONTENDERS), metavar="CONTENDER")
    parser.add_argument("--batch", type=int, default=32, help="products per forward pass")
    parser.add_argument("--profile", action="store_true", help="print where the time of `ours` goes in Spark, instead")
    parser.add_argument("--worlds", nargs="+", choices=WORLDS, default=list(WORLDS))
    parser.add_argument("--workers", type=int, default=0, help="processes that score; 0: a process per core")
    args = parser.parse_args()
    if min(args.products, args.rounds, args.batch) < 1 or args.workers < 0:
        parser.error("--products, --rounds and --batch must be at least 1, --workers at least 0")
    if args.data and not args.data.is_file():
        parser.error(f"--data: no such file: {args.data}")
    return args


if __name__ == "__main__":
    sys.exit(main())
