"""Scenes: who there is, what they send each other, and what goes wrong meanwhile, all drawn from a seed.

Law of this room: a scene ends in fair weather, so that what was promised must have come true.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random

from pilotage.protocol.instructions import PeerState
from pilotage.protocol.liveness import LivenessRules
from pilotage.protocol.sends import DeliveryRules
from pilotage.testing.network import Weather
from pilotage.testing.process import Process, Role
from pilotage.testing.world import World

PATIENCE = DeliveryRules(repeat_interval_s=1.0, longest_wait_s=8.0, patience_s=10.0, window=80)
CROWDED = LivenessRules(beats_per_s=0.5)
"""As at a station with hundreds of neighbours: two are enough for it to stretch its heartbeats."""

CROWDED_EVERY = 3
TROUBLE_S = 40.0
LEAST_CALM_S, CALM_STEP_S, MOST_CALM_S = 25.0, 5.0, 100.0
PASSED = frozenset(("NOW", "LATER", "DATA"))
FAIR = Weather()


@dataclass(frozen=True, slots=True)
class Scene:
    """A topology and its traffic.

    Attributes:
        roles: the processes, each after the station that it dials.
        ways: for each sender the paths that it sends to.
        originals: originals' nodes, with the names that each sends to.
    """

    roles: tuple[Role, ...]
    ways: Mapping[str, tuple[tuple[str, ...], ...]]
    originals: tuple[tuple[Role, tuple[str, ...]], ...] = ()

    @property
    def leaves(self) -> set[str]:
        """The processes that no other depends on: not dialled, no inner nodes."""
        dialled = {role.upstream for role in (*self.roles, *(role for role, _ in self.originals))}
        return {role.name for role in self.roles if not role.name.startswith("_")} - dialled


def star() -> Scene:
    """Give nodes around one station."""
    roles = (Role("S"), Role("a", "S"), Role("b", "S"))
    return Scene(roles, {"a": (("b",), ("S",), ("",)), "b": (("a",),), "S": (("a",), ("b",), ("S",))})


def chain() -> Scene:
    """Give a node at each end of three stations."""
    roles = (Role("S3"), Role("S2", "S3"), Role("S1", "S2"), Role("n1", "S1"), Role("n3", "S3"))
    ways = {
        "n1": (("S1", "S2", "S3", "n3"), ("n3",), ("S3",), ("S2",)),
        "n3": (("S3", "S2", "S1", "n1"), ("S2", "S1", "n1")),
        "S3": (("S2", "S1", "n1"),),
        "S1": (("n3",), ("n1",)),
    }
    return Scene(roles, ways)


def terminal() -> Scene:
    """Give a Terminal and a Pilot, each with its inner node; the Terminal's station passes data on."""
    roles = (
        Role("T", passes=PASSED),
        Role("P", "T", passes=frozenset(("LATER",))),
        Role("_T", "T"),
        Role("_P", "P"),
    )
    ways = {
        "_P": (("T",), ("_T",), ("P",)),
        "_T": (("P",), ("P", "_P"), ("_T",)),
        "P": (("T",),),
        "T": (("P",), ("_T",)),
    }
    return Scene(roles, ways)


def mixed() -> Scene:
    """Give originals beside nodes of ours."""
    roles = (Role("T"), Role("S", "T"), Role("a", "S"))
    ways = {"a": (("o1",), ("S",), ("T",)), "S": (("o1",), ("a",)), "T": (("S", "o1"), ("S",))}
    return Scene(roles, ways, ((Role("o1", "S"), ("a", "S", "T")), (Role("o2", "S"), ("a", "o1", "T"))))


CUT_AFTER_DATA = 0.04
"""How often a process dies right after it has sent data: before, while, or just after its disk syncs."""

SCENES: tuple[Callable[[], Scene], ...] = (star, chain, terminal, mixed)


def play(seed: int, *, tracing: bool = False) -> World:
    """Play a whole scene: trouble, then calm, then a last word between all.

    Raises:
        Runaway: it keeps itself busy.
    """
    scene_number, is_crowded = seed % len(SCENES), seed // len(SCENES) % CROWDED_EVERY == 0
    world = World(seed, PATIENCE, CROWDED if is_crowded else None, tracing=tracing)
    scene = SCENES[scene_number]()
    open_scene(world, scene)
    schedule_traffic(world, scene)
    schedule_faults(world, scene)
    world.set_weather(draw_weather(world.chance))
    world.run(TROUBLE_S)
    world.set_weather(FAIR)
    settle_down(world)
    last_words(world, scene)
    return world


def open_scene(world: World, scene: Scene) -> None:
    """Start everybody, in any order but the original's, whose station must be there to be found."""
    for role in scene.roles:
        world.start(role)
    for role, _ in scene.originals:
        world.start_original(role, world.chance.choice((1.0, 0.5, 0.0)), is_old=world.chance.random() < 0.5)


