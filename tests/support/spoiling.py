"""Files of a run as a stranger may hand them over: spoilt byte by byte, value by value, or not files at all."""

from __future__ import annotations

import copy
import csv
import io
import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import torch
import yaml

from se_framework.runs.checkpoint import decode, encode

NUMBERS = (0, -1, 1, 2**31, 2**53, 2**63, 2**64, 10**30, 0.5, -0.0, 1e308, float("inf"), float("nan"))
TEXTS = (
    "",
    "x",
    "nan",
    "1e999",
    "0x" + "f" * 6000,
    "\x1b]0;gone\x07\x1b[2J",
    "x" * 700_000,
    "\0",
    "\ud7ff\u202e",
    "$\\frac{",
    "9" * 5000,
    "../../x",
    "os.system",
    "${oc.env:HOME}",
    "\n\n",
    '"',
    "%s%n",
)
PLAIN: tuple[Any, ...] = (*NUMBERS, *TEXTS, None, True, [], {}, [[]], {"a": 1}, [1, "x", None])


def tensors() -> list[Any]:
    """Return tensors that fit nowhere, or hold what no run of ours does."""
    return [
        torch.zeros(()),
        torch.zeros(0),
        torch.zeros(3, 5),
        torch.full((8,), float("nan")),
        torch.zeros(8, dtype=torch.int8),
        torch.zeros(8, dtype=torch.bool),
        torch.zeros(8, dtype=torch.complex64),
        torch.full((), -(2**62)),
        torch.zeros(1, 2**20),
    ]


def places(node: Any, path: tuple = ()) -> list[tuple]:
    """Return where values stand in a tree of dicts and lists."""
    inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [place for key, value in inner for place in ((*path, key), *places(value, (*path, key)))]


def spoil_value(tree: Any, draw: random.Random, odd: tuple) -> Any:
    """Return a tree in which one value is another, missing, one too many, or nested deep."""
    tree = copy.deepcopy(tree)
    *parents, key = draw.choice(places(tree))
    node = tree
    for name in parents:
        node = node[name]
    how = draw.randrange(8)
    if how == 0:
        del node[key]
    elif how == 1:
        deep: Any = node[key]
        for _ in range(draw.choice((2, 40, 200))):
            deep = [deep] if draw.random() < 0.5 else {"a": deep}
        node[key] = deep
    elif how == 2 and isinstance(node, dict):
        node[draw.choice(("x", "\x1b[2J", "9" * 50, "7"))] = draw.choice(odd)
    else:
        node[key] = draw.choice(odd)
    return tree


def spoil_bytes(content: bytes, draw: random.Random) -> bytes:
    """Return other bytes."""
    at, length = draw.randrange(len(content) + 1), draw.choice((1, 3, 50, 5000))
    junk = draw.choice((b"\0", b"\xff", b"\x1b[31m", b"9", b"\n", b",", b"[", b"{", b'"', draw.randbytes(1)))
    return draw.choice(
        (
            lambda: content[:at],
            lambda: content[at:],
            lambda: b"",
            lambda: junk * 2**21,
            lambda: content[:at] + junk * length + content[at:],
            lambda: content[:at] + content[at + length :],
            lambda: content[:at] + junk * min(length, len(content) - at) + content[at + length :],
            lambda: content * 20,
            lambda: content[:at] + content[:at],
            lambda: draw.randbytes(length),
        )
    )()


def spoil_table(text: str, draw: random.Random) -> str:
    """Return a table with another cell, other columns or other rows."""
    rows = list(csv.reader(io.StringIO(text)))
    how, i = draw.randrange(7), draw.randrange(len(rows))
    j = draw.randrange(len(rows[i]))
    if how == 0:
        rows = [row[:j] + row[j + 1 :] for row in rows]
    elif how == 1:
        rows = [
            [*row, *(f"c{k}" if n == 0 else "1" for k in range(1200 if draw.random() < 0.2 else 900))]
            for n, row in enumerate(rows)
        ]
    elif how == 2:
        rows.append(rows[i])
    elif how == 3:
        rows[0] = draw.choice((["a", "b"], [], rows[0][::-1], ["round"] * len(rows[0])))
    else:
        rows[i][j] = draw.choice(
            (
                "",
                "x",
                "nan",
                "-1",
                "1.5",
                "1e999",
                "-inf",
                "1e308",
                "0x10",
                "9" * 5000,
                "y" * 200_000,
                "\x1b[2J",
                "$\\frac",
            )
        )
    out = io.StringIO()
    csv.writer(out).writerows(rows)
    return out.getvalue()


def spoil_checkpoint(content: bytes, draw: random.Random) -> bytes:
    """Return a checkpoint whose checksum holds, with another value in it."""
    state = spoil_value(decode(content), draw, (*PLAIN, *tensors()))
    try:
        return bytes(encode(state))
    except (TypeError, ValueError, RuntimeError):  # what cannot be written at all
        return spoil_bytes(content, draw)


def no_file(file: Path, draw: random.Random) -> None:
    """Put something in the place of a file that is none, or has no end."""

    def sparse() -> None:
        with open(file, "wb") as stream:
            stream.truncate(2 ** draw.choice((31, 41)))

    draw.choice(
        (
            lambda: None,
            lambda: os.mkfifo(file),
            file.mkdir,
            lambda: file.symlink_to("nowhere"),
            lambda: file.symlink_to("/dev/zero"),
            lambda: file.symlink_to(file.name),
            sparse,
        )
    )()


def spoil(run: Path, draw: random.Random) -> str:
    """Spoil one file of a run and return what was done, in words."""
    files = sorted(f for f in run.rglob("*") if f.is_file())
    file = draw.choices(files, [0.2 if f.suffix == ".png" else 1 for f in files])[0]
    content, kind = file.read_bytes(), file.suffix
    what = draw.random()
    file.unlink()
    if what < 0.12:
        no_file(file, draw)
        return f"{file.relative_to(run)}: no file"
    if what < 0.35 or kind in (".png", "", ".gif"):
        file.write_bytes(spoil_bytes(content, draw))
        return f"{file.relative_to(run)}: bytes"
    if kind == ".csv":
        file.write_text(spoil_table(content.decode(), draw), encoding="utf-8", errors="replace")
    elif kind == ".json":
        text = json.dumps(spoil_value(json.loads(content), draw, PLAIN))
        file.write_text(text.replace("Infinity", "1e999"))
    elif kind == ".yaml":
        file.write_text(
            yaml.safe_dump(
                spoil_value(yaml.safe_load(content), draw, tuple(v for v in PLAIN if v not in (2**31, 2**53)))
            )
        )
    else:
        file.write_bytes(spoil_checkpoint(content, draw))
    return f"{file.relative_to(run)}: values"


def copy_of(run: Path, where: Path) -> Path:
    """Return a fresh copy of a run."""
    shutil.rmtree(where, ignore_errors=True)
    shutil.copytree(run, where)
    return where
