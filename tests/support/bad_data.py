"""Bad files of data, and bad arguments of ``se-sample`` and ``se-eval``."""

from __future__ import annotations

import io
import os

import numpy as np
import torch
from hypothesis import strategies as st
from PIL import Image

from tests.support.bad_input import SHORT, Case

GOOD = np.random.default_rng(0).normal(size=(50, 2))


def saved(array, kind=".npy"):
    """Return the bytes of a file of that kind."""
    stream = io.BytesIO()
    if kind == ".npy":
        np.save(stream, array, allow_pickle=True)
    elif kind == ".npz":
        np.savez(stream, **(array if isinstance(array, dict) else {"a": array}))
    elif kind == ".pt":
        torch.save(torch.as_tensor(array) if isinstance(array, np.ndarray) else array, stream)
    else:
        np.savetxt(stream, array, delimiter=",")
    return stream.getvalue()


WITH_HOLES = np.where(GOOD > 1, np.nan, GOOD)
ARRAYS = {
    "no rows": np.zeros((0, 2)), "one row": np.zeros((1, 2)), "three rows": np.zeros((3, 2)),
    "no columns": np.zeros((5, 0)),
    "scalar": np.array(3.0), "nan": WITH_HOLES, "inf": np.where(GOOD > 1, np.inf, GOOD), "complex": GOOD + 1j,
    "-inf": np.where(GOOD > 2, -np.inf, GOOD), "empty": np.zeros(0), "no columns 3d": np.zeros((9, 2, 0)),
    "beyond float64's square": GOOD * 1e300,
}  # fmt: skip
# Legal, and not here: constant columns (they are only shifted), 1e39 in float64 (standardised first), float8 and
# float16, long doubles, a file of another of our kinds under .npy or .npz (numpy tells by the content).
NUMPY_ONLY = {
    "texts": np.array(["a", "b", "c", "d", "e"]), "records": np.zeros(5, dtype=[("a", "f4")]),
    "dates": np.array(["2020-01-01"] * 5, dtype="M8[D]"), "bytes": np.array([b"a"] * 9),
    "spans": np.zeros(9, dtype="m8[s]"), "void": np.zeros(9, dtype="V4"),
}  # fmt: skip
TORCH_ONLY = {
    "dict": {"a": torch.zeros(9, 2)}, "list": [torch.zeros(9, 2)], "number": 3, "text": "abc", "none": None,
    "parameters": torch.nn.Linear(2, 2).state_dict(), "meta": torch.empty(9, 2, device="meta"),
}  # fmt: skip
TABLES = {
    "empty": "", "blank": "\n\n \n", "headers": "a,b\n", "one row": "1,2\n", "three rows": "1,2\n" * 3,
    "semicolons": "a;b\n" + "1;2\n" * 20, "mixed": "1,2\n3;4\n" * 10, "tabs": "1\t2\n" * 20,
    "ragged": "1,2\n1,2,3\n" * 5,
    "words": "1,2\nfoo,bar\n" * 5, "two headers": "a,b\nc,d\n" + "1,2\n" * 9, "nan": "1,2\nnan,2\n" * 5,
    "gaps": "1,\n" * 9,
    "inf": "1e999,2\n" * 9, "hexadecimal": "0x1,2\n" * 9, "decimal commas": '"1,5","2,5"\n' * 9,
    "NUL": "1,2\n\0,3\n" * 5,
    "quote": '"1,2\n' * 9, "long cell": "1," + "x" * 200_000 + "\n", "complex": "1+2j,2\n" * 9,
    "dates": "2020-01-01,2\n" * 9,
    "spaces": "1 2\n" * 9, "percent": "1%,2\n" * 9, "json": '[{"a": 1}]\n', "html": "<html><body>\n" * 9,
    "latin-1": "a,\u00e9\n1,2\n".encode("latin-1") * 9, "utf-16": "1,2\n".encode("utf-16") * 9,
    "binary": b"\x80\x81\x82" * 99,
}  # fmt: skip


def array_case(name, prepare, what, *arguments, names=("data",)):
    """Return a case of ``data=array`` with a file that ``prepare`` writes."""
    return Case("data file", (*SHORT, "data=array", f'data.path="{{here}}/{name}"', *arguments), names, prepare, what)


def file_case(name, content, what=""):
    content = content if isinstance(content, bytes) else content.encode()
    return array_case(name, lambda here, run: (here / name).write_bytes(content), what)


