"""A generated shop whose products change for a year: listings, the dictionary, and the truth that no job reads.

Titles name colour, material, season and pattern in about 97 of 100 listings each. Merchants fill in 6 of 10 values at
random, and about 1 of 1,000 is wrong. Each product has a brand that no other has, so that none is a twin. The same seed
gives the same year.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

START = datetime(2026, 1, 5, tzinfo=UTC)
SHOWN, FILLED, WRONG = 0.97, 0.6, 0.001
ABSENT_IMPORTS = 3
"""After so many snapshots without a product it is gone (`source.absent_imports`)."""
SHOPS = ("anchor", "birch", "cedar", "delta")
CATEGORIES = ("Apparel/Tops", "Apparel/Bottoms", "Footwear/Shoes", "Home/Textiles")
_NOUNS = {
    "Apparel/Tops": ("shirt", "jumper", "jacket"),
    "Apparel/Bottoms": ("trousers", "skirt", "shorts"),
    "Footwear/Shoes": ("sneakers", "boots", "sandals"),
    "Home/Textiles": ("cushion", "blanket", "towel"),
}
_SYLLABLES = ("ka", "lo", "mi", "ne", "pu", "ra", "si", "to", "vu", "ze")
_WORDS = {
    "color": {
        **{"Black": "black", "White": "white", "Grey": "grey", "Charcoal": "charcoal", "Red": "red"},
        **{"Blue": "blue", "Green": "green", "Beige": "beige"},
    },
    "material": {name: name.lower() for name in ("Cotton", "Leather", "Wool", "Linen")},
    "season": {"Summer": "summer", "Winter": "winter"},
    "pattern": {"Plain": "plain", "Striped": "striped", "Dotted": "dotted"},
}
"""Attribute -> value, by its name in the first week -> the word in titles."""

Key = tuple[str, str]
"""Product and attribute."""


@dataclass
class Listing:
    """A product of the shop."""

    product_id: str
    shop: str
    category: str
    brand: str
    noun: str
    truth: dict[str, str]
    """Attribute -> true value, by its name in the first week."""
    shown: frozenset[str]
    """Attributes that the title names."""
    given: dict[str, str]
    """Attribute -> what the merchant writes."""
    opt_out: bool = False
    week: int = 0
    """Week of its last change."""

    def row(self) -> dict[str, Any]:
        """Return the product's row in the feed."""
        words = [_WORDS[name][self.truth[name]] for name in _WORDS if name in self.shown]
        return {
            "id": self.product_id,
            "shop": self.shop,
            "title": " ".join([self.brand, *words, self.noun]),
            "category": self.category,
            "opt_out": self.opt_out,
            "updated_at": (START + timedelta(weeks=self.week)).isoformat(),
            "deleted": False,
            **{name: self.given.get(name) for name in _WORDS},
        }


@dataclass(frozen=True)
class Absent:
    """A product that the feed does not have any more."""

    listing: Listing
    attributes: frozenset[str]
    """Those of the dictionary when it was imported last."""
    snapshots: int = 0
    """The number of snapshots without it."""


@dataclass
class Words:
    """The dictionary of a week: attribute -> its values, and earlier names -> the value that they mean now."""

    values: dict[str, list[str]] = field(
        default_factory=lambda: {name: list(words) for name, words in _WORDS.items() if name != "pattern"}
    )
    was: dict[str, dict[str, str]] = field(default_factory=dict)

    def add(self, attribute: str) -> None:
        """List an attribute with its values of the first week."""
        self.values[attribute] = list(_WORDS[attribute])

    def remove(self, attribute: str) -> None:
        """Take an attribute out of the dictionary."""
        del self.values[attribute]
        self.was.pop(attribute, None)

    def rename(self, attribute: str, old: str, new: str) -> None:
        """Give a value another name, which may be that of a value there is: then the two are one from now on."""
        known, was = self.values[attribute], self.was.setdefault(attribute, {})
        self.values[attribute] = list(dict.fromkeys(new if value == old else value for value in known))
        self.was[attribute] = {name: new if value == old else value for name, value in was.items()} | {old: new}

    def canonical(self, attribute: str, text: str) -> str | None:
        """Return the value that a name of the first week, or a later name, is called now; None: it is no value."""
        value = self.was.get(attribute, {}).get(text, text)
        return value if value in self.values.get(attribute, ()) else None

    def write(self, file: Path) -> None:
        rows = []
        for name, values in self.values.items():
            was = self.was.get(name, {})
            earlier = {value: [old for old, new in was.items() if new == value] for value in values}
            listed = [{"value": value, "was": earlier[value]} if earlier[value] else value for value in values]
            rows.append({"name": name, "cardinality": "one", "values": listed})
        file.write_text(json.dumps({"attributes": rows}))


