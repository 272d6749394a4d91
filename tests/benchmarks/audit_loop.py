"""The closed loop on whole catalogs, by the jobs as a user starts them; the truth is known here alone.

import, train, promote, enrich           an honest version
sample, two reviewers, ingest            certified, audited and true precision agree
a version made over-confident            through the gate, or past it, to the champion
dry run, enrich                          the drift check should see it; then it is switched off
sample, two reviewers, ingest            the audit should pause what is wrong
sample, two reviewers, recertify         the attribute is certified again; the next run retracts the rest, and its drift
                                         check does not take the new threshold for drift
"""

from __future__ import annotations

import io
import json
import runpy
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from audit_reviewers import Truth, judge, page
from benchmark import JOBS, STAGES, markdown

from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.config.load import load_config
from catalog_enrichment.config.schema import Config
from catalog_enrichment.context import load_dictionary
from catalog_enrichment.registry.model_registry import Registry
from catalog_enrichment.registry.promotion import Promotion
from catalog_enrichment.registry.trained_model import TrainedModel

OVER_CONFIDENT = 0.1
"""The factor of the temperatures of the over-confident version."""
SMALL = {
    "fit.epochs": 7,
    "fit.augment": False,
    "model.text.max_length": 32,
    "model.text.bert.hidden": 64,
    "model.text.bert.layers": 1,
    "model.text.bert.intermediate": 128,
    "model.image.size": 32,
}
"""Changes of the demo's recipe: the model fits in a tenth of the time."""


@dataclass(frozen=True)
class World:
    config_file: str
    overrides: list[str]
    config: Config
    truth: Truth
    seconds: dict[str, float] = field(default_factory=dict)
    """Job -> seconds, all calls of it together."""

    def command(self, name: str, *options: str) -> list[str]:
        settings = [part for override in self.overrides for part in ("--set", override)]
        return [sys.executable, str(JOBS / f"{name}.py"), "--config", self.config_file, *settings, *options]

    def job(self, name: str, *options: str, codes: Sequence[int] = (0,)) -> dict[str, Any]:
        """Run a job's script in this process, so that all share a Spark session; return its summary with ``exit_code``.
        Ends the program at an exit code that is not among ``codes``."""
        start, printed, before = time.perf_counter(), io.StringIO(), sys.argv
        code = 0
        try:
            sys.argv = self.command(name, *options)[1:]
            with redirect_stdout(printed):
                runpy.run_path(sys.argv[0], run_name="__main__")
        except SystemExit as ended:
            code = int(ended.code or 0)
        finally:
            sys.argv = before
        self.seconds[name] = round(self.seconds.get(name, 0.0) + time.perf_counter() - start, 1)
        if code not in codes:
            sys.exit(f"{name} ended with {code}: {printed.getvalue()[-2000:]}")
        summary: dict[str, Any] = json.loads(printed.getvalue().strip().splitlines()[-1])
        return summary | {"exit_code": code}

    def true_precision(self) -> dict[str, dict[str, Any]]:
        """Return for each attribute how many model values readers see whose truth is known, and the share of right
        values."""
        right: dict[str, list[bool]] = {}
        for batch in Catalog.of(self.config).scan("current_values"):
            for row in batch.to_pylist():
                known = self.truth.get((row["product_id"], row["attribute"]))
                if row["source"] == "model" and known is not None:
                    right.setdefault(row["attribute"], []).extend(value in known for value in row["values"])
        return {
            name: {"precision": round(float(np.mean(values)), 4), "values": len(values)}
            for name, values in sorted(right.items())
        }


