"""Does the promise hold? Simulations of certification by the project's own functions, where the truth is known.

    make promise                                                   (about 6 minutes on 2 cores)
    python tests/benchmarks/promise.py --draws 20                  (a try: a few draws of each scenario)

The last scenarios have products without a value (promise_none.py) and what people's verdicts cost
(promise_verdicts.py).

In each draw, products are drawn from a simulated marketplace (promise_worlds.py), folds have the shares of
[training.folds], and the pool, the thresholds and the certificate are the product's. A violation is a certificate whose
accepted products are right in less than 95% of the whole population. Recall is relative to an oracle: the right
products that the best threshold would accept if the truth were known; an abstention has recall 0. "plain" is the
threshold of R@P95 on the certification products. The last line is one JSON object.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from multiprocessing import get_context
from typing import Any

import numpy as np
import promise_none
from benchmark import arguments, markdown, print_json
from promise_none import WORLDS as NONE_WORLDS
from promise_none import NoneWorld, none_draw
from promise_verdicts import verdicts_promise
from promise_versions import visible_precision
from promise_worlds import (
    BINDING,
    CATEGORIES,
    FOLDS,
    LABELS,
    RULE,
    TARGET,
    Population,
    Sample,
    World,
    another_model,
    category_names,
    certification_scores,
    choosing_scores,
    draw,
    language_names,
    unlabelled_products,
)

from catalog_enrichment.config.schema import TrainingConfig
from catalog_enrichment.precision.certificate import Certificate
from catalog_enrichment.precision.certify import certify_attribute
from catalog_enrichment.precision.classification_metrics import operating_point
from catalog_enrichment.precision.pool import select_pool
from catalog_enrichment.precision.units import UnlabelledProducts
from catalog_enrichment.records import LabelUse, Modality
from catalog_enrichment.training.folds import GroupedProducts, redraw_certification, split_folds

USES_PER_ROUND = TrainingConfig(recipe="").label_uses_per_round
OPEN = 10_000
"""Products to fill in each draw, which give the grid and the weights."""

SMALL = ((1, 1, 0.7), (2, 5, 0.27), (6, 12, 0.03))
MIXED = ((1, 1, 0.6), (2, 5, 0.3), (6, 20, 0.1))
GIANTS = ((1, 1, 0.7), (2, 5, 0.28), (30, 60, 0.02))
SHIFT = World(category_effects=(0.5, 0.0, -0.5, -1.5))
CLUSTERS = {
    "correlated": World(sizes=MIXED, correlation=0.5),
    "large_worse": World(sizes=MIXED, correlation=0.3, size_effect=-1.0),
    "large_much_worse": World(sizes=MIXED, correlation=0.3, size_effect=-2.0),
    "copies_large_worse": World(sizes=SMALL, correlation=1.0, copies=True, size_effect=-1.0),
    "copies_many_large_worse": World(sizes=MIXED, correlation=1.0, copies=True, size_effect=-1.0),
    "giants_worse": World(sizes=GIANTS, correlation=0.5, size_effect=-1.0),
    "large_better": World(sizes=MIXED, correlation=0.5, size_effect=1.0),
}
FEW = {
    "40 of 3,000 certification products in a weak language, 80% of those to fill": World(
        category_effects=(1.0, -2.0), by_language=True, labelled_shares=(2960, 40), open_shares=(0.2, 0.8)
    ),
    "300 of 3,000 certification products in a weak language, 80% of those to fill": World(
        category_effects=(1.0, -2.0), by_language=True, labelled_shares=(2700, 300), open_shares=(0.2, 0.8)
    ),
    "25 of 3,000 certification products in a weak category, 60% of those to fill": World(
        category_effects=(0.5, -1.0), labelled_shares=(2975, 25), open_shares=(0.4, 0.6)
    ),
    "60 of 3,000 certification products in a weak category that has nothing to fill until later": World(
        category_effects=(0.0, -4.0), labelled_shares=(2940, 60), open_shares=(1, 0), later_shares=(0.5, 0.5)
    ),
}
"""Languages and categories with few labelled products."""
WRONG_LABELS = {
    f"{share:.0%} of {labelled:,}": (World(wrong_labels=share), labelled)
    for share, labelled in ((0.01, 5000), (0.01, 10_000), (0.02, 10_000), (0.05, 10_000), (0.02, 20_000))
}
"""Merchants' labels that are wrong, and how many products are labelled. The oracle knows the truth."""
OTHERS = {
    "weaker scores": World(mean=2.4, spread=2.3),
    "several values, 3 written at most": World(ranks=3),
    "ties: scores of one decimal": World(decimals=1),
    "every value right in 94%": World(certain=0.94),
}


