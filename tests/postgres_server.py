"""A real PostgreSQL server on loopback, in a folder of its own: for tests and for proofs that stop and kill it."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil

USER = "tests"


class PostgresServer:
    """A server over ``folder``, which an earlier server may have made. Needs the programs of PostgreSQL 13 or newer."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        if not (folder / "PG_VERSION").is_file():
            folder.mkdir(parents=True, exist_ok=True)
            if os.geteuid() == 0:  # the server refuses to run as root
                shutil.chown(folder, "postgres")
            self._run("initdb", "-D", str(folder), "-A", "trust", "-U", USER, "-N", "-E", "UTF8", "--locale=C.UTF-8")

    def start(self) -> None:
        options = f"-p {self.port} -k '' -c listen_addresses=127.0.0.1 -c fsync=off -c timezone=UTC"
        log = str(self.folder / "server.log")
        self._run("pg_ctl", "-D", str(self.folder), "-o", options, "-l", log, "-w", "start")

    def stop(self, mode: str = "fast") -> None:
        """``mode``: "fast" ends the connections in order, "immediate" as a power failure does."""
        self._run("pg_ctl", "-D", str(self.folder), "-m", mode, "-w", "stop")

    def kill_backends(self) -> None:
        """End every process that serves a connection, as an administrator would."""
        import psycopg

        with psycopg.connect(self.uri(), autocommit=True) as connection:
            others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
            connection.execute(others + " AND backend_type = 'client backend'")

    def kill(self) -> None:
        """SIGKILL to every process of the server, as the kernel does when memory runs out."""
        import psutil

        lock = self.folder / "postmaster.pid"
        first = psutil.Process(int(lock.read_text().split()[0]))
        processes = [first, *first.children(recursive=True)]
        for process in processes:
            process.kill()
        deadline = time.monotonic() + 20
        while any(is_alive(process) for process in processes) and time.monotonic() < deadline:
            time.sleep(0.02)
        lock.unlink()  # where nobody asks for its exit status the process stays as a zombie, and the file seems in use

    def uri(self, database: str = "postgres", user: str = USER) -> str:
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def new_database(self, name: str) -> str:
        """An empty database; returns its URI."""
        import psycopg

        with psycopg.connect(self.uri(), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        return self.uri(name)

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(programs() / program), *arguments]
        if os.geteuid() == 0:
            command = ["runuser", "-u", "postgres", "--", *command]
        # not captured through pipes: the server that pg_ctl leaves behind would hold them open
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT, cwd="/", check=False)
        if done.returncode:
            log = self.folder / "server.log"
            end = log.read_text()[-2000:] if log.is_file() else ""
            raise RuntimeError(f"{program} ended with {done.returncode} as {getpass.getuser()}: {end}")


def is_alive(process: psutil.Process) -> bool:
    import psutil

    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def programs() -> Path:
    """The folder of initdb and pg_ctl. Raises FileNotFoundError where PostgreSQL is not installed."""
    for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True):
        if (folder / "initdb").is_file():
            return folder
    if found := shutil.which("initdb"):
        return Path(found).parent
    raise FileNotFoundError("PostgreSQL's initdb is not installed: apt-get install postgresql")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
