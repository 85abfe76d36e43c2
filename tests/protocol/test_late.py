"""numpy is imported by whoever needs it, when it is needed."""

from __future__ import annotations

import subprocess
import sys

import numpy

from pilotage.protocol.late import np

PUBLIC = "import sys, pilotage\nfor name in pilotage.__all__: getattr(pilotage, name)\n"


def loads_numpy(then: str) -> bool:
    script = f"{PUBLIC}{then}\nprint('numpy' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return told.stdout.split()[-1] == "True"


def test_its_names_are_numpys():
    assert np.ndarray is numpy.ndarray
    assert isinstance(numpy.zeros(3), np.ndarray) and not isinstance([1], np.ndarray)


def test_no_public_name_and_no_message_without_arrays_needs_it():
    assert not loads_numpy(
        "pilotage.Message(sender='a', to='b', key='K', value={'n': [1, 'two', None]}).serialize()"
    )


def test_a_node_has_it_before_its_first_array():
    assert loads_numpy("pilotage.Net_Node('rig', '', 0, {}, router_port=0, journal=None).release()")


def test_much_memory_is_not_blanked_before_it_is_written_to():
    code = "from pilotage.protocol.late import blank_memory as give; print(type(give(1 << 30).obj))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "<class 'mmap.mmap'>"
