"""The audit against the truth: alarms against draws by simulation, and the closed loop on whole catalogs.

    python tests/benchmarks/audit.py [--runs 2000]                                       # simulation alone, a minute
    python tests/benchmarks/audit.py --loop [--folder DIR] [--products N] [--uniform N]  # generated marketplace
    python tests/benchmarks/audit.py --loop --data FILE.parquet                          # real listings

The simulation draws up to AUDITS verdicts per audit and true precision, and counts alarms. "If oversampled" takes rows
for uniform draws of which 40% come from near the threshold, where errors are four times as frequent: the alarm must not
use such rows. A certificate counts as confirmed when the lower bound reaches the target, looked at after every 20
verdicts.

The loop (:mod:`audit_loop`): import, train, promote and enrich by an honest version; two reviewers who are wrong in 2%
of their verdicts, and an adjudicator, judge a sample on the page; certified, audited and true precision are printed.
Then a version whose scores were made over-confident on purpose (the calibration's temperatures are multiplied by 0.1,
the certificates are bound to it) becomes the champion: the gate, the drift check or, without the drift check, the audit
must see it. The attribute is certified again from a second sample. Prints tables and, last, one JSON line; exit code 3
if the loop did not close, with what was wrong.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from catalog_enrichment.precision.audit_statistics import ALARM, AuditedRows, estimate, wealth

RATE, AUDITS = 0.05, 3000


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


def first_alarm(wrong: np.ndarray, rate: float) -> int | None:
    """Return after how many verdicts the wealth reached ALARM for the first time; None if it never did."""
    reached = np.flatnonzero(wealth(wrong, rate) >= ALARM)
    return int(reached[0]) + 1 if len(reached) else None


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


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=2000, help="simulated audits per precision; 0: none")
    parser.add_argument("--loop", action="store_true", help="also the closed loop on a catalog")
    parser.add_argument("--data", type=Path, help="real listings, as of make fashion; else a generated marketplace")
    parser.add_argument("--folder", type=Path, default=Path("var/audit"), help="of the loop's output; emptied")
    parser.add_argument("--products", type=int, help="default: 4,000 generated or 6,000 real ones")
    parser.add_argument("--uniform", type=int, default=200, help="values per attribute that a sample draws uniformly")
    parser.add_argument("--near", type=int, default=60, help="further ones near the threshold")
    args = parser.parse_args()
    result: dict[str, Any] = {"simulated": simulated(args.runs) if args.runs else []}
    print_simulated(result["simulated"])
    problems: list[str] = []
    if args.loop:
        import audit_loop

        folder = args.folder.resolve()
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        if args.data:
            world = audit_loop.listings(folder, args.data.resolve(), args.products or 6000)
        else:
            world = audit_loop.generated(folder, args.products or 4000)
        result |= audit_loop.loop(world, args.uniform, args.near)
        problems = audit_loop.problems(result)
        print(audit_loop.report(result))
        print("\n".join(problems) or "the loop closed")
    print(json.dumps(result | {"problems": problems}))
    return 3 if problems else 0


def print_simulated(rows: Sequence[dict[str, Any]]) -> None:
    if rows:
        print("precision  alarms within 3,000  median draws  alarms if oversampled  median draws until confirmed")
    for row in rows:
        print(
            f"{row['precision']:9.2f} {row['alarms']:20.1%} {row['median_draws'] or '-':>13} "
            f"{row['alarms_if_oversampled']:22.1%} {row['median_draws_until_confirmed'] or '-':>29}"
        )


if __name__ == "__main__":
    sys.exit(main())
