"""Numbers and texts of real listings: training on the labelled, then what is written to the others.

    python tests/benchmarks/open_values.py --data FOLDER [--only myntra ikea wdc_pave] [--threads N]

FOLDER has `myntra.parquet` (brands), `ikea.parquet` (widths, heights, depths) and `wdc_pave.parquet` (about 35
attributes of offers, marked by people; arXiv 2403.02130). Of the first two, the merchants' values of the labelled
products train and certify, as train_model does; what the version would write to the others is compared with the truth.
Of wdc_pave, the extractor alone learns from the train split and is scored on the test split as in the paper: the exact
text counts, an attribute of the offer's category without a value counts, too. The score from which a value is proposed
is chosen on a tenth of the train split.

Where merchants' labels cannot certify, because labelled and unlabelled listings differ, `--gold N` draws a gold sample
of N listings without a value, and people answer for it by the truth; these listings are left out of what is judged.
`--verdicts N` draws proposals of each attribute instead, half of N at scores from .5 on and then what certify_model
advises, and people judge them by the truth; written and right are then counted over the listings nobody judged.

Beside it on the same products: regular expressions with units (the first number of a fitting unit behind or before the
attribute's name, else the first), and a gazetteer (the longest value of the labelled products that stands in the text).
GLiNER2 is not compared: its packages bring no weights.

`--only speed` compares how fast 10,000 listings of myntra are scored: three open attributes, and two closed lists by
the recipe `default` without pictures, as init_project writes it, in turn on one thread.

Do not tune anything by what this prints. Prints tables and, last, one JSON line.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from benchmark import arguments, markdown, print_json
from scipy import stats

from catalog_enrichment import contract
from catalog_enrichment.catalog import human_labels
from catalog_enrichment.config.catalog import CatalogConfig
from catalog_enrichment.config.schema import Config, MlflowConfig, TrainingConfig
from catalog_enrichment.dictionary import Attribute, Dictionary
from catalog_enrichment.precision import verdict_test
from catalog_enrichment.precision.certificate import Certificate
from catalog_enrichment.precision.verdict_test import DrawnProducts
from catalog_enrichment.records import Cardinality, LabelUse, Modality, stable_hash
from catalog_enrichment.values import numbers, same
from catalog_enrichment.values.kinds import Kind, NumberRule, OpenRule
from catalog_enrichment.values.spelling import text_key

ATTRIBUTES = {
    "myntra": [Attribute(name="brand", cardinality=Cardinality.ONE, kind=Kind.TEXT)],
    "ikea": [
        Attribute(
            name=name,
            cardinality=Cardinality.ONE,
            kind=Kind.NUMBER,
            number=NumberRule(unit="cm", low=1, high=700),
        )
        for name in ("width", "height", "depth")
    ],
}
NORMALISED = {
    "Width": "in", "Height": "in", "Length": "in", "Depth": "in", "Rotational Speed": "rpm", "Pack Quantity": "pcs",
}  # fmt: skip
"""Attribute of wdc_pave -> the unit of numbers without one. Its people normalised lengths to centimetres.
Capacities are of several dimensions."""
SPLIT_EXTRACT = {"max_length": 128, "epochs": 8}
"""wdc_pave has long descriptions and 1,066 offers to learn from."""

Proposal = tuple[str, float]
"""Value, score; the value "" for none."""


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--only", nargs="+", default=["myntra", "ikea", "wdc_pave"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--gold", type=int, default=0, help="unlabelled listings for which people answer, by the truth")
    parser.add_argument("--verdicts", type=int, default=0, help="proposals of an attribute that people judge")
    args = parser.parse_args()
    result: dict[str, Any] = {}
    for name in args.only:
        file = args.data / f"{name}.parquet"
        if name == "speed":
            result[name] = speed(args.data / "myntra.parquet", args)
        else:
            result[name] = pave(file, args) if name == "wdc_pave" else listings(name, file, args)
    print_json(result)
    return 0


# --- listings: what is written to the unlabelled ----------------------------------------------------------------------


def listings(name: str, file: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Train on the labelled products of ``file`` and score what is written to the others."""
    from catalog_enrichment.training.certification import EarlierCandidates
    from catalog_enrichment.training.train import train

    table = pq.read_table(file).to_pylist()
    words = Dictionary({attribute.name: attribute for attribute in ATTRIBUTES[name]})
    earlier = EarlierCandidates(use_labels=lambda _attribute, _ids, _candidate, current: LabelUse(1, current))
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        settings = _config(Path(folder), args.threads)
        asked = _gold_sample(table, words, args.gold)
        batches = list(_products(table, words, asked))
        model = train(batches, words, settings, Path(folder) / "work", earlier, lambda line: print(line, flush=True))
        seconds = time.perf_counter() - started
        open_rows = [row for row in table if not row["labelled"]]
        found, rate = _scored(model.artifact, open_rows)
    judged = [row for row in open_rows if row["product_id"] not in asked]
    of = {c.attribute: c for c in model.certificates if c.modality is Modality.TEXT_ONLY}
    labelled = [row for row in table if row["labelled"]]
    result: dict[str, Any] = {"fit_and_certify_seconds": round(seconds), "products_per_second": round(rate, 1)}
    for attribute in ATTRIBUTES[name]:
        rows = [row for row in judged if row[attribute.name]]
        truth = [attribute.canonical(row[attribute.name]) for row in rows]
        proposed = [found[row["product_id"]][attribute.name] for row in rows]
        known = {_key(value, attribute.rule()) for row in labelled if (value := _label(attribute, row))}
        result[attribute.name] = _judged(attribute, truth, proposed, known, of[attribute.name]) | {
            "unlabelled_without_value": len(judged) - len(rows),
            "written_to_those": _written_without_value(attribute, judged, found, of[attribute.name]),
            "basis": of[attribute.name].basis.value,
            "baselines": _baselines(attribute, labelled, rows, truth),
        }
        if args.verdicts:
            by_id = {row["product_id"]: row for row in judged}
            own = {name: attribute.canonical(row[attribute.name] or "") for name, row in by_id.items()}
            proposals = {name: found[name][attribute.name] for name in by_id if found[name][attribute.name][0]}
            result[attribute.name]["by_verdicts"] = _by_verdicts(attribute, own, proposals, args.verdicts)
    columns = ["products", "right", "share_at_95_by_the_truth", "written", "precision", "unseen", "unseen_right"]
    cells = {key: [value[column] for column in columns] for key, value in result.items() if isinstance(value, dict)}
    print("\n".join(markdown(columns, cells, name)))
    return result


