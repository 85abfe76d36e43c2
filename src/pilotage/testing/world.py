"""The simulated world: real exchanges under virtual time, on a network that fails as its seed says.

Law of this room: the same seed is the same world, event by event.
"""

from __future__ import annotations

from random import Random

from pilotage.protocol.liveness import LivenessRules
from pilotage.protocol.sends import DeliveryRules
from pilotage.testing.agenda import Agenda
from pilotage.testing.disks import Disk
from pilotage.testing.network import Connection, End, Network, Weather
from pilotage.testing.originals import OriginalNode
from pilotage.testing.process import Process, Role, Surroundings
from pilotage.testing.recorder import Recorder

QUICK = DeliveryRules(repeat_interval_s=1.0, longest_wait_s=8.0, patience_s=10.0)


class World:
    """Some processes, the ways between them, and everything that happened.

    Args:
        seed: of all chance.
        delivery: patience of all sends.
        liveness: judgement of silence.
        tracing: keep a readable trace.
    """

    def __init__(
        self,
        seed: int,
        delivery: DeliveryRules = QUICK,
        liveness: LivenessRules | None = None,
        *,
        tracing: bool = False,
    ) -> None:
        self.seed = seed
        self.chance = Random(seed)
        self.agenda = Agenda()
        self.recorder = Recorder(tracing=tracing)
        self.network = Network(self.agenda, self.chance, self.recorder)
        self.processes: dict[str, Process] = {}
        self.originals: dict[str, OriginalNode] = {}
        self.lives: list[Process] = []
        self.disks: dict[str, Disk] = {}
        self.restarted: set[str] = set()
        self.gone: set[str] = set()
        self._around = Surroundings(
            self.agenda,
            self.network,
            self.chance,
            self.recorder,
            delivery,
            liveness or LivenessRules(),
            self._find,
        )

    def _find(self, name: str) -> End:
        return self.processes[name]

    def _disk(self, name: str) -> Disk:
        return self.disks.setdefault(name, Disk())

    @property
    def now(self) -> float:
        """Virtual time, in seconds."""
        return self.agenda.now

    def run(self, for_s: float) -> None:
        """Let time pass."""
        self.agenda.run(for_s)

    def start(self, role: Role) -> Process:
        """Start a process, or a new life of one."""
        process = Process(role, self._around, self._disk(role.name))
        self.processes[role.name] = process
        self.lives.append(process)
        return process

    def _restart(self, role: Role) -> None:
        self.start(role)

    def start_original(self, role: Role, confirms: float = 1.0, *, is_old: bool = False) -> OriginalNode:
        """Start an original's node."""
        original = self.originals[role.name] = OriginalNode(role, self._around, confirms, is_old=is_old)
        return original

    def start_rival(self, role: Role) -> Process:
        """Start another process under a name that one holds already."""
        rival = Process(role, self._around, Disk())
        self.lives.append(rival)
        return rival

    # Misfortunes

    def set_weather(self, weather: Weather) -> None:
        """Make the network better or worse."""
        self.network.weather = weather

    def cut(self, connection: Connection) -> None:
        """End a connection."""
        self._fault("cut", connection)
        self.network.cut(connection)

    def black_hole(self, connection: Connection, for_s: float) -> None:
        """Swallow everything between two processes for a while; nobody is told."""
        self._fault(f"black hole for {for_s:.1f} s", connection)
        self.network.block(connection.pair, for_s)

    def crash(self, name: str, down_s: float, *, noticed: bool = True) -> None:
        """End a process, and start it anew after a while."""
        process = self.processes[name]
        if process.alive:
            self.recorder.faults["crash" if noticed else "power cut"] += 1
            self.restarted.add(name)
            process.die(noticed=noticed)
            self.agenda.after(down_s, self._restart, process.role)

    def stop(self, name: str, for_s: float) -> None:
        """Have a process do nothing for a while."""
        process = self.processes[name]
        if process.runs:
            self.recorder.faults["stopped"] += 1
            process.stop(for_s)

    def end(self, name: str) -> None:
        """End a process for good, without power."""
        process = self.processes[name]
        if process.alive:
            self.recorder.faults["gone for good"] += 1
            self.restarted.add(name)
            self.gone.add(name)
            process.die(noticed=False)

    def _fault(self, text: str, connection: Connection) -> None:
        self.recorder.faults[text.partition(" for ")[0]] += 1
        if self.recorder.tracing:
            self.recorder.say(self.now, f"** {text}: {' – '.join(sorted(connection.pair))}")
