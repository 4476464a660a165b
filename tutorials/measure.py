"""What can be measured of a notebook's readability: words, lines, functions without a word before them, pictures, ends.

python tutorials/measure.py [NAME ...]     # a table of the notebooks, or of those whose names hold one of NAME
"""

import ast
import json
import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
LIMITS = {"words": 2000, "lines": 20, "width": 100, "functions": 15}  # at most
DRAWINGS = {"entering_bits", "maps_and_signs", "answer"}  # pictures that show a drawing; the map is not enough
COUNT = {"learn": "What you'll learn", "know": "What you now know"}


def read(path):
    """Return the cells of a notebook: (kind, id, source, kinds of output)."""
    cells = json.loads(Path(path).read_text("utf-8"))["cells"]
    return [
        (cell["cell_type"], cell["id"], "".join(cell["source"]),
         {kind for output in cell.get("outputs", ()) for kind in output.get("data", ())})
        for cell in cells
    ]  # fmt: skip


def _package(trees):
    """{name in the notebook: module} of what is imported from hbn_ref, and {name: function} of single functions."""
    modules, functions = {}, {}
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "hbn_ref":
                into = modules if node.module == "hbn_ref" else functions
                into.update({name.asname or name.name: name.name for name in node.names})
    return modules, functions


def uses(tree, modules, functions):
    """The names of the package that a cell uses, as `conv.pack_weights`, without those that are only imported."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            found.add(f"{modules[node.value.id]}.{node.attr}")
        elif isinstance(node, ast.Name) and node.id in functions:
            found.add(functions[node.id])
    return found


def unannounced(cells):
    """Return the functions and names of the package that code uses before any text names them, except in checks.

    A text names them in the type of code, by the last part at least: `pack_weights` for conv.pack_weights.
    """
    trees = {place: ast.parse(source) for kind, place, source, _ in cells if kind == "code"}
    modules, functions = _package(trees.values())
    written, found = "", []
    for kind, place, source, _ in cells:
        if kind == "markdown":
            written += " ".join(re.findall(r"`([^`]+)`", source)) + " "
        elif not place.startswith("check-"):
            for name in sorted(uses(trees[place], modules, functions)):
                last = name.rpartition(".")[2]
                if name not in found and not re.search(rf"\b{re.escape(last)}\b", written):
                    found.append(name)
    return found


def _items(cells, title):
    """The numbered lines below a title, the title in bold or as a heading."""
    for kind, _, source, _ in cells:
        below = re.split(rf"(?:\*\*|^#+ ){title}", source, maxsplit=1, flags=re.MULTILINE)
        if kind == "markdown" and len(below) == 2:
            part = re.split(r"\n\s*\n(?!\s*\d+\. )", below[1], maxsplit=1)[0]
            return re.findall(r"^\d+\. (.+(?:\n(?!\d+\. ).+)*)", part, flags=re.MULTILINE)
    return []


def measure(path):
    """Return what is counted in a notebook.

    words : of all text, separated by blanks
    lines, width : of the longest code cell, and of the longest line of code
    functions : names of the package that are used before any text names them
    drawings : cells with a picture of a drawing, and its output
    learn, know : the numbered lines of "What you'll learn" and of "What you now know"
    """
    cells = read(path)
    code = [source for kind, _, source, _ in cells if kind == "code"]
    drawn = [
        place for kind, place, source, outputs in cells
        if kind == "code" and "image/png" in outputs and _draws(ast.parse(source))
    ]  # fmt: skip
    return {
        "words": sum(len(source.split()) for kind, _, source, _ in cells if kind == "markdown"),
        "lines": max(len(source.splitlines()) for source in code),
        "width": max(len(line) for source in code for line in source.splitlines()),
        "functions": unannounced(cells),
        "drawings": drawn,
        **{key: _items(cells, title) for key, title in COUNT.items()},
    }


def _draws(tree):
    """Whether a cell calls for a picture of a drawing: one of `DRAWINGS`, or a word beside its drawing."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in DRAWINGS or any(keyword.arg == "drawing" for keyword in node.keywords):
                return True
    return False


def faults(path):
    """Return what a notebook has too much or too little of, in one line each."""
    found = measure(path)
    said = [
        f"{key}: {value}, at most {LIMITS[key]}"
        for key, value in ((key, found[key] if key != "functions" else len(found[key])) for key in LIMITS)
        if value > LIMITS[key]
    ]
    if not found["drawings"]:
        said.append("drawings: no picture of a drawing")
    if not found["learn"] or len(found["know"]) != len(found["learn"]):
        said.append(f"{COUNT['know']}: {len(found['know'])} lines, {COUNT['learn']}: {len(found['learn'])}")
    said += [f"{COUNT['know']}: without a number: {line}" for line in found["know"] if not re.search(r"\d", line)]
    return said


def main(names):
    """Print a table, and what is wrong."""
    paths = [path for path in sorted(HERE.glob("0*.ipynb")) if not names or any(name in path.stem for name in names)]
    print(f"{'':13} words  lines  width  functions  drawings  learn  know")
    for path in paths:
        found = measure(path)
        print(f"{path.stem:13}{found['words']:6}{found['lines']:7}{found['width']:7}{len(found['functions']):11}"
              f"{len(found['drawings']):10}{len(found['learn']):7}{len(found['know']):6}")  # fmt: skip
    for path in paths if names else ():
        found = measure(path)
        print(f"\n{path.stem}: not in words before they are used: {', '.join(found['functions']) or 'none'}")
        print(*(f"  {fault}" for fault in faults(path)), sep="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
