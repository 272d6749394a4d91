"""The commands that take a value back, as a shell reads them; the one value first."""

from __future__ import annotations

import shlex
import subprocess

import pytest

from catalog_enrichment.operations.commands import command, quoted
from catalog_enrichment.operations.lookup import PersonSet, seen_in_words
from catalog_enrichment.operations.undo_options import Others, UndoOption, run_to_undo, undo_options

KEY = ("p1", "color")
BY_MODEL = {"values": ["Blue", "Red"], "source": "model", "run_id": "enrich-1", "model_version": "7"}
REMOVED = PersonSet(values=(), run_id="set_value-1", by="ann")

ODD = [
    *("it's", 'say "hi" $(id) `x`', "new\nline", "\x1b[2J\u202egreen"),
    *("back\\slash\t'quoted'", "商品-é\u200b1", "-rf", ""),
]


@pytest.mark.parametrize("word", ODD)
def test_a_shell_reads_the_word_that_was_meant_and_nothing_invisible_is_printed(word: str) -> None:
    assert quoted(word).isprintable()
    script = f"LC_ALL=C.UTF-8; printf %s {quoted(word)}"
    printed = subprocess.run(["bash", "-c", script], capture_output=True, check=True).stdout
    assert printed.decode() == word


def test_a_positional_argument_with_a_dash_is_no_option() -> None:
    assert command("set_value", ["--remove"], ["-1 x", "color"]) == "set_value --remove -- '-1 x' color"
    assert command("set_value", ["--remove"], KEY) == "set_value --remove p1 color"


def test_a_models_value_is_removed_or_corrected_alone_or_taken_back_with_others() -> None:
    ways = undo_options(KEY, "enrich-1", False, Others(40, 40, 97, 60), ["--config", "my shop.toml"])
    assert [way.in_words() for way in ways] == [
        "to remove this value alone: set_value --config 'my shop.toml' --remove p1 color",
        "to correct this value alone: set_value --config 'my shop.toml' p1 color VALUE",
        "to take back color in its whole run: rollback_run --config 'my shop.toml' --run-id enrich-1 --attribute color "
        "(takes back 40 other values of 40 products, too)",
        "to take back its whole run: rollback_run --config 'my shop.toml' --run-id enrich-1 "
        "(takes back 97 other values of 60 products, too)",
    ]
    assert shlex.split(ways[0].command)[1:3] == ["--config", "my shop.toml"]


def test_a_run_that_wrote_no_other_attribute_is_named_once() -> None:
    assert len(undo_options(KEY, "enrich-1", False, Others(1, 1, 1, 1))) == 3
    alone = undo_options(KEY, "enrich-1", False, Others())
    assert [way.other_values for way in alone] == [0, 0, 0]
    assert UndoOption("x", "y", 1, 1).in_words() == "to x: y (takes back 1 other value of 1 product, too)"


def test_what_a_person_said_is_undone_by_its_run() -> None:
    [way] = undo_options(KEY, "set_value-1", True, Others())
    assert way.command == "rollback_run --config FILE --run-id set_value-1"
    together = undo_options(KEY, "audit-1", True, Others(0, 0, 3, 2))
    assert [way.command.split()[0] for way in together] == ["set_value", "set_value", "rollback_run", "rollback_run"]


def test_the_run_that_is_to_be_undone() -> None:
    assert run_to_undo(BY_MODEL, REMOVED) == "enrich-1"
    assert run_to_undo(None, REMOVED) == "set_value-1"
    assert run_to_undo(None, None) is None
    assert run_to_undo({"source": "merchant", "run_id": None}, REMOVED) is None


def test_what_readers_see_in_words() -> None:
    by_person = BY_MODEL | {"source": "human", "run_id": "set_value-1"}
    said = PersonSet(values=("Blue",), run_id="set_value-1", by="ann", reason="seam")
    assert seen_in_words(None, None) == "no value"
    assert seen_in_words(None, REMOVED) == "no value, as ann said in run set_value-1"
    assert seen_in_words(BY_MODEL, REMOVED) == "Blue, Red, by model version 7, run enrich-1"
    assert seen_in_words(by_person, said) == "Blue, Red, by ann, run set_value-1"
    assert seen_in_words(by_person, None) == "Blue, Red, by a person, run set_value-1"
    assert seen_in_words(BY_MODEL | {"source": "merchant", "run_id": None}, None) == "Blue, Red, by the merchant"
