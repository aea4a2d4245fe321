"""One run: the contenders take turns at each workload, A B C A B C, so that a noisy minute hits them all."""

from __future__ import annotations

import os
import platform
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bench import contenders
from bench.client import Client, WorkerFailedError
from bench.contenders import Entry
from bench.contenders.base import FOLDER, Target
from bench.databases import opened
from bench.environments import NotInstallableError, interpreter
from bench.measure import STREAM_LENGTH
from bench.workloads import MOST, PROFILES, Profile, Workload, chosen

NOTHING = "has nothing for this"
"""Why a contender sits a workload out."""


@dataclass
class Options:
    """What to run."""

    entries: list[Entry]
    databases: list[str]
    profile: str
    folder: Path
    only: list[str] = field(default_factory=list)
    rounds: int | None = None
    postgres_url: str | None = None
    tagged: int | None = None
    say: Callable[[str], None] = print


@dataclass
class Seat:
    """One contender's place in one workload."""

    name: str
    client: Client
    target: Target
    params: dict[str, Any]
    rates: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    failed: str | None = None
    written: int = 0
    stored: int | None = None

    def count(self, answer: dict[str, Any]) -> None:
        self.written += answer["written"]

    def note(self, units: int, seconds: float, answer: dict[str, Any]) -> None:
        self.rates.append(units / seconds)
        if "memory_mib" in answer and not self.memory:
            self.memory.append(answer["memory_mib"])

    def result(self) -> dict[str, Any]:
        result: dict[str, Any] = {"rates": [round(rate, 1) for rate in self.rates]}
        if self.memory:
            result["memory_mib"] = self.memory
        if self.failed:
            result["failed"] = self.failed
        result["written"], result["stored"] = self.written, self.stored
        return result


