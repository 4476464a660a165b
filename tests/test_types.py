"""Type hints: every public function and method has them all, and what stands in quotes exists. mypy does the rest.

What Numba compiles is left out: its functions are typed by their arguments, and described by their docstrings.
"""

import importlib
import inspect
import pkgutil
import subprocess
import sys
import typing

import pytest

import data_tools
import hbn_ref
from hbn_ref import kernels

COMPILERS = ("@compiled", "@intrinsic")
MODULES = [
    importlib.import_module(name)
    for package in (hbn_ref, data_tools)
    for name in (package.__name__, *(m.name for m in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")))
]


def public(owner):
    """(name, function) of what stands in a module or a class, and has a name without an underscore; decorators off."""
    for name, value in vars(owner).items():
        function = inspect.unwrap(value)
        if inspect.isfunction(function) and (not name.startswith("_") or name in ("__init__", "__call__")):
            if function.__module__ == getattr(owner, "__module__", owner.__name__):
                yield f"{owner.__name__}.{name}", function


def hinted(module):
    """(name, function) of all in a module that needs hints."""
    if module is kernels and not kernels.JIT:
        return  # without the compiler, plain functions stand in for what it would have made
    classes = [c for name, c in vars(module).items() if inspect.isclass(c) and not name.startswith("_")]
    for owner in (module, *(c for c in classes if c.__module__ == module.__name__)):
        for name, function in public(owner):
            generated = function.__code__.co_filename.startswith("<")  # by a dataclass
            if generated or not inspect.getsource(function).lstrip().startswith(COMPILERS):
                yield name, function


def missing(function):
    """What has no hint: names of parameters, and "return"."""
    signature = inspect.signature(function)
    bare = [name for name, p in signature.parameters.items() if p.annotation is p.empty and name != "self"]
    return bare + ["return"] * (signature.return_annotation is signature.empty)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_every_public_function_has_all_its_hints(module):
    bare = {name: missing(function) for name, function in hinted(module)}
    assert not {name: what for name, what in bare.items() if what}


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_every_hint_is_the_name_of_something(module):
    for _, function in hinted(module):
        typing.get_type_hints(function)


def test_what_the_rule_leaves_out_and_what_it_finds():
    names = {name for module in MODULES for name, _ in hinted(module)}
    assert {"hbn_ref.conv.xnor.count", "hbn_ref.simd.register_bits", "PackedNetwork.__call__"} <= names
    assert {"hbn_ref.engine.threads", "hbn_ref.train.steps.train_step", "Dataset.__init__", "Layer.walk"} <= names
    assert not {"hbn_ref.kernels.pack_signs", "hbn_ref.kernels.relu_dx", "hbn_ref.simd.store"} & names
    assert len(names) > 300

    def some(self, x, *more: int, y: int = 0, **others):
        pass

    assert missing(some) == ["x", "others", "return"]


@pytest.mark.parametrize(
    "modules, absent",
    [
        ("hbn_ref.__main__, hbn_ref.draw, hbn_ref.testing", "matplotlib PIL pooch data_tools pytest"),
        ("data_tools, data_tools.augment", "PIL pooch tqdm matplotlib numba hbn_ref"),
    ],
)
def test_hints_import_nothing_that_is_not_needed(modules, absent):
    code = f"import sys, {modules}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert not set(absent.split()) & set(done.stdout.split())
