"""The built wheel trains from an empty directory, with its configurations inside and nothing of the checkout."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_wheel_trains_from_an_empty_directory(tmp_path):
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path / "dist"), str(ROOT)]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr + done.stdout
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {n.split("/")[0] for n in names}
    assert {t for t in tops if not t.endswith(".dist-info")} == {"se_framework", "divergences", "models"}
    assert "se_framework/configs/config.yaml" in names and "models/py.typed" in names
    assert "se_framework/commands/references.bib" in names and "se_framework/configs/tracker/none.yaml" in names

    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    # The dependencies are lent by this environment (a plain path: editable installs of it are not followed).
    site = tmp_path / "venv" / "lib" / version / "site-packages"
    (site / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-deps", "--no-index",
               "--target", str(site), str(wheel)]  # fmt: skip
    done = subprocess.run(install, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (tmp_path / "empty").mkdir()
    command = [
        str(python),
        "-m",
        "se_framework",
        "experiment=fgan",
        "loop.rounds=3",
        "hydra.run.dir=run",
        "device=cpu",
    ]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path / "empty", env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "empty" / "run" / "samples.png").exists()
    where = "from importlib.util import find_spec\n"  # where an import would find them, without torch's seconds
    where += "print(*(find_spec(name).origin for name in ('se_framework', 'models', 'divergences')))"
    shown = subprocess.run(
        [str(python), "-c", where], cwd=tmp_path / "empty", env=environment, capture_output=True, text=True
    )
    found = shown.stdout.split()
    assert len(found) == 3 and all(path.startswith(str(tmp_path)) for path in found), shown
