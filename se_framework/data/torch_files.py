"""One tensor from a .pt file, without torch's reader and without unpickling: what is checked is what is read.

Such a file is a zip archive: bytes of storages, and a pickle that says how a tensor lies in them. Of the pickle's
instructions those that a tensor takes are followed here, on a stack of plain values; a call is kept as its name and its
arguments. Sparse and quantised layouts are refused: their indices would have to be believed.
"""

from __future__ import annotations

import math
import pickletools
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from se_framework.data.guards import RATIO, SMALL
from se_framework.errors import DataError

WRITE = "torch.save(tensor, path)"
LARGEST_PICKLE = 2**16
"""Bytes of the pickle in a .pt file: that of one tensor has about two hundred."""
PICKLED = ("torch", "torch._utils", "torch.storage", "torch.serialization", "collections")
"""Modules a tensor's pickle names."""
_BUILD = ("torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_tensor_v3")
_STORAGES = {
    "Float": torch.float32, "Double": torch.float64, "Half": torch.float16, "BFloat16": torch.bfloat16,
    "Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8,
    "Bool": torch.bool, "ComplexFloat": torch.complex64, "ComplexDouble": torch.complex128,
}  # fmt: skip


class Name(str):
    """A module and a name in it, as a pickle has them."""


class Call(NamedTuple):
    """A call that a pickle asks for; it is never made."""

    name: Any
    arguments: Any


class Stored(NamedTuple):
    """A storage that a pickle refers to."""

    reference: Any


class _NotPlainError(Exception):
    """The archive holds no plain tensor; the message says what."""


def read_tensor(file: Path, what: str) -> Tensor:
    """Return the one tensor of a .pt file, contiguous, on the CPU.

    Args:
        file: an existing file.
        what: how an error names it.

    Raises:
        DataError: it holds anything else, is damaged, compressed, or would unfold to far more than it is.
    """
    if not zipfile.is_zipfile(file):
        raise DataError(f"{what} holds no plain tensor or is damaged; write it by {WRITE} (torch 1.6 or later)")
    size = file.stat().st_size
    try:
        with zipfile.ZipFile(file) as archive:
            total = sum(member.file_size for member in archive.infolist())
            if total > size:  # torch compresses nothing
                raise DataError(f"{what} has {size} bytes and would unfold to {total}; write it without compression")
            member = next((m for m in archive.infolist() if m.filename.endswith("/data.pkl")), None)
            if member is None or member.file_size > LARGEST_PICKLE:
                raise _NotPlainError("no plain tensor")
            found = _value(archive.read(member))
            return _tensor(found, archive, member.filename.removesuffix("data.pkl"), max(SMALL, RATIO * size), what)
    except DataError:
        raise
    except _NotPlainError as error:
        raise DataError(f"{what} holds {error}, and nothing else is unpickled; write one tensor by {WRITE}") from error
    except (
        zipfile.BadZipFile, ArithmeticError, AttributeError, EOFError, LookupError, NotImplementedError, RuntimeError,
        TypeError, ValueError, struct.error,
    ) as error:  # fmt: skip
        raise DataError(
            f"{what} holds no plain tensor or is damaged, and nothing else is unpickled; write it by {WRITE}"
        ) from error


