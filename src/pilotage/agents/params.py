"""The typed declarations of a task: its parameters and the columns of its trials.

Law: what doesn't fit a declaration is refused with the name of the field and the reason; nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from pilotage.protocol.errors import TaskError


class Fixed:
    """Mark a parameter that can't change while the task runs: ``path: Annotated[str, Fixed()]``."""


class TaskParams(BaseModel):
    """The base of a task's parameters: frozen; unknown names, NaN and infinities are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


TAKEN_COLUMNS = frozenset({"pilot", "subject", "session", "row_num", "sent_by", "TRIAL_END"})
"""Names that a row's message has for itself."""


class TrialRow(BaseModel):
    """The base of a task's trial columns: strictly typed, since what is stored must be what was measured.

    Raises:
        TaskError: a subclass declares a column under a name that a row's message needs for itself.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    trial_num: int

    @classmethod
    def __pydantic_init_subclass__(cls, **options: Any) -> None:
        """Refuse columns that would be overwritten on their way."""
        taken = TAKEN_COLUMNS & cls.model_fields.keys()
        if taken:
            raise TaskError(
                f"{cls.__name__}: rename the columns {', '.join(sorted(taken))}: rows have their own"
            )


P = TypeVar("P", bound=TaskParams)


def explain(error: ValidationError) -> str:
    """Put a validation error into one line that names each field, the reason and the value given."""
    return "; ".join(
        f"{'.'.join(str(part) for part in item['loc']) or 'value'}: {item['msg']} (got {item['input']!r:.80})"
        for item in error.errors(include_url=False, include_context=False)
    )


def checked_params(model: type[P], values: Mapping[str, Any], task: str) -> P:
    """Validate parameters against their model.

    Args:
        model: the task's ``Params``.
        values: names and values, as START carries them.
        task: the task's name, for the error's text.

    Returns:
        A frozen instance of ``model``.

    Raises:
        TaskError: a name is unknown, a value is missing or doesn't fit; the text names each.
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        known = ", ".join(model.model_fields)
        raise TaskError(
            f"parameters of task {task!r}: {explain(error)}; it takes: {known or 'none'}"
        ) from error


def changed_params(params: P, changes: Mapping[str, Any], task: str) -> P:
    """Return new parameters with some values replaced, for a task that runs.

    Args:
        params: the parameters now; they stay as they are.
        changes: new values by name.
        task: the task's name, for the error's text.

    Returns:
        A new frozen instance.

    Raises:
        TaskError: a name is unknown or fixed while the task runs, or a value doesn't fit.
    """
    model = type(params)
    fixed = [name for name in changes if name in model.model_fields and is_fixed(model, name)]
    if fixed:
        raise TaskError(
            f"parameters of task {task!r}: {', '.join(fixed)} can't change while it runs; "
            "stop the task and start it with the new value"
        )
    present = {name: getattr(params, name) for name in model.model_fields}
    return checked_params(model, {**present, **changes}, task)


def is_fixed(model: type[TaskParams], name: str) -> bool:
    """Tell whether a parameter carries the mark ``Fixed``."""
    return any(isinstance(mark, Fixed) or mark is Fixed for mark in model.model_fields[name].metadata)
