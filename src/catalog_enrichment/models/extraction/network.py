"""The network of the extractor: which place of a text is the value of an attribute, or that none is.

A first ranking reads the features of all places; the best of each product and attribute are judged by the encoder's
states at their first and last token. The encoder reads a text once, whatever the number of attributes and places. The
probabilities of a product and attribute are a softmax over its places and "none of them".

Shapes: B products, T tokens, H width of the encoder, C parts of texts, P places, S segments (a product and attribute
each), K places that are kept of a segment, A attributes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from catalog_enrichment.models.extraction.places import BUCKETS, COMMON, NEIGHBOURS, SPECIFIC
from catalog_enrichment.models.text_encoders import TextEncoder, Tokens

ATTRIBUTE_WIDTH = 16
"""Width of an attribute's vector."""
WORD_WIDTH = 12
"""Width of a neighbouring word's vector."""
HIDDEN = 64
"""Width of the hidden layer of the ranking."""
STATES = 128
"""Width to which the states at a place are reduced."""


@dataclass(frozen=True, slots=True)
class PlaceTensors:
    """P places as tensors."""

    attribute: torch.Tensor
    """(P,) int64"""
    specific: torch.Tensor
    """(P, SPECIFIC) float32"""
    part: torch.Tensor
    """(P,) int64"""
    common: torch.Tensor
    """(C, COMMON) float32"""
    words: torch.Tensor
    """(C, NEIGHBOURS) int64"""


@dataclass(frozen=True, slots=True)
class Kept:
    """The places that are judged: K of each of S segments."""

    place: torch.Tensor
    """(S, K) int64, positions among the P places; any where ``known`` is false."""
    known: torch.Tensor
    """(S, K) bool"""
    product: torch.Tensor
    """(S,) int64"""
    attribute: torch.Tensor
    """(S,) int64"""
    first: torch.Tensor
    """(S, K) int64, the token at which the place begins; -1 where the encoder did not read it."""
    last: torch.Tensor
    """(S, K) int64, the token at which it ends; -1 likewise."""


class ExtractionNet(nn.Module):
    """The text encoder, the first ranking and the judgement."""

    def __init__(self, encoder: TextEncoder, attributes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.attributes = nn.Embedding(attributes, ATTRIBUTE_WIDTH)
        tables = [nn.Embedding(BUCKETS, WORD_WIDTH) for _ in range(NEIGHBOURS)]
        for table in tables:
            nn.init.normal_(table.weight, std=0.1)
        self.neighbours = nn.ModuleList(tables)
        # the first layer in three summands: what no attribute changes is computed once for all of them
        self.describe_part = nn.Linear(COMMON + NEIGHBOURS * WORD_WIDTH, HIDDEN)
        self.describe_place = nn.Linear(SPECIFIC, HIDDEN, bias=False)
        self.describe_attribute = nn.Linear(ATTRIBUTE_WIDTH, HIDDEN, bias=False)
        layers = (self.describe_part, self.describe_place, self.describe_attribute)
        bound = sum(layer.in_features for layer in layers) ** -0.5  # as of one layer over all inputs
        for layer in layers:
            nn.init.uniform_(layer.weight, -bound, bound)
        self.rank = nn.Linear(HIDDEN, 1)
        self.reduce = nn.Sequential(nn.Linear(2 * encoder.width, STATES), nn.GELU())
        self.judge = nn.Sequential(
            nn.Linear(STATES + HIDDEN + ATTRIBUTE_WIDTH + 1, STATES), nn.GELU(), nn.Dropout(0.1), nn.Linear(STATES, 1)
        )
        self.none_of_them = nn.Sequential(
            nn.Linear(encoder.width + ATTRIBUTE_WIDTH, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, 1)
        )

    def ranked(self, places: PlaceTensors) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (P,) logits of the first ranking, and (P, HIDDEN) what they rest on."""
        words = [table(places.words[:, column]) for column, table in enumerate(self.neighbours)]
        parts = self.describe_part(torch.cat([places.common, *words], dim=1))
        attributes = self.describe_attribute(self.attributes.weight)
        hidden = parts[places.part] + self.describe_place(places.specific) + attributes[places.attribute]
        hidden = nn.functional.gelu(hidden)
        return self.rank(hidden).squeeze(1), hidden

    def forward(
        self, tokens: Tokens, kept: Kept, ranking: torch.Tensor, hidden: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (S, K + 1) logits, the last column "none of them", and (B, H) the texts' vectors.

        ``ranking`` (P,) and ``hidden`` (P, HIDDEN): of :meth:`ranked`.
        """
        encoded = self.encoder(tokens)
        states, vectors = encoded.tokens.float(), encoded.vector.float()
        attribute = self.attributes(kept.attribute)  # (S, 16)
        product = kept.product[:, None].expand_as(kept.first)
        ends = []
        for at in (kept.first, kept.last):
            state = states[product, at.clamp(min=0)]  # (S, K, H)
            ends.append(state * (at >= 0).unsqueeze(-1))
        reduced = self.reduce(torch.cat(ends, dim=-1))  # (S, K, STATES)
        described = torch.cat(
            [
                reduced,
                hidden[kept.place],
                attribute[:, None].expand(-1, kept.place.shape[1], -1),
                ranking[kept.place].unsqueeze(-1),
            ],
            dim=-1,
        )
        logits = self.judge(described).squeeze(-1) + ranking[kept.place]
        logits = logits.masked_fill(~kept.known, float("-inf"))
        none = self.none_of_them(torch.cat([vectors[kept.product], attribute], dim=1))
        return torch.cat([logits, none], dim=1), vectors
