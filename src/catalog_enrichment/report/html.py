"""Renders the report of a run as one self-contained HTML file: styles, drawings and pictures are inline.

Titles and values are untrusted input: the template escapes all of them and isolates right-to-left text, and control
characters are replaced.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog_enrichment import contract
from catalog_enrichment.config.schema import ImagesConfig
from catalog_enrichment.precision import claim
from catalog_enrichment.precision.certificate import CONTRACT, Certificate
from catalog_enrichment.precision.claim import PATHS
from catalog_enrichment.records import Decision, Reason
from catalog_enrichment.report import coverage, merchants, withheld
from catalog_enrichment.report.reasons import Case, certificate_numbers, sentence, what_waits

if TYPE_CHECKING:
    from jinja2 import Environment

    from catalog_enrichment.dictionary import Dictionary

THUMBNAIL = 112
"""Pixels; shown at half the size, for high-resolution screens."""

PAGE = 48
"""Samples of an attribute that are shown at once; the others are folded, so that the browser does not lay them out."""

_WIDTH, _HEIGHT = 320.0, 72.0
"""Size of a histogram in SVG units."""

_REPLACED = {code: "\N{REPLACEMENT CHARACTER}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}
"""Control characters, which HTML does not allow -> the replacement character."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One value of one product, with the title and picture that it was predicted from."""

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
    """What the value would do to the merchant's: one of :data:`~catalog_enrichment.report.changes.CHANGES`; "" where it
    is no suggestion."""
    picture: bytes | None = None
    """The encoded picture, as the catalog has it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReasonCount:
    """How many scored products an attribute was decided for with one reason, on one modality path."""

    attribute: str
    decision: str
    reason: str
    modality: str
    products: int
    sentence: str
    """Why, and what would change it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunReport:
    """The content of a report. Only ``run`` is required; a section without data is left out."""

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
    right: Mapping[str, int] | None = None
    """Certificate id -> how many of them were given no wrong value; None where the truth is not known."""
    accept_rates: Mapping[str, float] = field(default_factory=dict)
    """Certificate id -> share of this run's products without a merchant's value that its threshold accepts."""
    imported: Mapping[str, Any] = field(default_factory=dict)
    """The column `attributes` of the newest import before the run."""
    dictionary: Dictionary | None = None
    """Without one the values that it lacks are not shown."""
    chunks: Sequence[Mapping[str, Any]] = ()
    """Of a backfill: rows as :func:`report.backfill.listed` makes them."""
    undo: str = ""
    """The command that rolls the run back."""

    def precision(self, certificates: Iterable[Certificate], attribute: str) -> float | None:
        """Share of the products written to under the certificates of ``attribute`` that are right; None where the truth
        is not known or nothing was written."""
        ids = [c.certificate_id for c in certificates if c.attribute == attribute]
        written = sum(self.written.get(name, 0) for name in ids)
        if self.right is None or not written:
            return None
        return sum(self.right.get(name, 0) for name in ids) / written


def write_run_report(path: Path, run: RunReport) -> Path:
    """Write the report to ``path`` and return ``path``."""
    return write_html(path, environment().get_template("run.html.j2").render(template_values(run)))


def write_html(path: Path, text: str) -> Path:
    """Write ``text`` to ``path`` atomically, without control characters; return ``path``. Its folder is created."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".part")
    unfinished.write_bytes(
        text.translate(_REPLACED).encode("utf-8", errors="replace")
    )  # a lone surrogate cannot be encoded
    return unfinished.replace(path)


def template_values(run: RunReport) -> dict[str, Any]:
    """The variables of run.html.j2."""
    row = dict.fromkeys(contract.columns("runs")) | dict(run.run)
    by_attribute = _json(row.get("attributes"))
    decisions: dict[str, Any] = by_attribute.get("decisions", {})
    # those of attributes that the run did not decide are in its row, too: the page is about its decisions
    certificates = [one for one in certificates_of(by_attribute) if one.attribute in decisions]
    counts = _counts(dict(row.get("counts") or {}))
    cap = _json(row.get("config")).get("precision", {}).get("provisional_cap")
    return {
        "run": row,
        "window": _window(_json(row.get("window"))),
        "counts": counts,
        "adds_up": counts["products"] == counts["predicted"] + counts["skipped_total"] + counts["quarantined_total"],
        "attributes": [
            _attribute(name, decided, _precision(name, certificates, run)) | {"abstentions": _abstentions(name, run)}
            for name, decided in decisions.items()
        ],
        "paths": [_path(certificate, run) for certificate in certificates],
        "withheld": [*withheld.drifted(by_attribute), *withheld.refused(by_attribute)],
        "waiting": [what_waits(name, values) for name, values in by_attribute.get("waiting", {}).items()],
        "reasons": _by_attribute_reasons(run.reasons),
        "certificates": [(c, certificate_numbers(c, cap) if c.threshold is not None else []) for c in certificates],
        "histograms": [_histogram(name, bins, certificates) for name, bins in run.histograms.items() if sum(bins)],
        "published": _by_attribute(run.published),
        "near_misses": _by_attribute(run.near_misses),
        "disagreements": _by_attribute(run.disagreements),
        "stages": [_stage(stage) for stage in run.stages or _stages_of_row(row)],
        "coverage_groups": coverage.tables(by_attribute),
        "unmapped": merchants.unmapped(run.imported, run.dictionary) if run.dictionary else [],
        "shops": merchants.shops(run.imported, by_attribute),
        "chunks": run.chunks,
        "validation": _validation(_json(row.get("validation"))),
        "undo": run.undo,
    }


def certificates_of(attributes: Mapping[str, Any]) -> list[Certificate]:
    """The certificates in a run's column `attributes`; those of an older contract are left out."""
    stored = attributes.get("certificates", [])
    return [Certificate.from_dict(content) for content in stored if content.get("contract") == CONTRACT]


