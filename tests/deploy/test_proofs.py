"""`make ops` itself: its last line, its exit code."""

from __future__ import annotations

import json

import pytest

from . import proofs


def test_the_last_line_says_of_each_proof_whether_it_ran(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def good() -> None:
        print("fine")

    def missing() -> None:
        proofs._program("no-such-program", "apt-get install it")

    def bad() -> None:
        proofs._run(["sh", "-c", "echo why; exit 3"], 10)

    monkeypatch.setattr(proofs, "PROOFS", (good, missing))
    assert proofs.main([]) == 0
    monkeypatch.setattr(proofs, "PROOFS", (good, missing, bad))
    assert proofs.main([]) == 1
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {
        "good": "ok",
        "missing": "not_run: there is no no-such-program: apt-get install it",
        "bad": "failed: RuntimeError: sh ended with 3: why",
    }
    assert proofs.main(["good"]) == 0
    assert proofs.main(["god"]) == 2
