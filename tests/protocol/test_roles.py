"""Who may send what (promise X2): the table of the room, and what the exchange makes of it."""

from __future__ import annotations

import pytest
from tests.protocol.builders import RULES, envelope, packet, parcel, sent_packets
from tests.protocol.test_authority import arrive, keyed

from pilotage.protocol.arrays import ArrayForm
from pilotage.protocol.authority import Authority, Grant, Original
from pilotage.protocol.errors import MalformedFrame
from pilotage.protocol.exchange import Exchange, ExchangeConfig
from pilotage.protocol.instructions import Card, Dialect, HandOver, Link, Note, Service
from pilotage.protocol.original import claimed_senders, read_json, write_letter
from pilotage.protocol.records import Greeting, Marks
from pilotage.protocol.rights import MAX_DECIDED, Rights
from pilotage.protocol.roles import (
    BUILT_IN,
    BY_POWER,
    NEEDS_OPERATOR,
    ROLES,
    Recipient,
    Roles,
    may_be_streamed,
)
from pilotage.protocol.settlement import Reason

UP, OWN, VIEWERS, OTHERS = Recipient
GRANTS = {
    "K-T": Grant("T", "admin"),
    "K-rig": Grant("rig", "pilot"),
    "K-cam": Grant("cam", "node", via="rig"),
    "K-lab": Grant("lab", "node"),
    "K-office": Grant("office", "viewer"),
    "K-desk": Grant("desk", "operator"),
    "K-boss": Grant("boss", "admin"),
}
LINKS: dict[str, Link] = {grant.name: ("outward", b"\x00" + grant.name.encode()) for grant in GRANTS.values()}
HELLO = packet(greetings=[Greeting("hello")])


@pytest.fixture
def authority():
    return Authority(GRANTS, [Original("old", "10.0.0.7"), Original("older", "10.0.0.7", "node")])


# The table


def test_the_table_knows_the_same_keys_for_each_role():
    assert set(BUILT_IN) == set(ROLES) == set(BY_POWER)
    assert len({frozenset(row) for row in BUILT_IN.values()}) == 1


@pytest.mark.parametrize("verb", ["KILL", "STOPALL", "START", "PARAM"])
@pytest.mark.parametrize("to", Recipient)
def test_what_the_promise_names_needs_an_operator(verb, to):
    """Promise X2: KILL, STOPALL, START, PARAM need operator or more."""
    assert set(Roles().who_may(verb, to)) <= {"operator", "admin"}
    assert Roles().who_may(verb, UP) == ("operator", "admin")


def test_what_needs_an_operator_is_given_to_nobody_below():
    for verb in NEEDS_OPERATOR:
        assert not any(
            Roles().allows(role, verb, to) for role in ("viewer", "node", "pilot") for to in Recipient
        )


@pytest.mark.parametrize(
    ("role", "verb", "to", "may"),
    [
        ("viewer", "STATUS", UP, True),
        ("viewer", "STATUS", OTHERS, False),
        ("viewer", "DATA", UP, False),
        ("viewer", "FILE", UP, False),
        ("viewer", "MY_KEY", UP, False),
        ("node", "DATA", UP, True),
        ("node", "STREAM", VIEWERS, True),
        ("node", "MY_KEY", OTHERS, True),
        ("node", "MY_KEY", VIEWERS, False),
        ("node", "STATE", UP, False),
        ("pilot", "STATE", UP, True),
        ("pilot", "STATE", OTHERS, False),
        ("pilot", "FILE", UP, True),
        ("pilot", "STOP", OTHERS, False),
        ("operator", "START", OTHERS, True),
        ("operator", "START", VIEWERS, False),
        ("operator", "AUDIT", UP, False),
        ("operator", "WATCH", UP, False),
        ("admin", "WATCH", UP, True),
        ("admin", "MY_KEY", VIEWERS, True),
    ],
)
def test_cells_of_the_table(role, verb, to, may):
    assert Roles().allows(role, verb, to) is may