class Run:
    """All workloads on all databases."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._profile: Profile = PROFILES[options.profile]
        if options.rounds is not None:
            self._profile = replace(self._profile, rounds=options.rounds)
        if options.tagged is not None:
            self._profile = replace(self._profile, tagged=(0, options.tagged))
        self._grown_logs: dict[int, Seat] = {}
        self._pythons: dict[str, str] = {}
        self._absent: dict[str, str] = {}
        self._clients: dict[tuple[str, int], Client] = {}

    def results(self) -> dict[str, Any]:
        """Everything measured, ready for JSON."""
        options = self._options
        self._install()
        document: dict[str, Any] = {
            "machine": {
                "cpus": os.cpu_count(),
                "python": platform.python_version(),
                "system": platform.platform(terse=True),
            },
            "profile": options.profile,
            "rounds": self._profile.rounds,
            "absent": self._absent,
            "databases": {},
            "settings": {},
            "results": [],
        }
        self._started = time.monotonic()
        own = options.folder / "data" / "own"
        os.environ[FOLDER] = str(own)
        try:
            for kind in options.databases:
                todo = chosen(options.only, [kind], self._profile)
                if not todo:
                    continue
                with opened(kind, options.folder / "data", options.postgres_url) as databases:
                    document["databases"][kind] = databases.about()
                    document["settings"][kind] = self._settings(kind, databases, [each for _, each in todo])
                    for _, workload in todo:
                        document["results"].append(self._workload(kind, workload, databases))
                    for seat in self._grown_logs.values():
                        databases.remove(seat.target)
                    self._grown_logs.clear()
        finally:
            for client in self._clients.values():
                client.stop()
            shutil.rmtree(own, ignore_errors=True)
        document["seconds"] = round(time.monotonic() - self._started)
        return document

    def _install(self) -> None:
        for entry in self._options.entries:
            try:
                self._pythons[entry.name] = interpreter(entry, self._options.folder / "venvs")
            except NotInstallableError as error:
                self._absent[entry.name] = str(error)

    def _entries(self, kind: str) -> list[Entry]:
        return [e for e in self._options.entries if kind in e.databases and e.name in self._pythons]

    def _client(self, name: str, number: int = 0) -> Client:
        if (name, number) not in self._clients:
            self._clients[name, number] = Client(name, self._pythons[name])
        return self._clients[name, number]

    def _settings(self, kind: str, databases: Any, todo: list[Workload]) -> dict[str, Any]:
        """Each contender's versions and durability settings, as it reads them back itself."""
        settings = {}
        for entry in self._entries(kind):
            if not any(workload.kind in entry.kinds for workload in todo):
                continue
            target = databases.new(1)
            try:
                settings[entry.name] = self._client(entry.name).ask("settings", target)
            except WorkerFailedError as error:
                settings[entry.name] = {"failed": str(error)}
            databases.remove(target)
        return settings

    def _workload(self, kind: str, workload: Workload, databases: Any) -> dict[str, Any]:
        self._options.say(f"{time.monotonic() - self._started:5.0f} s  {kind}: {workload.title}")
        result: dict[str, Any] = {
            "database": kind,
            "workload": workload.name,
            "title": workload.title,
            "unit": workload.unit,
        }
        if workload.kind == "growth":
            result["sizes"] = {seat.name: seat.result() for seat in self._grown(workload, databases)}
            return result
        entries = [entry for entry in self._entries(kind) if workload.kind in entry.kinds]
        seats = [self._seat(e.name, workload, databases) for e in entries if workload.kind not in e.lacks]
        turn = {"read_all": self._read_turn, "processes": self._processes_turn}.get(workload.kind, self._turn)
        events = {"read_all": self._profile.log, "project": self._profile.projected}.get(workload.kind)
        if events is not None:
            for seat in seats:
                if not seat.failed:
                    self._guarded(seat, lambda seat=seat: self._fill(seat, databases, events))
                seat.params["events"] = events
            databases.settle()
        self._rounds(seats, workload, turn)
        self._finish(seats, databases)
        result["contenders"] = {seat.name: seat.result() for seat in seats}
        for entry in entries:
            if workload.kind in entry.lacks:
                result["contenders"][entry.name] = {"failed": NOTHING}
        return result

    def _seat(self, name: str, workload: Workload, databases: Any) -> Seat:
        """A contender on a database of its own, with its tables made by one process alone."""
        seat = Seat(name, self._client(name), databases.new(workload.writers), dict(workload.params))
        if seat.target.kind != "memory":
            self._guarded(seat, lambda: seat.client.ask("settings", seat.target))
            seat.target = replace(seat.target, ready=True)
        return seat

    def _rounds(self, seats: list[Seat], workload: Workload, turn: Callable[[Seat, Workload], None]) -> None:
        """One round to warm up and to see how much makes a turn long enough, then those that count."""
        profile = self._profile
        for seat in seats:
            if workload.operations:
                tasks = workload.params.get("tasks", 1) if workload.kind != "load" else 1
                seat.params["operations"] = max(tasks, round(workload.operations * profile.fraction))
        for number in range(profile.rounds + 1):
            # Nobody always follows the same neighbour's dirty pages.
            shift = number % max(1, len(seats))
            for seat in seats[shift:] + seats[:shift]:
                if not seat.failed:
                    self._guarded(seat, lambda seat=seat: turn(seat, workload))
            if number == 0:
                for seat in seats:
                    if seat.rates:
                        self._lengthen(seat, workload)
                    seat.rates.clear()

    def _lengthen(self, seat: Seat, workload: Workload) -> None:
        operations = seat.params.get("operations")
        if not operations or not self._profile.seconds:
            return
        units = workload.params.get("batch", 1) * workload.params.get("size", 1)
        wanted = seat.rates[0] * self._profile.seconds / units
        seat.params["operations"] = round(min(max(wanted, operations), operations * MOST))

    def _guarded(self, seat: Seat, step: Callable[[], None]) -> None:
        """Run a step; a contender that cannot do it is out of this workload, and that is shown."""
        try:
            step()
        except Exception as error:
            seat.failed = str(error) if isinstance(error, WorkerFailedError) else repr(error)
            seat.client.stop()

    def _turn(self, seat: Seat, workload: Workload) -> None:
        answer = seat.client.ask(workload.kind, seat.target, seat.params)
        seat.count(answer)
        seat.note(answer["units"], answer["ended"] - answer["started"], answer)

    def _read_turn(self, seat: Seat, workload: Workload) -> None:
        """The first time in a fresh process: its growth is not hidden by memory that it had before."""
        if not seat.memory:
            seat.client.stop()
        self._turn(seat, workload)

    def _processes_turn(self, seat: Seat, workload: Workload) -> None:
        params = {name: value for name, value in seat.params.items() if name != "processes"}
        clients = [self._client(seat.name, number) for number in range(workload.params["processes"])]
        # The first turn also starts the processes; from the second on they are waiting.
        params["start_at"] = time.monotonic() + (2.0 if not seat.written else 0.3)
        for client in clients:
            client.send("append", seat.target, params)
        answers, failed = [], None
        for client in clients:
            try:
                answers.append(client.answer())
            except WorkerFailedError as error:
                failed = error
        for answer in answers:
            seat.count(answer)
        if failed is not None:
            raise failed
        seconds = max(a["ended"] for a in answers) - min(a["started"] for a in answers)
        seat.note(sum(a["units"] for a in answers), seconds, answers[0])

    def _fill(self, seat: Seat, databases: Any, events: int) -> None:
        first = min(1000, events)
        first -= first % STREAM_LENGTH
        if not first:
            return
        tagged = {"tagged": True} if seat.params.get("of") == "conditional" else {}
        seat.client.ask("seed", seat.target, {"events": first, **tagged})
        databases.multiply(seat.target, events // first)
        seat.written += events

    def _grown(self, workload: Workload, databases: Any) -> list[Seat]:
        """The same appends into logs of several lengths; esource alone. Logs with tags serve all workloads that have such."""
        if "esource" not in self._pythons:
            return []
        seats = []
        is_tagged = workload.params["of"] == "conditional"
        for size in self._profile.tagged if is_tagged else self._profile.growth:
            seat = self._grown_logs.get(size) if is_tagged else None
            if seat is None:
                seat = self._seat("esource", workload, databases)
                seat.name = str(size)
                self._guarded(seat, lambda seat=seat, size=size: self._fill(seat, databases, size))
            else:
                seat = replace(seat, params=dict(workload.params), rates=[], stored=None)
            del seat.params["of"]
            if is_tagged:
                self._grown_logs[size] = seat
            seats.append(seat)
        databases.settle()
        self._rounds(seats, replace(workload, kind=workload.params["of"]), self._turn)
        self._finish(seats, databases, keep=is_tagged)
        return seats

    def _finish(self, seats: list[Seat], databases: Any, *, keep: bool = False) -> None:
        """Compare what is stored with what was acknowledged, and clean up."""
        for seat in seats:
            counted = seat.name.isdigit() or contenders.entry(seat.name).is_counted
            if seat.target.kind != "memory" and not seat.failed and counted:
                try:
                    seat.stored = databases.count(seat.target)
                except Exception as error:
                    seat.failed = seat.failed or str(error)
            if not keep:
                databases.remove(seat.target)
