"""`make ops` itself: its last line, its exit code."""

from __future__ import annotations

import json
import re
from pathlib import Path

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

    monkeypatch.setattr(proofs, "PROOFS", {"good": good, "missing": missing})
    assert proofs.main([]) == 0
    monkeypatch.setattr(proofs, "PROOFS", {"good": good, "missing": missing, "bad": bad})
    assert proofs.main([]) == 1
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {
        "good": "ok",
        "missing": "not_run: there is no no-such-program: apt-get install it",
        "bad": "failed: RuntimeError: sh ended with 3: why",
    }
    assert proofs.main(["good"]) == 0
    assert proofs.main(["god"]) == 2


@pytest.mark.slow
def test_tests_that_are_skipped_prove_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "test_some.py").write_text(
        "import os, pytest\n"
        "def test_one(): pytest.skip('no such server')\n"
        "@pytest.mark.skipif(os.environ.get('THERE') != 'yes', reason='not there')\n"
        "def test_two(): pass\n"
    )
    with pytest.raises(proofs.NotRun, match=r"^2 of 2: (no such server; not there|not there; no such server)$"):
        proofs._tests(str(tmp_path / "test_some.py"))
    with pytest.raises(proofs.NotRun, match=r"^1 of 2: no such server$"):
        proofs._tests(str(tmp_path / "test_some.py"), THERE="yes")
    assert "1 passed, 1 skipped" in capsys.readouterr().out.splitlines()[-1]
    slow = "import pytest\n@pytest.mark.slow\ndef test_one(): assert False\n"
    (tmp_path / "test_some.py").write_text(slow)
    with pytest.raises(RuntimeError, match="1 failed"):
        proofs._tests(str(tmp_path / "test_some.py"))


def test_the_readme_of_deploy_has_every_proof() -> None:
    text = (proofs.DEPLOY / "README.md").read_text()
    rows = re.findall(r"^\| [^|]+ \| `(\w+)` \| (.+) \|$", text, re.MULTILINE)
    assert sorted(name for name, _ in rows) == sorted(proofs.PROOFS)
    wrong = [name for name, printed in rows if not printed.endswith("`ok`") and "`not_run: " not in printed]
    assert wrong == [], "copy what `make ops` printed: a proof ends with ok, or with not_run and its reason"