def test_a_refusal_says_who_what_and_which_role_it_needs():
    text = Roles().refusal("office", "viewer", "START", "rig", OTHERS)
    assert (
        text == "office is a viewer here and can't send START to rig: that needs the role operator or admin"
    )
    assert Roles().refusal("desk", "operator", "START", "rig", OTHERS) == ""
    nobody = Roles().changed({role: {"HORN": []} for role in ROLES})
    assert nobody.refusal("desk", "operator", "HORN", "rig", OTHERS).endswith(
        "can't send HORN to rig: no role may"
    )


def test_a_changed_table_says_something_else_of_what_it_names_only():
    roles = Roles().changed({"viewer": {"ASK": ["up"]}, "pilot": {"STOP": ["own", "others"], "*": ["up"]}})
    assert roles.allows("viewer", "ASK", UP) and not roles.allows("viewer", "ASKED", UP)
    assert roles.allows("pilot", "STOP", OTHERS) and not roles.allows("pilot", "MY_KEY", OTHERS)
    assert roles.allows("pilot", "DATA", OTHERS) and roles.allows("node", "MY_KEY", OTHERS)
    assert not Roles().allows("pilot", "STOP", OTHERS) and roles != Roles()


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"guest": {}, "rat": {"A": ["up"]}}, "no role 'rat'"),
        ({"node": {"A": ["everywhere"]}}, "no recipient 'everywhere'"),
        ({"node": {"A": ["all", "up"]}}, "no recipient 'all'"),
        ({"node": {"KILL": ["own"]}}, "KILL can't be given to node: it needs an operator or more"),
        ({"pilot": {"RUN": ["all"]}}, "RUN can't be given to pilot"),
    ],
)
def test_a_change_that_cannot_be_is_an_error_that_says_why(changes, text):
    with pytest.raises(ValueError, match=text):
        Roles().changed(changes)


def test_a_stream_hides_no_key_that_means_something():
    assert all(may_be_streamed(verb) for verb in ("DATA", "CONTINUOUS", "MY_KEY"))
    assert not any(may_be_streamed(verb) for verb in ("START", "STOP", "FILE", "STREAM", "STATE", "CONFIRM"))


# Who somebody is


@pytest.mark.parametrize(
    ("card", "name", "to"),
    [
        (keyed("rig", "K-rig"), "T", UP),
        (keyed("rig", "K-rig"), "_T", UP),
        (keyed("rig", "K-rig"), "", UP),
        (keyed("rig", "K-rig"), "boss_cli", UP),
        (keyed("rig", "K-rig"), "rig_video", OWN),
        (keyed("rig", "K-rig"), "_cam", OWN),
        (keyed("rig", "K-rig"), "lab", OTHERS),
        (keyed("rig", "K-rig"), "nobody", OTHERS),
        (keyed("rig", "K-rig"), "office", VIEWERS),
        (keyed("lab", "K-lab"), "cam", OTHERS),
        (Card(Dialect.JSON, "old", address="10.0.0.7"), "old_x", OWN),
    ],
)
def test_who_somebody_is_to_the_holder_of_a_key(authority, card, name, to):
    everything_to_one = Roles().changed({role: {"X": [to]} for role in ROLES})
    nothing_to_it = Roles().changed(
        {role: {"X": [one for one in Recipient if one is not to]} for role in ROLES}
    )
    for roles, may in ((everything_to_one, True), (nothing_to_it, False)):
        authority.change(GRANTS, roles)
        rights = authority.rights(card, "T", is_root=True)
        assert (rights.refusal("X", [name]) == "") is may


def test_a_station_in_the_tree_takes_whom_it_does_not_know_for_one_above(authority):
    rights = authority.rights(keyed("rig", "K-rig"), "S", is_root=False)
    assert rights.refusal("STATE", ["far"]) == ""
    assert authority.rights(keyed("rig", "K-rig"), "S", is_root=True).refusal("STATE", ["far"])


