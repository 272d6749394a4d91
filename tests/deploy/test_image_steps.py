"""The reader of the Dockerfile that carries its steps out in a chroot (`make ops PROOF=image_steps`)."""

from __future__ import annotations

from pathlib import Path

import pytest

from . import image_steps
from .image_steps import State, Step

DOCKERFILE = Path(__file__).parents[2] / "deploy" / "docker" / "Dockerfile"


def test_every_step_of_the_dockerfile_is_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ran: list[tuple[str, list[str]]] = []
    monkeypatch.setattr(image_steps, "in_root", lambda state, command: ran.append((state.user, command)) or "")
    state = State(tmp_path, DOCKERFILE.parents[2], {"TORCH": "cuda"})
    for step in image_steps.steps(DOCKERFILE):
        image_steps.run(state, step)
    assert [command[-1].split()[0] for _, command in ran] == ["python", "if", "apt-get"]
    assert ran[0][1][:3] == ["/bin/bash", "-o", "pipefail"]
    assert ran[2][1][:2] == ["/bin/sh", "-c"], "a stage begins with the shell of its base"
    assert {user for user, _ in ran} == {"0"}
    assert state.arguments["TORCH"] == "cuda", "a build argument goes before the default"
    assert state.arguments["EXTRAS"] == "pretrained"
    assert (state.user, state.folder) == ("10001", "/var/lib/catalog-enrichment")
    assert state.environment["PATH"].startswith("/opt/catalog-enrichment/bin:/usr/local/bin")
    assert state.health == ["list_runs", "--help"]
    assert [*state.entrypoint, *state.command] == ["/opt/entrypoint.sh", "enrich_catalog", "--help"]
    assert (tmp_path / "build" / "src" / "catalog_enrichment" / "cli.py").is_file() or list(
        (tmp_path / "build" / "src" / "catalog_enrichment").glob("cli*")
    )
    assert (tmp_path / "build" / "pyproject.toml").is_file()
    assert (tmp_path / "opt" / "entrypoint.sh").stat().st_mode & 0o777 == 0o755


def test_a_step_that_is_not_known_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="ONBUILD"):
        image_steps.run(State(tmp_path, tmp_path), Step("ONBUILD", "RUN true"))


def test_comments_and_continued_lines(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text('# a\nRUN one \\\n && two\n\n  # b\nCMD ["x"]\n')
    assert image_steps.steps(tmp_path / "Dockerfile") == [Step("RUN", "one   && two"), Step("CMD", '["x"]')]


@pytest.mark.parametrize(("user", "home"), [("0", "/root"), ("10001", "/home/catalog"), ("catalog", "/home/catalog")])
def test_the_home_of_a_user_is_that_of_the_image(tmp_path: Path, user: str, home: str) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "passwd").write_text(
        "root:x:0:0:root:/root:/bin/bash\ncatalog:x:10001:10001::/home/catalog:/bin/sh\n"
    )
    assert image_steps.home_of(State(tmp_path, tmp_path, user=user)) == home


def test_a_user_without_an_entry_has_the_root_folder(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/bash\n")
    assert image_steps.home_of(State(tmp_path, tmp_path, user="65534")) == "/"
