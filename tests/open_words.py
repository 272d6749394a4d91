"""A dictionary with an attribute of each kind, for tests of what depends on the kind."""

from __future__ import annotations

from catalog_enrichment.dictionary import Attribute, Dictionary
from catalog_enrichment.records import Cardinality
from catalog_enrichment.values.kinds import Kind, NumberRule

COLOR = Attribute(name="color", cardinality=Cardinality.ONE, values=("Red", "Green", "Blue"))
WIDTH = Attribute(
    name="width", cardinality=Cardinality.ONE, kind=Kind.NUMBER, number=NumberRule(unit="cm", low=1, high=500)
)
BRAND = Attribute(name="brand", cardinality=Cardinality.ONE, kind=Kind.TEXT, aliases={"en": {"HP": "Hewlett-Packard"}})
OPEN_WORDS = Dictionary({attribute.name: attribute for attribute in (COLOR, WIDTH, BRAND)})
CLOSED_WORDS = Dictionary({"color": COLOR})
