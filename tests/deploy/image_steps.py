"""The steps of deploy/docker/Dockerfile in a Debian chroot, where no container engine runs.

Every ARG, ENV, COPY, RUN, USER and WORKDIR is carried out in its order, with a base system of debootstrap (Debian 12
with its Python 3.11) instead of the image `python:3.11-slim-bookworm`. Both stages share the chroot: what COPY
--from=build takes is there already. There are no layers and no digest, and the network is the machine's.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

MIRROR, RELEASE = "http://deb.debian.org/debian", "bookworm"
PACKAGES = "python3,python3-venv,ca-certificates"
PATH = "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NETWORK = ("PIP_", "UV_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "SSL_CERT")
"""Beginnings of variables that say how this machine reaches package indexes."""


@dataclass(frozen=True)
class Step:
    instruction: str
    text: str


@dataclass
class State:
    """The facts that later steps depend on."""

    root: Path
    context: Path
    arguments: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=lambda: {"PATH": PATH})
    shell: list[str] = field(default_factory=lambda: ["/bin/sh", "-c"])
    folder: str = "/"
    user: str = "0"
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)


def steps(dockerfile: Path) -> list[Step]:
    """The instructions in order, comments left out and continued lines joined."""
    lines = [line for line in dockerfile.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    return [Step(*line.strip().split(None, 1)) for line in joined.splitlines() if line.strip()]


def run(state: State, step: Step) -> None:
    """Carry out a step. Raises RuntimeError for an instruction that is not known here, and if a command fails."""
    match step.instruction:
        case "FROM":
            state.folder, state.user, state.shell = "/", "0", ["/bin/sh", "-c"]
            state.environment = {"PATH": PATH}
        case "ARG":
            name, _, default = step.text.partition("=")
            state.arguments.setdefault(name, default)
        case "ENV":
            for name, value in re.findall(r"(\w+)=(\S+)", step.text):
                state.environment[name] = expanded(value, state)
        case "SHELL":
            state.shell = json.loads(step.text)
        case "WORKDIR":
            state.folder = step.text
            (state.root / state.folder.lstrip("/")).mkdir(parents=True, exist_ok=True)
        case "COPY":
            copy(state, step.text)
        case "RUN":
            in_root(state, [*state.shell, step.text])
        case "USER":
            state.user = step.text
        case "HEALTHCHECK":
            state.health = json.loads(step.text.partition("CMD")[2])
        case "ENTRYPOINT":
            state.entrypoint = json.loads(step.text)
        case "CMD":
            state.command = json.loads(step.text)
        case other:
            raise RuntimeError(f"the Dockerfile has {other}, which nobody carries out here")


def expanded(text: str, state: State) -> str:
    known = state.arguments | state.environment
    return re.sub(r"\$\{?(\w+)\}?", lambda found: known.get(found[1], ""), text)


def copy(state: State, text: str) -> None:
    words = text.split()
    options, (*sources, target) = [w for w in words if w.startswith("--")], [w for w in words if not w.startswith("--")]
    if any(option.startswith("--from=") for option in options):
        return
    place = state.root / str(Path(state.folder) / target).lstrip("/")
    for source in sources:
        here = state.context / source
        if here.is_dir():
            shutil.copytree(here, place, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", ".git"))
        else:
            to = place / here.name if target.endswith("/") or place.is_dir() else place
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(here, to)
            for option in options:
                if option.startswith("--chmod="):
                    to.chmod(int(option.partition("=")[2], 8))


def in_root(state: State, command: list[str], seconds: int = 3000) -> str:
    """Output of a command inside the chroot, as the state's user. Raises RuntimeError with its end where it fails."""
    network = {name: value for name, value in os.environ.items() if name.startswith(NETWORK)}
    variables = {"HOME": home_of(state)} | state.arguments | network | state.environment
    inside = ["/bin/sh", "-c", 'cd "$0" && exec "$@"', state.folder, *command]
    done = subprocess.run(
        ["chroot", f"--userspec={state.user}:{state.user}", state.root, *inside], env=variables, text=True, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=seconds,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)[:200]} ended with {done.returncode}: {done.stdout.strip()[-1500:]}")
    return done.stdout


def home_of(state: State) -> str:
    """Home of the state's user, by name or number, as /etc/passwd in the chroot has it."""
    users = [line.split(":") for line in (state.root / "etc" / "passwd").read_text().splitlines()]
    return next((fields[5] for fields in users if state.user in (fields[0], fields[2])), "/")


@contextmanager
def base(root: Path) -> Iterator[Path]:
    """A Debian in ``root`` with Python under the name that the base image has; /proc and /dev are mounted meanwhile."""
    log = subprocess.run(
        ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", RELEASE, str(root), MIRROR],
        capture_output=True, text=True, check=False, timeout=1200,
    )  # fmt: skip
    if log.returncode:
        raise RuntimeError(f"debootstrap ended with {log.returncode}: {(log.stdout + log.stderr)[-1000:]}")
    (root / "usr" / "local" / "bin" / "python").symlink_to("/usr/bin/python3")
    for file in ("/etc/resolv.conf", "/etc/ssl/certs/ca-certificates.crt", "/etc/pip.conf"):
        if Path(file).exists():
            shutil.copy(file, root / file.lstrip("/"))
    mounts = [("proc", "proc", root / "proc"), ("tmpfs", "tmpfs", root / "dev" / "shm")]
    (root / "dev" / "shm").mkdir(exist_ok=True)
    for kind, source, target in mounts:
        subprocess.run(["mount", "-t", kind, source, str(target)], check=True)
    try:
        yield root
    finally:
        for _, _, target in mounts:
            subprocess.run(["umount", "-l", str(target)], check=False)


def prove(root: Path, dockerfile: Path, context: Path, arguments: dict[str, str]) -> list[str]:
    """Carry out the Dockerfile, with these build arguments, in a new chroot at ``root``; returns what was seen."""
    with base(root):
        state = State(root, context, dict(arguments))
        for step in steps(dockerfile):
            run(state, step)
        who = in_root(state, ["id", "-u"]).strip()
        started = in_root(state, [*state.entrypoint, *state.command], 300)
        in_root(state, [*state.entrypoint, *state.health], 300)
        size = int(subprocess.run(["du", "-sxk", root], capture_output=True, text=True, check=True).stdout.split()[0])
    return [
        f"user {who}", f"{started.splitlines()[0]}", f"health check {' '.join(state.health)} ends with 0",
        f"{size / 2**20:.1f} GiB",
    ]  # fmt: skip
