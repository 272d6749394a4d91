"""The report is self-contained, shows the numbers of the run, and escapes untrusted titles."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from catalog_enrichment.reasons import ABOUT_MERCHANT, ABOUT_PERSON, ADMINISTRATIVE, JUDGED, Reason
from catalog_enrichment.report.outcome_sections import ABSTENTIONS
from catalog_enrichment.report.run_page import (
    PAGE,
    RunReport,
    Sample,
    template_values,
    thumbnail,
    write_run_report,
)

from .. import sample_certificate
from ..test_reasons import LINES, NOT_WRITTEN
from .report_samples import NASTY, ParsedPage, certificate, check_folded_cards, counted, full_report, picture, run_row


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "new" / "run.html"
    assert write_run_report(path, full_report()) == path
    assert [file.name for file in path.parent.iterdir()] == ["run.html"]
    return path


@pytest.fixture(scope="module")
def page(written: Path) -> ParsedPage:
    return ParsedPage(written.read_text(encoding="utf-8"))


def test_untrusted_titles_are_escaped(page: ParsedPage) -> None:
    assert "script" not in page.tags
    assert page.open == page.handlers == []
    assert NASTY in page.text
    assert "<b>spring</b>" in page.text


def test_evidence_is_marked_where_a_text_has_it_and_else_told(tmp_path: Path) -> None:
    quote = "<b>160</b> & &amp; <script>"
    text = f"{NASTY} {quote} {NASTY}"
    usual: dict[str, Any] = {"attribute": "width", "value": "160 cm", "score": 0.9, "evidence": quote}
    samples = [
        Sample(product_id="p1", title=text, description=text, **usual),
        Sample(product_id="p2", title="Cot", description=f"{'long ' * 99}{text}", **usual),
        Sample(product_id="p3", title="Cot", description="A cot", **usual),
        Sample(product_id="p4", title="Cot", description=text, **usual | {"evidence": ""}),
    ]
    path = write_run_report(tmp_path / "run.html", RunReport(run=run_row(), published=samples))
    written, page = path.read_text(encoding="utf-8"), ParsedPage(path.read_text(encoding="utf-8"))
    marked = "<mark>&lt;b&gt;160&lt;/b&gt; &amp; &amp;amp; &lt;script&gt;</mark>"
    assert re.findall("<mark>.*?</mark>", written) == [marked, marked]
    assert page.open == page.handlers == []
    assert "script" not in page.tags
    first, second, third, fourth = written.split('<figure class="card">')[1:]
    assert '<bdi class="quoted" dir="auto">…' in first
    assert "quoted soft" not in first
    assert '<bdi class="title" dir="auto">Cot</bdi>' in second
    assert '<bdi class="quoted soft" dir="auto">…' in second
    assert "long" not in second
    assert f"The model gives as evidence &#34;{marked[6:-7]}&#34;." in third
    assert "quoted" not in fourth.split("</figure>")[0]


def test_right_to_left_emoji_and_invalid_characters_are_shown(written: Path, page: ParsedPage) -> None:
    assert "חולצת פשתן אדומה" in page.text
    assert "🧦 socks \ufffd\ufffd ? & \u202egnp.exe" in page.text
    assert '<bdi class="title" dir="auto">חולצת' in written.read_text(encoding="utf-8")
    assert not re.search(rb"[\x00-\x08\x0b-\x1f\x7f]", written.read_bytes())


def test_the_page_sends_no_request(written: Path, page: ParsedPage) -> None:
    assert len(page.links) == 2  # two pictures can be decoded
    assert all(link.startswith("data:image/jpeg;base64,") for link in page.links)
    assert "url(" not in written.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "expected_text",
    [
        "1,000 products = 950 predicted + 38 skipped + 12 quarantined",
        "color 600 240 251 30 100 no value: 34 (25 too unsure, 9 not certified) "
        "merchant's value: 66 (60 have that value already, 6 too unsure) 17 97.1% 60.0% 84.0%",
        "attribute products merchant's value person's value model's value no value color 1,000 600 0 240 160",
        "color: 160 products without any value",
        "15 abstain below threshold because of below_threshold "
        "10 abstain value not in pool because of value_not_in_pool 9 abstain unseen slice because of",
        "126 not decided by this run",
        "red 200 300 4 98.7% (96.6 to 99.6) 40 1 97.5% (86.8 to 99.9)",
        "navy & white 0 40 3 92.5% (79.6 to 98.4) 0 0 –",
        "Status: provisional ; expires",
        "Almost red אדום 0.790",
        "season 580 0 0 12 358 0 – 58.0% 58.0%",
        "color with text and picture 240 97.1% 7 of 340 accepted certification products wrong: at least 95.6% right",
        "at most 8,765 values of the attribute may stand",
        "wrong: at least 95.6% right 38.0% 40.0%",
        "season with text and picture 0 – abstains: 9 of 153 wrong at the first threshold, 0.9312 (p = 0.712)",
        "7 were wrong (300 content groups, design effect 1.20); with confidence 95.0% the precision is at least 95.6%.",
        "publish certified both 240 0 because of certified abstain agrees with merchant both 60 0",
        "abstain below threshold both 21 15 because",
        "abstain unseen slice both 9 9 because of",
        "1,234 values wait under the provisional cap of color: audit to confirm the certificate, or raise",
        "design effect 1.20 so many accepted products count as one independent product",
        "K 7 accepted certification products with a wrong value",
        "Abstains: 9 of 153 wrong at the first threshold, 0.9312 (p = 0.712).",
        "already scored 30 this model version has decided it on this content; nothing to do opted out 8",
        "no image 41 the product is scored by its text alone: it has no picture; with a usable",
        "empty title 12 the row is in quarantine: its title is empty; correct the feed",
        "Replace: the merchant's value, struck through, conflicts",
        "replace summer, <b>spring</b> winter 0.770",
        "add to summer, <b>spring</b> + autumn 0.770",
        "shoes color 700 +200 57.1% 85.7%",
        "+40 66.7% 80.0%",
        "corner 35 values of color that the dictionary lacks use a value of the list",
        "12 rows without a title give every product a title",
        "navvy 31 en Navy",
        "4 en none is near",
        '{ "name": "color", "aliases": { "en": { "navvy": "Navy" } } }',
        "score 40.0 962 950 12 24 2 cores",
        "Passed : 2 of 2 expectations are met.",
        "rollback_run --config shop.toml --run-id enrich-0123456789abcdef0123",
    ],
)
def test_the_report_shows(page: ParsedPage, expected_text: str) -> None:
    assert expected_text in page.text


SUGGESTED = {Reason.NEAR_MISS, Reason.DISAGREES_WITH_MERCHANT}


def test_every_reason_to_abstain_is_in_a_part_of_its_own_meaning() -> None:
    assert set(ABSTENTIONS) == {*JUDGED, *ABOUT_MERCHANT, *ABOUT_PERSON, *ADMINISTRATIVE} - SUGGESTED
    parts: dict[str, set[str]] = {}
    for reason, (_, several) in ABSTENTIONS.items():
        parts.setdefault(several, set()).add(reason.value)
    assert parts == {
        "have that value already": {"agrees_with_merchant"},
        "decided by a person": {"human_value_stands"},
        "refused by a reviewer": {"refused_by_person"},
        "too unsure": {"below_threshold", "value_not_in_pool"},
        "without a proposed value": {"no_proposal"},
        "wait for an answer": {"no_answer"},
        "not in the dictionary any more": {"value_removed"},
        "wait under the cap": {"provisional_cap"},
        "without a picture that can be read now": {"picture_outage"},
        "not certified": {"no_certificate", "certificate_mismatch", "certificate_expired", "unseen_slice", "paused"},
    }


def test_abstentions_are_split_by_who_gave_a_value_and_by_reason_in_singular_and_plural() -> None:
    reasons = [
        counted(Reason.PROVISIONAL_CAP, 1), counted(Reason.AGREES_WITH_MERCHANT, 1200, "merchant"),
        counted(Reason.BELOW_THRESHOLD, 2), counted(Reason.BELOW_THRESHOLD, 3, modality="text_only"),
        counted(Reason.BELOW_THRESHOLD, 394, "merchant"), counted(Reason.BELOW_THRESHOLD, 9, attribute="season"),
        counted(Reason.CERTIFIED, 7, "model", decision="publish"), counted(Reason.PICTURE_OUTAGE, 4),
        counted(Reason.PAUSED, 5, "model"), counted(Reason.HUMAN_VALUE_STANDS, 6, "human"),
    ]  # fmt: skip
    color, season = template_values(RunReport(run=run_row(), reasons=reasons))["attributes"]
    assert color["abstentions"] == [
        ("no value", 10, "5 too unsure, 1 waits under the cap, 4 without a picture that can be read now"),
        ("merchant's value", 1594, "1,200 have that value already, 394 too unsure"),
        ("person's value", 6, "6 decided by a person"),
        ("older model value", 5, "5 not certified"),
    ]
    assert season["abstentions"] == [("no value", 9, "9 too unsure")]
    single = RunReport(run=run_row(), reasons=[counted(Reason.AGREES_WITH_MERCHANT, 1, "merchant")])
    assert template_values(single)["attributes"][0]["abstentions"] == [
        ("merchant's value", 1, "1 has that value already")
    ]


def test_a_certificate_that_an_audit_confirmed_is_said_to_be_confirmed(tmp_path: Path) -> None:
    confirmed = replace(full_report(), confirmed={certificate().certificate_id})
    text = ParsedPage(write_run_report(tmp_path / "c.html", confirmed).read_text("utf-8")).text
    assert "Status: confirmed by an audit ; expires" in text
    assert "provisional ;" not in text


def test_counts_that_do_not_add_up_are_reported_i7(tmp_path: Path) -> None:
    row = run_row()
    good = write_run_report(tmp_path / "a.html", RunReport(run=row)).read_text(encoding="utf-8")
    row["counts"] = row["counts"] | {"predicted": 949}
    bad = write_run_report(tmp_path / "b.html", RunReport(run=row)).read_text(encoding="utf-8")
    assert "do not add up" not in good
    assert "do not add up" in bad


def test_the_run_row_is_all_that_is_required(tmp_path: Path) -> None:
    bare = {"run_id": "rollback-1", "kind": "rollback", "status": "succeeded"}
    text = write_run_report(tmp_path / "bare.html", RunReport(run=bare)).read_text(encoding="utf-8")
    assert "Rollback run" in text
    assert "<h2>" not in text


def test_the_page_has_the_certificates_of_the_attributes_that_the_run_decided() -> None:
    row = run_row()
    attributes = json.loads(row["attributes"])
    shown = [issued for issued, _ in template_values(full_report())["certificates"]]
    attributes["certificates"].append(sample_certificate.certificate(attribute="undecided").to_dict())
    report = replace(full_report(), run=row | {"attributes": json.dumps(attributes)})
    assert [issued for issued, _ in template_values(report)["certificates"]] == shown


def test_the_page_says_what_the_run_did_not_write(tmp_path: Path) -> None:
    row = run_row()
    row["attributes"] = json.dumps(json.loads(row["attributes"]) | NOT_WRITTEN)
    page = write_run_report(tmp_path / "run.html", RunReport(run=row)).read_text()
    for line in LINES:
        assert line.replace("<", "&lt;").replace(">", "&gt;") in page
    assert LINES[0] not in write_run_report(tmp_path / "other.html", RunReport(run=run_row())).read_text()


def test_where_the_truth_is_unknown_the_certified_bound_is_shown(tmp_path: Path) -> None:
    report = replace(full_report(), right=None)
    text = ParsedPage(write_run_report(tmp_path / "u.html", report).read_text("utf-8")).text
    assert "6 too unsure) 17 ≥ 95.6% 60.0% 84.0%" in text
    assert "season 580 0 0 12 358 0 – 58.0% 58.0%" in text


def test_pictures_come_before_statistics_which_are_folded(written: Path) -> None:
    text = written.read_text(encoding="utf-8")
    headings = re.findall(r"<h2>([^<]+)</h2>", text)
    assert headings[:5] == [
        "Attributes", "What is empty, and why", "Published values", "Near misses", "Disagreements with merchants"
    ]  # fmt: skip
    assert headings[5:9] == [
        "Why values are written or not",
        "Coverage by category and shop",
        "What merchants should correct",
        "Merchants' values that the dictionary lacks",
    ]
    folded = re.findall(r'<details class="section" ?><summary><h2>([^<]+)</h2>', text)
    assert folded == ["With and without a picture", "Certificates", "Values", "Scores", "Stages", "Validation"]


def test_more_samples_are_folded_and_their_pictures_are_not_decoded_before_they_are_seen(tmp_path: Path) -> None:
    sample = full_report().published[0]
    many = [replace(sample, product_id=f"p{n}") for n in range(2 * PAGE + 5)]
    text = write_run_report(tmp_path / "m.html", RunReport(run=run_row(), published=many)).read_text("utf-8")
    check_folded_cards(text, len(many))


def test_the_coverage_bars_do_not_scroll_with_the_table(written: Path) -> None:
    before_table = written.read_text(encoding="utf-8").partition('<div class="scroll">')[0]
    bar = '<span class="bar"><i style="width:60.00%"></i><i class="gain" style="width:24.00%">'
    assert before_table.count(bar) == 1
    assert '<b>season</b><span class="n">58.0%</span>' in before_table


def test_every_table_but_the_narrow_tables_scrolls_in_a_box_of_its_own(written: Path) -> None:
    text = written.read_text(encoding="utf-8")
    boxed = len(re.findall(r'<div class="scroll"><table>', text))
    assert boxed == text.count("<table>") - text.count('<div class="tally">')
    assert boxed == text.count("</table></div>") > 8


def test_failed_validation_is_shown_expanded(tmp_path: Path) -> None:
    row = run_row()
    row["validation"] = row["validation"].replace('"success": true', '"success": false', 1)
    text = write_run_report(tmp_path / "v.html", RunReport(run=row)).read_text(encoding="utf-8")
    assert "Not passed" in text
    assert '<details class="section" open><summary><h2>Validation</h2>' in text
    assert "<details open>" in text


def test_without_stages_the_seconds_of_the_run_row_are_shown(tmp_path: Path) -> None:
    path = write_run_report(tmp_path / "s.html", replace(full_report(), stages=()))
    assert '<td>select</td><td class="n">1.2</td>' in path.read_text(encoding="utf-8")


def test_a_thumbnail_is_small_and_empty_without_a_usable_picture() -> None:
    assert len(thumbnail(picture())) < 4000
    assert thumbnail(None) == thumbnail(b"") == thumbnail(b"not a picture") == thumbnail(picture()[:50]) == ""
