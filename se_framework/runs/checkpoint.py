"""A checkpoint is one safetensors file: tensors as bytes, everything else as JSON in its header, a checksum over all.

Nothing in it is ever unpickled, any program that reads safetensors can look inside, and one flipped bit anywhere in
the file is noticed.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse
from safetensors.torch import save as serialise
from torch import Tensor

from se_framework.reading import opened, parse_json, text

_BLANK = b"0" * 64
_LARGEST_HEADER = 10**8  # bytes, safetensors' own limit
_DIGEST = re.compile(rb'"sha256":"([0-9a-f]{64})"')


class DamagedError(ValueError):
    """Bytes that are no whole checkpoint of ours."""


def encode(state: dict[str, Any]) -> bytearray:
    """Return a checkpoint's bytes.

    Args:
        state: tensors, numbers, texts and None, in dicts (keys: texts and whole numbers), lists and tuples.

    Raises:
        TypeError: something else is in there; the message says where.
    """
    tensors: dict[str, Tensor] = {}
    header = {"state": json.dumps(_outline(state, "", tensors), allow_nan=False), "sha256": _BLANK.decode()}
    content = bytearray(serialise(tensors, header))
    start = _digest_at(content)
    content[start : start + len(_BLANK)] = hashlib.sha256(content).hexdigest().encode()
    return content


def decode(content: bytes | bytearray, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Return the state a checkpoint's bytes hold.

    Args:
        content: of a whole file.
        device: where the tensors are put.

    Raises:
        DamagedError: the checksum does not hold, or the file is none of ours.
    """
    start = _digest_at(content)
    digest, view = hashlib.sha256(), memoryview(content)
    for piece in (view[:start], _BLANK, view[start + len(_BLANK) :]):  # no copies: it may be large
        digest.update(piece)
    if digest.hexdigest() != bytes(view[start : start + len(_BLANK)]).decode():
        raise DamagedError("its checksum does not hold")
    try:
        size = int.from_bytes(content[:8], "little")
        header = parse_json(bytes(content[8 : 8 + size]))["__metadata__"]
        tensors, outline = parse(bytes(content)), parse_json(text(header["state"]))
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise DamagedError("it is no checkpoint of ours") from error
    tensors = {name: tensor.to(device) for name, tensor in tensors.items()}
    try:
        state = _filled(outline, tensors)
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError("it is no checkpoint of ours") from error
    if not isinstance(state, dict):
        raise DamagedError("it is no checkpoint of ours")
    return state


def read(file: Path, device: torch.device | str = "cpu", largest: int | None = None) -> dict[str, Any]:
    """Return the state a checkpoint holds.

    Args:
        file: its path.
        device: where the tensors are put.
        largest: bytes it may have, see :func:`se_framework.training.fitting.largest`; None for any number.

    Raises:
        FileNotFoundError: there is none.
        UnreadableError: it is no regular file, or too large.
        DamagedError: see :func:`decode`.
    """
    with opened(file, largest) as (stream, size):
        head = int.from_bytes(stream.read(8), "little")
        if not 0 < head <= min(_LARGEST_HEADER, size - 8):
            raise DamagedError("it is cut short, or no checkpoint of ours")
        claimed = _claimed(stream.read(head))
        if claimed != size - 8 - head:  # a file of zeros without end is known before they are read
            raise DamagedError("it is cut short, or no checkpoint of ours")
        stream.seek(0)
        return decode(stream.read(size), device)


def _claimed(header: bytes) -> int:
    """Return the bytes of all tensors that a header names, each by its type and shape."""
    try:
        found, total = parse_json(header), 0
        for name, tensor in found.items():
            if name != "__metadata__":
                first, last = tensor["data_offsets"]
                total += last - first
        return total
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError("it is no checkpoint of ours") from error


def _digest_at(content: bytes | bytearray) -> int:
    """Return where the checksum stands: in the header, whose texts have their quotes escaped."""
    size = int.from_bytes(content[:8], "little")
    found = _DIGEST.search(content[: 8 + size]) if 8 + size <= len(content) else None
    if found is None:
        raise DamagedError("it is cut short, or no checkpoint of ours")
    return found.start(1)


def _outline(node: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """Return a node as JSON, its tensors taken out into ``tensors`` under their paths."""
    if path in tensors:
        raise TypeError(f"{path} is there twice: as a text and as a whole number")
    if isinstance(node, Tensor):
        tensors[path] = node.detach().to("cpu", copy=True).contiguous()
        return {"tensor": path}
    if isinstance(node, dict):
        if any(not isinstance(key, (str, int)) for key in node):
            raise TypeError(f"{path or 'the state'} has keys that are neither text nor whole number")
        return {"items": [[key, _outline(value, f"{path}/{key}".lstrip("/"), tensors)] for key, value in node.items()]}
    if isinstance(node, (list, tuple)):
        parts = [_outline(value, f"{path}/{i}", tensors) for i, value in enumerate(node)]
        return {"tuple": parts} if isinstance(node, tuple) else parts
    if isinstance(node, float) and not math.isfinite(node):
        return {"number": str(node)}  # JSON has none
    if node is None or isinstance(node, (bool, int, float, str)):
        return node
    raise TypeError(f"{path} is a {type(node).__name__}; a checkpoint holds tensors, numbers and texts")


def _filled(node: Any, tensors: dict[str, Tensor]) -> Any:
    """Return the node that :func:`_outline` made into JSON."""
    if isinstance(node, list):
        return [_filled(part, tensors) for part in node]
    if isinstance(node, dict):
        ((kind, inner),) = node.items()
        if kind == "tensor":
            return tensors[inner]
        if kind == "items":
            return {key: _filled(value, tensors) for key, value in inner}
        if kind == "number":
            return float(inner)
        if kind == "tuple":
            return tuple(_filled(part, tensors) for part in inner)
        raise ValueError(f"unknown kind {kind}")
    return node
