"""The compute types of scores: a number type on a kind of device, such as fp32-cpu or bf16-cuda.

    fp32   as the model was trained, on every processor
    bf16   matrix products and convolutions take numbers with 8 bits of mantissa, add them up in fp32, and pass on such
           numbers (torch.autocast); temperature and the last softmax are fp32. Two to three times as fast as fp32 on
           processors that multiply bf16.

A certificate holds for a single compute type, because others give other scores. A run computes in the same number type
on all workers. Which one is decided by the hardware, never by what certificates allow: so each certificate may be wrong
with the whole of delta, and certifying a further type costs the others nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

from catalog_enrichment.errors import ConfigError

FP32, BF16 = "fp32", "bf16"

GIVEN = "given"
"""The compute type of scores that were not computed here."""

AUTO = "auto"
"""The config's word for the fastest certified number type that every worker's processor, or GPU, multiplies."""

FASTEST_FIRST = (BF16, FP32)

TOLERANCE: Mapping[str, float] = {FP32: 1e-5, BF16: 0.15}
"""Number type -> the most that a calibrated score may differ from the score of the same product alone in fp32, at the
steepest point: the average difference is a hundredth of it. Where a majority votes, as in decision fusion, a product
whose vote is nearly a tie may get another outcome of the vote."""

ROWS = {"cpu": 32, "cuda": 256}
"""Products per forward pass, by kind of device. On a CPU the activations of more pictures leave its caches."""


WhyNot = Callable[[str], str]
"""Compute type -> why the machines of a run cannot compute in its number type; "" if they can, or nothing is known."""


class Choice(NamedTuple):
    numbers: str
    why: str
    """A sentence for the log."""


def default_device() -> str:
    """Return the device that this process would compute on: the GPU, if there is any."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def name_of(numbers: str, device: str) -> str:
    """Return the compute type as certificates name it: ``bf16``, ``cuda:1`` -> ``bf16-cuda``."""
    import torch

    return f"{numbers}-{torch.device(device).type}"


def numbers_of(compute_type: str) -> str:
    """Return the number type: ``bf16-cuda`` -> ``bf16``."""
    return compute_type.partition("-")[0]


def device_of(compute_type: str) -> str:
    """Return the kind of device: ``bf16-cuda`` -> ``cuda``."""
    return compute_type.partition("-")[2]


def computing_in(numbers: str, device: str) -> AbstractContextManager[object]:
    """Return a context in which forward passes compute in ``numbers``."""
    import torch

    return torch.autocast(torch.device(device).type, dtype=torch.bfloat16, enabled=numbers == BF16)


def why_not(numbers: str, device: str) -> str:
    """Return why this machine cannot compute in ``numbers``, or is no faster for it; "" if it should."""
    import torch

    if numbers != BF16:
        return ""
    if torch.device(device).type == "cuda":
        return "" if torch.cuda.is_bf16_supported(including_emulation=False) else "the GPU does not multiply bf16"
    if torch.backends.cpu.get_cpu_capability() in ("AVX512", "AVX2", "DEFAULT", "NO AVX"):
        fast = torch.cpu._is_avx512_bf16_supported()
        return "" if fast else "the processor has no avx512_bf16"
    return "" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "the processor does not multiply bf16"


def fastest(device: str) -> str:
    """Return the fastest number type that this machine computes in."""
    return next(numbers for numbers in FASTEST_FIRST if not why_not(numbers, device))


def to_certify(wanted: Sequence[str], device: str) -> list[str]:
    """Return the number types to certify a version for. ``wanted``: `training.compute_types`; empty: those that this
    machine multiplies, fp32 first. Raises ConfigError for a type that it does not."""
    for numbers in wanted:
        if problem := why_not(numbers, device):
            raise ConfigError(f"training.compute_types: not {numbers} on this machine: {problem}")
    return list(wanted) or [numbers for numbers in reversed(FASTEST_FIRST) if not why_not(numbers, device)]


def require(numbers: str, device: str) -> None:
    """Raise ConfigError if this machine should not compute in ``numbers``: a worker unlike the driver."""
    if problem := why_not(numbers, device):
        raise _cannot_score("this worker", numbers, problem)


def _cannot_score(who: str, numbers: str, problem: str) -> ConfigError:
    return ConfigError(
        f"{who} cannot score in {numbers}: {problem}. Set enrich.compute_type = 'fp32', or run on machines that are "
        "alike"
    )


def choose(wanted: str, certified: Collection[str], why_not_of: WhyNot | None = None) -> Choice:
    """Return the number type of a run.

    ``wanted`` is `enrich.compute_type`, ``certified`` are the compute types that the version has certificates for,
    abstaining ones too. The automatic choice is the fastest of them that the hardware multiplies: a choice by what the
    certificates allow would be a second look at their labels. ``why_not_of``: what the workers have said
    (:mod:`~catalog_enrichment.inference.workers`); None where they were not asked: then the driver judges by itself,
    only the compute types of its own kind of device. A worker that joins later looks itself (:func:`require`). Raises
    ConfigError if ``wanted`` is not certified or a worker cannot compute in it, or no compute type is for the machines.
    """
    if not certified:
        return Choice(FP32, "scores are computed in fp32: the model version has no certificate")
    by_numbers = {numbers_of(compute_type): compute_type for compute_type in certified}
    if set(by_numbers) == {GIVEN}:
        return Choice(GIVEN, "scores are as the proposer gives them")
    if wanted != AUTO:
        if wanted not in by_numbers:
            raise ConfigError(
                f"enrich.compute_type = {wanted!r}: the model version is certified for {sorted(by_numbers)}. Train "
                f"a version with training.compute_types = {[FP32, wanted] if wanted != FP32 else [FP32]} on a machine "
                "that multiplies it, or choose another number type"
            )
        if why_not_of and (problem := why_not_of(by_numbers[wanted])):
            raise _cannot_score("a worker", wanted, problem)
        return Choice(wanted, f"scores are computed in {wanted}, as enrich.compute_type says")
    asked = why_not_of or _why_not_here
    refused = {numbers: problem for numbers, name in by_numbers.items() if (problem := asked(name))}
    if not set(by_numbers) - set(refused):
        raise ConfigError(f"no compute type of the model version is for this machine: {_listed(refused)}")
    refused |= dict.fromkeys(set(FASTEST_FIRST) - set(by_numbers), "the model version is not certified for it")
    chosen = next(numbers for numbers in FASTEST_FIRST if numbers not in refused)
    faster = FASTEST_FIRST[: FASTEST_FIRST.index(chosen)]
    besides = f" (not in {_listed({numbers: refused[numbers] for numbers in faster})})" if faster else ""
    return Choice(chosen, f"scores are computed in {chosen}, the fastest certified compute type here{besides}")


def _why_not_here(compute_type: str) -> str:
    """Return :func:`why_not` for the CPU or this machine's GPU; nothing is known about GPUs elsewhere."""
    device = device_of(compute_type)
    return why_not(numbers_of(compute_type), device) if device in ("cpu", default_device()) else ""


def _listed(refused: Mapping[str, str]) -> str:
    return "; ".join(f"{numbers}: {why}" for numbers, why in refused.items())
