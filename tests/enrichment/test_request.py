"""What a run is asked to do: its standard, number type and certificates, and what makes it another run."""

from __future__ import annotations

import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from catalog_enrichment.catalog.switches import Scope, State, Switch, Switches
from catalog_enrichment.context import load_dictionary
from catalog_enrichment.enrichment.request import RunRequest, RuntimeOverrides, Window
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.models import compute_types
from catalog_enrichment.models.spec import Head
from catalog_enrichment.proposers.network import NetworkProposer
from catalog_enrichment.records import Cardinality, Modality
from catalog_enrichment.registry.model_registry import ResolvedModel

from .. import sample_catalog
from ..sample_catalog import SampleCatalog, enrich, register, table
from ..sample_certificate import SCORED_BY, STANDARD, abstention

PATHS = ("fp32-cpu", "bf16-cpu")


def resolved_model(*compute_types: str) -> ResolvedModel:
    """With a certificate for the colour on each of these compute types."""
    certificates = tuple(
        sample_catalog.certificate("color", Modality.BOTH, 0.5, replace(SCORED_BY, compute_type=path))
        for path in compute_types
    )
    proposer = NetworkProposer(
        folder=Path(),
        artifact_hash="",
        heads={"color": Head(Cardinality.ONE, ("Red",))},
        weights_hash="w",
        preprocessing_hash="p",
    )
    return ResolvedModel(
        name="m", version="1", artifact=Path(), artifact_hash="", proposer=proposer, certificates=certificates
    )


def test_the_standard_is_the_configs_and_another_one_is_another_run(tmp_path: Path) -> None:
    config = sample_catalog.build(tmp_path / "sample").config
    dictionary, model = load_dictionary(config), resolved_model()
    usual = RunRequest.of(config, dictionary, model, Window())
    assert usual.standard == STANDARD
    for name, value in (("target", 0.99), ("delta", 0.01)):
        stricter = replace(config, precision=replace(config.precision, **{name: value}))
        request = RunRequest.of(stricter, dictionary, model, Window())
        assert request.standard == replace(STANDARD, **{name: value})
        assert request.config_hash != usual.config_hash


def test_a_version_that_is_certified_with_other_copies_is_refused_with_the_setting_that_it_needs(
    tmp_path: Path,
) -> None:
    sample = sample_catalog.build(tmp_path / "sample")
    dictionary, model = load_dictionary(sample.config), resolved_model("fp32-cpu")
    certified_without = replace(
        model, certificates=tuple(replace(each, scaled_side=None) for each in model.certificates)
    )
    abstains = replace(model, certificates=(abstention(**asdict(SCORED_BY)),))
    other, without = (
        sample.with_settings(setting).config for setting in ("images.scaled_side=300", "images.keep_scaled=false")
    )
    for config, refused, needed in (
        (other, model, "certified with images.keep_scaled = true and scaled_side = 288, not with keep_scaled = true"),
        (without, model, "certified with images.keep_scaled = true and scaled_side = 288, not with keep_scaled = fals"),
        (sample.config, certified_without, "certified with images.keep_scaled = false, not with keep_scaled = true"),
    ):
        with pytest.raises(ConfigError, match=re.escape(needed)):
            RunRequest.of(config, dictionary, refused, Window())
    for config, allowed in ((sample.config, model), (without, certified_without), (other, abstains)):
        assert RunRequest.of(config, dictionary, allowed, Window()).model is not None


def test_what_is_switched_off_is_off_in_the_rules_and_what_is_paused_is_another_run(tmp_path: Path) -> None:
    config = sample_catalog.build(tmp_path / "sample").with_settings("enrich.disabled_shops=['a']").config
    dictionary, model = load_dictionary(config), resolved_model()

    def asked(scope: Scope, target: str = "", attribute: str = "", state: State = State.OFF) -> RunRequest:
        moved = Switch(scope=scope, target=target, attribute=attribute, state=state, who="a", why="b")
        return RunRequest.of(config, dictionary, model, Window(), RuntimeOverrides(Switches((moved,))))

    assert asked(Scope.SHOP, "b").rules.disabled_shops == ["a", "b"]
    assert asked(Scope.CATEGORY, "Home").rules.disabled_categories == ["Home"]
    off, paused = asked(Scope.ATTRIBUTE, attribute="color"), asked(Scope.ATTRIBUTE, "", "color", State.PAUSED)
    assert [attribute.name for attribute in off.enabled] == ["material"]
    assert [attribute.name for attribute in paused.enabled] == ["color", "material"]
    usual = RunRequest.of(config, dictionary, model, Window())
    assert len({request.config_hash for request in (usual, off, paused)}) == 3


def test_another_number_type_is_another_run_with_certificates_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = sample_catalog.build(tmp_path / "sample").config
    dictionary = load_dictionary(config)
    monkeypatch.setattr(compute_types, "why_not", lambda *_: "")
    model = resolved_model("fp32-cpu", "bf16-cpu")
    hashes = {}
    for setting, numbers in (("fp32", "fp32"), ("bf16", "bf16"), ("auto", "bf16")):
        asked = replace(config, enrich=replace(config.enrich, compute_type=setting))
        request = RunRequest.of(asked, dictionary, model, Window())
        assert [certificate.compute_type for certificate in request.model.certificates] == [f"{numbers}-cpu"]
        assert numbers in request.model.why_numbers
        hashes[setting] = request.config_hash
    assert hashes["auto"] == hashes["bf16"] != hashes["fp32"]


def test_a_driver_that_cannot_compute_in_it_stops_no_run_before_the_workers_are_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compute_types, "why_not", lambda numbers, _: "no bf16 here" if numbers == "bf16" else "")
    only = resolved_model("bf16-cpu")
    assert only.before_workers("auto") is only
    with pytest.raises(ConfigError, match="no bf16 here"):
        only.for_run("auto")
    assert only.for_run("auto", lambda _: "").numbers == "bf16"
    [kept] = resolved_model("fp32-cpu", "bf16-cpu").before_workers("auto").certificates
    assert kept.compute_type == "fp32-cpu"


@pytest.mark.slow
@pytest.mark.skipif(bool(compute_types.why_not("bf16", "cpu")), reason="this processor does not multiply bf16")
def test_i2_a_run_in_bf16_writes_by_the_certificates_of_bf16_alone(template: SampleCatalog, tmp_path: Path) -> None:
    sample = template.copy_to(tmp_path / "sample")
    version = register(sample, tmp_path, seed=3, compute_types=PATHS)
    sample.promotion.promote(version, expected_current="1")
    model = sample.registry.resolve()
    assert {certificate.compute_type for certificate in model.certificates} == set(PATHS)
    summary = enrich(sample)
    assert summary["predicted"] > 0
    predictions = table(sample, "predictions")
    assert {row["compute_type"] for row in predictions} == {"bf16-cpu"}
    written = {row["certificate_id"] for row in predictions if row["decision"] == "publish"}
    assert written
    assert written <= {c.certificate_id for c in model.certificates if c.compute_type == "bf16-cpu"}
