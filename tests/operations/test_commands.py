"""Commands for people, as a shell reads them, and the commands that undo a value: the value alone first."""

from __future__ import annotations

import shlex
import subprocess

import pytest

from catalog_enrichment.operations.commands import OtherValues, UndoOption, command, quoted, undo_options

KEY = ("p1", "color")

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
    options = undo_options(KEY, "enrich-1", False, OtherValues(40, 40, 97, 60), ["--config", "my shop.toml"])
    assert [option.in_words() for option in options] == [
        "to remove this value alone: set_value --config 'my shop.toml' --remove p1 color",
        "to correct this value alone: set_value --config 'my shop.toml' p1 color VALUE",
        "to take back color in its whole run: rollback_run --config 'my shop.toml' --run-id enrich-1 --attribute color "
        "(takes back 40 other values of 40 products, too)",
        "to take back its whole run: rollback_run --config 'my shop.toml' --run-id enrich-1 "
        "(takes back 97 other values of 60 products, too)",
    ]
    assert shlex.split(options[0].command)[1:3] == ["--config", "my shop.toml"]


def test_a_run_that_wrote_no_other_attribute_is_named_once() -> None:
    assert len(undo_options(KEY, "enrich-1", False, OtherValues(1, 1, 1, 1))) == 3
    alone = undo_options(KEY, "enrich-1", False, OtherValues())
    assert [option.other_values for option in alone] == [0, 0, 0]
    assert UndoOption("x", "y", 1, 1).in_words() == "to x: y (takes back 1 other value of 1 product, too)"


def test_what_a_person_said_is_undone_by_its_run() -> None:
    [option] = undo_options(KEY, "set_value-1", True, OtherValues())
    assert option.command == "rollback_run --config FILE --run-id set_value-1"
    together = undo_options(KEY, "audit-1", True, OtherValues(0, 0, 3, 2))
    assert [option.command.split()[0] for option in together] == ["set_value"] * 2 + ["rollback_run"] * 2