def _key(stored: str, rule: OpenRule) -> str | float | None:
    """Return what stored values have in common that are the same value to the last digit."""
    return text_key(stored) if rule.kind is Kind.TEXT else same.number_of(stored, rule)


def _config(folder: Path, threads: int) -> Config:
    return Config(
        catalog=CatalogConfig(path="lake", dictionary="none.json"),
        mlflow=MlflowConfig(tracking_uri="sqlite:///none.db"),
        root=str(folder),
        training=TrainingConfig(recipe="recipes:default.toml", threads=threads, unimodal_baselines=False),
    )


def _gold_sample(table: Sequence[Mapping[str, Any]], words: Dictionary, number: int) -> dict[str, dict[str, Any]]:
    """Return product id -> people's answers about the attributes that its merchant does not give, for ``number``
    listings without one."""
    open_of = {
        row["product_id"]: [name for name in words.attributes if not row["labelled"] or not row[name]] for row in table
    }
    lacking = sorted((name for name in open_of if open_of[name]), key=lambda name: stable_hash("gold", name))
    truth = {row["product_id"]: row for row in table}
    return {
        product: {
            name: {"answer": "other" if value else "none", "values": [value] if value else []}
            for name in open_of[product]
            for value in (_label(words[name], truth[product]),)
        }
        for product in lacking[:number]
    }


def _written_without_value(
    attribute: Attribute,
    rows: Sequence[Mapping[str, Any]],
    found: Mapping[str, Mapping[str, Proposal]],
    certificate: Certificate,
) -> int:
    """Return how many listings without a value get one, which is always wrong."""
    scores = [found[row["product_id"]][attribute.name][1] for row in rows if not row[attribute.name]]
    threshold = np.inf if certificate.threshold is None else certificate.threshold
    return int((np.array(scores, dtype=np.float32) >= threshold).sum())


