"""What a START asks for: the task's name, who runs it for whom, and the parameters.

Law: the names that describe the run are taken out here, once; all else is a parameter of the task.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pilotage.agents.params import explain
from pilotage.protocol.errors import TaskError


class TaskStart(BaseModel):
    """One order to run a task, as START carries it."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    task_type: str = Field(min_length=1, description="name of the task, as the registry knows it")
    pilot: str = Field(default="", description="name under which the data are reported")
    subject: str = Field(default="", description="name of the subject")
    session: int | str | None = Field(default=None, description="number or id of the session")
    step: int | None = Field(default=None, description="number of the protocol's step")
    step_name: str = Field(default="", description="name of the protocol's step")
    current_trial: int = Field(default=0, ge=0, description="number that the first trial gets")
    next_row: int = Field(default=0, ge=0, description="number that the first row gets at least")
    child: dict[str, Any] | None = Field(default=None, description="parent and subject, if a child runs it")
    graduation: Any = Field(default=None, description="rule for the next step; the Terminal's business")
    params: dict[str, Any] = Field(default_factory=dict, description="all other names: the task's parameters")

    @property
    def session_name(self) -> str:
        """The session as a name; empty for none."""
        return str(self.session or "")


_RUN = frozenset(TaskStart.model_fields) - {"params"}


def parse_start(value: object) -> TaskStart:
    """Read the value of a START message.

    Args:
        value: the dictionary that came; ``task_type`` is required.

    Returns:
        The order, with the task's own parameters apart in ``params`` (not yet validated).

    Raises:
        TaskError: not a dictionary, a field is missing or has the wrong type.
    """
    if not isinstance(value, Mapping):
        raise TaskError(f"START needs a dictionary that describes the task, not {type(value).__name__}")
    described = {name: item for name, item in value.items() if name in _RUN}
    params = {str(name): item for name, item in value.items() if name not in _RUN}
    try:
        return TaskStart.model_validate({**described, "params": params})
    except ValidationError as error:
        raise TaskError(f"START: {explain(error)}") from error
