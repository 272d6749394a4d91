from __future__ import annotations

import numpy as np
import torch

from catalog_enrichment.models.color_histogram import ColorHistogram
from catalog_enrichment.models.encoders import build_image_encoder
from catalog_enrichment.models.preprocess import normalise_pixels
from catalog_enrichment.models.spec import ImageSpec

SPEC = ImageSpec(name="lcnet_035", size=32, palette=6)


def test_histograms_count_the_pixels_of_the_picture_and_of_its_centre() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    normalised = normalise_pixels(pixels, np.ones(3, dtype=bool), SPEC)
    actual = ColorHistogram(SPEC).histograms(normalised).numpy()
    for picture, row in zip(pixels, actual, strict=True):
        for part, shares in ((picture, row[:512]), (picture[8:24, 8:24], row[512:])):
            counts = np.zeros(512)
            for red, green, blue in part.reshape(-1, 3) // 32:
                counts[int(red) * 64 + int(green) * 8 + int(blue)] += 1
            # a level's edge may fall to either side of it, for pixels were normalised in between
            assert np.abs(shares**2 * part.shape[0] * part.shape[1] - counts).sum() <= 0.01 * counts.sum()


def test_a_colour_histogram_widens_the_image_vector_and_is_fitted() -> None:
    plain, coloured = build_image_encoder(ImageSpec(name="lcnet_035", size=32)), build_image_encoder(SPEC)
    vector, tokens = coloured(torch.randn(2, 3, 32, 32))
    assert vector.shape == (2, plain.width + 6)
    assert coloured.width == plain.width + 6
    assert tokens.shape[2] == coloured.token_width == plain.token_width
    vector.sum().backward()
    assert coloured.palette is not None
    assert all(weight.grad is not None for weight in coloured.palette.parameters())