@st.composite
def shaped(draw):
    """A whole file of a kind we read, with an array that is no table of finite real numbers."""
    kind = draw(st.sampled_from([".npy", ".npz", ".pt"]))
    arrays = ARRAYS | (TORCH_ONLY if kind == ".pt" else NUMPY_ONLY)
    name = draw(st.sampled_from(sorted(arrays)))
    stem = draw(st.sampled_from(["rows", "a b", "a,b", "a=b", "\u00e9\u4e2d", "(1)", "a'b", "#", "~", "-x", "..a"]))
    return file_case(f"{stem}{kind}", saved(arrays[name], kind), name)


@st.composite
def truncated(draw):
    """The beginning of a good file."""
    kind = draw(st.sampled_from([".npy", ".npz", ".pt"]))
    content = saved(GOOD, kind)
    length = draw(st.integers(0, len(content) - 1))
    # A cut zip archive lacks its directory, a cut .npy rows; both are always noticed.
    return file_case(f"rows{kind}", content[:length], f"cut to {length}")


@st.composite
def flipped(draw):
    """A good file with a byte changed where its format notices: in the magic, the header, the archive's directory."""
    kind = draw(st.sampled_from([".npy", ".npz"]))
    content = bytearray(saved(GOOD, kind))
    at = draw(st.integers(0, 9)) if kind == ".npy" else draw(st.sampled_from([*range(4), *range(-22, -18)]))
    content[at] ^= draw(st.sampled_from([0xFF, 0x80, 0x11]))
    return file_case(f"rows{kind}", bytes(content), f"byte {at} is {content[at]}")


@st.composite
def garbage(draw):
    """Bytes that are no file of the kind."""
    kind = draw(st.sampled_from([".npy", ".npz", ".pt"]))
    content = draw(st.binary(min_size=1, max_size=60))
    start = {".npy": b"\x93NUMPY", ".npz": b"PK\x03\x04", ".pt": b"PK\x03\x04"}[kind] if draw(st.booleans()) else b""
    return file_case(f"rows{kind}", start + content, repr(content))


tables = st.builds(lambda name, ext: file_case(f"rows{ext}", TABLES[name], name), st.sampled_from(sorted(TABLES)),
                   st.sampled_from([".csv", ".CSV"]))  # fmt: skip
extensions = st.sampled_from(
    [".txt", "", ".np", ".npy.gz", ".tsv", ".xlsx", ".pkl", ".json", ".parquet", ".h5", ".csv~"]
).map(lambda ext: file_case(f"rows{ext}", "1,2\n" * 9, ext))


def special(name, kind):
    """Return a case whose file is no regular one."""

    def prepare(here, run):
        file = here / name
        if kind == "directory":
            file.mkdir()
        elif kind == "pipe":
            os.mkfifo(file)
        elif kind != "missing":
            target = {"dangling": "nowhere", "circle": name, "device": "/dev/zero", "null": "/dev/null", "here": "."}[
                kind
            ]
            file.symlink_to(target)

    return array_case(name, prepare, kind)


specials = st.builds(special, st.sampled_from(["rows.npy", "rows.npz", "rows.pt", "rows.csv", "rows.png"]),
                     st.sampled_from(["directory", "pipe", "missing", "dangling", "circle", "device", "null",
                     "here"]))  # fmt: skip
PATHS = ["null", "''", "3", "true", "[a]", "{a:1}", "a" * 300 + ".npy", '"a\\\\b.npy"', "~nosuchuser/x.npy", ".",
"..", "/",
         "/dev/zero", "/dev/stdin", "/proc/self/mem", "{here}", "{here}/x.npy/y.npy", "nan", "\u4e2d.npy",
         "???"]  # fmt: skip


def odd_path(group, value):
    return Case("data file", (*SHORT, f"data={group}", f"data.path={value}"), ("data",))


paths = st.builds(odd_path, st.sampled_from(["array", "image_folder"]), st.sampled_from(PATHS))

LABELS = {
    "short": np.zeros(3, int), "negative": -np.ones(50, int), "one class": np.zeros(50, int), "gaps": np.arange(50) * 2,
    "fractions": np.arange(50) / 2, "nan": np.full(50, np.nan), "texts": np.array(["a"] * 50),
    "two columns": np.zeros((50, 2)),
    "complex": np.arange(50) * 1j, "none": np.zeros(0), "scalar": np.array(1), "huge": np.full(50, 2**62),
    "unsigned": np.full(50, 2**64 - 1, dtype=np.uint64), "inf": np.full(50, np.inf), "long": np.arange(51) % 2,
}  # fmt: skip