class World:
    """The shop, its dictionary and its feed."""

    def __init__(self, products: int, seed: int = 7) -> None:
        self._chance = random.Random(seed)
        self.words = Words()
        self.week = 0
        self.listings: dict[str, Listing] = {}
        """The products that the shop has."""
        self.absent: dict[str, Absent] = {}
        """Products that the feed lacks and the catalog still has."""
        self.deleted: list[str] = []
        """Products that this week's feed deletes."""
        self.truth: dict[Key, str] = {}
        """Also of products that are gone."""
        self.add(products)

    def add(self, count: int) -> list[str]:
        """Add products; return their ids."""
        return [self._put(f"p{len(self.truth) // len(_WORDS):05d}") for _ in range(count)]

    def _put(self, product_id: str) -> str:
        chance = self._chance
        category = chance.choice(CATEGORIES)
        truth = {name: chance.choice(list(words)) for name, words in _WORDS.items()}
        given = {}
        for name, words in _WORDS.items():
            if chance.random() < FILLED:
                given[name] = chance.choice(list(words)) if chance.random() < WRONG else truth[name]
        shown = frozenset(name for name in _WORDS if chance.random() < SHOWN)
        brand = "".join(_SYLLABLES[int(digit)] for digit in f"{int(product_id[1:]) * 7919 % 100_003:05d}")
        noun, shop = chance.choice(_NOUNS[category]), chance.choice(SHOPS)
        self.listings[product_id] = Listing(
            product_id, shop, category, brand.title(), noun, truth, shown, given, week=self.week
        )
        self.truth |= {(product_id, name): value for name, value in truth.items()}
        return product_id

    def some(self, count: int, among: Iterable[str] = ()) -> list[Listing]:
        """Return products drawn at random."""
        names = sorted(among or self.listings)
        return [self.listings[name] for name in self._chance.sample(names, min(count, len(names)))]

    def usual_week(self) -> None:
        """New products; titles that change; merchants who give, change and take back a value, or opt out."""
        self.week += 1
        self.add(8)
        for listing in self.some(6):  # another text: decided anew
            listing.noun, listing.week = self._chance.choice(_NOUNS[CATEGORIES[0]]), self.week
        for listing in self.some(9):
            name = self._chance.choice(("color", "material"))
            if name in listing.given and self._chance.random() < 0.3:
                del listing.given[name]
            else:
                listing.given[name] = listing.truth[name]
            listing.week = self.week
        for listing in self.some(2):
            listing.opt_out, listing.week = not listing.opt_out, self.week

    def change(self, listing: Listing, **given: Any) -> None:
        """Change a product in this week's feed."""
        for name, value in given.items():
            setattr(listing, name, value)
        listing.week = self.week

    def leave_out(self, product_ids: Iterable[str]) -> None:
        """Leave products out of the feed from now on."""
        for product_id in product_ids:
            self.absent[product_id] = Absent(self.listings.pop(product_id), frozenset(self.words.values))

    def delete(self, product_ids: Iterable[str]) -> None:
        """Let this week's feed delete products."""
        for product_id in product_ids:
            del self.listings[product_id]
            self.deleted.append(product_id)

    def forget(self, product_ids: Iterable[str]) -> None:
        """Remove products from the feed and, as the job that is run for it, from the catalog."""
        for product_id in product_ids:
            del self.listings[product_id]

    def put_back(self, product_id: str) -> None:
        """Offer a product again that was gone, with another text and other values."""
        self._put(product_id)

    def stored(self) -> dict[str, Listing]:
        """Return the products that the catalog has to have after an import of this week's feed."""
        return self.listings | {name: absent.listing for name, absent in self.absent.items()}

    def write_feed(self, file: Path) -> int:
        """Write the week's snapshot, two rows of it useless; return the number of rows."""
        rows = [json.dumps(listing.row()) for listing in self.listings.values()]
        rows += [json.dumps({"id": product_id, "deleted": True}) for product_id in self.deleted]
        rows += ["{broken", json.dumps({"id": None, "title": "without an id"})]
        file.write_text("\n".join(rows) + "\n")
        self.deleted = []
        missed = {name: replace(absent, snapshots=absent.snapshots + 1) for name, absent in self.absent.items()}
        self.absent = {name: absent for name, absent in missed.items() if absent.snapshots < ABSENT_IMPORTS}
        return len(rows)

    def merchant_values(self) -> dict[Key, str]:
        """Return what readers have to see of merchants (I1), by the dictionary of today.

        What is no value of the dictionary is shown as the merchant wrote it. An attribute that is not in the dictionary
        is not imported; products that are absent keep what their last import had.
        """
        known = dict.fromkeys(self.listings, frozenset(self.words.values))
        known |= {name: absent.attributes for name, absent in self.absent.items()}
        return {
            (product_id, name): self.words.canonical(name, text) or text
            for product_id, listing in self.stored().items()
            for name, text in listing.given.items()
            if name in known[product_id]
        }

    def true_value(self, product_id: str, attribute: str) -> str | None:
        """Return the true value by its name of today; None where the dictionary has no name for it."""
        return self.words.canonical(attribute, self.truth[product_id, attribute])
