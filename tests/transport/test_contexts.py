"""One context for all who share it: made by the first, closed by the last, never across a fork."""

from __future__ import annotations

import multiprocessing

import pytest
import zmq

from pilotage.transport.contexts import SharedContext
from pilotage.transport.network import ZmqWires


def test_the_last_who_gives_it_back_closes_it():
    shared = SharedContext()
    first, second = shared.take(), shared.take()
    assert first is second
    shared.give_back(first)
    assert not first.closed
    shared.give_back(second)
    assert first.closed
    third = shared.take()
    assert third is not first and not third.closed
    shared.give_back(first)  # long closed: none of ours
    assert not third.closed
    shared.give_back(third)


def test_more_sockets_fit_than_zeromq_allows_by_itself():
    shared = SharedContext()
    context = shared.take()
    assert context.get(zmq.MAX_SOCKETS) > 10_000
    shared.give_back(context)


def _take_again(shared, before, answers) -> None:
    context = shared.take()
    answers.put(context is not before)
    shared.give_back(before)
    shared.give_back(context)
    answers.put(context.closed)


@pytest.mark.only_on("linux", "darwin")
def test_a_forked_child_has_one_of_its_own():
    shared, forking = SharedContext(), multiprocessing.get_context("fork")
    context, answers = shared.take(), forking.Queue()
    child = forking.Process(target=_take_again, args=(shared, context, answers))
    child.start()
    assert [answers.get(timeout=10), answers.get(timeout=10)] == [True, True]
    child.join(10)
    assert child.exitcode == 0 and not context.closed
    shared.give_back(context)


def test_wires_give_back_once_and_those_that_listen_share_nothing():
    one, other, alone = ZmqWires(shares_threads=True), ZmqWires(shares_threads=True), ZmqWires()
    assert one.context is other.context is not alone.context
    one.close()
    one.close()
    assert not other.context.closed
    other.close()
    alone.close()
    assert other.context.closed and alone.context.closed