def label_case(name):
    def prepare(here, run):
        (here / "rows.npy").write_bytes(saved(GOOD))
        (here / "labels.npy").write_bytes(saved(LABELS[name]))

    return array_case("rows.npy", prepare, f"labels {name}", "data.labels={here}/labels.npy", names=("data.labels",))


def option_case(option, value):
    def prepare(here, run):
        (here / "rows.npy").write_bytes(saved(GOOD))
        (here / "rows.npz").write_bytes(saved({"a": GOOD, "b": GOOD}, ".npz"))

    name = "rows.npz" if option == "key" else "rows.npy"
    return array_case(name, prepare, "", f"data.{option}={value}", names=(f"data.{option}", "{here}"))


OPTIONS = [("key", v) for v in ("null", "c", "A", "''", "[a]", "../a")] + [("labels", v) for v in (
    "nope.npy", "{here}", "true", "[1]", "''", "{here}/rows.npy", "{here}/rows.npz")] + [("held_out_fraction",
    v) for v in (
    0, 1, -1, 2, "nan", "inf", "x", "null", "[0.1]")] + [("standardize", v) for v in ("x", "3.5", "null",
    "[true]")]  # fmt: skip
arrays = st.one_of(
    shaped(), shaped(), truncated(), truncated(), flipped(), garbage(), tables, tables, extensions, specials, paths,
    st.sampled_from(sorted(LABELS)).map(label_case), st.sampled_from(OPTIONS).map(lambda o: option_case(*o)),
)  # fmt: skip

# -- folders of images ------------------------------------------------------------------------------------------------

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".bmp": "BMP", ".webp": "WEBP", ".gif": "GIF"}
NOISE = Image.frombytes("RGB", (20, 20), np.random.default_rng(1).bytes(1200))


def encoded(extension):
    stream = io.BytesIO()
    NOISE.save(stream, FORMATS[extension])
    return stream.getvalue()


def images(here, count=6):
    for i in range(count):
        (here / f"{i}.png").write_bytes(encoded(".png"))


