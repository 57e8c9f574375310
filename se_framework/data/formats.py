"""Arrays in .npy, .npz and .pt files that others wrote: what a file claims is held against its size before it is read.

A header costs nothing to write, so a kilobyte may claim a terabyte; and a deflated byte may stand for a thousand. Here
nothing is allocated that the file does not hold (or, in an .npz, that compression does not explain), and no pickle is
run: a .pt file's is read as the list of instructions that it is. Members of archives are read by name and never written
to a path, so that names such as ``../x`` lead nowhere.
"""

from __future__ import annotations

import io
import math
import pickletools
import zipfile
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.lib import format as npy
from torch import Tensor

from se_framework.errors import DataError, nearest

SMALL = 2**28
"""Bytes (256 MB) that a compressed array may always unpack to: constant columns and masks shrink without limit."""
PACKED = 50
"""Above :data:`SMALL`, how many times its file an array may be: measured numbers shrink 2 to 10 times, small labels in
64 bits 20 to 40 times."""
DEFLATED_AT_MOST = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: 1032}
"""How many bytes one byte of a member can stand for, by the methods numpy writes: 258 per two bits, deflate's limit."""
HEADER = 10_000
"""Bytes of an .npy header: those of arrays of numbers have about a hundred."""
PICKLE = 2**12
"""Bytes of the pickle in a .pt file: that of one tensor has about two hundred."""


class Stored(NamedTuple):
    """What a pickle says of a storage: its type, the name of its record, its number of elements."""

    dtype: torch.dtype
    record: str
    numbers: int


class View(NamedTuple):
    """What a pickle says of a tensor."""

    storage: Stored
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def read_npy(file: Path, what: str) -> np.ndarray:
    """Return the array of an .npy file.

    Raises:
        DataError: it holds no numbers, or fewer than it claims.
        ValueError: it is damaged.
    """
    with file.open("rb") as stream:
        check_header(stream.read(HEADER + 12), file.stat().st_size, what)
        stream.seek(0)
        return npy.read_array(stream, allow_pickle=False)


def read_npz(file: Path, key: str | None, what: str) -> np.ndarray:
    """Return one array of an .npz file, by its name if there are several.

    Raises:
        DataError: no such array, it holds no numbers or fewer than it claims, or unpacks to more than it may.
        ValueError: it is damaged.
    """
    with zipfile.ZipFile(file) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        if not members:
            raise DataError(f"{what} holds no array; give a file with at least 4 rows")
        if key is None and len(members) > 1:
            choose = "choose one with data.key" if what.startswith("data.path") else "give a file with one array"
            raise DataError(f"{what} holds {len(members)} arrays ({_listed(members)}); {choose}")
        if key is not None and key not in members:
            raise DataError(f"data.key: no array {key!r} in {str(file)!r}; {nearest(key, map(_shown, members))}")
        info, size = members[key] if key is not None else next(iter(members.values())), file.stat().st_size
        if info.compress_type not in DEFLATED_AT_MOST:
            raise DataError(f"{what} is compressed by another method than numpy's; write it by np.savez")
        packed = min(info.compress_size, size)
        if info.file_size > max(DEFLATED_AT_MOST[info.compress_type] * packed, 2000):
            raise DataError(f"{what} claims {info.file_size} bytes where {packed} are stored; write it again")
        if info.file_size > max(SMALL, PACKED * size):
            raise DataError(
                f"{what} unpacks to {info.file_size} bytes, more than {PACKED} times the file: numbers do not shrink "
                "so far; if they are yours, write them by np.savez, which does not compress"
            )
        with archive.open(info) as stream:
            check_header(stream.read(HEADER + 12), info.file_size, what)
        with archive.open(info) as stream:
            return npy.read_array(stream, allow_pickle=False)


def check_header(head: bytes, size: int, what: str) -> None:
    """Refuse an array that is not of numbers, or of more than there are.

    Args:
        head: the first bytes.
        size: bytes of header and array.
        what: how an error names it.

    Raises:
        DataError: see above.
        ValueError: it is no .npy header.
    """
    if head[:1] == b"\x80" and head[1:2] <= b"\x05":
        raise DataError(f"{what} holds Python objects, which are never unpickled; give an array of numbers")
    stream = io.BytesIO(head)
    version = npy.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"version {version[0]}.{version[1]} of the format, which is for records")
    width = 2 if version == (1, 0) else 4
    length = int.from_bytes(head[8 : 8 + width], "little")
    if length > HEADER:
        raise ValueError(f"a header of {length} bytes")
    try:
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read(stream)
    except Exception as error:  # noqa: BLE001  numpy gives the text to Python's parser, which may raise anything
        raise ValueError(f"its header is damaged: {type(error).__name__}") from error
    check_dtype(dtype, what)
    claimed = stream.tell() + math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or claimed > size:
        raise DataError(f"{what} claims shape {shape} of {dtype}, {claimed} bytes, and has {size}; write it again")


def check_dtype(dtype: np.dtype, what: str) -> None:
    """Refuse what is not a type of numbers.

    Raises:
        DataError: objects, text, records or dates.
    """
    if dtype.hasobject:
        raise DataError(f"{what} holds Python objects, which are never unpickled; give an array of numbers")
    if dtype.kind not in "biufc":
        raise DataError(f"{what} holds values of type {dtype}; give an array of real numbers")


