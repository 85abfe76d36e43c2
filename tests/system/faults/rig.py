"""A lab of real processes, as users start them, with a load whose every row is known, and a check of what was kept."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pilotage.app.operator import Operator
from pilotage.net.prefs import Preferences
from pilotage.protocol.errors import PilotageError
from tests.cli.processes import write_prefs
from tests.conftest import wait_eventually
from tests.system.faults import load
from tests.system.faults.agents import Agent
from tests.system.faults.audit import Audit, audit_items, audit_rows, count_rows, read_record
from tests.system.faults.proxy import Proxy

ROOT = Path(__file__).parents[3]
READY_S = 25.0
RECOVER_S = 45.0
"""How long a tree may take until all is well again: a minute is the longest pause between two tries of a resend."""
START_S = 3.0
"""What each pilot more may add to that, while all start at once."""
LOOK_S = 0.1
TERMINAL = "terminal"


@dataclass
class Load:
    """One pilot's share of a session: how it was started, and which lives of its task were cut short.

    Attributes:
        owner: the pilot under whose name its rows come: itself, or its parent.
        parent: the pilot whose child it is; "" for none.
    """

    owner: str
    parent: str
    subject: str
    params: dict[str, Any]
    cut_short: set[str] = field(default_factory=set)

    @property
    def truth(self) -> Path:
        """The folder of its notes."""
        return Path(self.params["truth"])

    def lives(self) -> set[str]:
        """Give the lives of the task by now."""
        return {file.name.split(".")[0] for file in self.truth.glob("*.rows.jsonl")}


@dataclass
class Plan:
    """What a rig is like.

    Attributes:
        pilots: their names.
        children: names of children, and whose child each is.
        with_proxy: whether the pilots reach the Terminal through a proxy of ours.
        env: what is added to an agent's environment, by its name.
        prefs: what is added to an agent's preferences, by its name.
        namespaces: the network namespace in which an agent runs, by its name.
    """

    pilots: Sequence[str] = ("rig_a", "rig_b")
    children: Mapping[str, str] = field(default_factory=dict)
    with_proxy: bool = False
    env: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    prefs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    namespaces: Mapping[str, str] = field(default_factory=dict)


class Rig:
    """A Terminal and its pilots.

    Args:
        folder: where everything lies.
        plan: what it is like.
    """

    def __init__(self, folder: Path, plan: Plan | None = None) -> None:
        self.folder = folder
        self.plan = plan or Plan()
        self.names = [*self.plan.pilots, *self.plan.children]
        self.agents: dict[str, Agent] = {}
        self.session = ""
        self.place = folder
        self.loads: dict[str, Load] = {}
        self.proxy: Proxy | None = None
        self.port = 0
        self._door: Proxy | None = None
        self._sessions = 0

    # Life

    def start(self) -> None:
        """Start all, and wait until the Terminal knows all pilots."""
        try:
            declare_task(self.folder / "packages")
            self._start_terminal()
            for name in self.plan.pilots:
                self._make(name, "pilot", **self._pilot_prefs(name)).start()
            for name, parent in self.plan.children.items():
                # Its next lives listen where this one does, and so the Terminal's, as preferences say in a lab.
                port = self.agents[parent].wait_port()
                self._write_prefs(parent, **{**self._pilot_prefs(parent), "MSGPORT": port})
                told = {"LINEAGE": "CHILD", "PARENTID": parent, "PARENTPORT": port}
                self._make(name, "pilot", **self._pilot_prefs(name), **told).start()
            self.wait_well()
        except BaseException:
            self.close()
            raise

    def _start_terminal(self) -> None:
        terminal = self._make(TERMINAL, "terminal", PUSHPORT=0)
        terminal.start()
        self.port = terminal.wait_port()
        self._write_prefs(TERMINAL, PUSHPORT=self.port)
        if TERMINAL in self.plan.namespaces:
            self._door = Proxy(self.port, self.plan.namespaces[TERMINAL])
        if self.plan.with_proxy:
            self.proxy = Proxy(self.port)

    def _pilot_prefs(self, name: str) -> dict[str, Any]:
        children = [child for child, parent in self.plan.children.items() if parent == name]
        lineage = {"LINEAGE": "PARENT", "CHILDID": children} if children else {}
        return {"NAME": name, "PUSHPORT": self.proxy.port if self.proxy else self.port, **lineage}

    def _make(self, name: str, command: str, **prefs: Any) -> Agent:
        path = self._write_prefs(name, **prefs)
        packages = [str(self.folder / "packages"), str(ROOT), os.environ.get("PYTHONPATH", "")]
        env = {"PYTHONPATH": os.pathsep.join(filter(None, packages)), **self.plan.env.get(name, {})}
        namespace = self.plan.namespaces.get(name)
        prefix = ["ip", "netns", "exec", namespace] if namespace else []
        agent = Agent(name, ["--prefs", str(path), command], self.folder / name, env, prefix)
        self.agents[name] = agent
        return agent

    def _write_prefs(self, name: str, **prefs: Any) -> Path:
        return write_prefs(self.folder / name, **{**prefs, **self.plan.prefs.get(name, {})})

    def close(self) -> None:
        """End all processes."""
        for agent in reversed(self.agents.values()):
            agent.end()
        for proxy in (self.proxy, self._door):
            if proxy:
                proxy.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()

    # What an operator does

    def operator(self, timeout_s: float = READY_S) -> Operator:
        """Connect as an operator; each question has a connection of its own, since Terminals die here."""
        settings = Preferences(environ={}, file=None)
        settings.set("PUSHPORT", self._door.port if self._door else self.port)
        return Operator(settings.snapshot(), timeout_s)

    def ask(self, question: Callable[[Operator], Any]) -> Any:
        """Ask the Terminal one thing."""
        with self.operator() as operator:
            return question(operator)

    def pilots(self) -> dict[str, dict[str, Any]]:
        """Give what the Terminal knows of its pilots."""
        return dict(self.ask(lambda operator: operator.pilots()))

    def wait_pilots(
        self,
        is_right: Callable[[dict[str, Any]], bool],
        names: Sequence[str] = (),
        timeout_s: float = RECOVER_S,
    ) -> None:
        """Wait until the Terminal sees these pilots (all, if none is named) as wanted."""
        deadline = time.monotonic() + timeout_s
        wanted = list(names or self.names)
        known: dict[str, dict[str, Any]] = {}
        while True:
            over = time.monotonic() > deadline
            with suppress(PilotageError):
                known = self.pilots()
                if all(name in known and is_right(known[name]) for name in wanted):
                    return
            if over:
                raise AssertionError(f"after {timeout_s:g} s the Terminal knows {known}; {self.last_words()}")
            time.sleep(LOOK_S)

    def wait_well(self) -> None:
        """Wait until all pilots are connected."""
        timeout_s = RECOVER_S + START_S * len(self.names)
        self.wait_pilots(lambda known: known["link"] == "alive" and known["state"] != "", timeout_s=timeout_s)

    def begin(
        self,
        rate_hz: float = 50.0,
        stream_hz: float = 0.0,
        each: Mapping[str, Mapping[str, Any]] | None = None,
        **params: Any,
    ) -> None:
        """Start the load on all pilots, in a new session, and wait until rows of it are stored.

        Args:
            rate_hz: rows per second.
            stream_hz: items per second.
            each: what one pilot's load has of its own, by the pilot's name.
            params: what else every load has.
        """
        self._sessions += 1
        self.session = f"s{self._sessions}"
        self.loads = {}
        for name in self.names:
            truth = str(self.folder / "truth" / self.session / name)
            told = {
                "truth": truth,
                "rate_hz": rate_hz,
                "stream": f"wave_{name}",
                "stream_hz": stream_hz,
                **params,
                **(each or {}).get(name, {}),
            }
            parent = self.plan.children.get(name, "")
            self.loads[name] = Load(parent or name, parent, f"mouse_{name}", told)
            self.start_load(name)
        self.wait_more_rows(2)

    def start_load(self, name: str) -> None:
        """Start, or start again, a pilot's load."""
        one = self.loads[name]
        begun = self.ask(
            lambda operator: operator.start(
                name, load.NAME, one.params, one.subject, self.session, parent=one.parent
            )
        )
        self.place = Path(begun["place"])

    def wait_more_rows(self, count: int = 10, timeout_s: float = RECOVER_S) -> None:
        """Wait until the store has so many rows more of each pilot than now."""
        before = count_rows(self.place)
        wanted = {one.subject: before[one.subject] + count for one in self.loads.values()}

        def lacking() -> dict[str, int]:
            now = count_rows(self.place)
            return {subject: now[subject] for subject, least in wanted.items() if now[subject] < least}

        try:
            wait_eventually(lambda: not lacking(), timeout_s, 0.05)
        except AssertionError:
            text = f"after {timeout_s:g} s the store has {lacking()} rows, not {wanted}"
            raise AssertionError(f"{text}; {self.last_words()}") from None

    def finish(self) -> dict[str, Any]:
        """Stop all tasks and end the session; give the certificate."""
        self.wait_well()
        self.ask(lambda operator: operator.stop_all())
        certificate: dict[str, Any] = self.ask(lambda operator: operator.end(self.session))
        (self.folder / f"certificate-{self.session}.json").write_text(json.dumps(certificate, indent=1))
        return certificate

    # Faults

    def kill(self, name: str) -> None:
        """Kill an agent's own process; for a pilot, note which life of its task that cuts short."""
        self.agents[name].kill()
        if name in self.loads:
            # No other life runs there: those known now have ended, by this kill or by one before.
            self.loads[name].cut_short |= self.loads[name].lives()

    def start_again(self, name: str) -> None:
        """Start a killed agent, as systemd would, and its task, as its user would."""
        self.agents[name].start_again()
        if name not in self.loads:
            return
        self.wait_pilots(lambda known: known["link"] == "alive" and known["state"] == "INTERRUPTED", [name])
        deadline = time.monotonic() + RECOVER_S
        while True:
            try:
                self.start_load(name)
            except PilotageError:
                # The order, or its answer, met another fault.
                if time.monotonic() > deadline:
                    raise
                if self.pilots()[name]["state"] == "RUNNING":
                    return
            else:
                return

    def strike(self, target: str) -> None:
        """Kill a process named as `rig_a` or `rig_a station`, and have it started again by whoever does."""
        name, _, part = target.partition(" ")
        if part:
            self.agents[name].kill_station()
        else:
            self.kill(name)
            self.start_again(name)

    # What must be true in the end

    def audit(self) -> Audit:
        """Compare what is stored with the ground truth."""
        audit = Audit()
        for name, one in self.loads.items():
            records = (self.folder / name / "data" / "records").glob(f"*/{self.session}.jsonl")
            recorded = read_record(records)
            audit_rows(audit, self.place, one.truth, one.owner, one.subject, one.cut_short, recorded)
            audit_items(audit, self.place, one.truth, one.owner, one.params["stream"], one.cut_short)
        return audit

    def finish_and_check(self, what: str) -> Audit:
        """End the session, and see that everything is stored once and that the certificate says so.

        Raises:
            AssertionError: it isn't so; the text begins with `what`.
        """
        certificate = self.finish()
        audit = self.audit()
        verdict = "complete" if certificate["complete"] else f"INCOMPLETE: {explain(certificate)}"
        print(
            f"{what}: {audit.rows} rows, {audit.items} items, {audit.excused} excused; certificate {verdict}"
        )
        audit.check(what)
        assert certificate["complete"], (
            f"{what}: all is stored, but the certificate says: {explain(certificate)}"
        )
        return audit

    def last_words(self) -> str:
        """Give the end of what each agent wrote to stderr."""
        return "; ".join(f"{name}: {agent.last_words()}" for name, agent in self.agents.items())

    def is_well(self) -> bool:
        """Tell whether it can be used once more."""
        if not all(agent.is_alive for agent in self.agents.values()):
            return False
        try:
            with self.operator(3.0) as operator:
                known, status = operator.pilots(), operator.status()
        except (PilotageError, TimeoutError):
            return False
        states = [known.get(name, {}) for name in self.names]
        return not status["open"] and all(
            one.get("link") == "alive" and one.get("state") in ("IDLE", "INTERRUPTED") for one in states
        )


def explain(certificate: Mapping[str, Any]) -> str:
    """Say why a certificate isn't complete."""
    errors = [f"{name}: {told['error']}" for name, told in certificate["accounts"].items() if "error" in told]
    missing = certificate.get("missing") or []
    found = [*map(str, certificate["differences"][:4]), *errors, *map(str, missing[:4])]
    return "; ".join(found) or f"unheard {certificate['unheard']}"


def declare_task(folder: Path) -> None:
    """Write what an installed package of a lab has, so that the registry finds our task."""
    place = folder / "pilotage_faults-1.dist-info"
    place.mkdir(parents=True, exist_ok=True)
    (place / "METADATA").write_text("Metadata-Version: 2.1\nName: pilotage-faults\nVersion: 1\n")
    (place / "entry_points.txt").write_text(f"[pilotage.tasks]\n{load.NAME} = {load.__name__}:Load\n")


@contextmanager
def quiet() -> Iterator[None]:
    """Keep our operators' own warnings away for a while: they ask Terminals that are being killed."""
    log = logging.getLogger("pilotage")
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(before)
