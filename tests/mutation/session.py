"""One pytest session that tries many mutants: Spark, imports and collected tests stay, and only the tests that call the
mutated function run, those of the mutated file first, then the quick ones first, until one fails.

A first pass without a mutant records the seconds of every test and the functions that it calls. What session fixtures
call counts for all tests that use them, and these fixtures are made again with the mutant. After some kills the tests
that failed run again with the original code: if one fails now, the mutants since the last check are repeated one by
one in a new process, because one of them has broken something that stays (a lock, a cache, Spark's state).
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType, SimpleNamespace
from typing import Any

import pytest

from .mutants import Mutant, applied, live_function

KEPT_FIXTURES = {"spark", "template"}
"""Session fixtures that are made once, before the mutants."""

KILLS_PER_CHECK = 8

Function = tuple[str, str]
"""File and name, as in :class:`Mutant`."""


@dataclass(slots=True)
class Results:
    """The outcomes so far, a JSON line each: a new process continues where the last one ended."""

    file: Path
    outcomes: dict[str, str] = field(default_factory=dict)
    """Mutant -> the test that killed it, "" of a survivor, "repeat", or "no test"."""

    def __post_init__(self) -> None:
        if self.file.is_file():
            for line in self.file.read_text().splitlines():
                self.outcomes.update(json.loads(line))

    def add(self, mutant: Mutant, outcome: str) -> None:
        self.outcomes[mutant.key] = outcome
        with self.file.open("a") as file:
            file.write(json.dumps({mutant.key: outcome}) + "\n")


class MutationSession:
    """The pytest plugin."""

    def __init__(self, mutants: Sequence[Mutant], results: Results, seconds: float) -> None:
        """``seconds``: of tests per mutant, by the first pass; one that no test has killed by then survives."""
        self._mutants, self._results, self._limit = mutants, results, seconds
        self._failed = False
        self._active: list[set[Function]] = []
        self._seconds: dict[str, float] = defaultdict(float)
        self._calls: dict[str, set[Function]] = {}
        self._fixture_calls: dict[str, set[Function]] = {}
        self._definitions: dict[str, set[Any]] = defaultdict(set)
        self._watched: dict[CodeType, Function] = {}

    # what pytest calls

    @pytest.hookimpl
    def pytest_configure(self) -> None:
        from hypothesis import Phase, settings

        # a failing example is not made smaller and not remembered
        settings.register_profile("mutants", derandomize=True, database=None, phases=(Phase.explicit, Phase.generate))
        settings.load_profile("mutants")

    @pytest.hookimpl
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._failed |= report.failed

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Iterator[None]:
        if fixturedef.scope == "function":
            return (yield)
        self._definitions[fixturedef.argname].add(fixturedef)
        with self._recorded() as called:
            begin = time.monotonic()
            try:
                return (yield)
            finally:
                self._fixture_calls.setdefault(fixturedef.argname, set()).update(called)
                self._seconds[fixturedef.argname] = time.monotonic() - begin

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        if session.testsfailed:
            raise session.Failed("the tests cannot be collected")
        todo = [mutant for mutant in self._mutants if self._results.outcomes.get(mutant.key, "repeat") == "repeat"]
        self._first_pass(session)
        suspects: list[tuple[Mutant, pytest.Item]] = []
        for number, mutant in enumerate(todo, 1):
            begin = time.monotonic()
            killer = self._killer(session, mutant)
            alone = self._results.outcomes.get(mutant.key) == "repeat"
            if killer is not None:
                suspects.append((mutant, killer))
            if alone or len(suspects) >= KILLS_PER_CHECK or number == len(todo):
                self._check(session, suspects)
                suspects = []
            print(f"{number}/{len(todo)} {time.monotonic() - begin:5.1f} s {mutant.key}: "
                  f"{killer.nodeid if killer else 'SURVIVED'}", file=sys.stderr)  # fmt: skip
        return True

    # one mutant

    def _killer(self, session: pytest.Session, mutant: Mutant) -> pytest.Item | None:
        """The first test that fails with the mutant; a survivor is recorded."""
        function = (mutant.file, mutant.function)
        again = {name for name, called in self._fixture_calls.items() if function in called} - KEPT_FIXTURES
        items = [item for item in session.items if self._reaches(item, function)]
        items.sort(key=lambda item: (not self._is_own(item, mutant), self._cost(item, again)))
        begin, made = time.monotonic(), False
        try:
            with applied(mutant):
                for item in items:
                    if time.monotonic() - begin + self._cost(item, set() if made else again) > self._limit:
                        continue
                    if not made and again & set(item.fixturenames):  # type: ignore[attr-defined]
                        self._forget(again)
                        made = True
                    if not self._passes(session, item):
                        return item
        except ValueError:  # the mutant has other closure variables than the function
            self._results.add(mutant, "cannot be applied")
            return None
        finally:
            self._end_modules(session)
            if made:
                self._forget(again)
        self._results.add(mutant, "" if items else "no test")
        return None

    def _check(self, session: pytest.Session, suspects: Sequence[tuple[Mutant, pytest.Item]]) -> None:
        """Record the kills if their tests pass with the original code; else end the process."""
        healthy = all(self._passes(session, item) for item in dict.fromkeys(item for _, item in suspects))
        self._end_modules(session)
        for mutant, item in suspects:
            alone = len(suspects) == 1
            self._results.add(mutant, item.nodeid if healthy or alone else "repeat")
        if not healthy:
            raise session.Interrupted("a mutant has broken something that stays")

    def _reaches(self, item: pytest.Item, function: Function) -> bool:
        fixtures = item.fixturenames  # type: ignore[attr-defined]
        return function in self._calls[item.nodeid] or any(
            function in self._fixture_calls.get(name, ()) for name in set(fixtures) - KEPT_FIXTURES
        )

    def _is_own(self, item: pytest.Item, mutant: Mutant) -> bool:
        room, _, file = mutant.file.rpartition("/")
        return item.path.parent.name == room and item.path.name.startswith(f"test_{file.removesuffix('.py')}")

    def _cost(self, item: pytest.Item, again: set[str]) -> float:
        fixtures = again & set(item.fixturenames)  # type: ignore[attr-defined]
        return self._seconds[item.nodeid] + sum(self._seconds[name] for name in fixtures)

    # running

    def _first_pass(self, session: pytest.Session) -> None:
        """Seconds and called functions of every test; a test that fails without a mutant ends the session."""
        for mutant in self._mutants:
            function = (mutant.file, mutant.function)
            self._watched[live_function(*function).__code__] = function
        if self._remembered([item.nodeid for item in session.items]):
            self._make_kept_fixtures(session)
            return
        for item in session.items:
            begin, fixtures = time.monotonic(), sum(self._seconds[name] for name in self._fixture_calls)
            with self._recorded() as called:
                if not self._passes(session, item):
                    pytest.exit(f"{item.nodeid} fails without a mutant", returncode=1)
            self._calls[item.nodeid] = called
            made = sum(self._seconds[name] for name in self._fixture_calls) - fixtures
            self._seconds[item.nodeid] = time.monotonic() - begin - made
        self._end_modules(session)
        self._remember()

    @property
    def _first_pass_file(self) -> Path:
        return self._results.file.with_suffix(".first_pass.json")

    def _remember(self) -> None:
        """Store the first pass for the next process of this run."""
        calls, of_fixtures = (
            {name: sorted(called) for name, called in by_name.items()} for by_name in (self._calls, self._fixture_calls)
        )
        content = {"seconds": self._seconds, "calls": calls, "of_fixtures": of_fixtures}
        self._first_pass_file.write_text(json.dumps(content | {"watched": sorted(self._watched.values())}))

    def _remembered(self, tests: list[str]) -> bool:
        """Read the first pass of an earlier process; whether there is one of these tests and functions."""
        if not self._first_pass_file.is_file():
            return False
        stored = json.loads(self._first_pass_file.read_text())
        watched = {(file, name) for file, name in stored["watched"]}
        if list(stored["calls"]) != tests or not watched.issuperset(self._watched.values()):
            return False
        self._seconds.update(stored["seconds"])
        for mine, name in ((self._calls, "calls"), (self._fixture_calls, "of_fixtures")):
            mine.update({test: {(file, name) for file, name in called} for test, called in stored[name].items()})
        return True

    def _make_kept_fixtures(self, session: pytest.Session) -> None:
        """Make them with the original code, by the quickest test that uses all that any test uses."""
        used = {name for item in session.items for name in item.fixturenames} & KEPT_FIXTURES  # type: ignore[attr-defined]
        items = [item for item in session.items if used <= set(item.fixturenames)]  # type: ignore[attr-defined]
        if used and not self._passes(session, min(items, key=lambda item: self._seconds[item.nodeid])):
            pytest.exit("the sample catalog cannot be made without a mutant", returncode=1)
        self._end_modules(session)

    def _passes(self, session: pytest.Session, item: pytest.Item) -> bool:
        """Whether the test passes. Its own fixtures are made anew and torn down, those of its module remain."""
        self._failed = False
        chain = item.listchain()
        self._teardown(session, chain)
        item._initrequest()  # type: ignore[attr-defined]  # else a test that ran before keeps its fixtures
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=_next_in(chain[:-1]))
        return not self._failed

    def _end_modules(self, session: pytest.Session) -> None:
        self._teardown(session, [session])

    def _teardown(self, session: pytest.Session, kept: list[Any]) -> None:
        session._setupstate.teardown_exact(_next_in(kept))

    def _forget(self, names: set[str]) -> None:
        """These fixtures are made again when they are next used."""
        for name in names:
            for definition in self._definitions[name]:
                definition.cached_result = None

    @contextmanager
    def _recorded(self) -> Iterator[set[Function]]:
        """The watched functions that are called meanwhile, in this thread and those that it starts."""
        called: set[Function] = set()
        self._active.append(called)
        outer = sys.getprofile()

        def note(frame: FrameType, event: str, argument: Any) -> None:
            if event == "call" and (function := self._watched.get(frame.f_code)):
                self._active[-1].add(function)

        sys.setprofile(note)
        threading.setprofile(note)
        try:
            yield called
        finally:
            sys.setprofile(outer)
            threading.setprofile(outer)
            self._active.pop()


def _next_in(nodes: list[Any]) -> Any:
    """Stands for a next test inside ``nodes``, whose fixtures pytest then keeps."""
    return SimpleNamespace(listchain=lambda: nodes)