def draw_weather(chance: Random) -> Weather:
    """Draw how bad the network is."""
    return Weather(
        loss=chance.choice((0.0, 0.0, 0.02, 0.2)),
        duplicate=chance.choice((0.0, 0.05, 0.3)),
        reorder=chance.choice((0.0, 0.0, 0.1, 0.4)),
        delay_s=chance.choice((0.001, 0.05, 0.3)),
    )


def schedule_traffic(world: World, scene: Scene) -> None:
    """Have everybody send now and then, sometimes in bursts, a handful of times beyond the window."""
    chance = world.chance
    for name, paths in scene.ways.items():
        for _ in range(chance.randint(1, 8)):
            burst = chance.choice((1, 1, 2, 5, 10, 100 if chance.random() < 0.1 else 3))
            world.agenda.after(
                chance.random() * TROUBLE_S, send_burst, world, name, chance.choice(paths), burst
            )
    for role, names in scene.originals:
        for _ in range(chance.randint(1, 8)):
            world.agenda.after(
                chance.random() * TROUBLE_S, original_sends, world, role.name, chance.choice(names)
            )


def send_burst(world: World, name: str, path: tuple[str, ...], count: int) -> None:
    """Send some messages with one key."""
    sender, chance = world.processes[name], world.chance
    verb = chance.choice(("NOW", "LATER", "FAIL", "ASK", "DATA"))
    ordered = verb == "DATA" or chance.random() < 0.85
    if sender.runs:
        for _ in range(count):
            sender.send(path, verb, ordered=ordered, durable=verb == "DATA")
        if verb == "DATA" and chance.random() < CUT_AFTER_DATA:
            world.agenda.after(chance.random() * 0.02, world.crash, name, chance.choice((0.05, 3.0)))


def original_sends(world: World, name: str, to: str) -> None:
    """Have an original send a message."""
    chance = world.chance
    world.originals[name].send(
        to, chance.choice(("NOW", "LATER", "FAIL", "DATA")), wanted=chance.random() < 0.8
    )


def schedule_faults(world: World, scene: Scene) -> None:
    """Draw what goes wrong, and when."""
    chance = world.chance
    for _ in range(chance.randint(0, 7)):
        at = chance.random() * TROUBLE_S * 0.9
        kind = chance.choice((crash_one, cut_one, cut_one, swallow_one, stop_one))
        world.agenda.after(at, kind, world, scene)


def crash_one(world: World, scene: Scene) -> None:
    """Kill a process, or cut its power, and start it anew."""
    chance = world.chance
    role = chance.choice(scene.roles)
    if role.name in scene.leaves and not world.gone and chance.random() < 0.1:
        world.end(role.name)
        return
    world.crash(role.name, chance.choice((0.05, 0.5, 3.0, 9.0)), noticed=chance.random() < 0.6)


def cut_one(world: World, scene: Scene) -> None:
    """End a connection."""
    if world.network.connections:
        world.cut(world.chance.choice(world.network.connections))


def swallow_one(world: World, scene: Scene) -> None:
    """Make a black hole of a way."""
    if world.network.connections:
        chance = world.chance
        world.black_hole(chance.choice(world.network.connections), chance.choice((0.5, 4.0, 12.0)))


def stop_one(world: World, scene: Scene) -> None:
    """Have a process do nothing for a while, which ends with the trouble."""
    for_s = min(world.chance.choice((2.0, 8.0, 14.0, 40.0)), TROUBLE_S - world.now)
    world.stop(world.chance.choice(scene.roles).name, for_s)


def settle_down(world: World) -> None:
    """Wait until all is quiet, which it must be before long."""
    world.run(LEAST_CALM_S)
    patience = MOST_CALM_S - LEAST_CALM_S
    while patience > 0 and any(is_busy(process) for process in world.processes.values() if process.alive):
        world.run(CALM_STEP_S)
        patience -= CALM_STEP_S


def is_busy(process: Process) -> bool:
    """Tell whether a process waits for something: for an answer, or for a neighbour that has fallen silent.

    With stretched heartbeats a connection to a machine that lost its power may be taken for one that lives for up to
    a minute, and until then whoever waits at its end is nobody's living neighbour.
    """
    exchange = process.exchange
    return bool(len(exchange.outbox)) or any(peer.state is PeerState.SUSPECT for peer in exchange.routing)


def last_words(world: World, scene: Scene) -> None:
    """When all is well again, every way must carry, and a rival under a living name must be refused."""
    said = []
    for name, paths in scene.ways.items():
        if name not in world.gone:
            said += [world.processes[name].send(path, "NOW") for path in paths if path[-1] not in world.gone]
    names = [role for role in scene.roles if role.upstream and role.name not in world.gone]
    rival = world.start_rival(world.chance.choice(names))
    world.run(12.0)
    for sent in said:
        if sent.path[-1] not in world.originals and (
            not sent.ends or str(sent.ends[0].outcome) != "delivered"
        ):
            world.recorder.violations.append(f"all was well, and yet {sent} ended as {sent.ends}")
    if not rival.exchange.admission.refusal:
        world.recorder.violations.append(f"L1: a rival took the name {rival.name} from its living holder")
    rival.die(noticed=True)
    world.run(5.0)
