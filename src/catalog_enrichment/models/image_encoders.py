"""Image encoders of timm, with colour histograms, frozen stages and, for scoring, folded batch normalisations.

Shapes: B products, M tokens of a picture, D image width, S picture side.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from inspect import signature
from typing import Any

import timm
import torch
from timm.layers import BatchNormAct2d, Conv2dSame
from timm.models import group_parameters
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from catalog_enrichment.errors import ConfigError
from catalog_enrichment.models.pretrained import UNUSABLE, error_summary, is_package, load_from_package, weights_file
from catalog_enrichment.models.self_contained import texts, watched
from catalog_enrichment.models.spec import ImageSpec

LEVELS = 8
"""The levels per channel of a colour histogram: 8 ** 3 = 512 bins."""

_WORD = re.compile(r"[\w-]*")
"""A text as timm's architectures take it, for example the name of an activation."""

_CONVOLUTIONS = (nn.Conv2d, Conv2dSame)
_NORMALISATIONS = (nn.BatchNorm2d, BatchNormAct2d)
"""Exactly these types are folded: a subclass may do something else."""
_SAME = 1e-4
"""The largest difference of an encoder's outputs, as a share of the largest output, that is rounding."""


def build_image_encoder(spec: ImageSpec, pretrained: bool = True) -> ImageEncoder:
    """Return the timm model that ``spec`` names, checked on a blank picture.

    ``pretrained=False`` is for weights that are loaded later, to score with: they are left random, no stage is frozen,
    and the check is skipped. Raises ConfigError for a name, weights or arguments that timm cannot use, and for pictures
    of a wrong size.
    """
    if not timm.is_model(spec.name):
        similar = difflib.get_close_matches(spec.name.lower(), timm.list_models(), n=8, cutoff=0.5)
        raise ConfigError(
            f"timm has no image encoder {spec.name!r}, and the recipe's folder has no such folder. Similar names: "
            f"{similar or 'none'}"
        )
    _check_args(spec.args)
    weights = weights_file(spec.weights) if spec.weights and pretrained else None
    of_package = weights if is_package(spec.weights) else None
    overlay = {"file": str(weights)} if weights and not of_package else None
    try:
        with watched():
            model = timm.create_model(
                spec.name, pretrained=overlay is not None, pretrained_cfg_overlay=overlay, num_classes=0, **spec.args
            )
        if of_package:
            load_from_package(model, of_package)
        encoder = ImageEncoder(model.to(memory_format=torch.channels_last), spec)  # the fastest layout for convolutions
        if pretrained:
            for weight in _weights_of_stages(model, spec):
                weight.requires_grad_(False)
            _check_output_widths(encoder, spec.size)
    except UNUSABLE as problem:
        with_file = f" and weights {spec.weights!r}" if weights else ""
        raise ConfigError(
            f"model.image: timm cannot make {spec.name!r} with args {spec.args}{with_file} read pictures of "
            f"{spec.size} pixels: {error_summary(problem)}"
        ) from None
    return encoder


def _check_args(args: Mapping[str, Any]) -> None:
    """Raise ConfigError for arguments that are none of the model's architecture: those of timm's loading of weights,
    and texts that can be the name of a file, a folder or a model of the hub."""
    parameters = signature(timm.create_model).parameters.values()
    of_timm = {parameter.name for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD}
    names = [text for _, text in texts(args) if not _WORD.fullmatch(text)]
    if refused := sorted(of_timm & args.keys()) or names:
        raise ConfigError(
            f"model.image.args: {refused[0]!r} is refused: arguments are numbers and words of the architecture. "
            "Pretrained weights are given by model.image.weights"
        )


