"""Reads the values that people type or choose, as they are stored: once, in the language of the product."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from catalog_enrichment.audit.review_records import Item, Verdict, person_key
from catalog_enrichment.dictionary import Dictionary
from catalog_enrichment.errors import DataContractError


def stored_values(dictionary: Dictionary, attribute: str, values: Sequence[str], language: str) -> tuple[str, ...]:
    """Return the values as they are stored: of a number or a text, what people have typed is read by its kind.

    ``language``: the product's; it decides what 1.299 is. Raises DataContractError for values that the dictionary does
    not have.
    """
    found = dictionary.attributes.get(attribute)
    if found is None or not found.is_open:
        if unknown := sorted({value for value in values if found is None or not found.lists(value)}):
            raise DataContractError(f"{unknown} is not among the values of {attribute} in the dictionary")
        return tuple(values)
    for value in values:
        if why := found.why_not(value, language):
            raise DataContractError(f"{value!r} is no value of {attribute}: {why}")
    return tuple(str(found.canonical(value, language)) for value in values)


def verdict_values(
    dictionary: Dictionary, item: Item, values: Sequence[str], reviewer: str, given: Iterable[Verdict]
) -> tuple[str, ...]:
    """Return the right values of a verdict as they are stored. ``given``: the verdicts about the item.

    A number or a text that another person has given in another spelling, or within the tolerance, is kept as that
    person gave it: the verdicts agree. Raises DataContractError for what :func:`stored_values` refuses, and for a
    number or a text that is the same value as the item's.
    """
    read = stored_values(dictionary, item.attribute, values, item.language)
    if item.attribute not in dictionary.open_attributes:
        return read
    found, own = dictionary[item.attribute], person_key(reviewer)
    for value in read:
        if item.value and found.is_same(value, item.value):
            raise DataContractError(
                f"{value} and {item.value} are the same value of {item.attribute}: answer 'yes' if it is right"
            )
    others = [value for verdict in given if person_key(verdict.reviewer) != own for value in verdict.right_values]
    return tuple(next((other for other in others if found.is_same(value, other)), value) for value in read)