@st.composite
def broken_image(draw):
    """Good images and one file that is none: cut in its first half, or with another beginning."""
    extension = draw(st.sampled_from(sorted(FORMATS)))
    content = bytearray(encoded(extension))
    if draw(st.booleans()):
        length = draw(st.integers(0, len(content) // 2))
        content, what = content[:length], f"cut to {length}"
    elif draw(st.booleans()):
        at = draw(st.integers(0, 1))
        content[at] ^= draw(st.sampled_from([0xFF, 0x20]))
        what = f"byte {at}"
    else:
        content, what = bytearray(draw(st.binary(min_size=1, max_size=40))), "noise"
        what += repr(bytes(content))

    def prepare(here, run):
        images(here)
        (here / f"bad{extension}").write_bytes(content)

    return Case("image folder", (*SHORT, "data=image_folder", 'data.path="{here}"', "data.size=8"),
    ("bad" + extension,),
                prepare, f"{extension} {what}")  # fmt: skip


def image_case(what, write, *arguments, names=("data",)):
    return Case("image folder", (*SHORT, "data=image_folder", "data.path={here}", *arguments), names,
                lambda here, run: write(here) and None, what)  # fmt: skip


def loose(here):
    images(here)
    (here / "a").mkdir()
    images(here / "a")


def one_class(here):
    (here / "a").mkdir()
    images(here / "a")


FOLDERS = [
    image_case("empty", lambda here: None), image_case("three", lambda here: images(here, 3)),
    image_case("hidden", lambda here: (here / ".a.png").write_bytes(encoded(".png"))),
    image_case("pipe only", lambda here: os.mkfifo(here / "a.png")),
    image_case("links only", lambda here: (here / "a.png").symlink_to("nowhere")),
    image_case("circle", lambda here: (here / "a").symlink_to("..")),
    image_case("text", lambda here: [images(here), (here / "notes.txt").write_text("x")], names=("notes.txt",)),
    image_case("table", lambda here: [images(here), (here / "a.csv").write_text("x")], names=("a.csv",)),
    image_case("no extension", lambda here: [images(here), (here / "a").write_text("x")], names=("data.path",)),
    image_case("tiff", lambda here: [images(here), NOISE.save(here / "a.tiff")], names=("a.tiff",)),
    image_case("tiff as png", lambda here: [images(here), NOISE.save(here / "a.png", "TIFF")], names=("a.png",)),
    image_case("flat with labels", images, "data.labels=true", names=("data.labels",)),
    image_case("loose", loose, "data.labels=true", names=("data.labels",)),
    image_case("one class", one_class, "data.labels=true", names=("data.labels",)),
    image_case("skipped to nothing", lambda here: (here / "a.png").write_text("x"), "data.skip_broken=true"),
]  # fmt: skip
IMAGE_OPTIONS = [f"data.{o}" for o in (
    "size=0", "size=-1", "size=x", "size=1.5", "size=1000000000000", "size=null", "size=[8]", "grey=3", "grey=x",
    "grey=null",
    "held_out_fraction=0", "held_out_fraction=nan", "held_out_fraction=1.1", "skip_broken=3", "labels=x",
    "labels=null")]  # fmt: skip
folders = st.one_of(
    broken_image(), broken_image(), st.sampled_from(FOLDERS),
    st.sampled_from(IMAGE_OPTIONS).map(lambda o: image_case(o, images, o, names=(o.partition("=")[0],))),
)  # fmt: skip
files = st.one_of(arrays, arrays, arrays, folders)

# -- arguments of se-sample and se-eval -------------------------------------------------------------------------------

# Seeds are any whole number, n may be written in any digits that int() reads.
COMMON = [
    (), ("",), ("nope",), ("/dev/null",), ("/dev/zero",), ("/",), ("a" * 300,), ("a" * 5000,), ("a\x1fb",),
    ("~nosuchuser/x",),
    ("{run}/config.yaml",), ("{run}/checkpoints",), ("{here}",), ("n=3", "{run}"), ("--nope",), ("{run}", "--help"),
    ("{run}", "{run}"), ("{run}", ""), ("{run}", "="), ("{run}", "=3"), ("{run}", "n"), ("{run}", "--n=3"), ("{run}",
    "n:3"),
    ("{run}", "n=3", "n=x"), ("resume={run}",), ("{run}", "device="), ("{run}", "device=x"), ("{run}", "device=meta"),
    ("{run}", "device=cuda:99"), ("{run}", "device=a\nb"), ("{run}", "seed="), ("{run}", "seed=x"), ("{run}",
    "seed=1.5"),
    ("{run}", "seed=nan"), ("{run}", "seed=[1]"), ("{run}", "seed=null"), ("{run}", "seed=1e3"),
]  # fmt: skip
SAMPLING = [f"out={v}" for v in (
    "", "x", "x.txt", ".npy", "x.NPY", "nope/x.npy", "/dev/null/x.npy", "/proc/x.npy", "/proc/x.png",
    "a" * 300 + ".npy",
    "{here}", "{here}/d.npy", "{here}/d.png", "~nosuchuser/x.npy", "x.npz", "x.jpg", "..")] + [
    f"label={v}" for v in ("1", "0", "-1", "x", "", "1.5", "null")]  # fmt: skip
NUMBERS = [
    "",
    "x",
    "0",
    "-1",
    "1e3",
    "1.5",
    "nan",
    "inf",
    "9" * 19,
    "9" * 40,
    "1000000001",
    "null",
    "[1]",
    "0x1",
    " ",
    "--1",
]


def make_directories(here, run):
    for name in ("d.npy", "d.png"):
        (here / name).mkdir()


def argument_case(program, arguments, *names):
    last = arguments[-1] if arguments else ""
    key = last.partition("=")[0]
    spoken = (key, repr(key), repr(last), "run directory" if len(arguments) < 2 else "")
    return Case("arguments", tuple(arguments), names or tuple(filter(None, spoken)), make_directories, program=program)


@st.composite
def bad_arguments(draw):
    program = draw(st.sampled_from(["se-sample", "se-eval"]))
    kind = draw(st.integers(0, 4))
    if kind == 0:
        return argument_case(program, draw(st.sampled_from(COMMON)))
    if kind == 1:
        argument = draw(st.sampled_from(SAMPLING))
        return argument_case("se-sample", ("{run}", "n=3", argument), argument.partition("=")[0])
    if kind == 2:
        return argument_case(program, ("{run}", f"n={draw(st.sampled_from(NUMBERS))}"), "n must")
    if kind == 3:
        key = draw(
            st.sampled_from(
                ["N", "nn", "sed", "Seed", "ot", "outt", "labels", "rounds", "data", "loop.rounds", "+n", "~n"]
            )
        )
        return argument_case(program, ("{run}", f"{key}={draw(st.sampled_from(['3', 'x', '']))}"), repr(key))
    text = draw(st.text(min_size=1, max_size=12, alphabet=st.characters(exclude_characters="=\x00/", codec="utf-8")))
    if draw(st.booleans()):
        return argument_case(program, ("{run}", text + draw(st.sampled_from(["", "=1"]))))
    return argument_case(program, (f"zz{text}",))  # --help and -h are no mistakes
