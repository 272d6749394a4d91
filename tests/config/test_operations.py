from __future__ import annotations

from typing import Any

import pytest

from catalog_enrichment.config.operations import DeliveryConfig


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"uri": "mysql://r@h/d"}, "must begin with postgresql://"),
        ({"uri": "host=h dbname=d"}, "must begin with postgresql://"),
        ({"uri": "postgresql://r:hidden@h/d"}, "has a password"),
        ({"uri": "postgresql://r:hid@den@h/d"}, "has a password"),
        ({"uri": "postgresql://r@h/d?password=hidden"}, "has a password"),
        ({"uri": "postgresql://r@h/d?PassWord=hidden"}, "has a password"),
        ({"uri": "postgresql://r@h/d?sslpassword=hidden"}, "has a password"),
        ({"migration_uri": "postgresql://r:hidden@h/d"}, "delivery.migration_uri has a password"),
        ({"schema": "my schema"}, "lower case letters"),
        ({"schema": 'x"; DROP TABLE y'}, "lower case letters"),
        ({"role": "Role"}, "lower case letters"),
        ({"schema": "x" * 64}, "at most 63"),
        ({"merge_after": 0}, "delivery.merge_after must lie in"),
        ({"connect_seconds": 1}, "delivery.connect_seconds must lie in"),
        ({"lock_seconds": 0}, "delivery.lock_seconds must lie in"),
        ({"positions": "s3://bucket/positions"}, "is a folder, not a URI"),
    ],
)
def test_what_the_section_cannot_be(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says) as raised:
        DeliveryConfig(**given)
    assert "hidden" not in str(raised.value)
    assert "hid@den" not in str(raised.value)


@pytest.mark.parametrize("uri", ["", "postgres://r@h/d", "postgresql://r@h:5432/d?sslmode=require", "postgresql:///d"])
def test_what_it_can_be(uri: str) -> None:
    assert DeliveryConfig(uri=uri).uri == uri