def test_without_a_key_or_from_above_nothing_is_looked_up(authority):
    assert authority.rights(Card(Dialect.OWN, "here", 1), "T", is_root=True) is None
    assert authority.rights(keyed("T", "K-rig", dials=False), "rig", is_root=False) is None


def test_originals_have_the_role_that_they_are_listed_with(authority):
    old = authority.rights(Card(Dialect.JSON, "old", address="10.0.0.7"), "T", is_root=True)
    older = authority.rights(Card(Dialect.JSON, "older", address="10.0.0.7"), "T", is_root=True)
    assert (old.role, older.role) == ("pilot", "node")


def test_each_key_and_recipient_is_judged_once_within_a_bound():
    asked: list[str] = []

    def who(name: str) -> Recipient:
        asked.append(name)
        return OTHERS

    rights = Rights("rig", "pilot", Roles(), who)
    assert rights.refusal("DATA", ["lab"]) == rights.refusal("DATA", ["x", "lab"]) == ""
    assert rights.refusal("KILL", ["lab"]) == rights.refusal("KILL", ["lab"]) != ""
    assert asked == ["lab", "lab"]
    for number in range(3 * MAX_DECIDED):
        rights.refusal("DATA", [str(number)])
        assert len(rights._decided) <= MAX_DECIDED


def test_a_blank_at_the_end_of_a_path_hides_nobody(authority):
    rights = authority.rights(keyed("rig", "K-rig"), "T", is_root=True)
    assert rights.refusal("STATE", [""]) == ""
    assert rights.refusal("STATE", ["lab", ""]) and rights.refusal("STATE", ["T", "lab", "", ""])
    assert rights.refusal("STATE", ["", ""]) == ""


# The exchange


def make(authority: Authority) -> Exchange:
    return Exchange(
        ExchangeConfig("T", 9, "", RULES, ack_within_s=0.0), lambda verb: Service.HANDLE, authority
    )


def come(exchange: Exchange, *names: str) -> None:
    for key, grant in GRANTS.items():
        if grant.name in names:
            arrive(exchange, LINKS[grant.name], keyed(grant.name, key, boot=len(grant.name)), HELLO)


def send(exchange: Exchange, name: str, *parcels, now: float = 2.0):
    key = next(key for key, grant in GRANTS.items() if grant.name == name)
    return arrive(exchange, LINKS[name], keyed(name, key, boot=len(name)), packet(*parcels), now=now)


@pytest.mark.parametrize(
    ("who", "verb", "to"),
    [("office", "START", "rig"), ("rig", "KILL", "lab"), ("lab", "STOPALL", "T"), ("office", "DATA", "T")],
)
def test_what_a_role_may_not_is_refused_at_the_first_station_and_reaches_nobody(authority, who, verb, to):
    exchange = make(authority)
    come(exchange, who, to)
    out = send(exchange, who, parcel(1, path=[to], trail=[], verb=verb))
    (ack,) = sent_packets(out, LINKS[who]).acks
    assert ack.path == [who] and ack.verdicts[0].reason is Reason.NOT_ALLOWED
    assert f"can't send {verb} to {to}" in ack.verdicts[0].text
    assert not [one for one in out if isinstance(one, HandOver)]
    assert to == "T" or sent_packets(out, LINKS[to]).parcels == []
    (note,) = [one for one in out if isinstance(one, Note)]
    assert (note.who, note.verb, note.target) == (who, verb, to)
    assert exchange.counts["not allowed"] == 1


def test_what_a_role_may_goes_on_beside_what_it_may_not(authority):
    exchange = make(authority)
    come(exchange, "desk", "rig")
    parcels = (
        parcel(1, path=["rig"], trail=[], verb="START"),
        parcel(1, path=["T"], trail=[], verb="WATCH", flow=2),
    )
    out = send(exchange, "desk", *parcels)
    assert [one.verb for one in sent_packets(out, LINKS["rig"]).parcels] == ["START"]
    assert exchange.counts["not allowed"] == 1


