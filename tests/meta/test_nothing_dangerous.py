"""Nothing in the source turns bytes into code: no unpickling, eval, shell, or import by a name from elsewhere (B2)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

BANNED_MODULES = {
    "marshal",
    "shelve",
    "dill",
    "cloudpickle",
    "joblib",
    "jsonpickle",
    "yaml",
    "code",
    "codeop",
    "runpy",
}
BANNED_CALLS = {
    "pickle.load", "pickle.loads", "pickle.Unpickler", "eval", "exec", "compile", "__import__", "os.system", "os.popen",
    "pandas.read_pickle", "pd.read_pickle", "numcodecs.Pickle", "blosc2.unpack_array", "blosc2.unpack_array2",
    "blosc2.unpack_tensor", "blosc2.unpack", "ctypes.CDLL",
}  # fmt: skip
IMPORTERS = {
    "__init__.py": "the public names' own modules",
    "agents/registry.py": "tasks that installed packages declare",
}
"""Who may import a module whose name isn't written there, and what decides it."""

PICKLERS = {"net/station.py", "protocol/arrays.py"}
"""Who may write pickles: to see whether a listen can be, and for original peers."""

RECEIVERS = {"net/control.py"}
"""Who may read a `multiprocessing` connection, which unpickles: a pipe between a station and its maker."""

LIBRARIES = {"net/easing.py"}
"""Who may load a C library, named in the source: the one that the process runs on, to set its knobs."""


def dangers(text: str, file: str) -> Iterator[str]:
    """Name what is dangerous in one file."""
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Import(names=names):
                yield from (f"import {one.name}" for one in names if one.name.split(".")[0] in BANNED_MODULES)
                if file not in PICKLERS and any(one.name == "pickle" for one in names):
                    yield "import pickle"
            case ast.ImportFrom(module=str(module)) if module.split(".")[0] in {*BANNED_MODULES, "pickle"}:
                yield f"from {module} import …"
            case ast.Call(func=function, args=arguments, keywords=keywords):
                is_fixed = bool(arguments) and isinstance(arguments[0], ast.Constant)
                yield from _call(ast.unparse(function), keywords, file, is_fixed=is_fixed)


def _call(name: str, keywords: list[ast.keyword], file: str, *, is_fixed: bool) -> Iterator[str]:
    given = {one.arg: ast.unparse(one.value) for one in keywords}
    if name in BANNED_CALLS and not (name == "ctypes.CDLL" and is_fixed and file in LIBRARIES):
        yield name
    if name in ("np.load", "numpy.load") and given.get("allow_pickle") != "False":
        yield f"{name} without allow_pickle=False"
    if given.get("allow_pickle", "False") != "False" or given.get("shell", "False") != "False":
        yield f"{name} with allow_pickle or shell"
    if name.rsplit(".", maxsplit=1)[-1] == "import_module" and not is_fixed and file not in IMPORTERS:
        yield name
    if name.endswith(".recv") and "socket" not in name and file not in RECEIVERS:
        yield f"{name}: unpickles, if it is a connection of multiprocessing"


def test_nothing_in_the_source_runs_what_it_reads(root: Path) -> None:
    source = root / "src" / "pilotage"
    found = {
        str(file.relative_to(source)): list(
            dangers(file.read_text(encoding="utf-8"), file.relative_to(source).as_posix())
        )
        for file in source.rglob("*.py")
    }
    assert {file: what for file, what in found.items() if what} == {}
    assert len(found) > 100


@pytest.mark.parametrize(
    "planted",
    [
        "import pickle\npickle.loads(b'')",
        "from pickle import loads",
        "import marshal",
        "import yaml",
        "eval('1')",
        "exec('1')",
        "np.load('a.npy')",
        "np.load('a.npy', allow_pickle=True)",
        "zarr.open('x', allow_pickle=True)",
        "subprocess.run('x', shell=True)",
        "importlib.import_module(name)",
        "pipe.recv()",
        "blosc2.unpack_array2(data)",
    ],
)
def test_what_is_planted_is_seen(planted: str) -> None:
    assert list(dangers(planted, "net/planted.py"))
