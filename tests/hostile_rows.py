"""Feed rows as no merchant should send them, for tests that import thousands at once (I7).

Every row carries a mark in `shop`, by which it is found again in the products table or in quarantine.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

TEXTS: list[str] = [
    'say "hi"', "it's", "`back`", "a\\b", "back\\", "\\", "{", "}", "[", "]", "[]", "{}", "null", "NaN",
    "-Infinity", "true", "0", "-1", "1e999",
    "'; DROP TABLE products; --", "1 OR 1=1", "${jndi:ldap://x/y}", "{{7*7}}", "%s %d %n", "=cmd|' /C calc'!A0",
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "</td></table>", "&lt;b&gt;",
    "javascript:alert(1)",
    "../../etc/passwd", "/etc/passwd", "C:\\Windows\\x", "file:///etc/passwd", "a/b/c", "..", ".", "~", "*",
    "?", "%2e%2e%2f", "%", "%00",
    "👩‍👩‍👧 shirt", "👗", "\u202eقميص", "حقيبة", "\u200b", "\u200bx\u200b", "\ufeff", "\ufeffx", "ﬁ", "İ",
    "ß", "e\u0301", "北海道", "\U0010ffff",
    "\ud800", "a\ud800b", "\udc00\ud800", "\0", "a\0b", "\x01", "\x7f", "\x1b[31mred", "\t", "tab\tin",
    "line\nbreak", "line\r\nbreak", "\u2028", "\u0085",
    "x" * 1_999, "x" * 2_001, "👗" * 1_500, "y " * 30_000, '{"a": {"b": [1, {"c": null}]}}', '["a", "b"]',
    '{"a":1,"a":2}', "[" * 400, "{'a': 1}",
    "00123", "1.0", "+5", "٣", "1_000", "0x1F", "_source_uri", "_metadata", "__HIVE_DEFAULT_PARTITION__",
    "product_id", "a,b", "a;b", "a|b", "# a", "",
    " ", "\u00a0", "  lead", "trail  ",
]  # fmt: skip
VALUES: list[Any] = [
    None, True, False, 0, -1, 3.5, 10**30, 1e308, [], {}, ["a", 1, None], [[["x"]]], {"en": "a", "n": {"m": []}},
]  # fmt: skip
"""Values that a JSON document may hold where a text is expected."""
TIMES: list[Any] = [
    None, "", "2026-01-01", "2026-01-01T00:00:00Z", "yesterday", "0000-00-00", "0001-01-01T00:00:00Z",
    "9999-12-31T23:59:59Z", "-0044-03-15", "294247-01-10",
    "202601", "20260101", "1767225600", 17, "2026-13-01", "2026-01-01T25:00:00", "2026-01-01T00:00:00+25:00",
]  # fmt: skip
FLAGS: list[Any] = [None, True, False, "", "true", "no", "perhaps", 0, 1, 2, "0"]
KEYS = [
    "Title", "TITLE", "_source_uri", "_metadata", "_corrupt_record", "_row_number", "_file_stem", "", " ", "a.b",
    "a`b", "a b", "$", "0", "x" * 300, "é",
]  # fmt: skip
"""Keys that no mapping names."""
BROKEN = [
    "[]", "[{}]", "{}{}", '{"mark": "%s"}{"title": "second"}', '{"mark": "%s"} {}', '{"mark": "%s"},{}',
    '{"mark": "%s"}], [{}', '{"mark": "%s"}]', '"%s"',
    "%s", "null %s", '{"mark": "%s"', '{"mark": "%s', '{"mark": "%s", "a": 1, "a": 2}',
    '{"mark": "%s", "a": {"b": 1, "b": 1}}', '{"mark": "%s",}',
    '{"mark": "%s" "x": 1}', "{'mark': '%s'}", '{"mark": "%s", "a": 01}', '{"mark": "%s", "a": "\\x"}',
    '{"mark": "%s", "a": "\0"}', "<xml>%s</xml>",
    "mark,%s", "\0%s", '{"mark": "%s"} // comment', '[%s' + "[" * 3_000,
    '{"mark": "%s", "a": ' + '{"a":' * 2_000,
]  # fmt: skip
"""Lines that are no JSON object, or several; %s is the row's mark."""


@dataclass(frozen=True, slots=True)
class HostileRow:
    mark: str
    record: dict[str, Any] | None
    """The row; None for a line of :data:`BROKEN`."""
    line: str
    """The row as a JSON line."""


def texts() -> st.SearchStrategy[str]:
    """A text of the corpus, or any other."""
    return st.sampled_from(TEXTS) | st.text(max_size=40)


def sample(count: int, seed: int) -> list[HostileRow]:
    """Return ``count`` rows, always the same: a tenth is broken, a tenth of the others has an id of another row."""
    chosen = random.Random(seed)
    return [_row(number, chosen) for number in range(count)]


def _row(number: int, chosen: random.Random) -> HostileRow:
    mark = f"mark-{number:05d}"
    if chosen.random() < 0.1:
        line = chosen.choice(BROKEN)
        return HostileRow(mark, None, line % mark if "%s" in line else line)
    record = {
        "shop": mark,
        "product_id": _product_id(number, chosen),
        "title": _value(chosen),
        "description": _value(chosen),
        "category": chosen.choice([None, "Apparel/Topwear", _text(chosen)]),
        "image": None,
        "updated_at": chosen.choice(TIMES) if chosen.random() < 0.2 else "2026-01-01",
        "opt_out": chosen.choice(FLAGS) if chosen.random() < 0.2 else False,
        "color": chosen.choice(
            ["Red", None, _value(chosen), [_text(chosen) for _ in range(chosen.choice([0, 1, 300]))]]
        ),
        "material": None,
    }
    for key in chosen.sample(KEYS, k=chosen.randrange(4)):
        record[key] = _value(chosen)
    return HostileRow(
        mark, record, json.dumps(record, ensure_ascii=chosen.random() < 0.5).encode("utf-8", "replace").decode()
    )


def _product_id(number: int, chosen: random.Random) -> Any:
    kind = chosen.random()
    if kind < 0.1:
        return f"same {chosen.randrange(20)}"
    if kind < 0.15:
        return chosen.choice([None, "", " ", number, -number, 10**20 + number, True, [number], {"id": number}])
    return f"{number} {_text(chosen)[:100]}"


def _value(chosen: random.Random) -> Any:
    return chosen.choice(VALUES) if chosen.random() < 0.1 else _text(chosen)


def _text(chosen: random.Random) -> str:
    if chosen.random() < 0.2:
        return "".join(chosen.choice(TEXTS)[:20] for _ in range(3))
    return chosen.choice(TEXTS)