def environment() -> Environment:
    """The Jinja environment of this package's templates; it escapes every value."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    templates = files("catalog_enrichment.report") / "templates"
    environment = Environment(
        loader=FunctionLoader(lambda name: (templates / name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=_number, percent=_percent, when=_when, words=_words)
    return environment


def _json(text: Any) -> dict[str, Any]:
    """The object in a JSON column; {} if the column is empty or holds something else."""
    value = json.loads(text) if text else {}
    return value if isinstance(value, dict) else {}


def _counts(counts: Mapping[str, int]) -> dict[str, Any]:
    """The flat counts of a run row (``skipped.already_scored``), grouped by kind, largest first."""
    grouped: dict[str, Any] = {"products": counts.get("products", 0), "predicted": counts.get("predicted", 0)}
    for kind in ("skipped", "quarantined", "unusable_images"):
        by_reason = {name.partition(".")[2]: n for name, n in counts.items() if name.startswith(f"{kind}.") and n}
        order = sorted(by_reason, key=lambda reason: (-by_reason[reason], reason))
        grouped[kind] = [(reason, by_reason[reason], _why(reason)) for reason in order]
        grouped[f"{kind}_total"] = sum(by_reason.values())
    return grouped


def _why(reason: str) -> str:
    """Why products are left out, and what would change it; "" for a reason of another release."""
    return sentence(Reason(reason), Case(attribute="the attribute")) if reason in set(Reason) else ""


def _window(window: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name and text of every option that was set."""
    options = {name: value for name, value in window.items() if value not in (None, "", 0, [], {})}
    return [(_words(name), ", ".join(map(str, v)) if isinstance(v, list) else str(v)) for name, v in options.items()]


_HAS_VALUE = ("has that value already", "have that value already")
_NOT_CERTIFIED = ("not certified", "not certified")
_TOO_UNSURE = ("too unsure", "too unsure")
ABSTENTIONS: Mapping[Reason, tuple[str, str]] = {
    Reason.AGREES_WITH_MERCHANT: _HAS_VALUE,
    Reason.HUMAN_VALUE_STANDS: ("decided by a person", "decided by a person"),
    Reason.REFUSED_BY_PERSON: ("refused by a reviewer", "refused by a reviewer"),
    Reason.BELOW_THRESHOLD: _TOO_UNSURE,
    Reason.VALUE_NOT_IN_POOL: _TOO_UNSURE,
    Reason.PROVISIONAL_CAP: ("waits under the cap", "wait under the cap"),
    Reason.PICTURE_OUTAGE: ("without a picture that can be read now", "without a picture that can be read now"),
    Reason.NO_CERTIFICATE: _NOT_CERTIFIED,
    Reason.CERTIFICATE_MISMATCH: _NOT_CERTIFIED,
    Reason.CERTIFICATE_EXPIRED: _NOT_CERTIFIED,
    Reason.UNSEEN_SLICE: _NOT_CERTIFIED,
    Reason.PAUSED: _NOT_CERTIFIED,
}
"""Reason that a product got no value -> the part of "abstained" that it counts in, said of one product and of more."""


def _abstentions(name: str, run: RunReport) -> str:
    """Why products got no value, in the parts of :data:`ABSTENTIONS`; "" where no reasons are known."""
    parts = dict.fromkeys(ABSTENTIONS.values(), 0)
    for row in run.reasons:
        if row.attribute == name and row.decision == Decision.ABSTAIN:
            parts[ABSTENTIONS[Reason(row.reason)]] += row.products
    return ", ".join(f"{number:,} {one if number == 1 else more}" for (one, more), number in parts.items() if number)