@dataclass(frozen=True)
class Outcome:
    """The outcome of a draw and a method."""

    certified: bool
    violated: bool
    recall: float
    """Relative to the oracle."""


def population(world: World) -> Population:
    """The products to fill: wrong labels of others change nothing about them."""
    return _population(replace(world, wrong_labels=0.0))


@cache
def _population(world: World) -> Population:
    return Population.of(world)


# --- a draw -------------------------------------------------------------------------------------------------------


def certify(
    world: World, choosing: Sample, certification: Sample, filled: UnlabelledProducts, use: int = 1
) -> Certificate:
    pool = select_pool(choosing_scores(world, choosing), RULE)
    binding = replace(BINDING, use=LabelUse(number=use, certification_round=0))
    return certify_attribute(pool, certification_scores(world, certification), filled, RULE, binding)


def judge(world: World, certificate: Certificate) -> Outcome:
    """Return what is true of a certificate."""
    if certificate.threshold is None:
        return Outcome(False, False, 0.0)
    categories = np.arange(len(CATEGORIES))
    written = [
        certificate.rejection_reason(
            scored_by=BINDING.scored_by,
            standard=certificate.standard,
            modality=Modality.BOTH,
            now=certificate.issued_at,
            category=category,
            language=language,
        )
        is None
        for category, language in zip(category_names(world, categories), language_names(world, categories), strict=True)
    ]
    return _judge(world, certificate.threshold, certificate.values, written)


def _judge(world: World, threshold: float, values: Sequence[str], written: Sequence[bool]) -> Outcome:
    """``written``: whether the products of each category may be written to."""
    truth = population(world)
    precision, right = truth.judge(threshold, np.isin(LABELS, list(values)), np.array(written))
    return Outcome(True, precision < TARGET, right / truth.oracle_right if truth.oracle_right else 0.0)


def one_draw(world: World, labelled: int, seed: int, *, unweighted: bool = False) -> tuple[Outcome, Outcome]:
    """Return the outcome of the certificate, and that of the plain threshold or, with ``unweighted``, of a certificate
    that takes the products to fill to be like the labelled products."""
    rng = np.random.default_rng(seed)
    choosing, certification = folds(world, rng, labelled)
    filled = draw(world, rng, OPEN, unlabelled=True)
    weighted = judge(world, certify(world, choosing, certification, unlabelled_products(world, filled)))
    if not unweighted:
        return weighted, plain(world, certification)
    as_labelled = unlabelled_products(world, filled, like=certification)
    return weighted, judge(world, certify(world, choosing, certification, as_labelled))


unweighted_draw = partial(one_draw, unweighted=True)


def folds(world: World, rng: np.random.Generator, labelled: int) -> tuple[Sample, Sample]:
    """Draw the choosing and the certification fold of ``labelled`` products."""
    choosing = draw(world, rng, round(FOLDS.choosing * labelled))
    return choosing, draw(world, rng, round(FOLDS.certification * labelled))


def plain(world: World, labelled: Sample) -> Outcome:
    """The lowest threshold at which at least 95% of the labelled products' values are their labels."""
    scores, right = labelled.scores[:, 0], labelled.right[:, 0] & labelled.label_right
    threshold = operating_point(scores, right, len(scores), TARGET).threshold
    return (
        Outcome(False, False, 0.0) if threshold is None else _judge(world, threshold, LABELS, [True] * len(CATEGORIES))
    )


def uses_draw(world: World, labelled: int, seed: int, candidates: int = 10) -> list[Outcome]:
    """Return the outcomes of ``candidates`` models, certified in sequence on the same labels."""
    rng = np.random.default_rng(seed)
    samples = folds(world, rng, labelled)
    common = [rng.standard_normal(sample.scores.shape) for sample in samples]
    filled = unlabelled_products(world, draw(world, rng, OPEN, unlabelled=True))
    outcomes = []
    for use in range(1, candidates + 1):
        own = [another_model(world, s, rng, c) for s, c in zip(samples, common, strict=True)]
        outcomes.append(judge(world, certify(world, *own, filled, use)))
    return outcomes