class ImageEncoder(nn.Module):
    """An image encoder: pictures to a vector each, pooled by the timm model, and tokens.

    The first token represents the whole picture: a transformer's [CLS] where it has [CLS], else the mean over all
    positions. The tokens of the positions follow, row by row; a picture split into regions has a token per region.
    """

    def __init__(self, model: Any, spec: ImageSpec) -> None:
        super().__init__()
        patches = getattr(model, "patch_embed", None)
        fixed = getattr(patches, "img_size", None) if getattr(patches, "strict_img_size", True) else None
        side = spec.size // spec.regions
        if fixed is not None and tuple(fixed) != (side, side):
            raise ConfigError(
                f"model.image: {spec.name} reads pictures of {fixed[0]} pixels, not {side}. Set args.img_size = {side}"
            )
        self.model = model
        self.only_side: int | None = None if fixed is None else spec.size
        """The side of the pictures that it reads, pixels; None: any side."""
        self.regions = spec.regions
        self.feature_width: int = model.num_features
        # some models widen after num_features
        self.width: int = getattr(model, "head_hidden_size", None) or model.num_features
        self.token_width: int = self.width if spec.regions > 1 else self.feature_width
        has_whole = getattr(model, "has_class_token", getattr(model, "cls_token", None) is not None)
        self.prefix: int = getattr(model, "num_prefix_tokens", int(has_whole))
        self.first_is_whole = self.prefix > 0 and has_whole
        self.palette = ColorHistogram(spec) if spec.palette else None
        self.width += spec.palette
        self.requires_grad_(not spec.frozen)
        self._keeps_statistics = spec.frozen_stages > 0

    def train(self, mode: bool = True) -> ImageEncoder:
        """Do as nn.Module.train; with frozen stages the batch statistics stay as they are."""
        super().train(mode)
        if self._keeps_statistics:
            for module in self.model.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode normalised pixels (B, 3, S, S) to image vectors (B, D) and tokens (B, M, D')."""
        if self.regions > 1:
            vectors = self.model(split_into_regions(pixels, self.regions)).unflatten(0, (len(pixels), self.regions**2))
            mean = vectors.mean(dim=1)  # eq. 2 of Tashu et al. 2022
            return self._with_palette(mean, pixels), torch.cat([mean.unsqueeze(1), vectors], dim=1)
        features = self.model.forward_features(pixels)
        vector = self._with_palette(self.model.forward_head(features), pixels)
        return vector, as_tokens(features, self.feature_width, self.prefix, self.first_is_whole)

    def _with_palette(self, vector: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
        return vector if self.palette is None else torch.cat([vector, self.palette(pixels)], dim=1)


class ColorHistogram(nn.Module):
    """Square roots of two histograms, of the picture and of its centre, projected to ``spec.palette`` numbers.

    Not from the papers. An image encoder from random weights needs tens of thousands of labelled pictures to classify
    colours as well as logistic regression over a histogram does (the benchmarks' reference).
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, spec: ImageSpec) -> None:
        super().__init__()
        self.project = nn.Sequential(nn.LayerNorm(2 * LEVELS**3), nn.Linear(2 * LEVELS**3, spec.palette), nn.GELU())
        self.register_buffer("mean", torch.tensor(spec.mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(spec.std)[:, None, None], persistent=False)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Turn normalised pixels (B, 3, S, S) into (B, ``spec.palette``)."""
        projected: torch.Tensor = self.project(self.histograms(pixels))
        return projected

    def histograms(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return (B, 1024): square roots of 512 bin shares of the picture, and of its centre, half as wide and high."""
        levels = ((pixels.float() * self.std + self.mean) * LEVELS).long().clamp(0, LEVELS - 1)
        bins = (levels[:, 0] * LEVELS + levels[:, 1]) * LEVELS + levels[:, 2]  # (B, S, S)
        margin = bins.shape[1] // 4
        return torch.cat([_bin_shares(bins), _bin_shares(bins[:, margin:-margin, margin:-margin])], dim=1).sqrt()


def _bin_shares(bins: torch.Tensor) -> torch.Tensor:
    """Return the share of the pixels (B, h, w) in each bin: (B, 512)."""
    flat = bins.flatten(1)
    counts = torch.zeros((len(flat), LEVELS**3), device=flat.device)
    return counts.scatter_add_(1, flat, torch.ones_like(flat, dtype=counts.dtype)) / flat.shape[1]


def _weights_of_stages(model: Any, spec: ImageSpec) -> list[nn.Parameter]:
    """Return the weights of the first ``spec.frozen_stages`` stages.

    Raises ConfigError if the model has no more stages than these, or timm does not know its stages.
    """
    if not spec.frozen_stages:
        return []
    if not hasattr(model, "group_matcher"):
        raise ConfigError(f"model.image.frozen_stages: timm does not know the stages of {spec.name}. Set it to 0")
    stages = group_parameters(model, model.group_matcher(coarse=True))
    if spec.frozen_stages >= len(stages):
        raise ConfigError(
            f"model.image.frozen_stages: {spec.name} has {len(stages)} stages, so at most {len(stages) - 1} can be "
            f"frozen, not {spec.frozen_stages}. To freeze all of it: model.image.frozen"
        )
    return [model.get_parameter(name) for stage in sorted(stages)[: spec.frozen_stages] for name in stages[stage]]


def split_into_regions(pixels: torch.Tensor, regions: int) -> torch.Tensor:
    """Split pictures (B, 3, S, S) into (B x regions^2, 3, S / regions, S / regions), row by row."""
    side = pixels.shape[-1] // regions
    patches = pixels.unfold(2, side, side).unfold(3, side, side)  # (B, 3, regions, regions, side, side)
    return patches.permute(0, 2, 3, 1, 4, 5).reshape(-1, pixels.shape[1], side, side)


def as_tokens(features: torch.Tensor, width: int, prefix: int, first_is_whole: bool) -> torch.Tensor:
    """Bring the output of timm's forward_features into (B, 1 + positions, D'): the whole picture, then its positions.

    The positions come row by row. Among the ``prefix`` tokens of a transformer only [CLS] is kept, if it is the first;
    register tokens are dropped.
    """
    if not isinstance(features, torch.Tensor):
        raise ValueError("it returns several feature maps, not a single tensor")
    if features.ndim == 4:  # (B, D', m, m), or channels last: (B, m, m, D')
        channels_last = features.shape[1] != width and features.shape[-1] == width
        positions = features.flatten(1, 2) if channels_last else features.flatten(2).transpose(1, 2)
    else:
        positions = features[:, prefix:]  # (B, M, D')
    whole = features[:, :1] if first_is_whole else positions.mean(dim=1, keepdim=True)
    return torch.cat([whole, positions], dim=1)


def feature_map(tokens: torch.Tensor) -> torch.Tensor:
    """Return the tokens (B, 1 + m * m, D') of any :class:`ImageEncoder` as a feature map (B, D', m, m)."""
    positions = tokens[:, 1:].transpose(1, 2)
    side = round(positions.shape[2] ** 0.5)
    return positions.reshape(*positions.shape[:2], side, side)


def _check_output_widths(encoder: ImageEncoder, side: int) -> None:
    """Raise ValueError if the output of a forward pass does not have the encoder's widths."""
    encoder.eval()
    with torch.no_grad():
        vector, tokens = encoder(torch.zeros(1, 3, side, side))
    encoder.train()
    shapes, expected = (tuple(vector.shape), tokens.shape[2]), ((1, encoder.width), encoder.token_width)
    if shapes != expected:
        raise ValueError(f"it returns vector shape and token width {shapes}, not {expected}")


@dataclass(frozen=True, slots=True)
class _Pair:
    """A convolution whose output is the input of a batch normalisation."""

    convolution: nn.Conv2d
    name: str
    """The normalisation's name in the encoder."""
    normalisation: nn.BatchNorm2d


def fold_batch_norms(encoder: ImageEncoder, side: int) -> int:
    """Fold batch normalisations into the convolutions before them, in place, for pictures of ``side`` pixels.

    With fixed statistics a batch normalisation multiplies each channel by a number and adds another, which the
    convolution can do itself (Jacob et al. 2018, section 3.2): one pass over the activations less. Scores differ by
    rounding. ``encoder`` is in eval mode.

    Returns the number of folded normalisations. It is 0, and the encoder is as before, where the outputs would change
    by more than rounding, as where a convolution's output is used twice.
    """
    if not any(type(module) in _NORMALISATIONS for module in encoder.modules()):
        return 0
    noise = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        pairs, expected = _foldable_pairs(encoder, noise)
        weights = [(pair.convolution.weight, pair.convolution.bias) for pair in pairs]
        for pair in pairs:
            _fold(encoder, pair)
        if all(_are_same(*outputs) for outputs in zip(encoder(noise), expected, strict=True)):
            return len(pairs)
    for pair, (weight, bias) in zip(pairs, weights, strict=True):
        pair.convolution.weight, pair.convolution.bias = weight, bias
        encoder.set_submodule(pair.name, pair.normalisation)
    return 0


def _foldable_pairs(encoder: ImageEncoder, pixels: torch.Tensor) -> tuple[list[_Pair], tuple[torch.Tensor, ...]]:
    """Return the pairs, as a forward pass shows them, and its outputs. A module that is called twice is in no pair."""
    outputs: list[tuple[nn.Conv2d, torch.Tensor]] = []
    inputs: list[tuple[str, nn.BatchNorm2d, torch.Tensor]] = []
    hooks = []
    for name, module in encoder.named_modules():
        if type(module) in _CONVOLUTIONS:
            hooks.append(module.register_forward_hook(lambda conv, _, output: outputs.append((conv, output))))
        elif type(module) in _NORMALISATIONS and module.track_running_stats:
            hooks.append(
                module.register_forward_pre_hook(lambda norm, given, name=name: inputs.append((name, norm, given[0])))
            )
    found = encoder(pixels)
    for hook in hooks:
        hook.remove()
    convolution_of = {id(output): convolution for convolution, output in outputs}
    pairs = [
        _Pair(convolution_of[id(given)], name, norm) for name, norm, given in inputs if id(given) in convolution_of
    ]
    calls = [*(id(convolution) for convolution, _ in outputs), *(id(norm) for _, norm, _ in inputs)]
    called_once = {module for module in calls if calls.count(module) == 1}
    return [pair for pair in pairs if {id(pair.convolution), id(pair.normalisation)} <= called_once], found


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


def _are_same(output: torch.Tensor, expected: torch.Tensor) -> bool:
    return bool((output - expected).abs().max() <= _SAME * expected.abs().max())
