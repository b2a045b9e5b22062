"""Who may import whom: the table of dependencies between the top-level folders."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

SPEC = "gossamer.golden.spec"
ALLOWED = {
    "golden": (),
    "hdl": (SPEC,),
    "gateware": ("gossamer.hdl", SPEC),
    "boards": ("gossamer.gateware", SPEC),
    "firmware": (SPEC,),
    "sim": ("gossamer.golden", "gossamer.hdl", "gossamer.gateware"),
    "cli": tuple(f"gossamer.{folder}" for folder in ("golden", "hdl", "gateware", "boards", "firmware", "sim")),
    "tests": ("gossamer", "tests"),
}
"""What each folder may import, besides itself. ``gossamer.golden.spec`` is constants and field layouts only."""

FOLDERS = {*ALLOWED} - {"tests"}
GOLDEN_PACKAGES = {"numpy", "tomli", *sys.stdlib_module_names}  # tomli is the tomllib of Python 3.10
LAZY = {
    "golden/denoise.py": {"PIL"},
    "golden/finetune.py": {"torch"},
    "golden/tflite_file.py": {"tflite"},
    "golden/train_denoise.py": {"torch", "sklearn"},
    "golden/train_digits.py": {"torch", "sklearn"},
    "golden/train_variants.py": {"torch", "sklearn"},
}
"""Packages that a golden module may import inside a function."""

Import = tuple[int, str, bool]


def imports(node: ast.AST, lazy: bool = False) -> Iterator[Import]:
    """Yield ``(line, dotted name, inside a function)`` of everything imported below ``node``.

    ``from a import b`` yields ``a.b``: whether ``b`` is a module does not matter here. A relative import yields a
    name that starts with a dot.
    """
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.Import(names=names):
                yield from ((child.lineno, alias.name, lazy) for alias in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                prefix = "." * level + (f"{module}." if module else "")
                yield from ((child.lineno, prefix + alias.name, lazy) for alias in names)
            case ast.Call(
                func=ast.Name(id="__import__" | "import_module") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield child.lineno, name, lazy
        yield from imports(child, lazy or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda))


def within(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def violations(path: str, source: str) -> list[str]:
    """Return a sentence for each import of the module at ``path`` (relative to the root) that breaks a rule."""
    folder = path.partition("/")[0]
    found = []
    for line, name, lazy in imports(ast.parse(source, path)):
        top = name.partition(".")[0]
        if name.startswith("."):
            fault = "is relative"
        elif top in FOLDERS:
            fault = f"must be written gossamer.{name}"
        elif top in ("gossamer", "tests"):
            own = "tests" if folder == "tests" else f"gossamer.{folder}"
            fault = "" if within(name, (own, *ALLOWED[folder])) else f"is not for {folder}"
        elif folder == "golden" and top not in GOLDEN_PACKAGES:
            fault = "" if lazy and top in LAZY.get(path, ()) else "is neither numpy nor the standard library"
        else:
            fault = ""
        if fault:
            found.append(f"{path}:{line}: {name} {fault}")
    return found


def modules() -> list[str]:
    return sorted(str(file.relative_to(ROOT)) for folder in ALLOWED for file in (ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("path", modules())
def test_module_keeps_the_direction(path: str) -> None:
    assert violations(path, (ROOT / path).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("path", "source", "fault"),
    [
        ("golden/a.py", "import gossamer.hdl.mac", "gossamer.hdl.mac is not for golden"),
        ("golden/a.py", "import amaranth", "amaranth is neither numpy nor the standard library"),
        ("golden/a.py", "def f():\n import torch", "torch is neither numpy nor the standard library"),
        ("golden/train_digits.py", "import torch", "torch is neither numpy nor the standard library"),
        ("golden/tflite_import.py", "def f():\n import tflite", "tflite is neither numpy nor the standard library"),
        ("golden/train_digits.py", "def f():\n import scipy", "scipy is neither numpy nor the standard library"),
        ("hdl/a.py", "from gossamer import golden", "gossamer.golden is not for hdl"),
        ("hdl/a.py", "import gossamer", "gossamer is not for hdl"),
        ("hdl/a.py", "from gossamer.golden import spec, codec", "gossamer.golden.codec is not for hdl"),
        ("hdl/a.py", "from gossamer.golden import *", "gossamer.golden.* is not for hdl"),
        ("hdl/a.py", "from gossamer.golden.specs import A", "gossamer.golden.specs.A is not for hdl"),
        ("hdl/a.py", "from gossamer.gateware import core", "gossamer.gateware.core is not for hdl"),
        ("hdl/a.py", "if True:\n def f():\n  from gossamer.sim import x", "gossamer.sim.x is not for hdl"),
        ("hdl/a.py", "import_module('gossamer.sim')", "gossamer.sim is not for hdl"),
        ("hdl/a.py", "importlib.import_module('gossamer.sim')", "gossamer.sim is not for hdl"),
        ("gateware/a.py", "from gossamer.golden.codec import pack", "gossamer.golden.codec.pack is not for gateware"),
        ("gateware/a.py", "from gossamer.boards import b", "gossamer.boards.b is not for gateware"),
        ("boards/a.py", "from gossamer.hdl import b", "gossamer.hdl.b is not for boards"),
        ("firmware/a.py", "from gossamer.gateware import b", "gossamer.gateware.b is not for firmware"),
        ("sim/a.py", "from gossamer.boards import b", "gossamer.boards.b is not for sim"),
        ("sim/deep/a.py", "from gossamer.cli import main", "gossamer.cli.main is not for sim"),
        ("cli/a.py", "import tests.rng", "tests.rng is not for cli"),
        ("sim/a.py", "from . import b", ".b is relative"),
        ("sim/a.py", "from ..golden import b", "..golden.b is relative"),
        ("sim/a.py", "from golden import b", "golden.b must be written gossamer.golden.b"),
        ("tests/hdl/test_a.py", "import hdl.a", "hdl.a must be written gossamer.hdl.a"),
    ],
)
def test_checker_finds(path: str, source: str, fault: str) -> None:
    found = violations(path, source)
    assert [sentence.partition(": ")[2] for sentence in found] == [fault]


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("golden/a.py", "import json, numpy.typing\nfrom gossamer.golden import spec"),
        ("golden/train_digits.py", "def train():\n import torch.nn\n from sklearn.datasets import load_digits"),
        ("hdl/a.py", "from amaranth.hdl import *\nfrom gossamer.golden.spec import A\nfrom gossamer.hdl.b import C"),
        ("hdl/a.py", "from gossamer.golden import spec"),
        ("gateware/a.py", "import gossamer.hdl.b\nimport gossamer.golden.spec"),
        ("boards/a.py", "from gossamer.gateware.core import Core"),
        ("sim/a.py", "from gossamer import golden, hdl, gateware"),
        ("cli/main.py", "from gossamer.sim import run\nfrom gossamer.boards import icebreaker"),
        ("tests/sim/test_a.py", "import gossamer.cli.main\nfrom tests.streams import drive"),
    ],
)
def test_checker_accepts(path: str, source: str) -> None:
    assert violations(path, source) == []


def test_checker_names_file_and_line() -> None:
    assert violations("hdl/a.py", "\n\nimport gossamer.sim") == ["hdl/a.py:3: gossamer.sim is not for hdl"]
