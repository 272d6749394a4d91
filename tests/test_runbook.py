"""The command blocks of the RUNBOOK, run in their order on a catalog after its first run, and what each leaves."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from .sample_catalog import SampleCatalog, run_job, values

RUNBOOK = Path(__file__).parents[1] / "deploy" / "RUNBOOK.md"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def commands() -> list[str]:
    """The lines of the indented blocks that call a job."""
    lines = re.findall(r"^    (\w+ --config .*)$", RUNBOOK.read_text(), re.MULTILINE)
    return [line.partition("  #")[0].strip() for line in lines]


def test_every_command_of_the_runbook_does_what_its_section_says(enriched: SampleCatalog, run: dict[str, Any]) -> None:
    enriched.promotion.promote("2", expected_current="1")
    product = next(product_id for product_id, attribute in sorted(values(enriched, "model")) if attribute == "color")
    names = {"CONFIG": str(enriched.file), "ID": product, "NAME": "color", "VALUE": "Red", "RUN": run["run_id"]}
    names["N"] = "1"
    after: dict[str, tuple[dict[str, Any], dict[Any, Any]]] = {}
    for line in commands():
        code, summary, printed = run_job(*(names.get(word, word) for word in shlex.split(line)))
        assert code == 0, f"{line}: {printed[-2000:]}"
        after[line] = summary, values(enriched)
        names["ROLLBACK"] = after[line][0].get("run_id")  # a rollback of a rollback names the rollback before

    def left(line: str) -> tuple[dict[str, Any], dict[Any, Any]]:
        return after.pop(line)

    assert left("list_runs --config CONFIG --status refused --status failed")[0]["listed"] == 0
    assert left("explain_value --config CONFIG --product-id ID --attribute NAME")[0]["product_id"] == product
    summary, seen = left('set_value --config CONFIG ID NAME VALUE --reason "the picture shows it"')
    assert seen[product, "color"] == ("Red",)
    assert (product, "color") not in left("set_value --config CONFIG ID NAME --remove")[1]
    summary, seen = left("rollback_run --config CONFIG --run-id RUN --attribute NAME")
    assert summary["events"]["color"] > 1
    materials = {key for key in seen if key[1] == "material"}
    assert materials
    for upkeep in ("maintain_catalog --config CONFIG --dry-run", "maintain_catalog --config CONFIG"):
        assert left(upkeep)[1] == seen, "upkeep changes nothing that readers see"
    assert left("promote_model --config CONFIG --go-back")[0]["model_version"] == "1"
    assert enriched.model().version == "1"
    summary, _ = left("rollback_run --config CONFIG --model-version N --dry-run")
    assert (summary["status"], set(summary["events"])) == ("dry_run", {"material"}), "colours were rolled back before"
    summary, seen = left("rollback_run --config CONFIG --model-version N")
    assert summary["undoes"] == [run["run_id"]]
    assert not materials & seen.keys(), "only models gave materials"
    summary, seen = left("rollback_run --config CONFIG --run-id ROLLBACK")
    assert materials <= seen.keys()
    estimate = "backfill --config CONFIG --category Apparel --updated-from 2026-01-01 --estimate"
    assert left(estimate)[0]["status"] == "estimate"
    assert left(estimate.removesuffix(" --estimate"))[0]["status"] in ("succeeded", "nothing_to_do")
    assert not after, "a command whose effect is not looked at"
