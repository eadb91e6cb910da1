"""The files around the package agree with one another, and every public name is shown and explained."""

from __future__ import annotations

import ast
import inspect
import json
import os
import re
import tomllib
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
import yaml
from IPython.core.inputtransformer2 import TransformerManager

import cbtools

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
INSTALL = 'python3 -m venv .venv && .venv/bin/pip install -e ".[dev]"'


def public_names() -> list[str]:
    """Give the names that cbtools/__init__.py hands out, in its order."""
    tree = ast.parse((ROOT / "cbtools/__init__.py").read_bytes())
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom | ast.Import)]
    names = [alias.asname or alias.name for node in imports for alias in node.names]
    return [name for name in names if not name.startswith("_") and name != "annotations"]


def found(name: str) -> Any:
    """Give what a name, maybe of a module handed out, stands for."""
    return reduce(getattr, name.split("."), cbtools)


def with_modules(names: list[str]) -> list[str]:
    """Add the public functions and classes of the modules that are handed out."""
    every = []
    for name in names:
        every.append(name)
        if inspect.ismodule(found(name)):
            own = vars(found(name)).items()
            every += [f"{name}.{k}" for k, v in own if k[0] != "_" and is_of(v, found(name).__name__)]
    return every


def is_of(value: Any, module: str) -> bool:
    """Tell whether a function or class is handed out by a module: its own, or of a file of the package."""
    public = inspect.isfunction(value) or inspect.isclass(value)
    return public and (value.__module__ == module or value.__module__.startswith(f"{module}."))


NAMES = with_modules(public_names())
FUNCTIONS = [name for name in NAMES if inspect.isfunction(found(name))]


# --- the project's files


def bounds(requirements: list[str]) -> dict[str, str]:
    """Split requirements into name and bounds."""
    split = (re.fullmatch(r"([\w.-]+)\s*(.*)", one) for one in requirements)
    return {match[1].lower(): match[2] for match in split if match}


def test_conda_s_environment_is_pip_s():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    assert environment["channels"] == ["conda-forge"]
    conda = bounds([one for one in environment["dependencies"] if isinstance(one, str)])
    assert conda.pop("python") == PROJECT["requires-python"]
    assert "pip" in conda
    del conda["pip"]
    assert conda == bounds(PROJECT["dependencies"])
    assert [one for one in environment["dependencies"] if isinstance(one, dict)] == [{"pip": ["-e .[dev]"]}]


def test_the_readme_has_the_two_commands():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert f"{INSTALL} && .venv/bin/cbtools demo" in lines
    assert f"{INSTALL} && .venv/bin/pytest" in lines


def test_ci_runs_the_readme_s_test_command():
    script = ROOT / ".ci/run"
    if os.name == "posix":
        assert os.access(script, os.X_OK)
    text = script.read_text(encoding="utf-8")
    text = text.replace("pip install --quiet", "pip install").replace(" --durations=40", "")
    steps = [*INSTALL.split(" && "), ".venv/bin/pytest", '.venv/bin/pytest --ci -m "ci or more"']
    places = [text.find(f"\n{step}\n") for step in steps]
    assert -1 not in places
    assert places == sorted(places)
    for tool in ("ruff check", "ruff format --check", "mypy"):
        assert f"\n.venv/bin/{tool}" in text


def test_the_python_versions_agree():
    """Check that the classifiers name the versions from the required one on, and that CI looks for all."""
    named = [one.rpartition(" :: ")[2] for one in PROJECT["classifiers"] if "Python :: 3." in one]
    assert PROJECT["requires-python"] == f">={named[0]}"
    assert named == [f"3.{minor}" for minor in range(11, 11 + len(named))]
    first, last = re.search(r"minor in \{(\d+)\.\.(\d+)\}", (ROOT / ".ci/run").read_text()).groups()
    assert f"3.{first}" == named[0]
    assert int(last) >= int(named[-1].rpartition(".")[2])


def test_git_ignores_what_the_commands_make():
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert {".venv/", ".venv-*/", "__pycache__/", "*.egg-info/", ".ipynb_checkpoints/"} <= set(ignored)


def test_the_commit_hooks_are_the_tools_of_ci():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    entries = [hook["entry"] for repo in hooks["repos"] for hook in repo["hooks"]]
    assert {entry.split(" --")[0] for entry in entries} == {"ruff check", "ruff format", "mypy"}


# --- the public names


@pytest.fixture(scope="module")
def used_in_notebooks() -> set[str]:
    """Give the names and attributes that stand in the notebooks' code."""
    used = set()
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        for cell in cells:
            if cell["cell_type"] == "code":
                code = TransformerManager().transform_cell("".join(cell["source"]))
                for node in ast.walk(ast.parse(code, filename=path.name)):
                    if isinstance(node, ast.Attribute):
                        used.add(node.attr)
                    elif isinstance(node, ast.Name):
                        used.add(node.id)
                    elif isinstance(node, ast.ImportFrom):
                        used |= {alias.name for alias in node.names}
    return used


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_uses_it(name, used_in_notebooks):
    assert name.split(".")[-1] in used_in_notebooks, (
        f"no notebook uses cbtools.{name}: write a cell where it belongs"
    )


@pytest.mark.parametrize("name", NAMES)
def test_it_has_a_docstring(name):
    doc = inspect.getdoc(found(name)) or ""
    assert doc.splitlines()[:1] != [], name
    assert doc.splitlines()[0].endswith((".", ":"))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_its_docstring_has_the_sections(name):
    function = found(name)
    doc = inspect.getdoc(function) or ""
    sections = re.findall(r"^(\w+)\n-+$", doc, re.MULTILINE)
    assert "Returns" in sections
    assert "Examples" in sections
    assert ">>> " in doc
    parameters = inspect.signature(function).parameters
    if parameters:
        assert "Parameters" in sections
        text = doc.split("Parameters\n----------\n")[1].split("\nReturns\n")[0]
        told = re.findall(r"^([\w*, ]+) :", text, re.MULTILINE)
        explained = [one.strip(" *") for line in told for one in line.split(",")]
        assert explained == list(parameters)