def generated(folder: Path, products: int) -> World:
    """A generated marketplace of ``products`` with pictures and a quarter as many without."""
    from catalog_enrichment.demo import marketplace

    overrides = [f"root={json.dumps(str(folder))}", _small()]
    config = load_config("config:demo.toml", overrides)
    market = marketplace.generate(config.path("marketplace"), products, 7, False, products // 4)
    rows = pq.read_table(market.truth).to_pylist()
    truth = {(row["product_id"], row["attribute"]): frozenset(row["values"]) for row in rows}
    return World("config:demo.toml", overrides, config, truth)


def listings(folder: Path, data: Path, products: int) -> World:
    """``products`` of the fashion listings, those with the smallest hash of the id. The recipe is `default`: a smaller
    model certifies only gender, and gender stays right with lower temperatures, so that there is nothing to catch."""
    from fashion import read_truth, write_part

    part = write_part(data, folder / "listings.parquet", products)
    overrides = [
        f"root={json.dumps(str(folder))}",
        f"source.path={json.dumps(str(part))}",
        "training.unimodal_baselines=false",
        'training.recipe="recipes:default.toml"',
    ]
    config = load_config("config:fashion.toml", overrides)
    known = read_truth(part, config).values
    truth = {(product, name): values for name, by_product in known.items() for product, values in by_product.items()}
    return World("config:fashion.toml", overrides, config, truth)


def _small() -> str:
    """SMALL as an override of the config."""
    return f"training.set={{{', '.join(f'{json.dumps(key)}={json.dumps(value)}' for key, value in SMALL.items())}}}"


def judged(world: World, *options: str) -> dict[str, Any]:
    """Draw a sample and have it judged on the page; return the figures of the review."""
    sample = world.job("audit_sample", *options)
    known = {name: attribute.values for name, attribute in load_dictionary(world.config).attributes.items()}
    with page(world.command("serve_audit")) as port:
        return judge(port, sample["sample_id"], world.truth, known)


def audited(world: World, *options: str) -> dict[str, Any]:
    """Draw, judge and ingest a sample; return true, audited and certified precision."""
    true = world.true_precision()
    reviewed = judged(world, *options)
    report = world.job("audit_ingest", codes=(0, 3))
    certified = {issued.certificate_id: issued for issued in Registry(world.config).resolve().certificates}
    certificates = [
        {
            "attribute": row["attribute"],
            "modality": certified[name].modality.value,
            "certified": _share(certified[name].accepted - certified[name].wrong, certified[name].accepted),
            "certified_lower": round(certified[name].lower_bound, 4),
            **{key: row[key] if row[key] is None else round(row[key], 4) for key in ("precision", "lower", "upper")},
            "rows": row["rows"],
        }
        for name, row in report["certificates"].items()
        if name in certified
    ]
    return {
        "review": reviewed,
        "true": true,
        "certificates": certificates,
        "alarms": {
            name: {key: row[key] for key in ("wealth", "wrong", "verdicts")}
            for name, row in report["attributes"].items()
        },
        "paused": report["paused"],
        "confirmed": len(report["confirmed"]),
        "human_sets": report["human_sets"],
        "exit_code": report["exit_code"],
    }


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def over_confident(world: World) -> tuple[str, dict[str, Any]]:
    """Register the champion with temperatures times OVER_CONFIDENT, as if the scores had been changed after the
    evaluation: certificates bound to them, the test figures as before. Return the version and the answer of the gate;
    where the gate refuses, the version becomes the champion all the same."""
    from catalog_enrichment.models import artifact, version_files

    registry = Registry(world.config)
    model = registry.resolve()
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "artifact"
        shutil.copytree(model.artifact, target)
        content = json.loads((target / artifact.MODEL).read_text())
        content["calibration"] = {name: value * OVER_CONFIDENT for name, value in content["calibration"].items()}
        version_files.write(target, artifact.MODEL, content)
        weights = artifact.weights_hash(target)
        certificates = [replace(issued, weights_hash=weights) for issued in model.certificates]
        version_files.write_certificates(target, [certificate.to_dict() for certificate in certificates])
        trained = TrainedModel(
            artifact=target, certificates=certificates, metrics={}, params={}, tables={}, curves={}, history=[],
            warnings=[], held_out=registry.held_out(model.version), seconds={},
            lineage={"labelled": 0, "label_set_hash": certificates[0].label_set_hash},
        )  # fmt: skip
        version = registry.register(trained).version
    gate = world.job("promote_model", "--to-version", version, codes=(0, 3))
    if gate["exit_code"]:
        Promotion(registry).promote(
            version, expected_current=model.version, details={"reason": "over-confident on purpose"}
        )
    return version, {"exit_code": gate["exit_code"], "message": gate.get("message") or gate.get("reasons")}


def loop(world: World, uniform: int, near: int) -> dict[str, Any]:
    """Run the whole loop; ``uniform`` and ``near``: values per attribute of a sample."""
    for stage in STAGES:
        world.job(stage)
    sizes = ("--uniform", str(uniform), "--near", str(near))
    honest = audited(world, *sizes)
    version, gate = over_confident(world)
    drifted = world.job("enrich_catalog", "--dry-run", "--no-report", codes=(0, 3))["drifted"]
    world.overrides.append("drift.enabled=false")
    world.job("enrich_catalog", "--no-report")
    bad = audited(world, *sizes)
    again: dict[str, Any] = {}
    last: dict[str, Any] = {}
    if bad["paused"]:
        of_paused = [word for name in sorted(_paused(bad)) for word in ("--attribute", name)]
        judged(world, *of_paused, "--uniform", str(3 * uniform), "--near", "0", "--seed", "1", "--whole-products")
        world.job("audit_ingest", codes=(0, 3))
        again = world.job("recertify_model", codes=(0, 3))
        # with the drift check, but for the histogram: that of the reference is the honest version's
        world.overrides[world.overrides.index("drift.enabled=false")] = "drift.histogram_change=100"
        last = world.job("enrich_catalog", "--no-report", codes=(0, 3))
    return {
        "honest": honest,
        "over_confident": {"version": version, "gate": gate, "drifted": drifted, **bad},
        "recertified": {name: again.get(name) for name in ("exit_code", "attributes", "certificates", "message")},
        "drifted_after": last.get("drifted", []),
        "true_after": world.true_precision(),
        "seconds": world.seconds,
    }


def _paused(audit: dict[str, Any]) -> set[str]:
    return {name.removeprefix("attribute ") for name in audit["paused"]}


def problems(result: dict[str, Any]) -> list[str]:
    """Return what should not be so, in words; empty if the loop closed."""
    honest, bad = result["honest"], result["over_confident"]
    found = [f"the honest version raised an alarm: {paused}" for paused in honest["paused"]]
    if not honest["certificates"]:
        found.append("the honest version wrote nothing that could be audited")
    modalities = Counter(row["attribute"] for row in honest["certificates"])
    for row in honest["certificates"]:
        true = honest["true"][row["attribute"]]["precision"]
        name = f"{row['attribute']} ({row['modality']})"
        if row["upper"] < row["certified_lower"]:
            found.append(f"{name}: the audit's upper bound {row['upper']} is below the certificate's lower bound")
        if modalities[row["attribute"]] == 1 and not row["lower"] <= true <= row["upper"]:
            found.append(f"{name}: the audit's interval misses the true precision {true}: {row}")
    wrong = {name for name, row in bad["true"].items() if row["precision"] < 0.93 and row["values"] >= 200}
    very_wrong = {name for name in wrong if bad["true"][name]["precision"] < 0.88}  # nearly always seen
    if not wrong:
        found.append("the over-confident version is not wrong enough to be a test")
    if missed := sorted(wrong - {line.split()[0] for line in bad["drifted"]} - _paused(bad)):
        found.append(f"neither drift check nor audit caught {missed}")
    if missed := sorted(very_wrong - _paused(bad)):
        found.append(f"without the drift check the audit did not catch {missed}")
    again = result["recertified"]["attributes"] or []
    for name in again:
        after = result["true_after"].get(name)
        if after is not None and after["precision"] < 0.93:
            found.append(f"{name} was certified again and its true precision is {after['precision']}")
    for line in result["drifted_after"]:
        if line.split()[0] in again and "accept rate" in line:
            found.append(f"the run after the recertification pauses its own stratum: {line}")
    return found


def report(result: dict[str, Any]) -> str:
    """Return the figures for people."""
    lines = []
    bad = result["over_confident"]
    for title, audit in (("honest", result["honest"]), ("over_confident", bad)):
        lines.append(f"\n{title} version: true precision {_named(audit['true'])}; sample: {audit['review']}")
        rows = {
            f"{row['attribute']}, {row['modality']}": [
                *(row["certified"], row["certified_lower"], row["precision"]),
                *(f"[{row['lower']:.3f}, {row['upper']:.3f}]", row["rows"]),
            ]
            for row in audit["certificates"]
        }
        lines += markdown(["certified", "lower bound", "audited", "interval", "rows"], rows, "attribute")
        alarms = "; ".join(
            f"{name} {row['wrong']} of {row['verdicts']} wrong, wealth {row['wealth']:,.2f}"
            for name, row in audit["alarms"].items()
        )
        lines.append(f"uniform stratum: {alarms}; paused {audit['paused']}; confirmed {audit['confirmed']}")
    return "\n".join([
        *lines,
        f"\ngate: exit {bad['gate']['exit_code']}, {bad['gate']['message']}",
        "drift check: " + ("; ".join(bad["drifted"]) or "saw nothing"),
        f"certified again: {result['recertified']}",
        f"true precision afterwards: {_named(result['true_after'])}",
        "seconds: " + ", ".join(f"{name} {spent}" for name, spent in result["seconds"].items()),
    ])  # fmt: skip


def _named(precision: dict[str, dict[str, Any]]) -> str:
    return ", ".join(f"{name} {row['precision']} of {row['values']}" for name, row in precision.items()) or "nothing"
