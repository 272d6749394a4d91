"""set_switch: a person pauses, switches off or switches on an attribute, category, shop, value, certificate or stratum.

No lock is taken and Spark is not started, so that a switch can be moved at any time. A run reads the switches when it
begins and once more before it writes its decisions; what it has published by then is retracted by the next run.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from catalog_enrichment.catalog import switches
from catalog_enrichment.catalog.switches import OF_ATTRIBUTE, Scope, State, Switch, stratum_name
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.records import NOTHING_TO_DO, Modality, RunStatus
from catalog_enrichment.web.pages import when

if TYPE_CHECKING:
    from catalog_enrichment.catalog.lake import Catalog
    from catalog_enrichment.dictionary import Attribute, Dictionary


def _check(switch: Switch, dictionary: Dictionary) -> None:
    """Raise ConfigError for a switch that cannot be meant, without a look at the catalog."""
    scope = switch.scope
    if not switch.who.strip() or not switch.why.strip():
        raise ConfigError("--by needs a name and --reason a text: people will ask who moved the switch, and why")
    if (scope in OF_ATTRIBUTE) != bool(switch.attribute):
        raise ConfigError(f"--attribute is needed for the scopes {sorted(OF_ATTRIBUTE)}, and for no other")
    if (scope is Scope.ATTRIBUTE) == bool(switch.target):
        raise ConfigError(f"the scope {scope.value} needs {'no' if scope is Scope.ATTRIBUTE else 'a'} TARGET")
    if scope is Scope.STRATUM and switch.state is State.OFF:
        raise ConfigError("a stratum can be paused, not off: switch off its category instead")
    if scope in OF_ATTRIBUTE and switch.attribute not in dictionary:
        raise ConfigError(f"{switch.attribute!r} is not in the dictionary, which has {sorted(dictionary.attributes)}")
    if scope is Scope.VALUE and (why := _why_no_value(dictionary[switch.attribute], switch.target)):
        raise ConfigError(f"{switch.target!r} is no value of {switch.attribute} in the dictionary{why}")


def _why_no_value(attribute: Attribute, target: str) -> str:
    """Return the end of a message; empty for a value of the attribute."""
    if attribute.is_open:
        return f": {why}" if (why := attribute.why_not(target)) else ""
    return "" if attribute.lists(target) else ": the name of a value is given as the dictionary spells it"


def _with_stored_value(catalog: Catalog, attribute: Attribute, switch: Switch) -> Switch:
    """Return the switch of a number or a text with the value as it is stored.

    Where the same value has a switch already, in whatever spelling, its target is that switch's.
    """
    value = attribute.canonical(switch.target) or switch.target
    there = [each.target for each in switches.history(catalog) if each.key[:2] == switch.key[:2]]
    known = value if value in there else next((each for each in there if attribute.is_same(value, each)), value)
    return replace(switch, target=known)


def set_switch(catalog: Catalog, dictionary: Dictionary, switch: Switch) -> dict[str, Any]:
    """Move a switch; nothing happens if it has the state already. Return the summary.

    Raises ConfigError where nothing in the catalog has the name: a misspelled switch would stop nothing.
    """
    _check(switch, dictionary)
    if switch.scope is Scope.VALUE and dictionary[switch.attribute].is_open:
        switch = _with_stored_value(catalog, dictionary[switch.attribute], switch)
    if switch.state is not State.ON:
        _check_known(catalog, switch)
    moved = switches.write(catalog, [switch])
    return {
        "status": RunStatus.SUCCEEDED if moved else NOTHING_TO_DO,
        "switch": str(switch),
        "state": switch.state.value,
        "not_on": in_words(switches.read(catalog).entries),
    }


def _check_known(catalog: Catalog, switch: Switch) -> None:
    """Raise ConfigError, with the nearest names, for a category, shop, certificate or stratum that the catalog does
    not have. Attributes and values are in the dictionary."""
    match switch.scope:
        case Scope.SHOP:
            known = {shop for (shop,) in _distinct(catalog, "products", "shop_id")}
        case Scope.CATEGORY:  # every category with all above it
            paths = [category.split("/") for (category,) in _distinct(catalog, "products", "category")]
            known = {"/".join(path[:depth]) for path in paths for depth in range(1, len(path) + 1)}
        case Scope.CERTIFICATE:
            known = {name for (name,) in _distinct(catalog, "attribute_values", "certificate_id") if name}
        case Scope.STRATUM:
            slices = _distinct(catalog, "products", "language", "category")
            known = {stratum_name(path.value, *language_category) for language_category in slices for path in Modality}
        case _:
            return
    if switch.target in known:
        return
    close = difflib.get_close_matches(switch.target, sorted(known), n=3)
    nearest = f"the nearest are {close}" if close else f"it has {len(known):,} of them"
    otherwise = _OTHERWISE.get(switch.scope, "")
    raise ConfigError(
        f"nothing in the catalog has the {switch.scope.value} {switch.target!r}, so nothing would be stopped; "
        f"{nearest}{otherwise}"
    )


def _distinct(catalog: Catalog, table: str, *names: str) -> set[tuple[str, ...]]:
    """Return the distinct rows of these columns, with "" for null."""
    import pyarrow as pa

    found: set[tuple[str, ...]] = set()
    for batch in catalog.scan(table, names) if catalog.version(table) >= 0 else ():
        rows = pa.Table.from_batches([batch])
        for row in rows.group_by(rows.column_names).aggregate([]).to_pylist():
            found.add(tuple(row[name] or "" for name in names))
    return found


_OTHERWISE = {
    Scope.SHOP: ". For a shop that is still to come: enrich.disabled_shops in the config",
    Scope.CATEGORY: ". For a category that is still to come: enrich.disabled_categories in the config",
    Scope.CERTIFICATE: ". For a certificate that has written nothing yet: pause its attribute",
}
"""Advice about a name that the catalog does not have yet."""


def in_words(entries: Sequence[Switch]) -> list[str]:
    """Return a line per switch: what, state, who, when and why."""
    return [f"{switch} is {switch.state.value}: {switch.why} ({switch.who}, {when(switch.at)})" for switch in entries]
