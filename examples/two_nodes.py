"""Two nodes on one machine: ask for something, get an answer, see a failure by name."""

from __future__ import annotations

from pilotage import Net_Node, Outcome


def weigh(animal: str) -> float:
    """Answer with an animal's weight in grams; raises KeyError for one that isn't here."""
    return {"mouse_1": 24.5, "mouse_2": 22.9}[animal]


def main() -> None:
    with (
        Net_Node("scale", "", 0, {"WEIGH": weigh}, router_port=0) as scale,
        Net_Node("console", "scale", scale.router_port or 0) as console,
    ):
        print("mouse_1 weighs", console.send("scale", "WEIGH", "mouse_1").result(10), "g")
        end = console.send("scale", "WEIGH", "mouse_9").wait_settled(10)
        assert end.outcome is Outcome.REFUSED
        print("mouse_9:", end.text)


if __name__ == "__main__":
    main()
