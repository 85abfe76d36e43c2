"""Read a one-dimensional numeric signal from a CSV or .npy file.

Law: a value comes back exactly as the file states it, as float64, or the file is refused with the place of
the fault.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pilotage.protocol.errors import TaskError

Samples = npt.NDArray[np.float64]


def read_signal(path: Path, column: str | int | None = None) -> Samples:
    """Read one signal.

    Args:
        path: a file ending in ``.npy`` (1-d, or 2-d with samples in rows), else CSV with or without a
            header line.
        column: a column's name (CSV with header) or number from 0; None if there is only one.

    Returns:
        The samples, float64, shape (n,), n ≥ 1.

    Raises:
        TaskError: the file can't be read, has no such column, no samples, or a cell that is no number.
    """
    try:
        samples = _from_npy(path, column) if path.suffix == ".npy" else _from_csv(path, column)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TaskError(f"signal {path.name}: can't be read: {error}") from error
    if not len(samples):
        raise TaskError(f"signal {path.name}: holds no samples")
    return samples


def _from_npy(path: Path, column: str | int | None) -> Samples:
    try:
        array: npt.NDArray[np.generic] = np.load(path, allow_pickle=False)
    except ValueError as error:
        raise TaskError(f"signal {path.name}: is no plain .npy array: {error}") from error
    if array.ndim == 2:
        array = array[:, _number(column, [str(n) for n in range(array.shape[1])], path)]
    if array.ndim != 1 or array.dtype.kind not in "iufb":
        raise TaskError(
            f"signal {path.name}: needs numbers in 1 or 2 dimensions, not {array.dtype} {array.shape}"
        )
    samples = array.astype(np.float64)
    if not _is_exact(array, samples):
        raise TaskError(f"signal {path.name}: {array.dtype} values that float64 can't hold exactly")
    return np.ascontiguousarray(samples)


def _is_exact(array: npt.NDArray[np.generic], samples: Samples) -> bool:
    if array.dtype.kind in "iu" and array.dtype.itemsize == 8:
        return bool(np.all(np.abs(samples) <= 2**53))
    return array.dtype.itemsize <= 8 or np.array_equal(samples.astype(array.dtype), array, equal_nan=True)


def _from_csv(path: Path, column: str | int | None) -> Samples:
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.reader(file)
        first = next(rows, [])
        has_header = not all(_is_number(cell) for cell in first)
        names = [name.strip() for name in first] if has_header else [str(n) for n in range(len(first))]
        number = _number(column, names, path)
        cells = [] if has_header else [_cell(first, number, path, 1)]
        cells += [_cell(row, number, path, rows.line_num) for row in rows if row]
    return np.array(cells, dtype=np.float64)


def _number(column: str | int | None, names: list[str], path: Path) -> int:
    if column is None and len(names) == 1:
        return 0
    if isinstance(column, str) and column in names:
        return names.index(column)
    if isinstance(column, int) and 0 <= column < len(names):
        return column
    raise TaskError(f"signal {path.name}: no column {column!r}; choose one of: {', '.join(names)}")


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _cell(row: list[str], number: int, path: Path, line: int) -> float:
    try:
        return float(row[number])
    except (ValueError, IndexError) as error:
        raise TaskError(
            f"signal {path.name}, line {line}: column {number} is no number: {row!r:.80}"
        ) from error
