"""The table that audit_ingest prints: what was judged of each certificate, what followed, and the next commands."""

from __future__ import annotations

from typing import Any

import pytest

from catalog_enrichment.audit.verdict_table import (
    CONFIRMED,
    OPEN,
    PAUSED,
    JudgedPath,
    as_table,
    certificates_of,
    next_steps,
    waiting_by_certificate,
)
from catalog_enrichment.precision.audit_statistics import AuditEstimate

from .audit_rows import drawn, said

FOUND = AuditEstimate(rows=104, wrong=1, unsure=0, precision=0.98885, lower=0.9255, upper=0.99996)


def path(**given: Any) -> JudgedPath:
    usual: dict[str, Any] = {"attribute": "color", "modality": "both", "certificate_id": "c1", "found": FOUND}
    usual |= {"state": OPEN, "retracted": 0, "reinstated": 0, "waiting": 0, "missing": 53}
    return JudgedPath(**usual | given)


@pytest.mark.parametrize(
    ("given", "followed"),
    [
        ({}, "nothing; at least 53 more verdicts confirm it, if all are right"),
        ({"missing": None, "waiting": 1},
         "nothing; 1 drawn value waits for one; more than 100,000 more verdicts confirm it, if all are right"),
        ({"retracted": 1200, "reinstated": 2, "waiting": 34},
         "retracted 1,200; reinstated 2; 34 drawn values wait for verdicts; at least 53 more verdicts confirm it, if "
         "all are right"),
        ({"state": CONFIRMED, "retracted": 1, "missing": 0}, "confirmed; retracted 1"),
        ({"state": PAUSED, "waiting": 2}, "paused; 2 drawn values wait for verdicts"),
        ({"missing": 0}, "nothing"),
    ],
)  # fmt: skip
def test_what_followed_is_said_with_the_verdicts_that_are_missing(given: dict[str, Any], followed: str) -> None:
    assert path(**given).followed == followed


def test_the_table_has_a_line_per_certificate() -> None:
    heading, _, *lines = as_table(
        [path(state=CONFIRMED), path(modality="text_only", found=None, missing=99)]
    ).splitlines()
    assert " ".join(heading.split()) == "attribute products judged wrong right, with bounds what followed"
    assert [" ".join(line.split()) for line in lines] == [
        "color with text and picture 104 1 98.9% (92.5% to 100.0%) confirmed",
        "color without a usable picture 0 0 - nothing; at least 99 more verdicts confirm it, if all are right",
    ]


def test_certificates_of_the_newest_version_and_those_with_new_or_waiting_items_are_listed() -> None:
    rows = [
        drawn(1, certificate_id="old", model_version="2"),
        drawn(2, certificate_id="asked", model_version="2"),
        drawn(3, certificate_id="text", modality="text_only"),
        drawn(4),
        drawn(5, purpose="proposals", certificate_id="other"),
        drawn(6, attribute="material", certificate_id="m", model_version="2"),
    ]
    assert certificates_of(rows, {"i2", "i5"}) == {
        ("color", "asked"): "both", ("color", "c1"): "both", ("color", "text"): "text_only", ("material", "m"): "both",
    }  # fmt: skip
    assert waiting_by_certificate(rows, {"i2", "i4", "i5"}) == {("color", "asked"): 1, ("color", "c1"): 1}


def test_the_next_commands_follow_from_what_is_missing() -> None:
    def steps(paths: list[JudgedPath], new: list[dict[str, Any]] | None = None, unsettled: int = 0) -> list[str]:
        return [line.rpartition(": ")[2] for line in next_steps(paths, new or [], unsettled, 2, ["--config", "C"])]

    assert steps([path(waiting=3)], unsettled=3) == ["serve_audit --config C"]
    assert steps([path(state=CONFIRMED, missing=0)]) == ["enrich_catalog --config C"]
    other = path(modality="text_only", missing=80)
    assert steps([path(), other, path(attribute="material", state=PAUSED)]) == [
        "audit_sample --config C --attribute color --uniform 80 --seed 2"
    ]
    assert steps([path(missing=None), path(missing=0)]) == []
    proposal, gold = said(1, "yes", purpose="proposals"), said(2, "other", "red", purpose="gold")
    assert steps([], [proposal, gold]) == [
        "certify_model --config C --by-verdicts color --dry-run", "train_model --config C",
    ]  # fmt: skip
