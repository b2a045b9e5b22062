"""The top-level folders install as ``gossamer.<folder>``, with all their sub-packages."""

import importlib
import importlib.metadata
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SETUP = runpy.run_path(str(ROOT / "setup.py"))
DISCOVER = SETUP["discover"]
FOLDERS = SETUP["FOLDERS"]
NOT_INSTALLED = {"docs", "tests"}


def test_every_folder_with_code_is_installed() -> None:
    assert {file.parent.name for file in ROOT.glob("[!.]*/*.py")} - NOT_INSTALLED == set(FOLDERS)


@pytest.mark.parametrize("folder", FOLDERS)
def test_folder_imports_from_the_checkout(folder: str) -> None:
    module = importlib.import_module(f"gossamer.{folder}")
    assert [Path(path).resolve() for path in module.__path__] == [ROOT / folder]


def test_no_sub_package_is_missed() -> None:
    with_code = {str(file.parent.relative_to(ROOT)) for folder in FOLDERS for file in (ROOT / folder).rglob("*.py")}
    assert sorted(DISCOVER().values()) == sorted(with_code)


def test_discovery_maps_sub_packages(tmp_path: Path) -> None:
    for folder in ("hdl", "sim/verilator/dpi", "sim/verilator", "sim", "docs", "golden/data"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        if folder != "golden/data":
            (tmp_path / folder / "__init__.py").touch()
    assert DISCOVER(tmp_path) == {
        "gossamer.golden": "golden",
        "gossamer.hdl": "hdl",
        "gossamer.sim": "sim",
        "gossamer.sim.verilator": "sim/verilator",
        "gossamer.sim.verilator.dpi": "sim/verilator/dpi",
    }


def test_installed_version_is_known() -> None:
    assert importlib.metadata.version("gossamer")
