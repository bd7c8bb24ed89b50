"""Imports point one way, each library is imported where it belongs, and the wheel holds what it should."""

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("couchlite", "replicator", "http_api", "cli")
"""Each may import those before it."""
HOMES = {
    "lmdb": {"couchlite/storage/"},
    "cbor2": {"couchlite/records.py"},
    "orjson": {"couchlite/jsontext.py"},
    "zstandard": {"couchlite/compression.py"},
    "pcre2": {"couchlite/regex.py"},
    "icu": {"couchlite/collation.py"},
    "_quickjs": {"couchlite/javascript/child.py"},
    "click": {"cli/"},
    "rich": {"cli/"},
}
SOURCES = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]


def imported(path: Path) -> Iterator[str]:
    """Names of the modules that a file imports from outside its package."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_imports_only_what_its_room_may(path: Path) -> None:
    name = path.relative_to(ROOT).as_posix()
    room = ROOMS.index(name.partition("/")[0])
    for module in imported(path):
        top = module.partition(".")[0]
        assert top not in ROOMS[room + 1 :], f"{name} imports {module} from a room above it"
        homes = HOMES.get(top)
        assert homes is None or any(name.startswith(home) for home in homes), f"{name} imports {module}"
        if module.startswith("aiohttp"):
            assert room > 1 or name == "replicator/http_client.py", f"{name} imports {module}"


def test_what_is_imported_is_a_declared_dependency() -> None:
    declared = {
        re.split(r"[\[><=;]", line)[0].lower().replace("_", "-")
        for line in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    }
    tops = {module.partition(".")[0] for path in SOURCES for module in imported(path)}
    providers = packages_distributions()
    for top in tops - set(ROOMS) - set(sys.stdlib_module_names):
        found = {name.lower().replace("_", "-") for name in providers[top]}
        assert found & declared, f"{top} is imported, but {found} is not among the dependencies"


@pytest.mark.slow
def test_the_wheel_holds_the_four_packages_and_nothing_else(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names if ".dist-info" not in name} == set(ROOMS)
    assert {f"{room}/py.typed" for room in ROOMS} <= set(names)
