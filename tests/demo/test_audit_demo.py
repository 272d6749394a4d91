"""The sample of `make audit_demo`: what is asked of audit_sample."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.config.load import load_config
from catalog_enrichment.demo import audit_demo
from catalog_enrichment.errors import ConfigError


def seen(product: int, attribute: str, source: str) -> dict[str, Any]:
    return {"product_id": f"p{product}", "attribute": attribute, "values": ["Red"], "source": source}


@pytest.mark.parametrize(("count", "uniform", "near"), [(200, 70, 30), (3, 1, 1), (1, 1, 0)])
def test_as_many_values_of_every_attribute_that_models_wrote(
    tmp_path: Path, count: int, uniform: int, near: int
) -> None:
    config = load_config("config:demo.toml", [f"root={json.dumps(str(tmp_path))}"])
    catalog = Catalog.of(config)
    with pytest.raises(ConfigError, match="run make demo first"):
        audit_demo.request_of(config, catalog, count)
    rows = [seen(1, "material", "model"), seen(2, "color", "model"), seen(3, "color", "model")]
    catalog.append_rows("current_values", [*rows, seen(3, "country_of_origin", "merchant")], "enrich-1")
    request = audit_demo.request_of(config, catalog, count)
    assert (request.attributes, request.uniform, request.near) == (("color", "material"), uniform, near)
    assert request.purpose.value == "audit"
    assert (request.reviewers, request.run_id) == (2, None)


def test_without_a_demo_nothing_is_served(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert audit_demo.main(["--folder", str(tmp_path), "--port", "0"]) == 2
    assert "run make demo first" in json.loads(capsys.readouterr().out)["message"]
