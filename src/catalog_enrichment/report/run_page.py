"""The page of a run: its content, and the variables of run.html.j2. Styles, drawings and pictures are inline."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from catalog_enrichment import contract
from catalog_enrichment.catalog.review_tables import JudgedValues
from catalog_enrichment.config.images import ImagesConfig
from catalog_enrichment.precision import claim
from catalog_enrichment.precision.certificate import Certificate
from catalog_enrichment.reasons import Case, Reason, RunAttributes, drifted, not_covered, sentence, waiting
from catalog_enrichment.report import advice, charts, outcome_sections, run_sections, value_tables
from catalog_enrichment.report.outcome_sections import ReasonCount
from catalog_enrichment.web import pages
from catalog_enrichment.web.quotes import DESCRIPTION, TITLE, Evidence, excerpt

if TYPE_CHECKING:
    from catalog_enrichment.dictionary import Dictionary

TEMPLATES = "report/templates"

THUMBNAIL = 112
"""Pixels; shown at half the size, for high-resolution screens."""

PAGE = 48
"""Samples of an attribute that are shown at once; the others are folded, so that the browser does not lay them out."""

HISTOGRAM_HEIGHT = 72.0
"""The height of a histogram, in SVG units."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """A value of a product, with the title and picture that it was predicted from."""

    product_id: str
    attribute: str
    value: str
    score: float
    title: str = ""
    modality: str = ""
    attention: float | None = None
    """Weight on the text, 0..1; the weight on the picture is 1 minus this."""
    merchant_values: Sequence[str] = ()
    change: str = ""
    """The change that the value would make to the merchant's values (decisions.suggested_change); "" where it is no
    suggestion."""
    evidence: str = ""
    """Where the value comes from, as the proposer says; empty if it does not say it."""
    description: str = ""
    """The product's description, to look for the evidence in; empty where there is no evidence."""
    picture: bytes | None = None
    """The encoded picture, as the catalog has it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunReport:
    """The content of the page. Only ``run`` is required; a section without data is left out."""

    run: Mapping[str, Any]
    """A row of the `runs` table, its JSON columns as text."""
    published: Sequence[Sample] = ()
    near_misses: Sequence[Sample] = ()
    """Suggestions with a score just below the threshold."""
    disagreements: Sequence[Sample] = ()
    """Suggestions that differ from the merchant's value."""
    histograms: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """Attribute -> number of products per equal bin of the top score in [0, 1]."""
    stages: Sequence[Mapping[str, Any]] = ()
    """Keys name, seconds, rows_in, rows_out, quarantined, note. Empty: the seconds of the run row are shown."""
    reasons: Sequence[ReasonCount] = ()
    written: Mapping[str, int] = field(default_factory=dict)
    """Certificate id -> products that were given values under it."""
    written_values: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """Attribute and value -> products that were given the value."""
    judged: JudgedValues = field(default_factory=dict)
    """What people found wrong of what the certificates wrote."""
    confirmed: Collection[str] = ()
    """Ids of the certificates that an audit has confirmed."""
    right: Mapping[str, int] | None = None
    """Certificate id -> the products among them that were given no wrong value; None where the truth is not known."""
    accept_rates: Mapping[str, float] = field(default_factory=dict)
    """Certificate id -> share of this run's products without a merchant's value that its threshold accepts."""
    imported: RunAttributes = field(default_factory=dict)
    """The column `attributes` of the newest import before the run that read all rows."""
    dictionary: Dictionary | None = None
    """Without a dictionary the values that it lacks are not shown."""
    chunks: Sequence[Mapping[str, Any]] = ()
    """The chunks of a backfill (run_sections.chunk_rows)."""
    undo: str = ""
    """The command that rolls the run back."""

    def precision(self, certificates: Iterable[Certificate], attribute: str) -> float | None:
        """Return the share of right products among those written to under the certificates of ``attribute``; None where
        the truth is not known or nothing was written."""
        ids = [c.certificate_id for c in certificates if c.attribute == attribute]
        written = sum(self.written.get(name, 0) for name in ids)
        if self.right is None or not written:
            return None
        return sum(self.right.get(name, 0) for name in ids) / written


_Row = TypeVar("_Row", Sample, ReasonCount)


def write_run_report(path: Path, run: RunReport) -> Path:
    """Write the page to ``path`` and return ``path``."""
    return pages.write(path, pages.render(TEMPLATES, "run.html.j2", template_values(run)))