def _precision(name: str, certificates: Iterable[Certificate], run: RunReport) -> str:
    """The share of right values where the truth is known, else what is certified of those that were written."""
    if (known := run.precision(certificates, name)) is not None:
        return _percent(known)
    bounds = [c.lower_bound for c in certificates if c.attribute == name and run.written.get(c.certificate_id)]
    return f"≥ {_percent(min(bounds))}" if bounds else _percent(None)


def _attribute(name: str, decided: Mapping[str, Any], precision: str) -> dict[str, Any]:
    """One row of the table of attributes."""
    before, after = decided.get("coverage_before"), decided.get("coverage_after")
    start = before or 0.0
    gain = (after - start) if after is not None else 0.0
    counts = {key: decided.get(key, 0) for key in ("merchant", "written", "suggested", "abstained", "retracted")}
    return {
        "name": name,
        "before": before,
        "after": after,
        "start": start,
        "gain": gain,
        "precision": precision,
    } | counts


def _by_attribute_reasons(rows: Sequence[ReasonCount]) -> dict[str, list[ReasonCount]]:
    """Attribute -> its rows, most products first."""
    tables: dict[str, list[ReasonCount]] = {}
    for row in sorted(rows, key=lambda row: (row.attribute, -row.products, row.reason, row.modality)):
        tables.setdefault(row.attribute, []).append(row)
    return tables


def _path(certificate: Certificate, run: RunReport) -> dict[str, Any]:
    """One row of the table of modality paths."""
    return {
        "attribute": certificate.attribute,
        "products": PATHS[certificate.modality],
        "certificate": claim.tested(certificate),
        "abstains": certificate.threshold is None,
        "written": run.written.get(certificate.certificate_id, 0),
        "right": run.precision([certificate], certificate.attribute),
        "accept_rate": run.accept_rates.get(certificate.certificate_id),
        "certified_rate": None if certificate.threshold is None else certificate.accept_rate,
    }


def _histogram(name: str, bins: Sequence[int], certificates: Iterable[Certificate]) -> dict[str, Any]:
    """Bars and threshold lines in SVG units; the tallest bar has the full height."""
    lines = [
        {"x": c.threshold * _WIDTH, "label": f"{c.threshold:.3f}", "modality": c.modality.value}
        for c in certificates
        if c.attribute == name and c.threshold is not None
    ]
    width, tallest = _WIDTH / len(bins), max(bins)
    bars = [
        {
            "x": number * width + 0.5,
            "y": _HEIGHT * (1 - count / tallest),
            "width": width - 1,
            "height": _HEIGHT * count / tallest,
            "tooltip": f"{number / len(bins):.2f} to {(number + 1) / len(bins):.2f}: {count:,}",
        }
        for number, count in enumerate(bins)
    ]
    return {"name": name, "bars": bars, "lines": lines, "products": sum(bins), "width": _WIDTH, "height": _HEIGHT}


def _by_attribute(samples: Sequence[Sample]) -> dict[str, list[Sequence[dict[str, Any]]]]:
    """Attribute -> the cards of its samples, in pages of :data:`PAGE`."""
    cards: dict[str, list[dict[str, Any]]] = {}
    for sample in samples:
        card = {"sample": sample, "thumbnail": thumbnail(sample.picture)}
        cards.setdefault(sample.attribute, []).append(card)
    return {name: pages(of) for name, of in cards.items()}


def pages(cards: Sequence[dict[str, Any]]) -> list[Sequence[dict[str, Any]]]:
    """``cards`` in pages of :data:`PAGE`: the first is open, the others are folded."""
    return [cards[start : start + PAGE] for start in range(0, len(cards), PAGE)]


def thumbnail(picture: bytes | None) -> str:
    """A small JPEG as a data URI; "" if the picture is missing or cannot be decoded."""
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


def _stages_of_row(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"name": name, "seconds": seconds} for name, seconds in dict(row.get("seconds") or {}).items()]


def _stage(stage: Mapping[str, Any]) -> dict[str, Any]:
    """One row of the table of stages, with its rate in rows per second."""
    rows, seconds = stage.get("rows_in") or stage.get("rows_out"), float(stage["seconds"])
    defaults: dict[str, Any] = {"rows_in": None, "rows_out": None, "quarantined": None, "note": ""}
    return defaults | dict(stage) | {"rate": rows / seconds if rows and seconds else None}


def _validation(document: Mapping[str, Any]) -> dict[str, Any]:
    """A great_expectations result document: whether it succeeded, and one row per expectation, failed ones first."""
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
        "name": _words(str(config.get("type", "?")).removeprefix("expect_")),
        "column": config.get("kwargs", {}).get("column") or "",
        "severity": config.get("severity") or "",
        "observed": observed[:120],
    }


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.1f}" if value < 10 else f"{value:,.0f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _when(value: Any) -> str:
    return f"{value:%Y-%m-%d %H:%M}" if isinstance(value, datetime) else str(value or "–")


def _words(name: str) -> str:
    return name.replace("_", " ")