def rounds_draw(world: World, labelled: int, seed: int) -> list[Outcome]:
    """Return the outcomes of ten candidates, five in each of two certification rounds.

    The product's functions draw the folds of both rounds from the same labelled products. The sixth candidate is the
    best of the first round, certified again: it was chosen by the old labels, of which the new fold has none.
    """
    rng = np.random.default_rng(seed)
    sample = draw(world, rng, labelled)
    index = np.arange(len(sample))
    products = GroupedProducts([f"p{number}" for number in index.tolist()], sample.groups)
    config = replace(FOLDS, seed=seed % 2**31)
    earlier = split_folds(index, products, config)
    later = redraw_certification(earlier, products, config, 1, np.isin(index, earlier.certification))
    common, filled = (
        rng.standard_normal(sample.scores.shape),
        unlabelled_products(world, draw(world, rng, OPEN, unlabelled=True)),
    )
    models = [another_model(world, sample, rng, common) for _ in range(USES_PER_ROUND)]
    outcomes: list[Outcome] = []
    for certification_round, drawn in enumerate((earlier, later)):
        if certification_round:
            best = outcomes.index(best_of(outcomes))
            models = [models[best]] + [another_model(world, sample, rng, common) for _ in models[1:]]
        for use, model in enumerate(models, start=1):
            parts = (model.at(drawn.choosing), model.at(drawn.certification))
            outcomes.append(judge(world, certify(world, *parts, filled, use)))
    return outcomes


def best_of(outcomes: Sequence[Outcome]) -> Outcome:
    """Return the candidate with the greatest recall, which would be promoted."""
    return max(outcomes, key=lambda outcome: outcome.recall)


def versions_draw(world: World, labelled: int, seed: int) -> tuple[float, float]:
    """See :func:`visible_precision`; the products and labels of all versions are the same."""
    rng = np.random.default_rng(seed)
    samples = (*folds(world, rng, labelled), draw(world, rng, OPEN, unlabelled=True))
    common = [rng.standard_normal(sample.scores.shape) for sample in samples]
    versions = []
    for use in range(1, 5):
        own = [another_model(world, s, rng, c) for s, c in zip(samples, common, strict=True)]
        versions.append((certify(world, own[0], own[1], unlabelled_products(world, own[2]), use), own[2]))
    return visible_precision(versions)


# --- all draws ----------------------------------------------------------------------------------------------------

Task = tuple[str, Callable[..., Any], World | NoneWorld, int, int]
"""Name, function, world, labelled products, number of draws."""


def tasks(draws: int | None) -> list[Task]:
    def number(usual: int) -> int:
        return usual if draws is None else draws

    base, tilted = World(), [(tilt, replace(SHIFT, tilt=float(tilt))) for tilt in (2, 4)]
    return [
        *((f"n/{n}", one_draw, base, n, number(2000)) for n in (2000, 5000, 10_000)),
        *((f"labels/{name}", one_draw, *where, number(400)) for name, where in WRONG_LABELS.items()),
        *((f"clusters/{name}", one_draw, world, 10_000, number(1000)) for name, world in CLUSTERS.items()),
        *((f"shift/{tilt}x", unweighted_draw, world, 10_000, number(1000)) for tilt, world in tilted),
        *((f"few/{name}", one_draw, world, 10_000, number(1000)) for name, world in FEW.items()),
        ("uses", uses_draw, base, 10_000, number(1000)),
        ("rounds", rounds_draw, base, 10_000, number(1000)),
        ("versions", versions_draw, base, 10_000, number(20)),
        *((f"others/{name}", one_draw, world, 5000, number(1000)) for name, world in OTHERS.items()),
        *((f"none/{name}", none_draw, *where, number(200)) for name, where in NONE_WORLDS.items()),
    ]


def run(all_tasks: Sequence[Task], processes: int) -> dict[str, list[Any]]:
    """The results of every task, by name; progress is printed."""
    for _, _, world, *_ in all_tasks:
        # before the processes start, which share it
        promise_none.population(world) if isinstance(world, NoneWorld) else population(world)
    results: dict[str, list[Any]] = {}
    with get_context("fork").Pool(processes) as pool:
        for name, function, world, labelled, draws in all_tasks:
            started = time.perf_counter()
            seeds = [(function, world, labelled, 1000 * len(results) + 1_000_000 * seed) for seed in range(draws)]
            results[name] = list(_with_progress(pool.imap(_call, seeds, chunksize=5), name, draws, started))
    return results