def template_values(run: RunReport) -> dict[str, Any]:
    """Return the variables of run.html.j2."""
    row = dict.fromkeys(contract.columns("runs")) | dict(run.run)
    of_run = _json(row.get("attributes"))
    decisions: dict[str, Any] = of_run.get("decisions", {})
    # certificates of attributes that the run did not decide are in its row, too: the page is about its decisions
    issued = claim.about_products(certificates_of(of_run))
    certificates = [certificate for certificate in issued if certificate.attribute in decisions]
    counts = _counts(dict(row.get("counts") or {}))
    cap = _json(row.get("config")).get("precision", {}).get("provisional_cap")
    stages_of_row = [{"name": name, "seconds": seconds} for name, seconds in dict(row.get("seconds") or {}).items()]
    return {
        "run": row,
        "window": _window(_json(row.get("window"))),
        "counts": counts,
        "adds_up": counts["products"] == counts["predicted"] + counts["skipped_total"] + counts["quarantined_total"],
        "attributes": [_attribute(name, decided, certificates, run) for name, decided in decisions.items()],
        "paths": [_path(certificate, run) for certificate in certificates],
        "suppressed": [*drifted(of_run), *not_covered(of_run)],
        "waiting": [waiting(name, values) for name, values in of_run.get("waiting", {}).items()],
        "reasons": _by_attribute(sorted(run.reasons, key=lambda row: (-row.products, row.reason, row.modality))),
        "empty": outcome_sections.empty_products(of_run, run.reasons),
        "values": value_tables.of_run(certificates, run.written_values, run.judged),
        "confirmed": run.confirmed,
        "certificates": [(certificate, _certificate_numbers(certificate)) for certificate in certificates],
        "cap": cap,
        "histograms": [_histogram(name, bins, certificates) for name, bins in run.histograms.items() if sum(bins)],
        "published": _cards(run.published),
        "near_misses": _cards(run.near_misses),
        "disagreements": _cards(run.disagreements),
        "stages": [_stage(stage) for stage in run.stages or stages_of_row],
        "coverage_groups": run_sections.coverage_tables(of_run),
        "unmapped": run_sections.unmapped_values(run.imported, run.dictionary) if run.dictionary else [],
        "shops": advice.shops_to_correct(advice.Evidence.of(run.reasons, certificates), run.imported, of_run),
        "chunks": run.chunks,
        "validation": _validation(_json(row.get("validation"))),
        "undo": run.undo,
    }


def certificates_of(attributes: RunAttributes) -> list[Certificate]:
    """Return the certificates in a run's column `attributes`."""
    return [Certificate.from_dict(content) for content in attributes.get("certificates", [])]


def _certificate_numbers(certificate: Certificate) -> list[claim.CertificateNumber]:
    """Return the numbers of a certificate without its status, which the page states where it can be brought up to
    date."""
    if certificate.threshold is None:
        return []
    return [number for number in claim.certificate_numbers(certificate) if number.name != "status"]


def _json(text: Any) -> dict[str, Any]:
    """Return the object in a JSON column; {} if the column is empty."""
    return json.loads(text) if text else {}


def _counts(counts: Mapping[str, int]) -> dict[str, Any]:
    """Return the flat counts of a run row (``skipped.already_scored``), grouped by kind, largest first."""
    grouped: dict[str, Any] = {"products": counts.get("products", 0), "predicted": counts.get("predicted", 0)}
    for kind in ("skipped", "quarantined", "unusable_images"):
        by_reason = {name.partition(".")[2]: n for name, n in counts.items() if name.startswith(f"{kind}.") and n}
        order = sorted(by_reason, key=lambda reason: (-by_reason[reason], reason))
        why = {reason: sentence(Reason(reason), Case(attribute="the attribute")) for reason in order}
        grouped[kind] = [(reason, by_reason[reason], why[reason]) for reason in order]
        grouped[f"{kind}_total"] = sum(by_reason.values())
    return grouped


