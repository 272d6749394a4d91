"""Two runs compared, from the tables alone. Without Spark."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from catalog_enrichment import cli
from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.operations import compared_runs_text
from catalog_enrichment.operations.compare_runs import compare_runs

from ..catalog.catalog_rows import START, event, run_row
from ..open_words import OPEN_WORDS
from ..sample_catalog import build
from ..sample_certificate import abstention, certificate

FIRST, SECOND = certificate(threshold=0.9), certificate(threshold=0.8)


def decided(written: int, coverage: float, **reasons: Any) -> dict[str, Any]:
    numbers = {"merchant": 9, "written": written, "values_written": written + 1, "suggested": 2, "abstained": 3}
    return numbers | {
        "retracted": 0, "coverage_before": 0.5, "coverage_after": coverage, "reasons": {"abstain": reasons}
    }  # fmt: skip


def ended(run_id: str, minute: int, kind: str = "enrich", **given: Any) -> dict[str, Any]:
    at = START + timedelta(minutes=minute)
    usual = {"attempt": 1, "started_at": at, "finished_at": at + timedelta(seconds=75), "model_version": "3"}
    return run_row(run_id, kind=kind, **usual | given)


def attributes(decisions: dict[str, Any], *certificates: Any) -> str:
    issued = [of.to_dict() for of in certificates]
    return json.dumps({"decisions": decisions, "certificates": issued, "coverage": {"dictionary": "d1", "groups": {}}})


RUNS = [
    ended("import-1", 0, "import", counts={"products": 9, "new": 7}, model_version=None),
    ended("import-2", 1, "import", counts={"products": 12, "changed": 3}, model_version=None),
    ended("enrich-a", 2, counts={"products": 9, "predicted": 8}, config=json.dumps({"precision": {"target": 0.95}}),
          attributes=attributes({"color": decided(4, 0.7, below_threshold={"none": 5, "merchant": 2})}, FIRST)),
    ended("enrich-b", 3, counts={"products": 9, "predicted": 9}, config=json.dumps({"precision": {"target": 0.9}}),
          model_version="4",
          attributes=attributes({"color": decided(5, 0.8, below_threshold={"none": 1}), "size": decided(1, 0.1)},
                                SECOND, abstention(attribute="size"))),
    ended("enrich-c1", 4, parent_run_id="backfill-c", attributes=attributes({"color": decided(1, 0.6)}, FIRST)),
    ended("enrich-c2", 5, parent_run_id="backfill-c", attributes=attributes({"color": decided(2, 0.65)}, FIRST)),
    ended("backfill-c", 6, "backfill"),
    ended("enrich-f", 7, status="failed", error="no network"),
    ended("enrich-f", 8, status="failed", error="disk full", attempt=2),
    ended("enrich-b", 1.5, status="failed", error="killed", attempt=0, counts={"products": 1}),
]  # fmt: skip
VALUES = {
    "enrich-a": {"same": "Red", "other": "Red", "set": ("Red", "Blue"), "only-a": "Red", "only-a2": "Red"},
    "enrich-b": {"same": "Red", "other": "Blue", "set": ("Blue", "Red"), "only-b": "Green"},
    "enrich-c1": {"same": "Red"},
    "enrich-c2": {"other": "Red"},
}


def wrote(product: str, value: str, run_id: str, **given: Any) -> dict[str, Any]:
    usual = {"event_id": f"{run_id} {product} {value}", "product_id": product, "value": value, "run_id": run_id}
    return event(0, **usual | given)


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    lake = Catalog(tmp_path_factory.mktemp("compared") / "catalog")
    lake.append_rows("runs", RUNS, "runs")
    for run_id, values in VALUES.items():
        events = [
            wrote(product, value, run_id)
            for product, given in values.items()
            for value in ([given] if isinstance(given, str) else given)
        ]
        retraction = wrote("retracted", "Red", run_id, op="retract")
        lake.append_rows("attribute_values", [*events, retraction], run_id)
    return lake


def test_two_enrichments_differ_in_inputs_counts_decisions_certificates_and_values(catalog: Catalog) -> None:
    found = compare_runs(catalog, "enrich-a", "enrich-b", examples=1)
    assert json.loads(json.dumps(found)) == found
    assert [run["run_id"] for run in found["runs"]] == ["enrich-a", "enrich-b"]
    assert found["inputs"] == {"model_version": ["3", "4"], "config precision.target": [0.95, 0.9]}
    assert found["counts"] == {"predicted": [8, 9], "products": [9, 9]}
    color = found["attributes"]["color"]
    assert (color["written"], color["values_written"]) == ([4, 5], [5, 6])
    assert color["coverage_after"] == [0.7, 0.8]
    assert color["reasons"] == {"abstain below_threshold": [7, 1]}
    assert color["without_value"] == {"below_threshold": [5, 1]}
    assert found["attributes"]["size"]["written"] == [None, 1]
    assert [(of["attribute"], of["same"], of["threshold"]) for of in found["certificates"]] == [
        ("color", False, [0.9, 0.8]),
        ("size", False, [None, None]),
    ]
    assert found["values"] == {
        "color": {
            "same": 2, "differing": 1, "only_a": 2, "only_b": 1,
            "examples": [
                {"kind": "differing", "product_id": "other", "values": [["Red"], ["Blue"]]},
                {"kind": "only_a", "product_id": "only-a", "values": [["Red"], None]},
                {"kind": "only_b", "product_id": "only-b", "values": [None, ["Green"]]},
            ],
        }
    }  # fmt: skip
    assert compare_runs(catalog, "enrich-a", "enrich-b", examples=0)["values"]["color"]["examples"] == []


def test_a_backfill_counts_with_its_chunks(catalog: Catalog) -> None:
    found = compare_runs(catalog, "enrich-a", "backfill-c")
    assert found["attributes"]["color"]["written"] == [4, 3]
    assert found["certificates"][0]["same"] is True
    numbers = found["values"]["color"]
    assert [numbers[kind] for kind in ("same", "differing", "only_a", "only_b")] == [2, 0, 3, 0]


def test_runs_that_write_no_values_are_compared_by_their_counts(catalog: Catalog) -> None:
    found = compare_runs(catalog, "import-1", "import-2")
    assert found["counts"] == {"changed": [None, 3], "new": [7, None], "products": [9, 12]}
    assert found["values"] == found["attributes"] == {}
    failed = compare_runs(catalog, "enrich-a", "enrich-f")
    assert failed["values"] == {}
    assert failed["runs"][1]["error"] == "disk full"


def test_a_run_that_does_not_exist_is_refused_with_the_command_that_lists_them(
    catalog: Catalog, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"no run 'nosuch' in .*: list_runs --config c\.toml --last 100"):
        compare_runs(catalog, "enrich-a", "nosuch", config=["--config", "c.toml"])
    with pytest.raises(ConfigError, match="no run 'enrich-a'"):
        compare_runs(Catalog(tmp_path / "empty"), "enrich-a", "enrich-b")


def test_the_text_has_every_part_and_says_where_nothing_differs(catalog: Catalog) -> None:
    text = compared_runs_text.as_text(compare_runs(catalog, "enrich-a", "enrich-b"))
    lines = [" ".join(line.split()) for line in text.splitlines()]
    for line in (
        "run enrich-a enrich-b", "model version 3 4", "config precision.target 0.95 0.9", "predicted 8 9",
        "values written 5 6", "coverage after 70.0% 80.0%", "abstain below threshold 7 1", "below threshold 5 1",
        "color with text and picture fp32-cpu 0.9000 -> 0.8000 96.4% -> 96.4%", "color 2 1 2 1", "color other Red Blue",
        "color only-b - Green",
    ):  # fmt: skip
        assert line in lines, text
    same = compared_runs_text.as_text(compare_runs(catalog, "enrich-a", "enrich-a"))
    assert "inputs that differ\nnone" in same
    assert "the same" in same


def test_the_job_prints_tables_and_a_json_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sample = build(tmp_path / "sample")
    Catalog(sample.config.path("catalog")).append_rows("runs", RUNS[:2], "test")
    assert cli.compare_runs(["--config", str(sample.file), "import-1", "import-2"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["counts"]["products"] == [9, 12]
    assert "inputs that differ" in printed.err
    assert cli.compare_runs(["--config", str(sample.file), "import-1", "gone"]) == 2
    assert f"list_runs --config {sample.file} --last 100" in json.loads(capsys.readouterr().out)["message"]


def test_the_same_number_or_text_in_another_spelling_is_no_difference(tmp_path: Path) -> None:
    lake = Catalog(tmp_path / "catalog")
    lake.dictionary = OPEN_WORDS
    lake.append_rows("runs", RUNS, "runs")
    values = {
        "enrich-a": {"within": "109 cm", "unit": "109 cm", "beyond": "109 cm"},
        "enrich-b": {"within": "110 cm", "unit": "1.09 m", "beyond": "112 cm"},
    }
    for run_id, given in values.items():
        events = [wrote(product, value, run_id, attribute="width") for product, value in given.items()]
        lake.append_rows("attribute_values", events, run_id)
    found = compare_runs(lake, "enrich-a", "enrich-b")["values"]["width"]
    assert (found["same"], found["differing"]) == (2, 1)
    assert [example["product_id"] for example in found["examples"]] == ["beyond"]
