"""What a catalog of 10,000, 100,000 and 1,000,000 products costs: seconds and peak memory of every step.

    make scale                                                 (about 30 minutes on 2 cores and 8 GiB)
    python tests/benchmarks/scale.py --products 10000          (a try)
    python tests/benchmarks/scale.py --products 20000 --shops 20000 --events 0      (every product is of another shop)

Pictures are by reference, three attributes, a stub predictor (scale_world.py). Every size runs in a process of its own.
Each step is a job as the command line would run it, in a Spark session whose start is reported apart; a snapshot is
written between the steps and not timed. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import scale_world as world
from benchmark import PeakMemory, arguments, markdown, print_json

from catalog_enrichment.catalog.delta_tables import files_of
from catalog_enrichment.context import Context, open_context
from catalog_enrichment.enrichment import pipeline
from catalog_enrichment.enrichment.backfill import backfill
from catalog_enrichment.enrichment.request import Window
from catalog_enrichment.ingest.job import import_products
from catalog_enrichment.operations.rollback import rollback_run
from catalog_enrichment.operations.set_value import Correction, set_value
from catalog_enrichment.records import Source

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from sample_certificate import certificate

SIZES = (10_000, 100_000, 1_000_000)
MEMORY = "4g"
"""Memory of Spark's JVM; two Python workers and the driver's Python come on top."""
CHANGED = 0.01
LIMITS = {"import_unchanged": 0.05, "import_1%": 0.60, "enrich_unchanged": 0.05, "enrich_1%": 0.10}
"""Step -> most seconds it may take, as a share of the first import or enrichment."""

Results = dict[int, dict[str, dict[str, Any]]]
"""Products -> step -> seconds, peak_mib, and for jobs status and stages."""


class Steps:
    """Runs the steps of a size and keeps what they cost."""

    def __init__(self, products: int) -> None:
        self._products = products
        self.costs: dict[str, dict[str, Any]] = {}

    def __call__(self, name: str, work: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        with PeakMemory(proportional=True) as memory:
            result = work()
        cost = {"seconds": round(time.perf_counter() - started, 2), "peak_mib": round(memory.mib)}
        if isinstance(result, dict):
            cost |= {"status": result["status"], "stages": result["seconds"]}
        self.costs[name] = cost
        print(f"{self._products:>9,} {name:<20} {json.dumps(cost)}", file=sys.stderr, flush=True)
        return result


def measure(products: int, shops: int, events: int, root: Path) -> dict[str, Any]:
    """Return what every step costs on a catalog in ``root``, the last steps with ``events`` more in the ledger."""
    config = world.write_config(root, MEMORY)
    world.write_snapshot(root, products, shops)
    model = world.model(world.certificates(certificate()))
    step = Steps(products)

    def change_and_run(edition: int, name: str) -> None:
        world.write_snapshot(root, products, shops, CHANGED, edition)
        step(f"import_1%{name}", lambda: import_products(context))
        last = step(f"enrich_1%{name}", enrich)
        step(f"rollback_1%{name}", lambda: rollback_run(context.catalog, last["run_id"]))

    def enrich() -> dict[str, Any]:
        return pipeline.enrich(context, model, Window())

    with world.stub_predictor():
        context = step("session", lambda: open_context(config, "scale"))
        step("warm_up", lambda: context.spark.range(1000).selectExpr("sum(id)").collect())
        step("import_first", lambda: import_products(context))
        step("import_unchanged", lambda: import_products(context))
        step("enrich_first", enrich)
        step("enrich_unchanged", enrich)
        change_and_run(1, "")
        step("enrich_after_rollback", enrich)  # looks at all products
        say_a_value(context, step)
        if products > 20 * world.UPDATED_TOGETHER:
            other = replace(model, version="2")
            step("backfill_1_chunk", lambda: backfill(context, other, world.updated_on(0, 1)))
            step("backfill_20_chunks", lambda: backfill(context, other, world.updated_on(1, 20)))
        if events:
            step("grow_ledger", lambda: world.grow_ledger(context.catalog, events, products))
            step("current_values_all", lambda: context.catalog.refresh_current_values("all"))
            step("enrich_all_looked_at", enrich)
            change_and_run(2, "_long_ledger")
    return step.costs


def say_a_value(context: Context, step: Steps) -> None:
    """Measure a person's statement about one product, and add to its cost how many files of current values it wrote
    again, and how many rows these have."""
    catalog = context.catalog
    product = next(
        row["product_id"]
        for batch in catalog.scan("current_values", ("product_id", "attribute", "source"))
        for row in batch.to_pylist()
        if (row["attribute"], row["source"]) == ("color", Source.MODEL.value)
    )
    before = {file.name for file in files_of(catalog.tables.open("current_values"))}
    correction = Correction(product_id=product, attribute="color", values=("Red",), by="benchmark")
    step("set_value", lambda: set_value(context, correction))
    after = files_of(catalog.tables.open("current_values"))
    new = [file for file in after if file.name not in before]
    kept = before.intersection(file.name for file in after)
    step.costs["set_value"] |= {
        "files": len(after),
        "files_written": len(new),
        "files_replaced": len(before) - len(kept),
        "rows_written": sum(file.rows or 0 for file in new),
    }
    print(f"set_value: {json.dumps(step.costs['set_value'])}", file=sys.stderr, flush=True)


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--products", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--events", type=int, default=10_000_000, help="ledger events added to the largest catalog")
    parser.add_argument("--shops", type=int, default=world.SHOPS, help="shops of every catalog")
    parser.add_argument("--root", type=Path, help="folder for the catalogs; a temporary folder by default")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    root = args.root or Path(tempfile.mkdtemp(prefix="scale-"))
    if args.here:
        print_json(measure(args.products[0], args.shops, args.events, root))
        return 0
    results = {}
    for products in args.products:
        folder = root / str(products)
        folder.mkdir(parents=True)
        events = args.events if products == max(args.products) else 0
        command = [sys.executable, __file__, "--here", "--products", str(products), "--root", str(folder)]
        command += ["--events", str(events), "--shops", str(args.shops)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        results[products] = json.loads(done.stdout.splitlines()[-1])
        shutil.rmtree(folder)
    print_table(results)
    seconds = {size: {name: cost["seconds"] for name, cost in costs.items()} for size, costs in results.items()}
    print_json({"seconds": seconds, "of_first": ratios(results)})
    return 0


def ratios(results: Results) -> dict[int, dict[str, float]]:
    """Return the seconds of the steps of LIMITS as shares of the first import or enrichment."""
    return {
        size: {
            name: round(costs[name]["seconds"] / costs[f"{name.split('_')[0]}_first"]["seconds"], 3) for name in LIMITS
        }
        for size, costs in results.items()
    }


def print_table(results: Results) -> None:
    """Print a row per step with the seconds and peak memory of every size."""
    columns = [f"{size:,}: {unit}" for size in results for unit in ("s", "MiB")]
    steps = max(results.values(), key=len)
    rows = {
        name: [costs.get(name, {}).get(key) for costs in results.values() for key in ("seconds", "peak_mib")]
        for name in steps
    }
    print("\n".join(markdown(columns, rows, "step")))
    for name, limit in LIMITS.items():
        shares = ", ".join(f"{size:,}: {shares[name]:.1%}" for size, shares in ratios(results).items())
        print(f"{name} of the first, at most {limit:.0%}: {shares}")


if __name__ == "__main__":
    sys.exit(main())
