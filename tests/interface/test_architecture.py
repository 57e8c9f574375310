"""Imports point one way: torch <- models, divergences <- se_framework <- tests; inside the engine, left to right."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OURS = ("models", "divergences", "se_framework")
MAY_IMPORT = {"models": {"models"}, "divergences": {"divergences"}, "se_framework": set(OURS)}
# The engine knows the vocabulary of its neighbours; concrete classes arrive through configuration.
VOCABULARY = {"models.base", "models.laws", "divergences.base", "divergences.absent"}
APPLICATIONS = {"verify"}  # the verifier measures the concrete classes
# The laws that ship look at any object through those contracts: they name no concrete class either.
VOCABULARY |= {"models.checks", "divergences.checks"}
LAYERS = [
    {"errors"}, {"reading"}, {"randomness"}, {"data"}, {"runs"}, {"equation"}, {"checks"}, {"training"}, {"config"},
    {"ensemble"}, {"pictures"}, {"assembly"}, {"describe", "evaluation", "api"},
    {"verify", "comparison"}, {"commands"}, {"__main__"},
]  # fmt: skip


def imports(file):
    """Return the modules a file imports while it is loaded, and those it imports later."""
    tree = ast.parse(file.read_text())
    later = [f for f in ast.walk(tree) if isinstance(f, ast.FunctionDef)]
    later += [f for f in ast.walk(tree) if isinstance(f, ast.If) and "TYPE_CHECKING" in ast.dump(f.test)]
    inside = {id(n) for f in later for n in ast.walk(f)}
    early, late = set(), set()
    for node in ast.walk(tree):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module] + [f"{node.module}.{a.name}" for a in node.names]
        (late if id(node) in inside else early).update(n for n in names if n.split(".")[0] in OURS)
    return early, late


@pytest.mark.parametrize("package", OURS)
def test_packages_import_only_downwards(package):
    for file in (ROOT / package).rglob("*.py"):
        early, late = imports(file)
        for name in early | late:
            assert name.split(".")[0] in MAY_IMPORT[package], f"{file.name} imports {name}"
            exempt = package == name.split(".")[0] or file.relative_to(ROOT / package).parts[0] in APPLICATIONS
            if package == "se_framework" and not exempt:
                assert any(name == v or name.startswith(v + ".") for v in VOCABULARY), f"{file.name} imports {name}"


def test_engine_modules_import_only_earlier_layers():
    rank = {name: i for i, layer in enumerate(LAYERS) for name in layer}
    home = ROOT / "se_framework"
    for file in (f for f in home.rglob("*.py") if f != home / "__init__.py"):
        own = file.relative_to(home).with_suffix("").parts[0]
        assert own in rank, f"give {own} a layer"
        for name in imports(file)[0]:
            parts = name.split(".")
            if parts[0] == "se_framework" and len(parts) > 1 and parts[1] in rank and parts[1] != own:
                assert rank[parts[1]] < rank[own], f"{file} imports {parts[1]}"


# -- names that others keep to themselves -----------------------------------------------------------------------------

GUARDED = ("torch", "hydra")
"""Packages whose names with a leading underscore may change with any release."""


def private_names(text):
    """Return (line, dotted name) of every private name of a guarded package that a program imports or reaches.

    Reached is what stands behind dots after a name that an import has bound to the package or to a part of it.
    """
    tree, bound, found = ast.parse(text), {}, []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] in GUARDED:
                    root = alias.name.split(".")[0]
                    bound[alias.asname or root] = alias.name if alias.asname else root
                    found += [(node.lineno, alias.name)]
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in GUARDED:
            for alias in node.names:
                bound[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                found += [(node.lineno, f"{node.module}.{alias.name}")]
    for node in ast.walk(tree):
        names, at = [], node
        while isinstance(at, ast.Attribute):
            names.append(at.attr)
            at = at.value
        if names and isinstance(at, ast.Name) and at.id in bound:
            found += [(node.lineno, ".".join([bound[at.id], *reversed(names)]))]
    return [(line, name) for line, name in found if any(is_private(part) for part in name.split("."))]


def is_private(name):
    return name.startswith("_") and not name.startswith("__")


@pytest.mark.parametrize("package", OURS)
def test_no_private_name_of_torch_or_hydra_is_used(package):
    found = {
        f"{file.relative_to(ROOT)}:{line}: {name}"
        for file in (ROOT / package).rglob("*.py")
        for line, name in private_names(file.read_text())
    }
    assert not found, "\n".join(sorted(found))


def test_private_names_are_found_however_they_are_reached():
    program = """
import torch, torch.nn.modules.module
import hydra._internal.utils as utils
from torch import nn
from torch.nn.modules import batchnorm as norm
from torch.nn.modules.module import _global_forward_hooks
x = torch._foreach_norm([])
y = isinstance(x, nn.modules.batchnorm._BatchNorm)
z = norm._BatchNorm, nn.Module.__init__, x._private, utils.run
"""
    assert sorted(private_names(program)) == [
        (3, "hydra._internal.utils"),
        (6, "torch.nn.modules.module._global_forward_hooks"),
        (7, "torch._foreach_norm"),
        (8, "torch.nn.modules.batchnorm._BatchNorm"),
        (9, "hydra._internal.utils.run"),
        (9, "torch.nn.modules.batchnorm._BatchNorm"),
    ]


# -- the tests themselves ---------------------------------------------------------------------------------------------


def test_no_test_file_imports_another():
    """What several need lies in tests/support/."""
    for file in (ROOT / "tests").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [f"{node.module or ''}.{a.name}" for a in node.names]
            parts = [part for name in names for part in name.split(".")]
            assert not any(part.startswith("test_") for part in parts), f"{file.name}:{node.lineno} imports {names}"
