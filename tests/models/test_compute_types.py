"""Number types: the choice of a run's number type, what refuses it, and how far scores may be from those in fp32."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from catalog_enrichment.errors import ConfigError
from catalog_enrichment.inputs.product_batch import ProductBatch
from catalog_enrichment.models import compute_types
from catalog_enrichment.models.compute_types import BF16, FP32, choose

from .conftest import HEADS, KINDS, predictor_of, tiny


@pytest.mark.parametrize("variant", ["pair lcnet", "apart second vit", "pair regions"])
@pytest.mark.parametrize("kind", KINDS)
def test_scores_in_bf16_are_others_within_the_tolerance(kind: str, variant: str, batch: ProductBatch) -> None:
    exact, rounded = (predictor_of(tiny(kind, variant), numbers).predict(batch) for numbers in (FP32, BF16))
    for name in HEADS:
        assert rounded.probabilities[name].dtype == np.float32
        differences = np.abs(rounded.probabilities[name] - exact.probabilities[name])
        beyond = (differences > 0.02).any(axis=1)  # of tiny networks; those of full size: TOLERANCE
        assert beyond.sum() <= (kind == "decision")  # a vote that was nearly a tie
        np.testing.assert_allclose(rounded.attention[name], exact.attention[name], atol=0.02)
    assert any(not np.array_equal(exact.probabilities[name], rounded.probabilities[name]) for name in HEADS)
    sums = rounded.probabilities["type"].sum(axis=1)
    np.testing.assert_allclose(sums, 1, atol=1e-5)  # the softmax is in fp32


def test_the_path_is_named_by_number_type_and_kind_of_device() -> None:
    assert predictor_of(tiny(), BF16).compute_type == "bf16-cpu"
    assert compute_types.name_of(FP32, "cuda:1") == "fp32-cuda"
    assert compute_types.numbers_of("bf16-cuda") == BF16


SLOW = "it has no bf16"


@pytest.mark.parametrize(
    ("asked", "certified", "problem", "numbers", "why"),
    [
        ("auto", {"fp32-cpu", "bf16-cpu"}, "", BF16, ""),
        ("auto", {"fp32-cpu"}, "", FP32, "bf16: the model version is not certified for it"),
        ("fp32", {"fp32-cpu", "bf16-cpu"}, "", FP32, ""),
        ("auto", set(), "", FP32, ""),  # nothing will be written
        ("fp32", set(), "", FP32, ""),
        ("auto", {"fp32-cpu", "bf16-cpu"}, SLOW, FP32, "bf16: it has no bf16"),
        ("bf16", {"fp32-cpu", "bf16-cpu"}, SLOW, BF16, ""),  # workers may be other machines
        ("auto", {"fp32-cuda", "bf16-cuda"}, SLOW, BF16, ""),  # workers with a GPU look themselves
    ],
)
def test_auto_is_the_fastest_certified_number_type_of_the_hardware(
    asked: str, certified: set[str], problem: str, numbers: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compute_types, "why_not", lambda numbers, _: problem if numbers == BF16 else "")
    chosen = choose(asked, certified)
    assert chosen.numbers == numbers
    assert why in chosen.why


def test_a_machine_for_which_no_number_type_is_certified_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute_types, "why_not", lambda *_: SLOW)
    with pytest.raises(ConfigError, match="no compute type of the model version is for this machine: bf16: it has"):
        choose("auto", {"bf16-cpu"})


def test_what_workers_cannot_multiply_is_not_chosen_and_refused_where_the_config_names_it() -> None:
    def why_not_of(compute_type: str) -> str:
        return SLOW if compute_type == "bf16-cpu" else ""

    certified = {"fp32-cpu", "bf16-cpu"}
    assert choose("auto", certified, lambda _: "").numbers == BF16
    assert choose("auto", certified, why_not_of).numbers == choose("fp32", certified, why_not_of).numbers == FP32
    with pytest.raises(ConfigError, match=r"a worker cannot score in bf16: it has no bf16. Set enrich.compute_type"):
        choose("bf16", certified, why_not_of)


def test_a_number_type_that_is_not_certified_is_refused_with_the_way_out() -> None:
    way_out = r"certified for \['fp32'\]. Train a version .*compute_types = \['fp32', 'bf16'\]"
    with pytest.raises(ConfigError, match=way_out):
        choose("bf16", {"fp32-cpu"})


@pytest.mark.parametrize(("problem", "numbers"), [("", [FP32, BF16]), (SLOW, [FP32])])
def test_a_version_is_certified_for_what_the_machine_multiplies(
    problem: str, numbers: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compute_types, "why_not", lambda numbers, _: problem if numbers == BF16 else "")
    assert compute_types.to_certify([], "cpu") == numbers  # fp32 is the reference of the others
    assert compute_types.to_certify([FP32], "cpu") == [FP32]


@pytest.mark.parametrize(
    ("capability", "has_bf16", "fast"),
    [("AVX512", True, True), ("AVX512", False, False), ("AVX2", False, False), ("DEFAULT", False, False)],
)
def test_processors_without_bf16_say_so(
    monkeypatch: pytest.MonkeyPatch, capability: str, has_bf16: bool, fast: bool
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has_bf16)
    assert compute_types.why_not(BF16, "cpu") == ("" if fast else "the processor has no avx512_bf16")
    assert compute_types.why_not(FP32, "cpu") == ""


def test_a_gpu_is_asked_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def supported(including_emulation: bool) -> bool:
        asked.append(including_emulation)
        return len(asked) > 1

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert compute_types.why_not(BF16, "cuda:1") == "the GPU does not multiply bf16"
    assert compute_types.why_not(BF16, "cuda:1") == ""
    assert asked == [False, False]  # an emulation is slow