def test_a_refused_durable_message_ends_too(authority):
    exchange = make(authority)
    come(exchange, "office")
    durable = parcel(1, marks=Marks.ORDERED | Marks.DURABLE, path=["T"], trail=[])
    (ack,) = sent_packets(send(exchange, "office", durable), LINKS["office"]).acks
    assert ack.verdicts[0].reason is Reason.NOT_ALLOWED


def test_another_role_holds_at_once_for_who_is_connected(authority):
    exchange = make(authority)
    come(exchange, "office")
    authority.change({**GRANTS, "K-office": Grant("office", "node")})
    exchange.authority_changed(2.0)
    send(exchange, "office", parcel(1, path=["T"], trail=[]))
    assert exchange.counts["not allowed"] == 0
    authority.change(GRANTS, Roles().changed({"viewer": {"DATA": ["up"]}}))
    exchange.authority_changed(3.0)
    send(exchange, "office", parcel(2, path=["T"], trail=[]), now=3.0)
    assert exchange.counts["not allowed"] == 0
    authority.change(GRANTS, Roles())
    exchange.authority_changed(4.0)
    send(exchange, "office", parcel(3, path=["T"], trail=[]), now=4.0)
    assert exchange.counts["not allowed"] == 1


def test_an_original_is_judged_by_the_role_that_it_is_listed_with(authority):
    exchange = make(authority)
    link, card = ("originals", b"older"), Card(Dialect.JSON, "older", address="10.0.0.7")
    out = arrive(exchange, link, card, [envelope(sender="older", to="T", key="STATE", id="older_1")])
    (note,) = [one for one in out if isinstance(one, Note)]
    assert "older is a node here and can't send STATE to T: that needs the role pilot or admin" in note.text
    link, card = ("originals", b"old"), Card(Dialect.JSON, "old", address="10.0.0.7")
    out = arrive(exchange, link, card, [envelope(sender="old", to="T", key="STATE", id="old_1")])
    assert [one for one in out if isinstance(one, HandOver)]


@pytest.mark.parametrize(
    ("sender", "text"),
    [("old", "rig can't speak for 'old'"), ("lab", "speak for 'lab'"), ("", "speak for ''")],
)
def test_a_message_in_an_originals_form_is_nobodys_whom_its_bringer_cannot_speak_for(authority, sender, text):
    exchange = make(authority)
    come(exchange, "rig")
    forged = parcel(
        1, marks=Marks.JSON, path=["T"], trail=[], verb="STATE", body=envelope(sender=sender, key="STATE")
    )
    (ack,) = sent_packets(send(exchange, "rig", forged), LINKS["rig"]).acks
    assert text in ack.verdicts[0].text


def test_an_original_behind_a_station_is_heard(authority):
    exchange = make(authority)
    come(exchange, "rig")
    body = envelope(sender="n1", key="STATE")
    out = send(exchange, "rig", parcel(1, marks=Marks.JSON, path=["T"], trail=[], verb="STATE", body=body))
    assert [one for one in out if isinstance(one, HandOver)]


def test_a_message_in_an_originals_form_has_the_key_that_it_travels_with():
    travels = parcel(1, marks=Marks.JSON, verb="DATA", body=envelope(sender="n1", key="START"))
    with pytest.raises(MalformedFrame, match="a message with key 'START' travels as 'DATA'"):
        read_json(travels)
    with pytest.raises(MalformedFrame, match="travels as"):
        write_letter(travels, ArrayForm.AUTOPILOT_05)
    assert read_json(parcel(1, marks=Marks.JSON, verb="K", body=envelope())).value == 1


def test_every_message_of_a_run_says_whose_it_is():
    run = parcel(1, marks=Marks.JSON)
    run.bodies = [envelope(sender="a"), envelope(sender="b"), b"[", b'{"sender": 1}']
    assert list(claimed_senders(run)) == ["a", "b", "", ""]
