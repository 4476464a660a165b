"""CONTRIBUTING.md is true: imports are as its picture shows, and each recipe, applied to a copy, does what it says."""

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
PACKAGE = ROOT / "hbn_ref"

# ---------------------------------------------------------------------------------------------- the picture


def picture():
    """{module: number of its line in the picture of the house}, counted from the top."""
    lines = PAGE[PAGE.index("\ntop floor") + 1 :].split("```")[0].splitlines()
    return {name: number for number, line in enumerate(lines) for name in re.findall(r"\w+", line[13:51])}


def imports():
    """Pairs (module, module that it imports) of the package; what a folder imports of itself is left out."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level == len(parts):
                theirs = [node.module.split(".")[0]] if node.module else [alias.name for alias in node.names]
                found |= {(parts[0], name) for name in theirs}
            elif isinstance(node, (ast.Import, ast.ImportFrom)) and not getattr(node, "level", 0):
                names = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
                found |= {(parts[0], name) for name in names if name.split(".")[0] in ("data_tools", "hbn_ref")}
    return {(ours, theirs) for ours, theirs in found if ours not in ("__init__", theirs)}


def test_the_picture_names_every_module():
    files = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert picture().keys() == files - {"__init__"}


def test_imports_point_downwards_only():
    place, found = picture(), imports()
    assert ("deploy", "bits") in found and ("__main__", "data_tools") in found
    wrong = {pair for pair in found if pair[1] != "data_tools" and not place[pair[0]] < place[pair[1]]}
    assert wrong == set()
    assert {ours for ours, theirs in found if theirs == "data_tools"} == {"__main__"}


# ---------------------------------------------------------------------------------------------- the recipes

RECIPES = dict(re.findall(r"^### ([^\n]+)\n(.*?)(?=^##|\Z)", PAGE[PAGE.index("\n## Recipes") :], re.S | re.M))
SLOW = [title for title, text in RECIPES.items() if "```console slow" in text]
LEFT_OUT = shutil.ignore_patterns(".*", "*.kernel", "*.nb?", "runs", "build", "dist", "shared", "*.png", "packed")


def edits(text):
    """(path, where: "new", "at the end", "before: TEXT" or "after: TEXT", what) of each block of code."""
    for heading, what in re.findall(r"```python\n# ([^\n]+)\n(.*?)```", text, re.S):
        path, _, where = heading.partition(", ")
        yield path, where, what


def commands(text, slow):
    """(command, what it prints) of each console block of a kind."""
    for kind, block in re.findall(r"```console( slow)?\n(.*?)```", text, re.S):
        if bool(kind) == slow:
            for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
                command, _, printed = part.partition("\n")
                yield command, printed.strip()


def apply(folder, text):
    """Make a recipe's changes in a copy of the project; a text that does not stand there once is an error."""
    for path, where, what in edits(text):
        file = folder / path
        if where == "new":
            assert not file.exists(), path
            file.write_text(what, "utf-8")
            continue
        old = file.read_text("utf-8")
        if where == "at the end":
            file.write_text(old + what, "utf-8")
            continue
        side, _, anchor = where.partition(": ")
        assert side in ("before", "after"), where
        line = f"\n{anchor}" if side == "before" or anchor.startswith(" ") else anchor
        assert old.count(line) == 1, f"{path}: {anchor!r} stands there {old.count(line)} times"
        start = old.index(line) + (line != anchor)
        if side == "before":
            file.write_text(old[:start] + what + old[start:], "utf-8")
        else:
            end = start + len(anchor)
            if old[end] == "\n":
                end += 1
            else:  # within a line, so what comes goes into that line
                what = what.strip() + " " * what.rstrip().endswith(",")
            file.write_text(old[:end] + what + old[end:], "utf-8")


def run(folder, command, printed, **environment):
    """Run a command of a recipe in the copy, and look for what the recipe says that it prints."""
    words = [sys.executable if word == "python" else word for word in shlex.split(command)]
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONIOENCODING": "utf-8", **environment}
    env = {key: value for key, value in env.items() if not key.startswith(("PYTEST_XDIST", "COV"))}
    done = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, encoding="utf-8", timeout=900)
    said = done.stdout + done.stderr
    assert done.returncode == 0, f"{command}\n{said}"
    for line in printed.splitlines():
        pattern = ".*".join(map(re.escape, line.split("...")))
        assert re.search(pattern, said), f"{command}\nexpected {line}\n{said}"


def copy(folder, text):
    shutil.copytree(ROOT, folder, ignore=LEFT_OUT)
    apply(folder, text)
    return folder


@pytest.mark.parametrize("title", RECIPES)
def test_a_recipe_works(title, tmp_path):
    pytest.importorskip("nbformat", reason="needs jupyter")
    folder = copy(tmp_path / "copy", RECIPES[title])
    found = list(commands(RECIPES[title], slow=False))
    assert found
    for command, printed in found:
        run(folder, command, printed, NUMBA_DISABLE_JIT="1", PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")


@pytest.mark.slow
@pytest.mark.parametrize("title", SLOW)
def test_a_recipe_works_to_its_end(title, tmp_path):
    folder = copy(tmp_path / "copy", RECIPES[title])
    if "new_notebook.py" in RECIPES[title]:
        run(folder, "python new_notebook.py", "")
    for command, printed in commands(RECIPES[title], slow=True):
        run(folder, command, printed)


def test_a_recipe_that_rots_is_noticed(tmp_path):
    (tmp_path / "a.py").write_text("x = 1\n", "utf-8")
    with pytest.raises(AssertionError, match="'y = ' stands there 0 times"):
        apply(tmp_path, "```python\n# a.py, after: y = \nz\n```")
    with pytest.raises(AssertionError, match="expected no such words"):
        run(tmp_path, "python a.py", "no such words")
    with pytest.raises(AssertionError, match="python b.py"):
        run(tmp_path, "python b.py", "")
