"""A run for the report tests, with untrusted titles, and pages as a browser parses them."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from io import BytesIO
from typing import Any

from PIL import Image

from catalog_enrichment.catalog.coverage_groups import to_rows
from catalog_enrichment.dictionary import Attribute, Dictionary
from catalog_enrichment.precision.certificate import Certificate
from catalog_enrichment.precision.units import ValueCount
from catalog_enrichment.records import Cardinality
from catalog_enrichment.report.outcome_sections import ReasonCount
from catalog_enrichment.report.run_page import PAGE, RunReport, Sample
from catalog_enrichment.validation.by_shop import largest

from .. import sample_certificate

NOW = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)
NASTY = '</bdi><script>alert("x")</script><img src=http://evil.example/a.png onerror=alert(1)>'


def certificate(attribute: str = "color", **changes: Any) -> Certificate:
    content: dict[str, Any] = {
        "attribute": attribute, "values": ("red", "navy & white", "אדום"), "threshold": 0.80, "accepted": 340,
        "by_value": (ValueCount("red", 300, 4), ValueCount("navy & white", 40, 3)), "wrong": 7,
        "lower_bound": 0.9561, "claim": "Of the values written, at least 95.0% are right.",
        "issued_at": NOW, "expires_at": NOW + timedelta(days=90), "suggest_threshold": 0.55,
        "histogram": tuple(range(0, 100, 5)),
    }  # fmt: skip
    return sample_certificate.certificate(**(content | changes))


def abstention(attribute: str = "season") -> Certificate:
    why = "9 of 153 wrong at the first threshold, 0.9312 (p = 0.712)"
    return certificate(attribute, threshold=None, why_abstains=why, accepted=0, wrong=0, lower_bound=0.0, by_value=(),
                       claim=f"Nothing is claimed: {attribute} is not written.")  # fmt: skip


class ParsedPage(HTMLParser):
    """Tags, attributes and text as a browser parses them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.text = ""
        self.handlers: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        self.text = re.sub(r"\s+", " ", self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data + " "


def check_folded_cards(page: str, number: int) -> None:
    """Check that a page of 2 * PAGE + 5 cards folds them, and that it decodes pictures when they are seen."""
    assert page.count('<figure class="card">') == number
    assert re.findall(r'<details class="more"><summary>([^<]+)<', page) == [f"{PAGE} more", "5 more"]
    assert page.index('<details class="more">') > page.index(f'<code class="soft">p{PAGE - 1}</code>')
    assert page.count("<img ") == page.count('loading="lazy" decoding="async"') == number
    assert "content-visibility: auto" in page
    assert ParsedPage(page).open == []


def picture(color: str = "teal") -> bytes:
    buffer = BytesIO()
    Image.new("RGB", (640, 480), color).save(buffer, "JPEG")
    return buffer.getvalue()


def run_row() -> dict[str, Any]:
    decisions = {
        "color": {"merchant": 600, "written": 240, "values_written": 251, "suggested": 30, "abstained": 100,
                  "retracted": 17, "coverage_before": 0.6, "coverage_after": 0.84},
        "season": {"merchant": 580, "written": 0, "suggested": 12, "abstained": 358, "coverage_before": 0.58,
                   "coverage_after": 0.58},
    }  # fmt: skip
    expectations = [
        {"success": True, "expectation_config": {"type": "expect_column_values_to_not_be_null",
         "kwargs": {"column": "title"}, "severity": "warning"}, "result": {"unexpected_percent": 0.21}},
        {"success": True, "expectation_config": {"type": "expect_table_row_count_to_be_between", "kwargs": {},
         "severity": "critical"}, "result": {"observed_value": 1000}},
    ]  # fmt: skip
    groups, change = {}, {}
    for by, name, products, covered, more in (
        ("category", "shoes", 700, 600, 200), ("category", NASTY, 300, 240, 40), ("shop", NASTY, 1000, 840, 240)
    ):  # fmt: skip
        groups |= {(by, name, "color", False): products, (by, name, "color", True): covered}
        change[by, name, "color", True] = more
    return {
        "run_id": "enrich-0123456789abcdef0123", "parent_run_id": None, "kind": "enrich", "status": "succeeded",
        "model_name": "catalog-enrichment", "model_version": "3",
        "config": json.dumps({"precision": {"provisional_cap": 8765}}),
        "window": json.dumps({"categories": ["shoes", NASTY]}),
        "counts": {"products": 1000, "predicted": 950, "skipped.already_scored": 30, "skipped.opted_out": 8,
                   "quarantined.empty_title": 12, "unusable_images.image_truncated": 5, "unusable_images.no_image": 41},
        "attributes": json.dumps({"decisions": decisions,
                                  "coverage": {"groups": to_rows(groups), "counts": {"color": {
                                      "applicable": 1000, "merchant": 600, "model": 240}}},
                                  "coverage_change": to_rows(change),
                                  "certificates": [certificate().to_dict(), abstention().to_dict()],
                                  "waiting": {"color": 1234}}),
        "seconds": {"select": 1.2, "score": 40.0}, "started_at": NOW, "finished_at": NOW + timedelta(minutes=2),
        "validation": json.dumps({"success": True, "results": expectations}),
    }  # fmt: skip


def counted(reason: str, products: int, source: str = "none", **changes: Any) -> ReasonCount:
    usual: dict[str, Any] = {
        "attribute": "color", "decision": "abstain", "modality": "both", "sentence": f"because of {reason}",
        "sources": {source: products},
    }  # fmt: skip
    return ReasonCount(reason=str(reason), **usual | changes)


def full_report() -> RunReport:
    titles = ["Linen shirt with a long title that goes on and on until it takes three lines, at the least, of a card",
              NASTY, "חולצת פשתן אדומה", "🧦 socks \x00\x07 \ud800 & \u202egnp.exe", ""]  # fmt: skip
    pictures = [picture(), b"", b"not a picture", None, picture("pink")]
    published = [
        Sample(product_id=f"p{n}", attribute="color", value="navy & white", score=0.91 + n / 100, title=title,
               modality="both", attention=0.2 + n / 6, picture=pictures[n])
        for n, title in enumerate(titles)
    ]  # fmt: skip
    disagreement = Sample(product_id="p9", attribute="season", value="winter", score=0.77, title="Wool scarf",
                          merchant_values=("summer", "<b>spring</b>"))  # fmt: skip
    near_miss = Sample(product_id="p8", attribute="color", value="אדום", score=0.79, title="Almost red")
    added = replace(disagreement, product_id="p7", value="autumn", change="add")
    return RunReport(
        run=run_row(),
        published=published,
        near_misses=[near_miss],
        disagreements=[replace(disagreement, change="replace"), added],
        imported={
            "unmapped_value": {"color": [["navvy", "en", 31], [NASTY, "", 4]]},
            "shops": largest({NASTY: {"empty_title": 12}, "corner": {"unmapped_value.color": 35}}),
        },
        dictionary=Dictionary({"color": Attribute(name="color", cardinality=Cardinality.ONE, values=("Navy", "Red"))}),
        histograms={"color": [*range(0, 100, 6), 300, 500, 410], "season": [5] * 20, "empty": [0] * 20},
        stages=[
            {"name": "score", "seconds": 40.0, "rows_in": 962, "rows_out": 950, "quarantined": 12, "note": "2 cores"}
        ],
        reasons=[
            counted("unseen_slice", 9, sentence=f"because of {NASTY}"),
            counted("certified", 240, "model", decision="publish"),
            counted("agrees_with_merchant", 60, "merchant"),
            counted("below_threshold", 21, sources={"none": 15, "merchant": 6}),
            counted("value_not_in_pool", 10),
        ],
        written={certificate().certificate_id: 240},
        written_values={("color", "red"): 200, ("color", NASTY): 51, ("season", "winter"): 3},
        judged={(certificate().certificate_id, "color", "red"): (40, 1), ("another", "color", "red"): (9, 9)},
        right={certificate().certificate_id: 233},
        accept_rates={certificate().certificate_id: 0.38},
        undo="rollback_run --config shop.toml --run-id enrich-0123456789abcdef0123",
    )
