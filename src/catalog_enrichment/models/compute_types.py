"""The number types that scores are computed in. A certificate is bound to one: another gives other scores.

    fp32   as the model was trained, on every processor
    bf16   matrix products and convolutions take numbers with 8 bits of mantissa and add them up in fp32, and hand on
           such numbers (torch.autocast); temperature and the last softmax are fp32. Two to three times as fast as fp32
           on processors that multiply bf16.

A path is named NUMBERS-DEVICE, as fp32-cpu. A run computes in one number type on all workers.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from typing import NamedTuple

from catalog_enrichment.errors import ConfigError

FP32, BF16 = "fp32", "bf16"

AUTO = "auto"
"""In the config: the fastest certified number type of the driver's processor."""

FASTEST_FIRST = (BF16, FP32)

TOLERANCE: Mapping[str, float] = {FP32: 1e-5, BF16: 0.15}
"""Number type -> most that a calibrated score may differ from that of the same product scored alone in fp32, where it
is steepest: on average it is a hundredth of that. Where a majority votes, as in decision fusion, a product whose vote
is nearly a tie may get another outcome of the vote."""


ROWS = {"cpu": 32, "cuda": 256}
"""Products per forward pass, by kind of device. On a CPU the activations of more pictures leave its caches."""


class Choice(NamedTuple):
    numbers: str
    why: str
    """A sentence for the log."""


def default_device() -> str:
    """The device that this process would compute on: the GPU, if there is one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def path_name(numbers: str, device: str) -> str:
    """``bf16``, ``cuda:1`` -> ``bf16-cuda``, as certificates name it."""
    import torch

    return f"{numbers}-{torch.device(device).type}"


def numbers_of(path: str) -> str:
    """``bf16-cuda`` -> ``bf16``."""
    return path.partition("-")[0]


def device_of(path: str) -> str:
    """``bf16-cuda`` -> ``cuda``."""
    return path.partition("-")[2]


def computing_in(numbers: str, device: str) -> AbstractContextManager[object]:
    """A block whose forward passes compute in ``numbers``."""
    import torch

    return torch.autocast(torch.device(device).type, dtype=torch.bfloat16, enabled=numbers == BF16)


def why_not(numbers: str, device: str) -> str:
    """Why this machine cannot compute in ``numbers``, or is no faster for it; "" if it should."""
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
    """The fastest number type that this machine computes in."""
    return next(numbers for numbers in FASTEST_FIRST if not why_not(numbers, device))


def require(numbers: str, device: str) -> None:
    """Raises ConfigError if this machine should not compute in ``numbers``: a worker unlike the driver."""
    if problem := why_not(numbers, device):
        raise ConfigError(
            f"this worker cannot score in {numbers}: {problem}. Set enrich.compute_type = 'fp32', or run on machines "
            "that are alike"
        )


def choose(wanted: str, certified: Mapping[str, Collection[object]]) -> Choice:
    """The number type of a run. ``wanted``: `enrich.compute_type`; ``certified``: compute type -> what it may write.

    Automatically the fastest type of those that may write most. Workers look at their own processor (:func:`require`);
    here only paths of this machine's kind of device can be judged. Raises ConfigError if ``wanted`` is not certified,
    or no path is for this machine.
    """
    if not certified:
        return Choice(FP32, "scores are computed in fp32: the model version has no certificate")
    paths = {numbers_of(path): path for path in certified}
    if wanted != AUTO:
        if wanted not in paths:
            raise ConfigError(
                f"enrich.compute_type = {wanted!r}: the model version is certified for {sorted(paths)}. Train one "
                f"with training.compute_types = {[FP32, wanted] if wanted != FP32 else [FP32]}, or choose another path"
            )
        return Choice(wanted, f"scores are computed in {wanted}, as enrich.compute_type says")
    refused = {numbers: problem for numbers, path in paths.items() if (problem := _why_not_here(path))}
    usable = {numbers: len(certified[path]) for numbers, path in paths.items() if numbers not in refused}
    if not usable:
        raise ConfigError(f"no compute type of the model version is for this machine: {_listed(refused)}")
    refused |= dict.fromkeys(set(FASTEST_FIRST) - set(paths), "the model version is not certified for it")
    refused |= {numbers: "it may write less" for numbers, size in usable.items() if size < max(usable.values())}
    chosen = next(numbers for numbers in FASTEST_FIRST if numbers in usable and numbers not in refused)
    slower = FASTEST_FIRST[FASTEST_FIRST.index(chosen) :]
    faster = {numbers: why for numbers, why in refused.items() if numbers not in slower}
    besides = f" (not in {_listed(faster)})" if faster else ""
    return Choice(chosen, f"scores are computed in {chosen}, the fastest certified path here{besides}")


def _why_not_here(path: str) -> str:
    """:func:`why_not` of a path on the CPU, or of this machine's GPU; of GPUs elsewhere nothing is known."""
    device = device_of(path)
    return why_not(numbers_of(path), device) if device in ("cpu", default_device()) else ""


def _listed(refused: Mapping[str, str]) -> str:
    return "; ".join(f"{numbers}: {why}" for numbers, why in refused.items())