def _call(arguments: tuple[Callable[..., Any], World, int, int]) -> Any:
    function, *rest = arguments
    return function(*rest)


def _with_progress(results: Iterator[Any], name: str, draws: int, started: float) -> Iterator[Any]:
    for number, result in enumerate(results, start=1):
        if number % 250 == 0 or number == draws:
            print(f"{name}: {number} of {draws} draws, {time.perf_counter() - started:.0f} s", flush=True)
        yield result


# --- the table and the last line ----------------------------------------------------------------------------------


def rates(outcomes: Sequence[Outcome]) -> dict[str, float]:
    return {
        "violations": round(float(np.mean([outcome.violated for outcome in outcomes])), 4),
        "recall_vs_oracle": round(float(np.mean([outcome.recall for outcome in outcomes])), 4),
        "abstain": round(float(np.mean([not outcome.certified for outcome in outcomes])), 4),
        "draws": len(outcomes),
    }


def summary(results: dict[str, list[Any]]) -> tuple[dict[str, Any], dict[str, dict[str, float]]]:
    """Return the JSON object, and rows of the table that it does not have."""
    kinds = ("n", "labels", "clusters", "shift", "uses", "versions", "none")
    found: dict[str, Any] = {kind: {} for kind in kinds}
    others: dict[str, dict[str, float]] = {}
    for name, outcomes in results.items():
        kind, _, scenario = name.partition("/")
        if kind in SECOND_METHOD:
            first, second = (rates(method) for method in zip(*outcomes, strict=True))
            if kind == "n":
                found["n"][scenario] = {"certified": first, "plain": second}
            elif kind in found:
                found[kind][scenario] = first
            else:
                others[scenario] = first
            if what := SECOND_METHOD[kind]:
                others[f"{name if kind in found else scenario}, {what}"] = second
        elif kind == "none":
            found["none"][scenario] = promise_none.rates(outcomes)
        elif kind == "uses":
            for k in (3, 10):
                found["uses"][str(k)] = rates([best_of(row[:k]) for row in outcomes])
            others |= {f"use {k} of the labels": rates([row[k - 1] for row in outcomes]) for k in range(1, 11)}
        elif kind == "rounds":
            others["certification rounds: best of 10 candidates in two"] = rates([best_of(row) for row in outcomes])
            for k in range(1, USES_PER_ROUND + 1):
                second = rates([row[USES_PER_ROUND + k - 1] for row in outcomes])
                others[f"use {k} of the labels of a second round"] = second
        else:
            visible, active = (
                {"visible_precision": round(float(np.mean(column)), 4), "draws": len(outcomes)}
                for column in zip(*outcomes, strict=True)
            )
            found["versions"]["4"], others["versions/4, old values stand"] = visible, active
    return found, others


SECOND_METHOD = {
    "n": "", "labels": "", "clusters": "plain threshold", "shift": "without weights", "few": "plain threshold",
    "others": "plain threshold",
}  # fmt: skip
"""Kind of scenario -> the name of its second outcome in the table; empty: without a row of its own."""


def table(found: dict[str, Any], others: dict[str, dict[str, float]]) -> Iterator[str]:
    rows = {f"n = {n}, {method}": row for n, methods in found["n"].items() for method, row in methods.items()}
    for kind in ("labels", "clusters", "shift", "uses", "versions"):
        rows |= {f"{kind}/{name}": row for name, row in found[kind].items()}
    columns = ("violations", "recall_vs_oracle", "abstain", "visible_precision", "draws")
    for names, part in ((columns, rows | others), (promise_none.COLUMNS, found["none"])):
        cells = {name: [row.get(column) for column in names] for name, row in part.items()}
        yield from markdown([name.replace("_", " ") for name in names], cells, "scenario")
        yield ""


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--draws", type=int, help="draws of every scenario, instead of the usual number")
    parser.add_argument("--processes", type=int, default=min(2, os.cpu_count() or 1))
    args = parser.parse_args()
    started = time.perf_counter()
    found, others = summary(run(tasks(args.draws), args.processes))
    print(f"oracle recall {population(World()).oracle_recall:.3f}; {time.perf_counter() - started:.0f} s")
    print("\n".join(table(found, others)))
    found["verdicts"] = verdicts_promise(2000 if args.draws is None else args.draws)
    print(json.dumps(found["verdicts"], indent=1))
    print_json(found)


if __name__ == "__main__":
    main()
