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

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
from benchmark import arguments, markdown, print_json

from catalog_enrichment.precision.audit_statistics import ALARM, AuditedRows, estimate, wealth

RATE, AUDITS = 0.05, 3000


def simulated(runs: int) -> list[dict[str, Any]]:
    """Return for each true precision the share of audits with an alarm within AUDITS uniform draws, the median draws
    until it, the share with rows near the threshold taken for uniform draws, and draws until a confirmation."""
    random = np.random.default_rng(17)
    rows = []
    for precision in (0.99, 0.98, 0.97, 0.96, 0.95, 0.93, 0.90, 0.85):
        alarms = [first_alarm(random.random(AUDITS) >= precision, RATE) for _ in range(runs)]
        # 40% of the rows from near the threshold, where errors are four times as frequent
        near = np.where(random.random((runs, AUDITS)) < 0.4, 4.0, 1.0) * (1 - precision) / 1.6
        oversampled = [first_alarm(random.random(AUDITS) < row, RATE) for row in near[: runs // 4]]
        confirmed = [_until_confirmed(random, precision) for _ in range(40)] if precision > 1 - RATE else [np.inf]
        rows.append(
            {
                "precision": precision,
                "alarms": float(np.isfinite(alarms).mean()),
                "median_draws": _finite(np.median(alarms)),
                "alarms_if_oversampled": float(np.isfinite(oversampled).mean()),
                "median_draws_until_confirmed": _finite(np.median(confirmed)),
            }
        )
    return rows


def first_alarm(wrong: np.ndarray, rate: float) -> float:
    """Return after how many verdicts the wealth reached ALARM for the first time; inf if it never did."""
    reached = np.flatnonzero(wealth(wrong, rate) >= ALARM)
    return float(reached[0]) + 1 if len(reached) else np.inf


def _until_confirmed(random: np.random.Generator, precision: float) -> float:
    """Return the draws until the lower bound, looked at after every 20 verdicts, reaches the target; else inf."""
    wrong = random.random(AUDITS) >= precision
    for n in range(20, AUDITS + 1, 20):
        rows = AuditedRows(wrong[:n], np.zeros(n, dtype=bool), np.ones(n), np.ones(n))
        if estimate(rows, 0.05).lower >= 1 - RATE:
            return n
    return np.inf


def _finite(number: Any) -> float | None:
    return float(number) if np.isfinite(number) else None


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--runs", type=int, default=2000, help="simulated audits per precision; 0: none")
    parser.add_argument("--loop", action="store_true", help="also the closed loop on a catalog")
    parser.add_argument("--data", type=Path, help="real listings, as of make fashion; else a generated marketplace")
    parser.add_argument("--folder", type=Path, default=Path("var/audit"), help="of the loop's output; emptied")
    parser.add_argument("--products", type=int, help="default: 4,000 generated or 6,000 real products")
    parser.add_argument("--uniform", type=int, default=200, help="values per attribute that a sample draws uniformly")
    parser.add_argument("--near", type=int, default=60, help="further values near the threshold")
    args = parser.parse_args()
    result: dict[str, Any] = {"simulated": simulated(args.runs) if args.runs else []}
    rows = {str(row["precision"]): list(row.values())[1:] for row in result["simulated"]}
    columns = [f"alarms within {AUDITS:,}", "median draws", "alarms if oversampled", "median draws until confirmed"]
    print("\n".join(markdown(columns, rows, "precision")))
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
    print_json(result | {"problems": problems})
    return 3 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
