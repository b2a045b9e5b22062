"""Map the top-level folders to the packages ``gossamer.<folder>``; everything else is in ``pyproject.toml``.

``gossamer`` itself is a namespace without ``__init__.py``; ``importlib.metadata.version("gossamer")`` is its version.
"""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent
FOLDERS = ("boards", "cli", "firmware", "gateware", "golden", "hdl", "sim")


def discover(root: Path = ROOT) -> dict[str, str]:
    """Return ``{package: folder}`` for the folders that exist and all their sub-packages."""
    packages = {}
    for folder in FOLDERS:
        if (root / folder).is_dir():
            packages[f"gossamer.{folder}"] = folder
            for name in find_packages(str(root / folder)):
                packages[f"gossamer.{folder}.{name}"] = f"{folder}/{name.replace('.', '/')}"
    return packages


if __name__ == "__main__":
    package_dir = discover()
    setup(packages=list(package_dir), package_dir=package_dir)
