"""The locks of a catalog: a file that is locked in a folder, a lease in an object store.

An object store has no lock that an operating system releases. So a lease is an object, put only if it is not there or
still has the entity tag that was read: who holds it, a token that grows by one with every change of the holder, and for
how long a sign of life counts. A thread of the holder puts it again three times in that period. Where no sign of life
came for longer, by the store's own clock, another job may take the lease over.

The earlier holder may then still live: it slept, or could not reach the store. Three things keep it from writing.
Before each commit it asks whether its last sign of life is young enough, and gives another if not; that fails once
another job has taken over. Every commit of a holder carries the token as the Delta application transaction
:data:`FENCE`. And a job that takes a lease over first commits its own token, with no rows, to every table that the
lease protects: in Delta a commit conflicts with a concurrent commit of the same application, and a later commit sees
the larger token.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol

from catalog_enrichment.catalog.object_storage import ObjectStorage
from catalog_enrichment.catalog.storage import Storage
from catalog_enrichment.errors import GateRefused, TemporaryFailure

FENCE = "lease"
"""Delta application transaction whose version is the token of the writer."""

WRITING = "another job is writing to this catalog"
"""The work of the holder of a catalog's lock, for the refusal of others."""

AssertHeld = Callable[[], None]
"""Raises TemporaryFailure if another process may hold the lock by now. Called before anything that must not happen
twice."""

_POLL_SECONDS = 0.5


class Fenced(Protocol):
    """Tables from which a new holder keeps earlier holders of a lease away."""

    def largest_token(self) -> int:
        """Return the largest token that a table knows; 0 without any."""

    def fence(self, token: int) -> None:
        """Let no holder of an earlier lease commit any more."""


def lock(
    storage: Storage, name: str, lease_seconds: float, doing: str = WRITING, fenced: Fenced | None = None
) -> FolderLock | Lease:
    """Return the lock ``name`` of ``storage``.

    ``doing``: what its holder does, for the refusal of others. ``lease_seconds`` and ``fenced`` are for a lease: for
    how long a sign of life counts, and the tables that it protects.
    """
    if isinstance(storage, ObjectStorage):
        return Lease(storage, name, lease_seconds, doing, fenced)
    return FolderLock(Path(storage.uri) / f"_{name}.lock", doing)


@dataclass(frozen=True, slots=True)
class FolderLock:
    """A lock on a file, which the operating system releases when the process of its holder ends."""

    path: Path
    doing: str

    @property
    def token(self) -> int | None:
        """The fencing token; None, because nobody takes a file lock over while its holder lives."""
        return None

    @contextmanager
    def held(self, wait_seconds: float) -> Iterator[AssertHeld]:
        """Hold the lock. Raises GateRefused, after ``wait_seconds``, while another process holds it."""
        from filelock import FileLock, Timeout

        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.path, timeout=wait_seconds):
                yield self.assert_held
        except Timeout:
            raise GateRefused(f"{self.doing} ({self.path}); run again when it is done") from None

    def assert_held(self, known_token: int = 0) -> None:
        """Do nothing: a holder that lives holds the lock."""


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """The content of a lease's object."""

    holder: str
    """Id of one acquisition; unique."""
    by: str
    """Host and process, for people."""
    token: int
    seconds: float
    """How long a sign of life counts."""
    beats: int = 0
    """Signs of life so far. They make every put another object, with another entity tag."""
    released: bool = False
    fenced: bool = False
    """True where the tables know the token, or need not, because the holder before gave the lease back."""

    def to_json(self) -> bytes:
        return json.dumps(asdict(self)).encode()


