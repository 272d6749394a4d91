"""set_switch: a person pauses, switches off or switches on an attribute, category, shop, value, certificate or stratum.

No lock is taken and Spark is not started, so that a switch can be moved at any time. A run reads the switches when it
begins and once more before it lands its decisions; what it has published by then is retracted by the next run.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from catalog_enrichment.catalog import switches
from catalog_enrichment.catalog.switches import OF_ATTRIBUTE, Scope, State, Switch, stratum_name
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.records import NOTHING_TO_DO, Modality, RunStatus

if TYPE_CHECKING:
    import pyarrow as pa

    from catalog_enrichment.catalog.base import Catalog
    from catalog_enrichment.dictionary import Dictionary


def check(switch: Switch, dictionary: Dictionary) -> None:
    """What can be wrong without a look at the catalog. Raises ConfigError."""
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
    if scope is Scope.VALUE and switch.target not in dictionary[switch.attribute].values:
        raise ConfigError(f"{switch.target!r} is no value of {switch.attribute} in the dictionary")


def set_switch(catalog: Catalog, dictionary: Dictionary, switch: Switch) -> dict[str, Any]:
    """Move a switch; nothing happens if it is there already. Returns the summary.

    Raises ConfigError where nothing in the catalog has the name: a misspelled switch would stop nothing.
    """
    check(switch, dictionary)
    if switch.state is not State.ON:
        check_known(catalog, switch)
    moved = switches.write(catalog, [switch])
    return {
        "status": RunStatus.SUCCEEDED if moved else NOTHING_TO_DO,
        "switch": str(switch),
        "state": switch.state.value,
        "not_on": in_words(switches.read(catalog).entries),
    }


def check_known(catalog: Catalog, switch: Switch) -> None:
    """Raises ConfigError, with the nearest names, for a category, shop, certificate or stratum that the catalog does
    not have. Reads one or two columns of the products, or of the ledger; no Spark."""
    if switch.scope not in _NAMES:
        return
    known = _NAMES[switch.scope](catalog)
    if switch.target in known:
        return
    close = difflib.get_close_matches(switch.target, sorted(known), n=3)
    nearest = f"the nearest are {close}" if close else f"it has {len(known):,} of them"
    otherwise = _OTHERWISE.get(switch.scope, "")
    raise ConfigError(
        f"nothing in the catalog has the {switch.scope.value} {switch.target!r}, so nothing would be stopped; "
        f"{nearest}{otherwise}"
    )


def _columns(catalog: Catalog, table: str, *names: str) -> set[tuple[str, ...]]:
    """The different rows of these columns, "" for null."""
    if catalog.version(table) < 0:
        return set()
    found: set[tuple[str, ...]] = set()
    for batch in catalog.scan(table, names):
        for row in _distinct(batch):
            found.add(tuple(row[name] or "" for name in names))
    return found


def _distinct(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """The different rows of a batch."""
    import pyarrow as pa

    table = pa.Table.from_batches([batch])
    rows: list[dict[str, Any]] = table.group_by(table.column_names).aggregate([]).to_pylist()
    return rows


def _shops(catalog: Catalog) -> set[str]:
    return {shop for (shop,) in _columns(catalog, "products", "shop_id")}


def _categories(catalog: Catalog) -> set[str]:
    """Every category with all above it."""
    paths = [category.split("/") for (category,) in _columns(catalog, "products", "category")]
    return {"/".join(path[:depth]) for path in paths for depth in range(1, len(path) + 1)}


def _certificates(catalog: Catalog) -> set[str]:
    return {one for (one,) in _columns(catalog, "attribute_values", "certificate_id") if one}


def _strata(catalog: Catalog) -> set[str]:
    of_products = _columns(catalog, "products", "language", "category")
    return {stratum_name(path.value, *one) for one in of_products for path in Modality}


_NAMES: dict[Scope, Callable[[Catalog], set[str]]] = {
    Scope.SHOP: _shops,
    Scope.CATEGORY: _categories,
    Scope.CERTIFICATE: _certificates,
    Scope.STRATUM: _strata,
}
"""The names that the catalog has; those of attributes and values are in the dictionary."""

_OTHERWISE = {
    Scope.SHOP: ". For one that is still to come: enrich.disabled_shops in the config",
    Scope.CATEGORY: ". For one that is still to come: enrich.disabled_categories in the config",
    Scope.CERTIFICATE: ". For one that has written nothing yet: pause its attribute",
}
"""What to do about a name that the catalog does not have yet."""


def in_words(entries: Sequence[Switch]) -> list[str]:
    """A line per switch: what, state, who, when and why."""
    return [f"{one} is {one.state.value}: {one.why} ({one.who}, {one.at:%Y-%m-%d %H:%M} UTC)" for one in entries]
