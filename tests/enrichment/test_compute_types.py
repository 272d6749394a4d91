"""A run computes in one number type and writes by the certificates of that one (I2)."""

from __future__ import annotations

from pathlib import Path

import pytest

from catalog_enrichment.errors import ModelContractError
from catalog_enrichment.models import artifact, compute_types
from catalog_enrichment.registry.model_registry import ResolvedModel

from ..sample_catalog import SampleCatalog, enrich, register, table

PATHS = ("fp32-cpu", "bf16-cpu")


@pytest.mark.skipif(bool(compute_types.why_not("bf16", "cpu")), reason="this processor does not multiply bf16")
def test_i2_a_run_in_bf16_writes_by_the_certificates_of_bf16_alone(template: SampleCatalog, tmp_path: Path) -> None:
    sample = template.copy_to(tmp_path / "sample")
    version = register(sample, tmp_path, seed=3, compute_types=PATHS)
    sample.registry.promote(version, expected_current="1")
    model = sample.registry.resolve()
    assert {one.compute_type for one in model.certificates} == set(PATHS)
    summary = enrich(sample)
    assert summary["predicted"] > 0
    predictions = table(sample, "predictions")
    assert {row["compute_type"] for row in predictions} == {"bf16-cpu"}
    written = {row["certificate_id"] for row in predictions if row["decision"] == "publish"}
    assert written
    assert written <= {one.certificate_id for one in model.certificates if one.compute_type == "bf16-cpu"}


def test_a_model_in_one_number_type_has_the_certificates_of_that_one(template: SampleCatalog, tmp_path: Path) -> None:
    sample = template.copy_to(tmp_path / "sample")
    model = sample.registry.resolve(version=register(sample, tmp_path, seed=4, compute_types=PATHS))
    for path in PATHS:
        chosen: ResolvedModel = model.in_numbers(compute_types.numbers_of(path))
        assert chosen.numbers == path.partition("-")[0]
        assert {one.compute_type for one in chosen.certificates} == {path}
        assert 2 * len(chosen.certificates) == len(model.certificates)


def test_a_version_that_lacks_certificates_on_one_of_its_numeric_paths_is_not_registered(
    template: SampleCatalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = template.copy_to(tmp_path / "sample")
    write = artifact.write_certificates
    # the last one is that of the last attribute, without a picture, in bf16
    monkeypatch.setattr(artifact, "write_certificates", lambda folder, rows: write(folder, rows[:-1]))
    with pytest.raises(ModelContractError, match=r"no certificate for material \(text_only, bf16-cpu\)"):
        register(sample, tmp_path, seed=5, compute_types=PATHS)
