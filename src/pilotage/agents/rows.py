"""Check what stages return against the task's TrialData, and complete it to the rows that are sent.

Law: a row that doesn't fit is an error that names the column; it is neither mended nor sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from enum import Enum
from pathlib import PurePath
from typing import Any

import numpy as np
from pydantic import ValidationError

from pilotage.agents.params import TrialRow, explain
from pilotage.agents.task import TRIAL_END
from pilotage.protocol.errors import TaskError

_OWN = ("pilot", "subject")


class TrialRows:
    """Counts trials and collects each trial's columns, which come in several parts."""

    def __init__(self, model: type[TrialRow], pilot: str, subject: str, current_trial: int) -> None:
        """Begin with trial ``current_trial``."""
        self._model = model
        self._who = {"pilot": pilot, "subject": subject}
        self._columns: dict[str, Any] = {}
        self.trial_num = current_trial

    def complete(self, part: object) -> dict[str, Any]:
        """Check one part of the trial and add pilot, subject and trial_num.

        Args:
            part: what a stage returned; the presence of TRIAL_END makes it the trial's last.

        Returns:
            The row to send, in plain types; the last one also has each column that nobody filled, with its
            default.

        Raises:
            TaskError: not a dictionary, an unknown column, a value of the wrong type, or a column missing
                at the end.
        """
        if not isinstance(part, Mapping):
            raise TaskError(f"a stage returns a dictionary of columns or None, not {type(part).__name__}")
        ends = TRIAL_END in part
        given = {
            str(name): _native(value)
            for name, value in part.items()
            if name != TRIAL_END and name not in _OWN
        }
        checked = {
            name: self._checked(name, value) for name, value in {"trial_num": self.trial_num, **given}.items()
        }
        if checked["trial_num"] != self.trial_num:
            raise TaskError(
                f"column trial_num: the stage returned {checked['trial_num']} in trial {self.trial_num}"
            )
        self._columns.update(checked)
        if ends:
            checked = {**self._rest(), **checked}
        row = {**self._who, **{name: _plain(value) for name, value in checked.items()}}
        return {**row, TRIAL_END: True} if ends else row

    def _checked(self, name: str, value: object) -> Any:
        if name not in self._model.model_fields:
            known = ", ".join(self._model.model_fields)
            raise TaskError(f"column {name}: {self._model.__name__} has no such column; it has: {known}")
        try:
            probe = self._model.model_construct(trial_num=self.trial_num)
            self._model.__pydantic_validator__.validate_assignment(probe, name, value)
        except ValidationError as error:
            raise TaskError(f"column {explain(error)}") from error
        return getattr(probe, name)

    def _rest(self) -> dict[str, Any]:
        try:
            whole = self._model.model_validate(self._columns)
        except ValidationError as error:
            raise TaskError(f"at the trial's end, column {explain(error)}") from error
        unset = set(self._model.model_fields) - whole.model_fields_set
        return {name: getattr(whole, name) for name in self._model.model_fields if name in unset}

    def next_trial(self) -> None:
        """Go on to the next trial, once the last row of this one was handed over."""
        self._columns = {}
        self.trial_num += 1


def _native(value: object) -> object:
    return value.item() if isinstance(value, np.generic) else value


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    return str(value) if isinstance(value, PurePath) else value
