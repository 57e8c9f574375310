"""Data files that say more than, or something else than, what a reader believes."""

import io
import pickle
import struct
import tracemalloc
import warnings
import zipfile
import zlib

import numpy as np
import pytest
import torch

from se_framework.data import ArrayData, ImageFolder, TensorData
from se_framework.data.images import read_image
from se_framework.data.readers import read_array
from se_framework.errors import DataError

# -- .pt: one reader --------------------------------------------------------------------------------------------------

KEPT = {
    "a view": torch.arange(24.0).view(4, 6).T[1:5, ::2],
    "a parameter": torch.nn.Parameter(torch.ones(5, 2)),
    "bfloat16": torch.ones(5, 2, dtype=torch.bfloat16),
    "bool": torch.ones(5, 2, dtype=torch.bool),
    "uint16": torch.tensor([3, 60_000], dtype=torch.uint16),
    "no rows": torch.zeros(0, 3),
    "one number": torch.tensor(3.0),
    "expanded": torch.arange(3.0).expand(4, 3),
    "int64": torch.arange(10).view(5, 2),
}


@pytest.mark.parametrize("name", KEPT)
def test_every_plain_tensor_is_read_as_torch_reads_it(name, tmp_path):
    torch.save(KEPT[name], tmp_path / "a.pt")
    found = read_array(tmp_path / "a.pt")
    wanted = torch.load(tmp_path / "a.pt", weights_only=True).detach()
    assert found.dtype == wanted.dtype and torch.equal(found, wanted) and found.is_contiguous()


def saved(value):
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def rewritten(content, change):
    """Return an archive whose members a function changes: (name, content) pairs."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w") as new, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of two members of one name
        for name, inner in change([(m.filename, old.read(m)) for m in old.infolist()]):
            new.writestr(name, inner)
    return buffer.getvalue()


def bad_indices():
    """Return a sparse tensor whose column lies beyond its shape."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        good = torch.sparse_csr_tensor([0, 1, 2], [0, 1], [1.0, 2.0], (2, 2))
    column = torch.tensor([0, 1]).numpy().tobytes()
    return rewritten(
        saved(good), lambda ms: [(n, c.replace(column, b"\xff" * 6 + b"\x0f\0" + column[8:])) for n, c in ms]
    )


def patched(old, new):
    return lambda: rewritten(saved(torch.zeros(3)), lambda ms: [(n, c.replace(old, new)) for n, c in ms])


HUGE = b"J\xff\xff\xff\x7f"
STRANGE = {
    "indices": bad_indices,
    "coo": lambda: saved(torch.eye(4).to_sparse()),
    "size": patched(b"K\x03\x85", HUGE + b"\x85"),
    "offset": patched(b"K\x00K\x03\x85", HUGE + b"K\x03\x85"),
    "negative": patched(b"K\x00K\x03\x85", b"J\xff\xff\xff\xffK\x03\x85"),
    "stride": patched(b"K\x01\x85", HUGE + b"\x85"),
    "another call": patched(b"_rebuild_tensor_v2", b"_rebuild_sparse_xx"),
    "no storage": patched(b"X\x01\0\0\x000", b"X\x01\0\0\x009"),
    "bytearray": patched(b"ctorch._utils\n_rebuild_tensor_v2\n", b"cbuiltins\nbytearray\n"),
    "key": patched(b"X\x01\0\0\x000", b"K\x07"),
    "cut": lambda: saved(torch.zeros(1000))[:-500],
    "other end": lambda: rewritten(
        saved(torch.zeros(3)), lambda ms: [(n, b"big" if n.endswith("byteorder") else c) for n, c in ms]
    ),
}


@pytest.mark.parametrize("name", STRANGE)
def test_a_tensor_that_its_file_does_not_hold_is_refused(name, tmp_path):
    (tmp_path / "a.pt").write_bytes(STRANGE[name]())
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="a.pt"):
            read_array(tmp_path / "a.pt")
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


def test_the_pickle_that_is_checked_is_the_one_that_is_read(tmp_path):
    """A pickle before the archive, and members whose names differ by case, led the checker and torch apart."""
    bomb = pickle.dumps(bytearray(10))
    plain = saved(torch.arange(8.0))
    (tmp_path / "a.pt").write_bytes(bomb + plain)
    (tmp_path / "b.pt").write_bytes(
        rewritten(plain, lambda ms: [("archive/DATA.PKL", bomb), *ms, ("x/data.pkl", bomb)])
    )
    # Python's own reader would make room for 2^31 entries.
    (tmp_path / "c.pt").write_bytes(
        rewritten(plain, lambda ms: [(n, c.replace(b"q\x01", b"r\xff\xff\xff\x7f")) for n, c in ms])
    )
    for name in "abc":
        assert torch.equal(read_array(tmp_path / f"{name}.pt"), torch.arange(8.0))


def test_an_array_in_an_archive_is_checked_whatever_its_name(tmp_path):
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }\n"
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + b"\0" * 64)
    with pytest.raises(DataError, match="claims an array of shape"):
        read_array(tmp_path / "a.npz")


