"""The environment of ``make gpu``: whatever lies beside the torch that is there, and never another torch.

PYTHON benchmarks/gpu/install.py FOLDER                     a virtual environment over PYTHON, from the package index
PYTHON benchmarks/gpu/install.py FOLDER --wheels WHEELS     the same without a network
PYTHON benchmarks/gpu/install.py --collect WHEELS           the folder of wheels, for this PYTHON
PYTHON benchmarks/gpu/install.py --collect WHEELS --python 3.12 --without numpy scipy matplotlib
                                                            for another Python on Linux x86-64 that has these

A file of its own, without torch and without anything of ours: it runs before they can be imported.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import tomllib
import venv
from collections.abc import Sequence
from importlib import metadata, util
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
TESTED = ("pytest", "pytest-xdist", "hypothesis")
OPTIONAL = ("pytest-xdist", "zuko", "nflows", "normflows")
"""Left out where they cannot be had: tests then run one by one, and rows say what they lack."""
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64",
             "manylinux1_x86_64")  # fmt: skip


def wanted() -> tuple[list[str], list[str]]:
    """Return what must be there, and what may be missing, as pyproject.toml has them; torch is there."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    every = {name_of(line): line for line in (*extras["test"], *extras["bench"], *project["dependencies"])}
    must = [line for name, line in every.items() if line in project["dependencies"] and name != "torch"]
    must += [every[name] for name in TESTED if name not in OPTIONAL]
    return must, [every[name] for name in OPTIONAL]


def name_of(requirement: str) -> str:
    """Return the name in a requirement or a constraint."""
    return re.split(r"[^A-Za-z0-9_.-]", requirement, maxsplit=1)[0]


def install(folder: Path, wheels: Path | None) -> None:
    """Make a virtual environment that sees this interpreter's packages, and put into it what they lack."""
    found = util.find_spec("torch")
    if found is None or found.origin is None:
        raise SystemExit(
            f"{sys.executable} has no torch: name the interpreter that has, make gpu PYTHON=/path/to/python3"
        )
    venv.create(folder, system_site_packages=True, clear=True, symlinks=True)
    python = folder / "bin" / "python"
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    inside = Path(subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True).stdout.strip())
    # An environment within another sees the packages of neither, but of the interpreter below both: it is told.
    (inside / "below.pth").write_text(f"{Path(found.origin).parent.parent}\n")
    if subprocess.run([python, "-m", "pip", "--version"], capture_output=True).returncode:  # none below either
        subprocess.run([python, "-m", "ensurepip"], capture_output=True, check=True)
    pins = [] if wheels else (ROOT / "constraints.txt").read_text().splitlines()
    pins = [f"torch=={metadata.version('torch')}", *(pin for pin in pins if name_of(pin) != "torch")]
    source = ["--no-index", "--find-links", str(wheels)] if wheels else []
    must, optional = wanted()
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as constraints:
        constraints.write("\n".join(pins) + "\n")
        constraints.flush()
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *source,
               "--constraint", constraints.name]  # fmt: skip
        if subprocess.run([*pip, *must]).returncode:
            raise SystemExit("what se-framework needs could not be installed: see above")
        for line in optional:
            if subprocess.run([*pip, line], capture_output=True).returncode:
                print(f"without {line}: it cannot be installed from here")


def collect(folder: Path, python: str | None, without: Sequence[str]) -> None:
    """Download the wheels of all that is wanted with what it needs, in the versions that are installed here.

    Args:
        folder: where they are put.
        python: the version that they are for; None for this one.
        without: what is there already with all that it needs, as torch is.
    """
    have = {canonical(d.name): d for d in metadata.distributions()}

    def closure(names: list[str], without: set[str]) -> set[str]:
        found: set[str] = set()
        todo = [canonical(name) for name in names]
        while todo:
            name = todo.pop()
            if name in have and name not in found | without:
                found.add(name)
                todo += [canonical(name_of(line)) for line in have[name].requires or () if "extra ==" not in line]
        return found

    must, optional = wanted()
    names = closure([name_of(line) for line in (*must, *optional)], closure(["torch", *without], set()))
    folder.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip"]
    common = ["--quiet", "--disable-pip-version-check", "--no-deps"]
    target = [f"--python-version={python}", "--implementation=cp", *(f"--platform={p}" for p in PLATFORMS)]
    for name in sorted(names):
        pin = f"{name}=={have[name].version}"
        there = [*pip, "download", *common, "--only-binary=:all:", *target, "--dest", str(folder), pin]
        here = [*pip, "wheel", *common, "--wheel-dir", str(folder), pin]  # builds what has no wheel
        tries = [there, here] if python else [here]
        if not any(subprocess.run(words, capture_output=words is there).returncode == 0 for words in tries):
            print(f"without {pin}: it has no wheel and cannot be built here")
    files = list(folder.glob("*.whl"))
    print(f"{len(files)} wheels, {sum(f.stat().st_size for f in files) / 2**20:.0f} MiB, in {folder}")


def canonical(name: str) -> str:
    """Return a name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def main() -> None:
    """Install, or collect."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, help="of the virtual environment")
    parser.add_argument("--wheels", type=Path, help="a folder of wheels, in the place of the package index")
    parser.add_argument("--collect", type=Path, metavar="WHEELS", help="download the wheels into this folder")
    parser.add_argument("--python", help="the version of Python that the wheels are for, such as 3.12")
    parser.add_argument("--without", nargs="+", default=[], metavar="NAME", help="what the other machine has")
    given = parser.parse_args()
    if (given.folder is None) == (given.collect is None):
        parser.error("give either the folder of an environment or --collect WHEELS")
    collect(given.collect, given.python, given.without) if given.collect else install(given.folder, given.wheels)


if __name__ == "__main__":
    main()
