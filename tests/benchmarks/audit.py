"""The audit against the truth: alarms against draws by simulation, and the closed loop on whole catalogs.

    python tests/benchmarks/audit.py [--runs 2000]                           # simulation alone, a minute
    python tests/benchmarks/audit.py --loop [--folder DIR] [--products N]    # generated marketplace
    python tests/benchmarks/audit.py --loop --data FILE.parquet              # real listings, as make fashion

The loop: import, train, promote and enrich by an honest version; two reviewers who are wrong in 2% of their verdicts,
and an adjudicator, judge a sample; certified, audited and true precision are printed. Then a version whose scores were
made over-confident on purpose (the calibration's temperatures are multiplied by 0.3, the certificates are bound to it)
becomes champion past the gate: the drift check must see it, and without the drift check the audit must. The attribute
is certified again from a second sample. Prints tables and, last, one JSON line; exit code 3 if nobody saw it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from catalog_enrichment.audit.items import Answer, Item, ItemState, Verdict
from catalog_enrichment.audit.review_store import ReviewStore
from catalog_enrichment.catalog.lake import LakeCatalog
from catalog_enrichment.config.load import load_config
from catalog_enrichment.config.schema import Config
from catalog_enrichment.precision.audit import AuditedRows, estimate, first_alarm
from catalog_enrichment.registry.model_registry import Registry
from catalog_enrichment.registry.trained_model import TrainedModel

JOBS = Path(__file__).resolve().parents[2] / "jobs"
RATE, AUDITS, NOISE, OVER_CONFIDENT = 0.05, 3000, 0.02, 0.3
STAGES = ("import_products", "train_model", "promote_model", "enrich_catalog")

Truth = Mapping[tuple[str, str], frozenset[str]]
"""(product, attribute) -> right values; where it is not known there is no entry."""


# --- simulation -------------------------------------------------------------------------------------------------------


def simulated(runs: int) -> list[dict[str, Any]]:
    """Per true precision: the share of audits with an alarm within AUDITS uniform draws, and the median number of draws
    until it; the same with rows near the threshold taken for uniform ones; draws until a certificate is confirmed."""
    random = np.random.default_rng(17)
    rows = []
    for precision in (0.99, 0.98, 0.97, 0.96, 0.95, 0.93, 0.90, 0.85):
        alarms = [first_alarm(random.random(AUDITS) >= precision, RATE) for _ in range(runs)]
        # 40% of the rows from near the threshold, where errors are four times as frequent
        near = np.where(random.random((runs, AUDITS)) < 0.4, 4.0, 1.0) * (1 - precision) / 1.6
        oversampled = [first_alarm(random.random(AUDITS) < row, RATE) for row in near[: runs // 4]]
        confirmed = [_until_confirmed(random, precision) for _ in range(40)] if precision > 1 - RATE else []
        rows.append(
            {
                "precision": precision,
                "alarms": float(np.mean([one is not None for one in alarms])),
                "median_draws": _median(alarms),
                "alarms_if_oversampled": float(np.mean([one is not None for one in oversampled])),
                "median_draws_until_confirmed": _median(confirmed),
            }
        )
    return rows


def _until_confirmed(random: np.random.Generator, precision: float) -> int | None:
    """Draws until the lower bound reaches the target, by looks at every 20 verdicts."""
    wrong = random.random(AUDITS) >= precision
    for n in range(20, AUDITS + 1, 20):
        rows = AuditedRows(wrong[:n], np.zeros(n, dtype=bool), np.ones(n), np.ones(n))
        if estimate(rows, 0.05).lower >= 1 - RATE:
            return n
    return None


def _median(draws: Sequence[int | None]) -> float | None:
    """None where fewer than half came to an end."""
    found = np.array([np.inf if one is None else one for one in draws])
    middle = float(np.median(found)) if len(found) else np.inf
    return middle if np.isfinite(middle) else None


# --- the loop ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class World:
    config_file: str
    overrides: list[str]
    config: Config
    truth: Truth

    def job(self, name: str, *options: str, codes: Sequence[int] = (0,)) -> dict[str, Any]:
        """Run a job as a user would; its summary. Ends the program at another exit code than those of ``codes``."""
        settings = [part for override in self.overrides for part in ("--set", override)]
        command = [sys.executable, str(JOBS / f"{name}.py"), "--config", self.config_file, *settings, *options]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode not in codes:
            sys.exit(f"{name} ended with {done.returncode}: {done.stdout[-2000:]}")
        summary: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
        return summary

    def true_precision(self) -> dict[str, tuple[float, int]]:
        """Attribute -> share of right ones, and number, of the model values that readers see, where that is known."""
        right: dict[str, list[bool]] = {}
        for batch in LakeCatalog(self.config.path(self.config.catalog.path)).scan("current_values"):
            for row in batch.to_pylist():
                known = self.truth.get((row["product_id"], row["attribute"]))
                if row["source"] == "model" and known is not None:
                    right.setdefault(row["attribute"], []).extend(value in known for value in row["values"])
        return {name: (float(np.mean(ones)), len(ones)) for name, ones in sorted(right.items())}


def generated(folder: Path, products: int) -> World:
    from catalog_enrichment.demo import marketplace

    overrides = [f"root={json.dumps(str(folder))}"]
    config = load_config("config:demo.toml", overrides)
    market = marketplace.generate(config.path("marketplace"), products, 7, False, products // 4)
    rows = pq.read_table(market.truth).to_pylist()
    truth = {(row["product_id"], row["attribute"]): frozenset(row["values"]) for row in rows}
    return World("config:demo.toml", overrides, config, truth)


def listings(folder: Path, data: Path) -> World:
    from fashion import read_truth

    overrides = [f"root={json.dumps(str(folder))}", f"source.path={json.dumps(str(data.resolve()))}"]
    config = load_config("config:fashion.toml", overrides)
    known = read_truth(data, config).values
    truth = {(product, name): values for name, of in known.items() for product, values in of.items()}
    return World("config:fashion.toml", overrides, config, truth)


def judged(world: World, sample_id: str, random: np.random.Generator) -> dict[str, int]:
    """Two reviewers, wrong in 2% of their verdicts, judge the sample; an adjudicator settles what they dispute."""
    with ReviewStore(world.config.path(world.config.audit.store)) as store:
        return _judged(store, world, sample_id, random)


def _judged(store: ReviewStore, world: World, sample_id: str, random: np.random.Generator) -> dict[str, int]:
    def say(item: Item, reviewer: str, right: bool, adjudicates: bool = False) -> None:
        store.add_verdict(
            Verdict(
                item_id=item.item_id,
                reviewer=reviewer,
                answer=Answer.YES if right else Answer.NO,
                adjudicates=adjudicates,
                answered_at=datetime.now(UTC),
                seconds=2.0,
            )
        )

    items = [item for item in store.items(sample_id) if (item.product_id, item.attribute) in world.truth]
    for reviewer in ("reviewer 1", "reviewer 2"):
        for item in items:
            right = item.value in world.truth[item.product_id, item.attribute]
            say(item, reviewer, right != (random.random() < NOISE))
    disputed = [one.item for one in store.outcomes(sample_id) if one.state is ItemState.DISPUTED]
    for item in disputed:
        say(item, "adjudicator", item.value in world.truth[item.product_id, item.attribute], adjudicates=True)
    return {"judged": len(items), "disputed": len(disputed)}


def audited(world: World, random: np.random.Generator, *options: str) -> dict[str, Any]:
    """Draw, judge and take in one sample; true, audited and certified precision."""
    true = world.true_precision()
    sample = world.job("audit_sample", *options)
    judging = judged(world, sample["sample_id"], random)
    report = world.job("audit_ingest", codes=(0, 3))
    return judging | {
        "true": true,
        "audited": {
            one["attribute"]: [one[k] for k in ("precision", "lower", "upper", "rows")]
            for one in report["certificates"].values()
        },
        "alarms": {name: [one["wealth"], one["wrong"], one["verdicts"]] for name, one in report["attributes"].items()},
        "paused": report["paused"],
        "confirmed": len(report["confirmed"]),
        "exit_code": report["exit_code"],
    }


def over_confident(world: World) -> str:
    """Register the champion with temperatures times OVER_CONFIDENT and its certificates bound to that; make it the
    champion past the gate. Returns its version."""
    from catalog_enrichment.models import artifact

    registry = Registry(world.config)
    model = registry.resolve()
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "artifact"
        shutil.copytree(model.artifact, target)
        content = json.loads((target / artifact.MODEL).read_text())
        content["calibration"] = {name: value * OVER_CONFIDENT for name, value in content["calibration"].items()}
        artifact.write_model_file(target, content)
        weights = artifact.weights_hash(target)
        certificates = [replace(one, weights_hash=weights) for one in model.certificates]
        artifact.write_certificates(target, [one.to_dict() for one in certificates])
        trained = TrainedModel(
            artifact=target, certificates=certificates, metrics={}, params={}, tables={}, curves={}, history=[],
            warnings=[], held_out=[], lineage={"labelled": 0}, seconds={},
        )  # fmt: skip
        version = registry.register(trained).version
    registry.promote(version, expected_current=model.version, details={"reason": "over-confident on purpose"})
    return version


def loop(world: World) -> dict[str, Any]:
    random = np.random.default_rng(23)
    for stage in STAGES:
        world.job(stage)
    sizes = ("--uniform", "400", "--near", "100")
    honest = audited(world, random, *sizes)
    version = over_confident(world)
    drifted = world.job("enrich_catalog", "--dry-run", "--no-report", codes=(0, 3))["drifted"]
    world.overrides.append("drift.enabled=false")
    world.job("enrich_catalog", "--no-report")
    bad = audited(world, random, *sizes)
    again = None
    if bad["paused"]:
        sample = world.job("audit_sample", "--uniform", "600", "--near", "0", "--seed", "1")
        judged(world, sample["sample_id"], random)
        world.job("audit_ingest", codes=(0, 3))
        again = world.job("recertify_model", codes=(0, 3))
        world.job("enrich_catalog", "--no-report")
    return {
        "honest": honest,
        "over_confident": {"version": version, "drifted": drifted, **bad},
        "recertified": again and {name: again.get(name) for name in ("attributes", "certificates", "message")},
        "true_after": world.true_precision(),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=2000, help="simulated audits per precision")
    parser.add_argument("--loop", action="store_true", help="also the closed loop on a catalog")
    parser.add_argument("--data", type=Path, help="real listings, as of make fashion; else a generated marketplace")
    parser.add_argument("--folder", type=Path, default=Path("var/audit"), help="of the loop's output; emptied")
    parser.add_argument("--products", type=int, default=4000, help="of the generated marketplace")
    args = parser.parse_args()
    rows = simulated(args.runs)
    print("precision  alarms within 3,000  median draws  alarms if oversampled  median draws until confirmed")
    for row in rows:
        print(
            f"{row['precision']:9.2f} {row['alarms']:20.1%} {row['median_draws'] or '-':>13} "
            f"{row['alarms_if_oversampled']:22.1%} {row['median_draws_until_confirmed'] or '-':>29}"
        )
    result: dict[str, Any] = {"simulated": rows}
    if args.loop:
        folder = args.folder.resolve()
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        world = listings(folder, args.data) if args.data else generated(folder, args.products)
        result |= loop(world)
        print(
            json.dumps(
                {name: result[name] for name in ("honest", "over_confident", "recertified", "true_after")}, indent=1
            )
        )
    print(json.dumps(result))
    seen = not args.loop or result["over_confident"]["drifted"] or result["over_confident"]["paused"]
    return 0 if seen else 3


if __name__ == "__main__":
    sys.exit(main())