def _window(window: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return name and text of every option that was set."""
    options = {pages.words(name): value for name, value in window.items() if value not in (None, "", 0, [], {})}
    return [(name, ", ".join(map(str, of)) if isinstance(of, list) else str(of)) for name, of in options.items()]


def _by_attribute(rows: Iterable[_Row]) -> dict[str, list[_Row]]:
    """Return attribute -> its rows, in their order."""
    found: dict[str, list[_Row]] = {}
    for row in rows:
        found.setdefault(row.attribute, []).append(row)
    return dict(sorted(found.items()))


# --- attributes and certificates -------------------------------------------------------------------------------------


def _precision(name: str, certificates: Iterable[Certificate], run: RunReport) -> str:
    """Return the share of right values where the truth is known, else the certified bound of the written values."""
    if (known := run.precision(certificates, name)) is not None:
        return pages.percent(known)
    bounds = [c.lower_bound for c in certificates if c.attribute == name and run.written.get(c.certificate_id)]
    return f"≥ {pages.percent(min(bounds))}" if bounds else pages.percent(None)


_NUMBERS = ("merchant", "written", "values_written", "suggested", "abstained", "retracted")


def _attribute(
    name: str, decided: Mapping[str, Any], certificates: Iterable[Certificate], run: RunReport
) -> dict[str, Any]:
    """Return a row of the table of attributes."""
    before, after = decided.get("coverage_before"), decided.get("coverage_after")
    start = before or 0.0
    return {
        "name": name,
        "before": before,
        "after": after,
        "start": start,
        "gain": (after - start) if after is not None else 0.0,
        "precision": _precision(name, certificates, run),
        "abstentions": outcome_sections.abstentions(name, run.reasons),
        **{key: decided.get(key, 0) for key in _NUMBERS},
    }


def _path(certificate: Certificate, run: RunReport) -> dict[str, Any]:
    """Return a row of the table of modality paths."""
    return {
        "attribute": certificate.attribute,
        "products": claim.PATHS[certificate.modality],
        "certificate": claim.tested(certificate),
        "abstains": certificate.threshold is None,
        "written": run.written.get(certificate.certificate_id, 0),
        "right": run.precision([certificate], certificate.attribute),
        "accept_rate": run.accept_rates.get(certificate.certificate_id),
        "certified_rate": None if certificate.threshold is None else certificate.accept_rate,
    }


def _histogram(name: str, bins: Sequence[int], certificates: Iterable[Certificate]) -> dict[str, Any]:
    """Return bars and threshold lines in SVG units."""
    edges = [number / len(bins) for number in range(len(bins) + 1)]
    return {
        "name": name,
        "columns": charts.columns(edges, bins, HISTOGRAM_HEIGHT),
        "lines": [
            {"x": c.threshold * charts.WIDTH, "label": f"{c.threshold:.3f}", "title": pages.words(c.modality.value)}
            for c in certificates
            if c.attribute == name and c.threshold is not None
        ],
        "products": sum(bins),
        "width": charts.WIDTH,
        "height": HISTOGRAM_HEIGHT,
    }


# --- samples ---------------------------------------------------------------------------------------------------------


def _cards(samples: Sequence[Sample]) -> dict[str, list[Sequence[dict[str, Any]]]]:
    """Return attribute -> the cards of its samples, in pages of :data:`PAGE`."""
    return {
        name: folded([{"sample": sample, "thumbnail": thumbnail(sample.picture)} | _quoted(sample) for sample in found])
        for name, found in _by_attribute(samples).items()
    }


def _quoted(sample: Sample) -> dict[str, Any]:
    """Return the parts of the title or of the description around the evidence, and the sentence where neither has
    it."""
    evidence = Evidence.of(sample.evidence, sample.title, sample.description)
    excerpts = {name: excerpt(parts) for name, parts in evidence.marked.items()}
    return {name: excerpts.get(name) for name in (TITLE, DESCRIPTION)} | {"evidence": evidence.beside}


def folded(cards: Sequence[dict[str, Any]]) -> list[Sequence[dict[str, Any]]]:
    """Return ``cards`` in pages of :data:`PAGE`: the first is open, the others are folded."""
    return [cards[start : start + PAGE] for start in range(0, len(cards), PAGE)]


def thumbnail(picture: bytes | None) -> str:
    """Return a small JPEG as a data URI; "" if the picture is missing or cannot be decoded."""
    if not picture:
        return ""
    from PIL import Image

    from catalog_enrichment.inputs.images import decode_image
    from catalog_enrichment.inputs.square import Square

    decoded = decode_image(picture, Square(THUMBNAIL), ImagesConfig())
    if decoded.pixels is None:
        return ""
    buffer = BytesIO()
    Image.fromarray(decoded.pixels).save(buffer, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{b64encode(buffer.getvalue()).decode()}"


# --- stages and validation -------------------------------------------------------------------------------------------


def _stage(stage: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of the table of stages, with its rate in rows per second."""
    rows, seconds = stage.get("rows_in") or stage.get("rows_out"), float(stage["seconds"])
    defaults: dict[str, Any] = {"rows_in": None, "rows_out": None, "quarantined": None, "note": ""}
    return defaults | dict(stage) | {"rate": rows / seconds if rows and seconds else None}


def _validation(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return whether a great_expectations document succeeded, and a row per expectation, failed expectations first."""
    if "results" not in document:
        return {}
    rows = [_expectation(result) for result in document["results"]]
    return {
        "success": bool(document.get("success")),
        "met": sum(row["success"] for row in rows),
        "rows": sorted(rows, key=lambda row: row["success"]),
    }


def _expectation(result: Mapping[str, Any]) -> dict[str, Any]:
    config, outcome = result.get("expectation_config", {}), result.get("result") or {}
    percent, value = outcome.get("unexpected_percent"), outcome.get("observed_value")
    observed = f"{percent:.2f}% unexpected" if percent is not None else "" if value is None else str(value)
    return {
        "success": bool(result.get("success")),
        "name": pages.words(str(config.get("type", "?")).removeprefix("expect_")),
        "column": config.get("kwargs", {}).get("column") or "",
        "severity": config.get("severity") or "",
        "observed": observed[:120],
    }