def _tensor(found: Any, archive: zipfile.ZipFile, root: str, most: int, what: str) -> Tensor:
    """Return the tensor that a call describes, every number of it checked against the storage."""
    if isinstance(found, Call) and found.name == "torch._utils _rebuild_parameter":
        found = found.arguments[0]
    if not isinstance(found, Call):
        raise DataError(f"{what} holds a {type(found).__name__}; it must hold one tensor, of shape (rows, ...)")
    if "sparse" in str(found.name) or "nested" in str(found.name):
        raise _NotPlainError("a sparse or nested tensor (give tensor.to_dense())")
    if found.name not in _BUILD or not isinstance(found.arguments, tuple):
        raise _NotPlainError("no plain tensor")
    storage, offset, shape, stride, _, _, *more = found.arguments
    _, kind, key, _, count = storage.reference
    if found.name == _BUILD[1]:
        dtype, more = getattr(torch, more[0].removeprefix("torch "), None), more[1:]
    else:
        dtype = _STORAGES.get(kind.removeprefix("torch ").removesuffix("Storage"))
    if more or not isinstance(dtype, torch.dtype):
        raise _NotPlainError("no plain tensor")
    whole = [offset, count, *shape, *stride]
    if not all(type(n) is int and 0 <= n < 2**62 for n in whole) or len(shape) != len(stride) or len(shape) > 64:
        raise _NotPlainError("no plain tensor")
    content, values = archive.read(f"{root}data/{key}"), math.prod(shape)
    last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True)) if values else -1
    if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") != b"little":
        raise _NotPlainError("numbers of another byte order")
    if (last + 1) * dtype.itemsize > len(content):
        raise _NotPlainError("a tensor that its file does not contain")
    if values * dtype.itemsize > most:  # more than the storage where strides are zero
        raise DataError(f"{what} would unfold to {values * dtype.itemsize} bytes; save a contiguous tensor")
    if not values:
        return torch.empty(shape, dtype=dtype)
    flat = torch.frombuffer(bytearray(content[: (last + 1) * dtype.itemsize]), dtype=dtype)
    return flat.as_strided(shape, stride, offset).clone(memory_format=torch.contiguous_format)


def _value(pickled: bytes) -> Any:
    """Return what a pickle describes, with its calls and references as they stand."""
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def since_mark() -> list[Any]:
        start = marks.pop()
        taken = stack[start:]
        del stack[start:]
        return taken

    def call() -> Call:
        arguments, name = stack.pop(), stack.pop()
        return Call(name, arguments)

    def items(pairs: list[Any]) -> None:
        stack[-1].update(zip(pairs[::2], pairs[1::2], strict=True))

    def extend(taken: list[Any]) -> None:
        stack[-1].extend(taken)

    push: dict[str, Callable[[Any], Any]] = {
        "GLOBAL": Name, "NONE": lambda _: None, "NEWTRUE": lambda _: True, "NEWFALSE": lambda _: False,
        "EMPTY_TUPLE": lambda _: (), "EMPTY_DICT": lambda _: {}, "EMPTY_LIST": lambda _: [],
        "TUPLE": lambda _: tuple(since_mark()), "TUPLE1": lambda _: (stack.pop(),),
        "TUPLE2": lambda _: (stack.pop(-2), stack.pop()),
        "TUPLE3": lambda _: (stack.pop(-3), stack.pop(-2), stack.pop()),
        "BINPERSID": lambda _: Stored(stack.pop()), "REDUCE": lambda _: call(),
        **dict.fromkeys(("BINGET", "LONG_BINGET"), lambda n: memo[n]),
        **dict.fromkeys(("BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"), lambda value: value),
    }  # fmt: skip
    change: dict[str, Callable[[Any], Any]] = {
        "PROTO": lambda _: None, "MARK": lambda _: marks.append(len(stack)),
        "SETITEM": lambda _: items([stack.pop(-2), stack.pop()]), "SETITEMS": lambda _: items(since_mark()),
        "APPEND": lambda _: stack[-2].append(stack.pop()), "APPENDS": lambda _: extend(since_mark()),
        **dict.fromkeys(("BINPUT", "LONG_BINPUT"), lambda n: memo.update({n: stack[-1]})),
    }  # fmt: skip

    for code, argument, _ in pickletools.genops(pickled):
        if code.name == "STOP":
            return stack.pop()
        if code.name == "GLOBAL" and str(argument).partition(" ")[0] not in PICKLED:
            raise _NotPlainError("more than a tensor")
        if code.name in push:
            stack.append(push[code.name](argument))
        elif code.name in change:
            change[code.name](argument)
        else:
            raise _NotPlainError("more than a tensor")
    raise _NotPlainError("no plain tensor")
