"""Batch normalisation folded into the convolution before it, for scoring.

With fixed statistics a batch normalisation multiplies each channel by one number and adds another, which the
convolution can do itself (Jacob et al. 2018, section 3.2): one pass over the activations less. Scores differ by
rounding.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from timm.layers import BatchNormAct2d, Conv2dSame
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from catalog_enrichment.models.encoders import ImageEncoder

_CONVOLUTIONS = (nn.Conv2d, Conv2dSame)
_NORMALISATIONS = (nn.BatchNorm2d, BatchNormAct2d)
"""Exactly these types: a subclass may do something else."""

_SAME = 1e-4
"""Largest difference of the outputs, as a share of the largest output, that is rounding."""


@dataclass(frozen=True, slots=True)
class _Pair:
    """A convolution whose output is the input of a batch normalisation."""

    convolution: nn.Conv2d
    name: str
    """Of the normalisation, in the encoder."""
    normalisation: nn.BatchNorm2d


def fold_batch_norms(encoder: ImageEncoder, side: int) -> int:
    """Fold what can be folded, in place; ``encoder`` in eval mode, for pictures of ``side`` pixels.

    Returns the number of folded normalisations: 0 as well where the outputs would change by more than rounding, as
    where a convolution's output is used twice; then the encoder is as before.
    """
    if not any(type(module) in _NORMALISATIONS for module in encoder.modules()):
        return 0
    noise = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        pairs, expected = _pairs(encoder, noise)
        weights = [(pair.convolution.weight, pair.convolution.bias) for pair in pairs]
        for pair in pairs:
            _fold(encoder, pair)
        if all(_same(*outputs) for outputs in zip(encoder(noise), expected, strict=True)):
            return len(pairs)
    for pair, (weight, bias) in zip(pairs, weights, strict=True):
        pair.convolution.weight, pair.convolution.bias = weight, bias
        encoder.set_submodule(pair.name, pair.normalisation)
    return 0


def _pairs(encoder: ImageEncoder, pixels: torch.Tensor) -> tuple[list[_Pair], tuple[torch.Tensor, ...]]:
    """The pairs, as a forward pass shows them, and its outputs. A module that is called twice is in no pair."""
    outputs: list[tuple[nn.Conv2d, torch.Tensor]] = []
    inputs: list[tuple[str, nn.BatchNorm2d, torch.Tensor]] = []
    hooks = []
    for name, module in encoder.named_modules():
        if type(module) in _CONVOLUTIONS:
            hooks.append(module.register_forward_hook(lambda one, _, output: outputs.append((one, output))))
        elif type(module) in _NORMALISATIONS and module.track_running_stats:
            hooks.append(
                module.register_forward_pre_hook(lambda one, given, name=name: inputs.append((name, one, given[0])))
            )
    found = encoder(pixels)
    for hook in hooks:
        hook.remove()
    convolution_of = {id(output): convolution for convolution, output in outputs}
    pairs = [
        _Pair(convolution_of[id(given)], name, norm) for name, norm, given in inputs if id(given) in convolution_of
    ]
    calls = [*(id(convolution) for convolution, _ in outputs), *(id(norm) for _, norm, _ in inputs)]
    once = {one for one in calls if calls.count(one) == 1}
    return [pair for pair in pairs if {id(pair.convolution), id(pair.normalisation)} <= once], found


def _fold(encoder: ImageEncoder, pair: _Pair) -> None:
    convolution, norm = pair.convolution, pair.normalisation
    assert norm.running_mean is not None
    assert norm.running_var is not None
    weight, bias = fuse_conv_bn_weights(
        convolution.weight, convolution.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    convolution.weight = nn.Parameter(weight.contiguous(memory_format=torch.channels_last))
    convolution.bias = bias
    after = nn.Sequential(norm.drop, norm.act) if isinstance(norm, BatchNormAct2d) else nn.Identity()
    encoder.set_submodule(pair.name, after.eval())


def _same(output: torch.Tensor, expected: torch.Tensor) -> bool:
    return bool((output - expected).abs().max() <= _SAME * expected.abs().max())