class Lease:
    """A lease by name; :meth:`held` is the block in which this process has it."""

    def __init__(
        self, storage: ObjectStorage, name: str, seconds: float, doing: str = WRITING, fenced: Fenced | None = None
    ) -> None:
        self._fenced, self._doing = fenced, doing
        self._storage, self._path, self._seconds = storage, f"_leases/{name}.json", seconds
        self._mine: LeaseRecord | None = None
        self._tag = ""
        self._alive_at = 0.0
        self._changing = threading.Lock()

    @property
    def token(self) -> int | None:
        """The token of this process while it is in the block of :meth:`held`; else None."""
        return self._mine.token if self._mine else None

    @contextmanager
    def held(self, wait_seconds: float) -> Iterator[AssertHeld]:
        """Hold the lease. Where an earlier holder may still live, its tables are fenced first.

        A holder that shows no sign of life is waited for until its lease has expired, whatever ``wait_seconds`` is.
        Raises GateRefused, after ``wait_seconds``, while another job holds the lease and lives.
        """
        taken = self._acquire(wait_seconds)
        done = threading.Event()
        beating = threading.Thread(target=self._beat, args=(done,), name="lease", daemon=True)
        beating.start()
        try:
            if self._fenced is not None and not taken.fenced:
                self._fenced.fence(taken.token)
            self._change(lambda mine: replace(mine, fenced=True))
            yield self.assert_held
        finally:
            done.set()
            beating.join()
            with suppress(Exception):  # it expires
                self._change(lambda mine: replace(mine, released=True))
            self._mine = None

    def assert_held(self, known_token: int = 0) -> None:
        """Raise TemporaryFailure if another job may hold the lease by now. No check outside of :meth:`held`.

        ``known_token``: a token that a table knows. A larger token than that of this process is a later holder's.
        """
        if self._mine is None:
            return
        if _now() - self._alive_at >= self._seconds * 0.8:
            with suppress(Exception):  # the store may be out of reach
                self._change(lambda mine: mine)
            if _now() - self._alive_at >= self._seconds:
                raise self._lost()
        if known_token > self._mine.token:
            raise self._lost()

    def _lost(self) -> TemporaryFailure:
        return TemporaryFailure(
            f"{self._storage.uri}/{self._path}: this job gave no sign of life for {self._seconds:g} s, because it "
            "slept or could not reach the store, and another job may be writing to the catalog. It has stopped; what "
            "it had committed stays. Run it again"
        )

    def _acquire(self, wait_seconds: float) -> LeaseRecord:
        limit, seen, unchanged_since = _now() + wait_seconds, "", _now()
        while True:
            before_request = _now()
            found = self._read()
            if found is None or found[0].released or self._expired(found[0], found[2], unchanged_since):
                mine = self._put(found[0], found[1]) if found else self._put(None, None)
                if mine is not None:
                    self._mine, self._alive_at = mine, before_request
                    return mine
                continue  # another process was faster
            present, tag, _ = found
            if tag != seen:
                if seen and _now() > limit:
                    raise GateRefused(
                        f"{self._doing} ({self._storage.uri}/{self._path}, held by {present.by}); run again when it is "
                        "done"
                    )
                seen, unchanged_since = tag, _now()
            time.sleep(min(_POLL_SECONDS, present.seconds / 10))

    def _expired(self, present: LeaseRecord, put_at: float, unchanged_since: float) -> bool:
        """Return whether the last sign of life is too old: by this process's own clock, or at once by the store's."""
        if _now() - unchanged_since > present.seconds:
            return True
        if time.time() - put_at < present.seconds:  # not worth a question, and wrong clocks only make it wait
            return False
        probe = f"_leases/clock-{uuid.uuid4()}"
        self._storage.put(probe, b"")
        found = self._storage.read_tagged(probe)
        self._storage.delete([probe])
        # one second more, because stores round their times
        return found is not None and found[2] - put_at > present.seconds + 1

    def _put(self, present: LeaseRecord | None, tag: str | None) -> LeaseRecord | None:
        """Put the lease as its new holder; None if another process was faster."""
        before = present.token if present else self._fenced.largest_token() if self._fenced else 0
        mine = LeaseRecord(
            holder=str(uuid.uuid4()),
            by=f"{socket.gethostname()}, process {os.getpid()}",
            token=before + 1,
            seconds=self._seconds,
            fenced=present.released and present.fenced if present else before == 0,
        )
        if tag is None:
            self._storage.put_new(self._path, mine.to_json())
        else:
            self._storage.replace_tagged(self._path, mine.to_json(), tag)
        # read, because the answer to a request that was sent twice may be about the second time
        found = self._read()
        if found is None or found[0].holder != mine.holder:
            return None
        self._tag = found[1]
        return mine

    def _change(self, change: Callable[[LeaseRecord], LeaseRecord]) -> None:
        """Put the lease again, as a sign of life. Raises TemporaryFailure if another process has it now."""
        with self._changing:
            if self._mine is None:
                return
            before_request = _now()
            mine = replace(change(self._mine), beats=self._mine.beats + 1)
            tag = self._storage.replace_tagged(self._path, mine.to_json(), self._tag)
            if tag is None:
                found = self._read()
                if found is None or found[0].holder != mine.holder:
                    self._alive_at = -self._seconds
                    raise self._lost()
                if found[0] != mine:  # an earlier put got through, and its answer was lost
                    tag = self._storage.replace_tagged(self._path, mine.to_json(), found[1])
                tag = tag or found[1]
            self._tag, self._mine, self._alive_at = tag, mine, before_request

    def _read(self) -> tuple[LeaseRecord, str, float] | None:
        """Return the lease, its entity tag, and when it was put by the store's clock."""
        found = self._storage.read_tagged(self._path)
        return (LeaseRecord(**json.loads(found[0])), found[1], found[2]) if found else None

    def _beat(self, done: threading.Event) -> None:
        while not done.wait(self._seconds / 3):
            with suppress(Exception):  # the next put may succeed; assert_held says when it is too late
                self._change(lambda mine: mine)


def _now() -> float:
    """Return seconds of a clock that goes on while the machine is suspended, where there is such a clock."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