def _products(
    table: Sequence[Mapping[str, Any]], words: Dictionary, answers: Mapping[str, Any]
) -> Iterator[pa.RecordBatch]:
    """Yield rows of the contract `products`, with values as an import stores them, and people's ``answers``."""
    rows = []
    for row in table:
        values = {name: _label(words[name], row) or row[name] for name in words.attributes} if row["labelled"] else {}
        rows.append(
            {
                "product_id": row["product_id"],
                "shop_id": "shop",
                "title": row["title"],
                "description": row.get("description"),
                "category": row.get("category"),
                "language": "en",
                "images": [],
                "merchant_attributes": [(name, [value]) for name, value in values.items() if value],
                "opt_out": False,
                "updated_at": datetime(2026, 1, 1, tzinfo=UTC),
                "content_hash": stable_hash(row["title"], row.get("description")),
            }
        )
    products = pa.Table.from_pylist(rows, schema=contract.arrow_schema("products"))
    said = [json.dumps(answers[row["product_id"]]) if row["product_id"] in answers else None for row in rows]
    gold = pa.array(said, pa.string())
    yield from products.append_column(human_labels.GOLD_COLUMN, gold).to_batches(max_chunksize=1000)


def _label(attribute: Attribute, row: Mapping[str, Any]) -> str | None:
    return attribute.canonical(row[attribute.name]) if row[attribute.name] else None


def _scored(
    artifact: Path, rows: Sequence[Mapping[str, Any]], number_type: str = "fp32"
) -> tuple[dict[str, dict[str, Proposal]], float]:
    """Return product id -> attribute -> what the version proposes, and products per second on one thread."""
    import torch

    from catalog_enrichment.config.images import ImagesConfig
    from catalog_enrichment.inference.engine import UndecodedBatch, score_batches
    from catalog_enrichment.models.predictor import load_predictor

    torch.set_num_threads(1)
    predictor = load_predictor(artifact, numbers=number_type)
    batch = UndecodedBatch([row["title"] for row in rows], [row.get("description") for row in rows], [[] for _ in rows])
    started = time.perf_counter()
    (scored,) = list(score_batches(predictor, [batch], ImagesConfig()))
    rate = len(rows) / (time.perf_counter() - started)
    found = {
        row["product_id"]: {each.attribute: (each.value, each.score) for each in result.candidates}
        for row, result in zip(rows, scored, strict=True)
    }
    return found, rate


def _judged(
    attribute: Attribute,
    truth: Sequence[str | None],
    proposed: Sequence[Proposal],
    known: set[str | float | None],
    certificate: Certificate,
) -> dict[str, Any]:
    """Return how many proposals are right, and what the certificate writes."""
    right = np.array(
        [bool(own and value) and attribute.is_same(value, own) for own, (value, _) in zip(truth, proposed, strict=True)]
    )
    scores = np.array([score for _, score in proposed])
    rule = attribute.rule()
    unseen = np.array([own is not None and _key(own, rule) not in known for own in truth])
    written = np.zeros(len(scores), dtype=bool)
    if certificate.threshold is not None:
        written = scores.astype(np.float32) >= certificate.threshold
    number, correct = int(written.sum()), int((written & right).sum())
    order = np.argsort(-scores)
    precision = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    enough = np.flatnonzero(precision >= 0.95)
    interval = stats.binomtest(correct, number).proportion_ci(method="exact") if number else None
    return {
        "products": len(truth),
        "right": round(float(right.mean()), 4),
        "share_at_95_by_the_truth": round((enough.max() + 1) / len(order), 4) if len(enough) else 0.0,
        "written": round(number / len(truth), 4),
        "precision": round(correct / number, 4) if number else None,
        "interval": [round(interval.low, 4), round(interval.high, 4)] if interval else None,
        "unseen": int(unseen.sum()),
        "unseen_right": int((unseen & right).sum()),
        "unseen_written_right": int((unseen & right & written).sum()),
        "why_abstains": certificate.why_abstains,
    }