# -- numbers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0,1\n0.5,2.5\n1.5,3\n", "begins with '0,1' .*; write|names the columns, write 0.0 for 0 if"),
        ("2019,2020\n1.5,2\n3,4.5\n", "begins with '2019,2020'"),
        ("a,b\n1,2020_01_01\n", "has '2020_01_01' in line 2, column 2"),
        ("1,2\n\u0663,4\n", "column 1"),
    ],
)
def test_cells_that_are_no_numbers_of_a_table(text, words, tmp_path):
    (tmp_path / "a.csv").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=words):
        read_array(tmp_path / "a.csv")


@pytest.mark.parametrize(
    "text",
    [
        "0,1\n2,3\n4.5,6\n",
        "1,2\n3,4\n",
        "a,b\n0,1\n0.5,2.5\n",
        "0.0,1.0\n0.5,2.5\n",
        "0,1,5\n.5,2,3.5\n",
        "0\n0.5\n",
        "1e3,-2\n+.5,inf\n",
    ],
)
def test_rows_that_may_be_rows_are_rows(text, tmp_path):
    (tmp_path / "a.csv").write_text(text)
    wanted = [[float(c) for c in line.split(",")] for line in text.replace("a,b\n", "").split()]
    assert read_array(tmp_path / "a.csv").tolist() == wanted


def test_masked_numbers_are_not_trained_on():
    rows = np.arange(20.0).reshape(10, 2)
    masked = np.ma.masked_where(rows > 17, rows)
    with pytest.raises(DataError, match="has 2 masked values; fill them, or leave out their rows"):
        TensorData(masked)
    with pytest.raises(DataError, match="masked values"):
        TensorData(rows, labels=np.ma.array([0, 1] * 5, mask=[1] + [0] * 9))
    assert TensorData(np.ma.array(rows)).train_size == 9  # nothing of it is masked
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tensor = torch.masked.masked_tensor(torch.tensor(rows), torch.tensor(rows) < 5)
    with pytest.raises(DataError, match="masked tensor"):
        TensorData(tensor)


# -- images -----------------------------------------------------------------------------------------------------------


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width, height, depth, colour, key, rows):
    """Return a PNG file, colour 0 grey or 2 RGB, with a transparent colour (two bytes a channel)."""
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"tRNS", key)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("depth", "colour", "key", "row", "wanted"),
    [
        (16, 0, ">H", [1000, 40_000], [255, 156]),
        (8, 0, ">H", [10, 200], [255, 200]),
        (4, 0, ">H", [3, 10], [255, 170]),
        (2, 0, ">H", [1, 2], [255, 170]),
        (16, 2, ">HHH", [1000, 2000, 3000, 40_000, 40_000, 40_000], [255, 156]),
        (8, 2, ">HHH", [1, 2, 3, 90, 90, 90], [255, 90]),
    ],
)
def test_a_transparent_colour_becomes_white_at_every_depth(depth, colour, key, row, wanted, tmp_path):
    """16 bits become 8 by v / 257: 40,000 / 257 = 155.6, and 40,000 >> 8 = 156; 4 and 2 bits by 17 and 85."""
    first = row[: len(row) // 2]
    packed = {
        16: lambda: struct.pack(f">{len(row)}H", *row),
        8: lambda: bytes(row),
        4: lambda: bytes([row[0] << 4 | row[1]]),
        2: lambda: bytes([row[0] << 6 | row[1] << 4]),
    }[depth]()
    (tmp_path / "a.png").write_bytes(png(2, 1, depth, colour, struct.pack(key, *first), b"\0" + packed))
    assert read_image(tmp_path / "a.png", None, True)[0, 0].tolist() == wanted


def test_an_image_of_one_pixel_by_many_takes_no_memory(tmp_path):
    (tmp_path / "a.png").write_bytes(png(1, 80_000_000, 8, 0, b"\0\0", b"\0" * 1000))
    tracemalloc.start()
    with pytest.raises(DataError, match="more than 65536 on a side"):
        read_image(tmp_path / "a.png", 8, True)
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()


def test_a_class_of_links_is_no_class_that_vanishes(tmp_path):
    from PIL import Image

    for name in ("a", "b", "real"):
        (tmp_path / name).mkdir()
        for i in range(3):
            Image.new("L", (4, 4), 9 * i).save(tmp_path / name / f"{i}.png")
    (tmp_path / "real").rename(tmp_path.parent / f"{tmp_path.name}_real")
    (tmp_path / "aa").symlink_to(tmp_path.parent / f"{tmp_path.name}_real")
    with pytest.warns(UserWarning, match="1 symbolic links in .* are not read, the first is 'aa'"):
        assert ImageFolder(tmp_path, size=4).class_names == ("a", "b")
    with pytest.raises(DataError, match="of the class 'aa' in .* there are symbolic links alone"):
        ImageFolder(tmp_path, size=4, labels=True)
    (tmp_path / "aa").unlink()
    (tmp_path / "aa").mkdir()
    (tmp_path / "aa" / "0.png").symlink_to(tmp_path / "a" / "0.png")
    with pytest.raises(DataError, match="of the class 'aa'"):
        ImageFolder(tmp_path, size=4, labels=True)


def test_a_file_with_bad_indices_ends_no_process(tmp_path):
    """It was a segmentation fault: the indices were believed when the tensor was made dense."""
    (tmp_path / "a.pt").write_bytes(bad_indices())
    with pytest.raises(DataError, match="a sparse or nested tensor"):
        ArrayData(tmp_path / "a.pt")
