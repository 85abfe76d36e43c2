"""The promises hold whatever happens, in the order in which hypothesis likes it to happen."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, rule

from pilotage.testing.invariants import settled_once, violations
from pilotage.testing.network import Weather
from pilotage.testing.scenes import SCENES, last_words, open_scene, settle_down
from pilotage.testing.world import World

VERBS = st.sampled_from(("NOW", "LATER", "FAIL", "ASK", "DATA"))
SHARE = st.sampled_from((0.0, 0.02, 0.3))


class Tree(RuleBasedStateMachine):
    """A scene in which anything may happen next."""

    names = Bundle("names")

    @initialize(target=names, seed=st.integers(0, 2**32), scene=st.sampled_from(SCENES))
    def begin(self, seed, scene):
        self.scene = scene()
        self.world = World(seed)
        open_scene(self.world, self.scene)
        self.world.run(0.2)
        return tuple(self.scene.ways)

    @rule(
        names=names,
        which=st.integers(0, 9),
        way=st.integers(0, 9),
        verb=VERBS,
        ordered=st.booleans(),
        count=st.integers(1, 12),
    )
    def send(self, names, which, way, verb, ordered, count):
        name = names[which % len(names)]
        paths = self.scene.ways[name]
        process = self.world.processes[name]
        if process.runs:
            for _ in range(count):
                durable = verb == "DATA"
                process.send(paths[way % len(paths)], verb, ordered=ordered or durable, durable=durable)

    @rule(
        which=st.integers(0, 9),
        to=st.integers(0, 9),
        key=st.sampled_from(("NOW", "LATER", "FAIL", "DATA")),
        wanted=st.booleans(),
    )
    def original_sends(self, which, to, key, wanted):
        if self.scene.originals:
            role, names = self.scene.originals[which % len(self.scene.originals)]
            self.world.originals[role.name].send(names[to % len(names)], key, wanted=wanted)

    @rule(loss=SHARE, duplicate=SHARE, reorder=SHARE, delay_s=st.sampled_from((0.001, 0.3)))
    def change_weather(self, loss, duplicate, reorder, delay_s):
        self.world.set_weather(Weather(loss, duplicate, reorder, delay_s))

    @rule(which=st.integers(0, 9))
    def cut(self, which):
        connections = self.world.network.connections
        if connections:
            self.world.cut(connections[which % len(connections)])

    @rule(which=st.integers(0, 9), for_s=st.sampled_from((0.5, 4.0, 12.0)))
    def black_hole(self, which, for_s):
        connections = self.world.network.connections
        if connections:
            self.world.black_hole(connections[which % len(connections)], for_s)

    @rule(which=st.integers(0, 9), down_s=st.sampled_from((0.05, 1.0, 9.0)), noticed=st.booleans())
    def crash(self, which, down_s, noticed):
        roles = self.scene.roles
        self.world.crash(roles[which % len(roles)].name, down_s, noticed=noticed)

    @rule(which=st.integers(0, 9), for_s=st.sampled_from((1.0, 8.0, 14.0, 40.0)))
    def stop(self, which, for_s):
        roles = self.scene.roles
        self.world.stop(roles[which % len(roles)].name, for_s)

    @rule(for_s=st.sampled_from((0.01, 0.3, 2.0, 12.0)))
    def wait(self, for_s):
        self.world.run(for_s)
        assert not [text for text in settled_once(self.world) if "times" in text]

    def teardown(self):
        if hasattr(self, "world"):
            self.world.set_weather(Weather())
            self.world.run(40.0)  # until nobody is stopped any more
            settle_down(self.world)
            last_words(self.world, self.scene)
            assert violations(self.world) == []


TestTree = Tree.TestCase
# Shrinking a whole world takes minutes: a failure shows its steps as they were drawn.
TestTree.settings = settings(
    max_examples=150,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
    phases=(Phase.explicit, Phase.generate),
)
