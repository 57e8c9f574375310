"""A process that has imported torch and the package once and forks a child for every command it is asked to run.

    python -m tests.support.server SOCKET

A start of the interpreter with torch, Hydra and matplotlib costs four processor seconds; a fork, a twentieth of one.
The child is what the command would be: its own process number, working directory, environment and standard streams,
``__main__`` executed from the start; only the libraries are already loaded. Tests of what is imported, and how quickly,
start an interpreter of their own.
"""

from __future__ import annotations

import gc
import importlib
import io
import json
import os
import resource
import runpy
import signal
import socket
import sys
import threading
from typing import Any

LOADED = [
    "hydra", "matplotlib.pyplot", "numpy", "scipy.optimize", "scipy.stats", "sklearn.datasets", "torch", "PIL.Image",
    "se_framework.assembly", "se_framework.commands.train", "se_framework.pictures.plots",
    "se_framework.evaluation.scores", "se_framework.verify", "se_framework.verify.dynamics", "divergences", "models",
    "geomloss",
]  # fmt: skip


def execute(asked: dict[str, Any]) -> None:
    """Become the process that was asked for: ``module``, ``code`` or ``file`` with ``arguments``, after ``first``."""
    if asked["session"]:
        os.setsid()
    for number, (file, flags) in enumerate(
        ((os.devnull, os.O_RDONLY), (asked["out"], os.O_WRONLY), (asked["err"], os.O_WRONLY))
    ):
        os.dup2(os.open(file, flags), number)
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.chdir(asked["cwd"])
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    own = [""] if "file" not in asked else [os.path.dirname(os.path.abspath(asked["file"]))]
    sys.path[:] = [*own, *filter(None, paths), *(p for p in sys.path if p not in ("", *paths, asked["server"]))]
    exec(asked["first"], {})
    if "module" in asked:
        sys.modules.pop(asked["module"], None)  # else runpy warns that it is there already
        sys.argv = [asked["module"], *asked["arguments"]]
        runpy.run_module(asked["module"], run_name="__main__", alter_sys=True)
    elif "file" in asked:
        sys.argv = [asked["file"], *asked["arguments"]]
        runpy.run_path(asked["file"], run_name="__main__")
    else:
        sys.argv = ["-c", *asked["arguments"]]
        exec(compile(asked["code"], "<string>", "exec"), {"__name__": "__main__"})


def warm_up() -> None:
    """Do once what costs most the first time: Hydra's grammar and plug-ins, the first steps of torch, a picture."""
    from matplotlib import pyplot

    from se_framework.api import compose

    quiet = ["loop.rounds=1", "loop.batch_size=8", "model.width=4", "metric.network.width=4"]
    compose("vanilla_gan", [*quiet, "loop.log_every=0", "progress=false", "device=cpu"]).train()
    figure = pyplot.figure()
    figure.savefig(io.BytesIO())
    pyplot.close(figure)


def serve(path: str) -> None:
    """Answer every connection from a fork: the process number of the child, then exit status and processor seconds."""
    for name in LOADED:
        importlib.import_module(name)
    import torch

    torch.set_num_threads(1)
    home = os.getcwd()
    warm_up()
    gc.collect()
    gc.freeze()  # a collection in a child would touch, and so copy, all that it shares with us
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel forgets those that answered
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    print("ready", flush=True)
    # The end of our input says that our owner is gone. Not through sys.stdin: its lock would be held in every fork.
    threading.Thread(target=lambda: (os.read(0, 1), os._exit(0)), daemon=True).start()
    while True:
        connection, _ = listener.accept()
        if os.fork():
            connection.close()
            continue
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        listener.close()
        stream = connection.makefile("rw")
        asked = json.loads(stream.readline())
        child = os.fork()
        if child == 0:
            stream.close(), connection.close()
            execute({**asked, "server": home})
            sys.exit()
        stream.write(f"{child}\n")
        stream.flush()
        status = os.waitpid(child, 0)[1]
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        stream.write(f"{os.waitstatus_to_exitcode(status)} {used.ru_utime + used.ru_stime}\n")
        stream.flush()
        os._exit(0)


if __name__ == "__main__":
    serve(sys.argv[1])
