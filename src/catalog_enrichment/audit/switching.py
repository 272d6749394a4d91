"""set_switch: a person pauses, switches off or switches on an attribute, category, shop, value, certificate or stratum.

No lock is taken and Spark is not started, so that a switch can be moved at any time. A run reads the switches when it
begins and once more before it lands its decisions; what it has published by then is retracted by the next run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from catalog_enrichment.catalog import switches
from catalog_enrichment.catalog.switches import OF_ATTRIBUTE, Scope, State, Switch
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.records import NOTHING_TO_DO, RunStatus

if TYPE_CHECKING:
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
    """Move a switch; nothing happens if it is there already. Returns the summary."""
    check(switch, dictionary)
    moved = switches.write(catalog, [switch])
    return {
        "status": RunStatus.SUCCEEDED if moved else NOTHING_TO_DO,
        "switch": str(switch),
        "state": switch.state.value,
        "not_on": in_words(switches.read(catalog).entries),
    }


def in_words(entries: Sequence[Switch]) -> list[str]:
    """A line per switch: what, state, who, when and why."""
    return [f"{one} is {one.state.value}: {one.why} ({one.who}, {one.at:%Y-%m-%d %H:%M} UTC)" for one in entries]
