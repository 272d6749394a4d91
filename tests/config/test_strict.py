"""The strict parser on odd inputs: every message names the key, the value and what is allowed."""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from catalog_enrichment.config import strict
from catalog_enrichment.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    name: str
    width: int = 1

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ValueError(f"width must be at least 1, not {self.width}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    title: str
    columns: list[Column] = field(default_factory=list)
    widest: Column | None = None
    names: dict[str, str] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    margins: tuple[float, float] = (0.0, 0.0)
    sizes: tuple[int, ...] = ()
    kind: Literal["plain", "wide"] = "plain"
    scale: float = 1.0
    rows: int = 0
    visible: bool = True


def build(**content: Any) -> Table:
    return strict.build(Table, {"title": "t"} | content, where="file.toml")


def problems_of(**content: Any) -> list[str]:
    with pytest.raises(ConfigError) as error:
        build(**content)
    where, _, text = str(error.value).partition(": ")
    assert where == "file.toml"
    return text.split("; ")


def test_every_kind_of_field_is_built() -> None:
    table = build(
        columns=[{"name": "a"}, {"name": "b", "width": 3}],
        widest={"name": "b", "width": 3},
        names={"a": "A"},
        options={"deep": {"list": [1, "x", None]}},
        margins=[1, 2.5],
        sizes=[3, 4],
        kind="wide",
        scale=2,
        rows=7,
        visible=False,
    )
    column = Column(name="b", width=3)
    assert table == Table(
        title="t", columns=[Column(name="a"), column], widest=column, names={"a": "A"},
        options={"deep": {"list": [1, "x", None]}}, margins=(1.0, 2.5), sizes=(3, 4), kind="wide", scale=2.0, rows=7,
        visible=False,
    )  # fmt: skip
    assert [type(number) for number in (*table.margins, table.scale)] == [float, float, float]


def test_what_was_built_is_built_again_from_its_plain_data() -> None:
    table = build(columns=[{"name": "a"}], widest={"name": "b"}, margins=[1, 2], sizes=[3])
    assert strict.build(Table, asdict(table), where="again") == table


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ({"widest": [{"name": "a"}]}, "widest must be a table of keys, not [{'name': 'a'}]"),
        ({"widest": "a"}, "widest must be a table of keys, not 'a'"),
        ({"columns": [["a"]]}, "columns.0 must be a table of keys, not ['a']"),
        ({"columns": {"name": "a"}}, "columns must be a list, not {'name': 'a'}"),
        ({"columns": [{"name": "a"}, {"name": 3}]}, "columns.1.name must be of type str, not 3"),
        ({"columns": [{"name": "a", "width": 0}]}, "columns.0: width must be at least 1, not 0"),
        ({"columns": [{"width": 2}]}, "missing key 'columns.0.name'. Available keys: ['name', 'width']"),
        ({"columns": [{"name": "a", "wdth": 2}]}, "unknown key 'columns.0.wdth'. Available keys: ['name', 'width']"),
        ({"names": {"a": 3}}, "names.a must be of type str, not 3"),
        ({"names": ["a"]}, "names must be a table of keys, not ['a']"),
        ({"options": 3}, "options must be a table of keys, not 3"),
        ({"title": None}, "title must be of type str, not None"),
        ({"rows": None}, "rows must be of type int, not None"),
        ({"rows": True}, "rows must be of type int, not True"),
        ({"rows": 1.0}, "rows must be of type int, not 1.0"),
        ({"rows": "1"}, "rows must be of type int, not '1'"),
        ({"scale": True}, "scale must be of type float, not True"),
        ({"visible": 1}, "visible must be of type bool, not 1"),
        ({"kind": "narrow"}, "kind must be one of ['plain', 'wide'], not 'narrow'"),
        ({"kind": ["plain"]}, "kind must be one of ['plain', 'wide'], not ['plain']"),
        ({"margins": [1]}, "margins must be a list of 2 values, not [1]"),
        ({"margins": [1, "x"]}, "margins.1 must be of type float, not 'x'"),
        ({"sizes": [1, True]}, "sizes.1 must be of type int, not True"),
        ({"sizes": "12"}, "sizes must be a list, not '12'"),
    ],
)
def test_a_wrong_value_is_named_with_its_key_and_what_is_allowed(content: dict[str, Any], problem: str) -> None:
    assert problems_of(**content) == [problem]


@pytest.mark.parametrize("content", [None, [], "text", 3])
def test_content_that_is_no_table_is_refused(content: Any) -> None:
    with pytest.raises(ConfigError, match=r"file\.toml: the content must be a table of keys, not"):
        strict.build(Table, content, where="file.toml")


def test_all_problems_are_in_one_message() -> None:
    problems = problems_of(
        colour="red",
        rows="many",
        columns=[{"name": "a", "width": 0}, {"width": 2.5}, "c"],
        names={"a": 1, "b": False},
        kind="narrow",
    )
    assert problems == [
        f"unknown key 'colour'. Available keys: {sorted(asdict(Table(title='')))}",
        "rows must be of type int, not 'many'",
        "columns.0: width must be at least 1, not 0",
        "missing key 'columns.1.name'. Available keys: ['name', 'width']",
        "columns.1.width must be of type int, not 2.5",
        "columns.2 must be a table of keys, not 'c'",
        "names.a must be of type str, not 1",
        "names.b must be of type str, not False",
        "kind must be one of ['plain', 'wide'], not 'narrow'",
    ]


def test_null_is_allowed_only_where_a_value_is_optional() -> None:
    assert build(widest=None).widest is None
    assert build(options={"x": None}).options == {"x": None}


def test_dates_and_times_of_toml_are_texts_where_a_text_is_expected() -> None:
    content = tomllib.loads("title = 2026-01-31\n[names]\nat = 07:32:00\nfrom = 2026-01-31T07:32:00Z\n")
    table = strict.build(Table, content, where="file.toml")
    assert table.title == "2026-01-31"
    assert table.names == {"at": "07:32:00", "from": "2026-01-31 07:32:00+00:00"}
    assert problems_of(rows=content["title"]) == ["rows must be of type int, not datetime.date(2026, 1, 31)"]


def test_long_values_are_cut_in_the_message() -> None:
    (problem,) = problems_of(rows="x" * 10_000)
    assert len(problem) < 300


def test_values_out_of_their_ranges_are_refused_by_name() -> None:
    strict.check_ranges("table", Table(title="t", rows=3), rows=(3, 3), scale=(0.5, 1))
    with pytest.raises(ValueError, match=r"table.rows must lie in \[0, 2.5\], not 3"):
        strict.check_ranges("table", Table(title="t", rows=3), scale=(0, 1), rows=(0, 2.5))


def test_a_refusal_of_the_class_becomes_a_config_error() -> None:
    assert strict.construct(Column, {"name": "a"}, "here") == Column(name="a")
    with pytest.raises(ConfigError, match="here: width must be at least 1, not 0"):
        strict.construct(Column, {"name": "a", "width": 0}, "here")


def test_a_file_that_is_not_utf8_toml_is_named(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_bytes('title = "Größe"'.encode())
    assert strict.read_toml(file) == {"title": "Größe"}
    for content in ('title = "Größe"'.encode("latin-1"), b"title = "):
        file.write_bytes(content)
        with pytest.raises(ConfigError, match=r"settings\.toml is not valid TOML"):
            strict.read_toml(file)
