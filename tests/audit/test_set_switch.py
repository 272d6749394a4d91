"""The job set_switch: at any time, without Spark and without the catalog's lock."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from catalog_enrichment import cli
from catalog_enrichment.catalog import switches
from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.catalog.switches import Scope, State

from .. import sample_catalog


def test_a_switch_is_moved_listed_and_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sample = sample_catalog.build(tmp_path / "sample")
    config = ["--config", str(sample.file)]
    catalog = Catalog(sample.config.path("catalog"))
    off = ["value", "Red", "--attribute", "color", "--state", "off", "--reason", "mixed up", "--by", "ann"]
    with catalog.writing():
        assert cli.set_switch([*config, *off]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["switch"] == "value color = Red"
    (switch,) = switches.read(catalog).of(Scope.VALUE, State.OFF)
    assert (switch.attribute, switch.target, switch.who, switch.why) == ("color", "Red", "ann", "mixed up")

    assert cli.set_switch([*config, "--list"]) == 0
    shown = capsys.readouterr()
    assert "value color = Red is off: mixed up (ann, " in shown.err
    assert len(json.loads(shown.out.splitlines()[-1])["not_on"]) == 1

    assert cli.set_switch([*config, "shop", "s1", "--state", "off"]) == 2
    assert cli.set_switch([*config, "shop", "s1"]) == 2
    assert "--state" in capsys.readouterr().err
    assert len(switches.history(catalog)) == 1

    assert cli.set_switch([*config, *off[:5], "on", *off[6:]]) == 0
    assert cli.set_switch([*config, "--list"]) == 0
    assert "everything is on" in capsys.readouterr().err
