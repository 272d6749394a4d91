"""Alert rules, their promtool tests and the dashboard, held against the metrics that the jobs write."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from catalog_enrichment.monitoring.metrics import METRICS, PREFIX

FOLDER = Path(__file__).parents[2] / "deploy" / "metrics"
RULES = [rule for group in yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"] for rule in group["rules"]]
DASHBOARD = json.loads((FOLDER / "grafana-dashboard.json").read_text())


def used(expression: str) -> dict[str, set[str]]:
    """Metric -> labels that the expression selects by or, in a legend, shows."""
    found: dict[str, set[str]] = {}
    for name, selector in re.findall(rf"{PREFIX}(\w+)(?:\{{([^}}]*)\}})?", expression):
        found.setdefault(name, set()).update(re.findall(r"(\w+)\s*(?:=~|!=|!~|=)", selector))
    return found


def test_the_rules_and_the_dashboard_use_only_metrics_and_labels_that_exist() -> None:
    expressions = [(rule["alert"], rule["expr"], str(rule["annotations"])) for rule in RULES]
    for panel in DASHBOARD["panels"]:
        expressions += [(panel["title"], target["expr"], target["legendFormat"]) for target in panel["targets"]]
    for where, expression, shown in expressions:
        metrics = used(expression)
        assert metrics, where
        shown_labels = set(re.findall(r"\{\{\s*(?:\$labels\.)?([a-z]\w*)\s*\}\}", shown))
        for name, labels in metrics.items():
            assert name in METRICS, f"{where}: {name}"
            assert labels | shown_labels <= {"catalog", "program", *METRICS[name].labels}, f"{where}: {name}"


def test_the_dashboard_shows_every_metric() -> None:
    shown = {name for panel in DASHBOARD["panels"] for target in panel["targets"] for name in used(target["expr"])}
    assert set(METRICS) - shown == {"last_finished_timestamp_seconds"}
    variables = [used(variable["query"]) for variable in DASHBOARD["templating"]["list"] if variable["type"] == "query"]
    assert variables == [{"last_exit_code": set()}]
    places = [tuple(panel["gridPos"].values()) for panel in DASHBOARD["panels"]]
    assert len(set(places)) == len({panel["id"] for panel in DASHBOARD["panels"]}) == len(places)


def test_every_alert_has_a_series_that_fires_it_and_one_that_does_not() -> None:
    tests = yaml.safe_load((FOLDER / "alerts.test.yml").read_text())["tests"]
    checks = [check for test in tests for check in test["alert_rule_test"]]
    for rule in RULES:
        fires = {bool(check["exp_alerts"]) for check in checks if check["alertname"] == rule["alert"]}
        assert fires == {True, False}, rule["alert"]


def test_every_alert_names_a_page_and_mostly_a_section_of_it() -> None:
    for rule in RULES:
        page, _, section = rule["annotations"]["runbook"].partition(", ")
        text = (FOLDER.parent.parent / page).read_text()
        assert not section or f"\n## {section.strip(chr(34))}\n" in text, rule["alert"]


def test_promtool_accepts_the_rules_and_their_tests_pass() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        missing = "NO PROMTOOL, ALERT RULES NOT TESTED: apt-get install prometheus"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(missing)
    for arguments in (["check", "rules", "alerts.yml"], ["test", "rules", "alerts.test.yml"]):
        done = subprocess.run([promtool, *arguments], cwd=FOLDER, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