def _by_verdicts(
    attribute: Attribute, truth: Mapping[str, str | None], proposals: Mapping[str, Proposal], number: int
) -> dict[str, Any]:
    """Return what a threshold that people certify with at most ``number`` verdicts writes to the listings that they
    have not judged; ``truth`` has None where a listing has no value."""
    wrong = {
        name: not (truth[name] and attribute.is_same(value, truth[name] or ""))
        for name, (value, _) in proposals.items()
    }
    scores = {name: float(np.float32(score)) for name, (_, score) in proposals.items()}
    order = sorted(proposals, key=lambda name: stable_hash("verdicts", attribute.name, name))
    samples: list[tuple[float, list[str]]] = []
    drawn, test, lowest = _drawn(samples, scores, wrong), None, 0.5
    while (left := number - len(drawn)) > 0:
        ids = [name for name in order if scores[name] >= lowest and name not in drawn.product_ids]
        if not ids:
            break
        samples.append((lowest, ids[: min(left, number // 2)]))
        drawn = _drawn(samples, scores, wrong)
        test = verdict_test.run_tests(drawn, 0.95, 0.05, 1.05)
        assert test is not None
        undecided = test.undecided
        if undecided is None:
            break
        if verdict_test.verdicts_needed(undecided, 0.95, test.sequence.delta).likely is None:
            higher = verdict_test.promising_score(drawn, test, 0.95)
            if higher is None:
                break
            lowest = higher
    certified = None if test is None else test.certified
    rest = [name for name in truth if name not in drawn.product_ids]
    written = [name for name in rest if certified and scores.get(name, -1.0) >= certified.threshold]
    right = sum(not wrong[name] for name in written)
    of_value = sum(truth[name] is not None for name in rest)
    interval = stats.binomtest(right, len(written)).proportion_ci(method="exact") if written else None
    return {
        "verdicts": len(drawn),
        "wrong": int(np.isfinite(drawn.wrong_scores).sum()),
        "threshold": certified.threshold if certified else None,
        "unjudged": len(rest),
        "with_value": of_value,
        "written": round(len(written) / max(of_value, 1), 4),
        "precision": round(right / len(written), 4) if written else None,
        "interval": [round(interval.low, 4), round(interval.high, 4)] if interval else None,
    }


def _drawn(
    samples: Sequence[tuple[float, Sequence[str]]], scores: Mapping[str, float], wrong: Mapping[str, bool]
) -> DrawnProducts:
    """Return ``samples``, each with its lowest score and its products in the order of the draw, all of them judged."""
    ids = [name for _, drawn in samples for name in drawn]
    own = np.array([scores[name] for name in ids], dtype=np.float64)
    return DrawnProducts(
        scores=own,
        wrong_scores=np.where(np.array([wrong[name] for name in ids], dtype=bool), own, -np.inf),
        settled=np.ones(len(ids), dtype=bool),
        lowest=np.array([lowest for lowest, drawn in samples for _ in drawn], dtype=np.float64),
        samples=np.array([place for place, (_, drawn) in enumerate(samples) for _ in drawn], dtype=np.int64),
        product_ids=tuple(ids),
    )


def _baselines(
    attribute: Attribute, labelled: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]], truth: Sequence[Any]
) -> dict[str, Any]:
    """Return the shares of the products that a gazetteer, or regular expressions with units, answer, and are right."""
    propose = _regular_expression(attribute) if attribute.number else _gazetteer(labelled, attribute.name)
    answers = [propose(f"{row['title']} . {row.get('description') or ''}") for row in rows]
    given = sum(answer is not None for answer in answers)
    right = sum(
        bool(answer and own) and attribute.is_same(answer, own) for answer, own in zip(answers, truth, strict=True)
    )
    name = "regular_expressions" if attribute.number else "gazetteer"
    return {name: {"answered": round(given / len(rows), 4), "right_of_answered": round(right / max(given, 1), 4)}}


def _regular_expression(attribute: Attribute) -> Callable[[str], str | None]:
    def propose(text: str) -> str | None:
        values = [(literal, same.stored_number(literal, attribute.rule())) for literal in numbers.find(text)]
        fitting = [(literal, value) for literal, value in values if value]
        named = [
            value
            for literal, value in fitting
            if attribute.name in text[max(literal.start - 15, 0) : literal.end + 15].lower()
        ]
        return (named or [value for _, value in fitting] or [None])[0]

    return propose


def _gazetteer(labelled: Sequence[Mapping[str, Any]], name: str) -> Callable[[str], str | None]:
    known = {text_key(row[name]): row[name] for row in labelled if row[name]}

    def propose(text: str) -> str | None:
        words = text.split()
        runs = (" ".join(words[i : i + n]) for n in range(6, 0, -1) for i in range(len(words) - n + 1))
        return next((known[key] for run in runs if (key := text_key(run)) in known), None)

    return propose


# --- speed ------------------------------------------------------------------------------------------------------------


def speed(file: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Return products per second of an extractor of three attributes and of the recipe `default` without pictures."""
    from catalog_enrichment.models import compute_types
    from catalog_enrichment.training.certification import EarlierCandidates
    from catalog_enrichment.training.train import train

    table = pq.read_table(file).to_pylist()
    names = ("brand", "gender", "color")
    lists = {name: sorted({row[name] for row in table if row[name]}) for name in names[1:]}
    texts = [Attribute(name=name, cardinality=Cardinality.ONE, kind=Kind.TEXT) for name in names]
    closed = [Attribute(name=name, cardinality=Cardinality.ONE, values=tuple(of)) for name, of in lists.items()]
    numbers_type = compute_types.fastest("cpu")
    earlier = EarlierCandidates(use_labels=lambda _attribute, _ids, _candidate, current: LabelUse(1, current))
    found: dict[str, list[float]] = {"extractor": [], "default": []}
    with tempfile.TemporaryDirectory() as folder:
        artifacts = {}
        for name, attributes in (("extractor", texts), ("default", closed)):
            words = Dictionary({attribute.name: attribute for attribute in attributes})
            place = Path(folder) / name
            place.mkdir()
            few = [row for row in table if row["labelled"]][:800]
            settings = _config(place, args.threads)
            changed = {"model.fusion.kind": "text_only", "model.text.max_length": 64}
            training = replace(settings.training, set=changed) if settings.training else None
            config = replace(settings, training=training)
            model = train(_products(few, words, {}), words, config, place / "work", earlier, lambda _line: None)
            artifacts[name] = model.artifact
        for _ in range(3):
            for name, artifact in artifacts.items():
                _, rate = _scored(artifact, table, numbers_type)
                found[name].append(rate)
    best = {name: round(max(rates), 1) for name, rates in found.items()}
    ratio = round(best["extractor"] / best["default"], 3)
    return {"compute_type": numbers_type, "products_per_second": best, "extractor_relative_to_default": ratio}


# --- wdc_pave: extraction as its paper scores it ----------------------------------------------------------------------


@dataclass(slots=True)
class Counted:
    """Answers about one attribute (arXiv 2403.02130, section 4)."""

    right: int = 0
    wrong: int = 0
    """A value where another is right."""
    invented: int = 0
    """A value where there is none."""
    missed: int = 0
    """No value where there is one."""
    nothing: int = 0
    """No value where there is none."""

    def add(self, answer: str | None, truth: Sequence[str]) -> None:
        if answer is None:
            self.missed += bool(truth)
            self.nothing += not truth
        elif not truth:
            self.invented += 1
        elif answer in truth:
            self.right += 1
        else:
            self.wrong += 1

    @property
    def f1(self) -> float:
        """Micro F1: a correct "none" is a true negative, a wrong value a false positive."""
        precision = self.right / max(self.right + self.wrong + self.invented, 1)
        recall = self.right / max(self.right + self.wrong + self.missed, 1)
        return 200 * precision * recall / max(precision + recall, 1e-9)


def total(counts: Sequence[Counted]) -> Counted:
    names = ("right", "wrong", "invented", "missed", "nothing")
    return Counted(*(sum(getattr(each, name) for each in counts) for name in names))


def pave(file: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Fit the extractor to the train split, and score the test split."""
    import torch

    from catalog_enrichment.models.extraction.recipe import load_extraction_recipe
    from catalog_enrichment.training.extraction_fit import fit_extractor

    torch.set_num_threads(args.threads)
    table = pq.read_table(file).to_pylist()
    for row in table:
        row["values"], row["normalised"] = json.loads(row["values"]), json.loads(row["normalised"])
    names = sorted({name for row in table for name in row["values"]})
    recipe = load_extraction_recipe("recipes:extract.toml")
    recipe = replace(
        recipe,
        text=replace(recipe.text, max_length=SPLIT_EXTRACT["max_length"]),
        fit=replace(recipe.fit, epochs=SPLIT_EXTRACT["epochs"], batch_size=16, patience=0),
    )
    train = [number for number, row in enumerate(table) if row["split"] == "train"]
    chosen = [number for number in train if int(stable_hash(table[number]["product_id"])[:8], 16) % 10 == 0]
    started = time.perf_counter()
    extractor = fit_extractor(
        recipe,
        [row["title"] or "" for row in table],
        [row["description"] or "" for row in table],
        {name: [row["values"].get(name) for row in table] for name in names},
        {name: OpenRule(kind=Kind.TEXT) for name in names},
        train=np.array(sorted(set(train) - set(chosen))),
        validation=np.array(chosen),
        progress=lambda line: print(line, flush=True),
    )
    seconds = time.perf_counter() - started
    torch.set_num_threads(1)
    validation = [table[number] for number in chosen]
    test = [row for row in table if row["split"] == "test"]
    answers = {"validation": _extracted(extractor, validation, names), "test": _extracted(extractor, test, names)}
    thresholds = [round(0.02 * step, 2) for step in range(1, 45)]
    on_validation = [total(list(_counts(validation, answers["validation"], names, t).values())).f1 for t in thresholds]
    threshold = thresholds[int(np.argmax(on_validation))]
    counts = _counts(test, answers["test"], names, threshold)
    seen = {name: {value for number in train for value in table[number]["values"].get(name, ())} for name in names}
    known = [
        (answer in row["values"][name], answer in seen[name])
        for row, of in zip(test, answers["test"], strict=True)
        for name, (answer, score) in of.items()
        if score >= threshold and row["values"].get(name)
    ]
    result = {
        "fit_seconds": round(seconds),
        "threshold": threshold,
        "f1_validation": round(max(on_validation), 2),
        "f1": round(total(list(counts.values())).f1, 2),
        "gazetteer_f1": round(_gazetteer_f1(test, names, seen), 2),
        "right_values_that_no_training_offer_had": sum(right and not was for right, was in known),
        "by_attribute": {name: round(counts[name].f1, 1) for name in names},
        "normalised": _normalised(test, answers["test"], threshold),
    }
    print("\n".join(markdown(["F1"], {name: [round(counts[name].f1, 1)] for name in names}, "wdc_pave")))
    return result


def _extracted(extractor: Any, rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[dict[str, Proposal]]:
    """Return attribute -> the words found and their score, for the attributes of each offer's category."""
    found = []
    for start in range(0, len(rows), 32):
        part = rows[start : start + 32]
        proposed = extractor.propose([row["title"] for row in part], [row["description"] for row in part]).found
        for number, row in enumerate(part):
            best = {name: proposed[name][number] for name in names if name in row["values"]}
            found.append({name: (of[0].evidence, of[0].score) if of else ("", 0.0) for name, of in best.items()})
    return found


def _counts(
    rows: Sequence[Mapping[str, Any]], answers: Sequence[Mapping[str, Proposal]], names: Sequence[str], threshold: float
) -> dict[str, Counted]:
    counts = {name: Counted() for name in names}
    for row, of in zip(rows, answers, strict=True):
        for name, (answer, score) in of.items():
            counts[name].add(answer if score >= threshold else None, row["values"][name])
    return counts


def _gazetteer_f1(rows: Sequence[Mapping[str, Any]], names: Sequence[str], seen: Mapping[str, set[str]]) -> float:
    counts = {name: Counted() for name in names}
    for row in rows:
        text = f"{row['title']} {row['description'] or ''}"
        for name, truth in row["values"].items():
            found = [value for value in seen[name] if re.search(rf"(?<!\w){re.escape(value)}(?!\w)", text)]
            counts[name].add(max(found, key=len) if found else None, truth)
    return total(list(counts.values())).f1


def _normalised(
    rows: Sequence[Mapping[str, Any]], answers: Sequence[Mapping[str, Proposal]], threshold: float
) -> dict[str, Any]:
    """Return, per attribute with a unit, how many values whose text is right are converted to people's number."""
    found: dict[str, Any] = {}
    for name, unit in NORMALISED.items():
        rule = OpenRule(kind=Kind.NUMBER, number=NumberRule(unit=unit))
        counts, converted, right_texts = Counted(), 0, 0
        for row, of in zip(rows, answers, strict=True):
            if name not in of:
                continue
            answer, score = of[name]
            truth = [float(value) for value in row["normalised"][name] if re.fullmatch(r"[\d.]+", str(value))]
            literal = next(iter(numbers.find(answer)), None) if score >= threshold else None
            value = literal and same.stored_number(literal, rule, bare=True)
            number = same.number_of(value, rule) if value else None
            number = number and (number * 2.54 if unit == "in" else number)
            # people's numbers have one decimal
            close = number is not None and any(abs(number - own) <= max(0.01 * own, 0.06) for own in truth)
            if score >= threshold and truth and answer in row["values"][name]:
                right_texts, converted = right_texts + 1, converted + close
            counts.add("right" if close else (None if score < threshold else "wrong"), ["right"] if truth else [])
        found[name] = {"f1": round(counts.f1, 1), "texts_right": right_texts, "converted": converted}
    return found


if __name__ == "__main__":
    raise SystemExit(main())