def read_pt(file: Path) -> Tensor:
    """Return the tensor of a .pt file that ``torch.save(tensor, path)`` wrote (torch 1.6 or later).

    Raises:
        ValueError: it holds anything else, or is damaged.
    """
    with zipfile.ZipFile(file) as archive:
        members = {info.filename.partition("/")[2]: info for info in archive.infolist()}

        def record(name: str, most: int) -> bytes:
            info = members.get(name)
            if info is None or info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
                raise ValueError(f"its record {name} is absent or compressed, which torch's never are")
            if info.file_size > most:
                raise ValueError(f"its record {name} has {info.file_size} bytes where {most} are expected")
            return archive.read(info)

        view = described(record("data.pkl", PICKLE))
        if "byteorder" in members and record("byteorder", 10) != b"little":
            raise ValueError("its byte order is not little-endian")
        dtype, name, count = view.storage
        content = record(f"data/{name}", count * dtype.itemsize)
    if len(content) != count * dtype.itemsize:
        raise ValueError(f"it claims {count} numbers and holds {len(content)} bytes")
    reach = view.offset + sum((n - 1) * step for n, step in zip(view.size, view.stride, strict=True)) + 1
    if 0 in view.size:
        return torch.empty(view.size, dtype=dtype)
    if reach > count or math.prod(view.size) > count:
        raise ValueError(f"shape {view.size} is more than the {count} numbers it holds; save a .clone()")
    raw = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    flat = raw != 0 if dtype is torch.bool else raw.view(dtype)  # a byte of 2 is no bool
    return flat.as_strided(view.size, view.stride, view.offset).contiguous()


_STORAGES = {
    "torch.FloatStorage": torch.float32, "torch.DoubleStorage": torch.float64, "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16, "torch.LongStorage": torch.int64, "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16, "torch.CharStorage": torch.int8, "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool, "torch.ComplexFloatStorage": torch.complex64,
    "torch.ComplexDoubleStorage": torch.complex128,
}  # fmt: skip
_PUSHES = {"BINUNICODE", "SHORT_BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1"}
_CONSTANTS: dict[str, Any] = {"NEWFALSE": False, "NEWTRUE": True, "EMPTY_TUPLE": ()}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_MARK = object()


class _Name(str):
    """A global that a pickle names: a text here, whatever it is."""


def described(pickled: bytes) -> View:
    """Return what the pickle of one tensor says, without running it.

    A pickle is a program for a stack machine. This one knows the few instructions that torch writes for a tensor, and
    of the calls among them makes none: it notes their arguments.

    Raises:
        ValueError: another instruction, another name, or another result.
    """
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    try:
        for opcode, given, _ in pickletools.genops(pickled):
            name, argument = opcode.name, cast(Any, given)
            if name in _PUSHES:
                stack.append(argument)
            elif name in _CONSTANTS:
                stack.append(_CONSTANTS[name])
            elif name == "MARK":
                stack.append(_MARK)
            elif name == "TUPLE" or name in _TUPLES:
                start = len(stack) - _TUPLES[name] if name in _TUPLES else _last_mark(stack)
                items = tuple(item for item in stack[start:] if item is not _MARK)
                stack[start:] = [items]
            elif name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
                memo[len(memo) if argument is None else argument] = stack[-1]
            elif name in ("BINGET", "LONG_BINGET"):
                stack.append(memo[argument])
            elif name == "GLOBAL":
                stack.append(_Name(argument.replace(" ", ".")))
            elif name == "STACK_GLOBAL":
                stack[-2:] = [_Name(".".join(stack[-2:]))]
            elif name == "BINPERSID":
                _, kind, record, _, count = stack.pop()
                stack.append(Stored(_STORAGES[_text(kind)], _text(record), _whole(count)))
            elif name == "REDUCE":
                arguments = stack.pop()
                stack[-1] = _noted(stack[-1], arguments)
            elif name not in ("PROTO", "FRAME", "STOP"):
                raise ValueError(f"its pickle has the instruction {name}, which that of one tensor has not")
        (view,) = stack
    except (LookupError, TypeError, AttributeError, StopIteration) as error:
        raise ValueError("its pickle is not that of one tensor") from error
    if not isinstance(view, View):
        raise ValueError("its pickle is not that of one tensor")
    return view


def _noted(function: Any, arguments: tuple[Any, ...]) -> Any:
    """Return what a call in a tensor's pickle stands for."""
    if function == "torch._utils._rebuild_tensor_v2" and isinstance(arguments[0], Stored):
        storage, offset, size, stride = arguments[:4]
        if len(size) != len(stride):
            raise ValueError("its pickle is not that of one tensor")
        return View(storage, _whole(offset), tuple(map(_whole, size)), tuple(map(_whole, stride)))
    if function == "torch._utils._rebuild_parameter" and isinstance(arguments[0], View):
        return arguments[0]
    if function == "collections.OrderedDict" and arguments == ():
        return None  # hooks: a tensor that is data has none
    shown = function if isinstance(function, _Name) else "what it built"
    raise ValueError(f"its pickle calls {_shown(shown)}, which that of one dense tensor does not")


def _last_mark(stack: list[Any]) -> int:
    return next(i for i in reversed(range(len(stack))) if stack[i] is _MARK)


def _whole(number: Any) -> int:
    if type(number) is not int or number < 0:
        raise ValueError("its pickle is not that of one tensor")
    return number


def _text(item: Any) -> str:
    # A tuple of tuples of one tuple has a text, and a hash, that grows with the power of its depth.
    if not isinstance(item, str):
        raise ValueError("its pickle is not that of one tensor")
    return item


def _shown(name: str) -> str:
    """Return a name out of a file for a message: a terminal obeys what is not printable, and lines stay lines."""
    plain = name if name.isprintable() else repr(name)[1:-1]
    return plain if len(plain) <= 60 else f"{plain[:57]}..."


def _listed(names: Any) -> str:
    first = [_shown(name) for name in list(names)[:10]]
    return ", ".join(first) + (", ..." if len(names) > 10 else "")
