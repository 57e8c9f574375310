"""Imports point one way: torch <- models, divergences <- se_framework <- tests; inside the engine, left to right."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OURS = ("models", "divergences", "se_framework")
MAY_IMPORT = {"models": {"models"}, "divergences": {"divergences"}, "se_framework": set(OURS)}
# The engine knows the vocabulary of its neighbours; concrete classes arrive through configuration.
VOCABULARY = {"models.base", "models.laws", "divergences.base"}
APPLICATIONS = {"verify"}  # the verifier measures the concrete classes
# The laws that ship look at any object through those contracts: they name no concrete class either.
VOCABULARY |= {"models.checks", "divergences.checks"}
LAYERS = [
    {"errors"}, {"randomness"}, {"data"}, {"runs"}, {"equation"}, {"checks"}, {"training"}, {"config"}, {"ensemble"},
    {"pictures"}, {"assembly"}, {"describe", "evaluation", "api"}, {"verify"}, {"commands"}, {"__main__"},
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
