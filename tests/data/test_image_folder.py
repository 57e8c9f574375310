"""Folders of images: every kind of file against arrays that are known, refusals by name; torchvision by a stand-in."""

from __future__ import annotations

import os
import sys
import types

import numpy as np
import pytest
import torch
from PIL import Image

from se_framework.data import ImageFolder, TorchvisionData
from se_framework.data.images import read_image, to_pixels
from se_framework.errors import DataError

F64 = torch.float64


def colours(seed: int, height: int = 8, width: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(folder, names, **options):
    """Write one image of random colours per name; the seed is its place."""
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(colours(i)).save(folder / name, **options)


@pytest.fixture
def zoo(tmp_path):
    save(tmp_path, [f"{kind}/{i}.png" for kind in ("cat", "Ape", "bee") for i in range(8)])
    return tmp_path


# -- decoding ---------------------------------------------------------------------------------------------------------


def test_lossless_files_are_read_exactly(tmp_path):
    rgb = colours(0)
    grey = rgb[..., 0]
    for name in ("a.png", "a.bmp", "a.webp"):
        Image.fromarray(rgb).save(tmp_path / name, **({"lossless": True} if name.endswith("webp") else {}))
        assert np.array_equal(read_image(tmp_path / name, None, False), rgb.transpose(2, 0, 1)), name
        assert read_image(tmp_path / name, None, False).dtype == np.uint8
    Image.fromarray(grey).save(tmp_path / "g.PNG")
    assert np.array_equal(read_image(tmp_path / "g.PNG", None, False), np.stack([grey] * 3))
    assert np.array_equal(read_image(tmp_path / "g.PNG", None, True), grey[None])
    Image.fromarray(rgb).quantize(16).save(tmp_path / "p.png")
    with Image.open(tmp_path / "p.png") as image:
        palette, index = np.array(image.getpalette()).reshape(-1, 3), np.asarray(image)
    assert np.array_equal(read_image(tmp_path / "p.png", None, False), palette[index].transpose(2, 0, 1))
    bits = grey > 127
    Image.fromarray(bits).save(tmp_path / "b.png")
    assert np.array_equal(read_image(tmp_path / "b.png", None, True), 255 * bits[None])


def test_grey_is_luma(tmp_path):
    rgb = colours(1)
    Image.fromarray(rgb).save(tmp_path / "a.png")
    luma = rgb @ np.array([0.299, 0.587, 0.114])
    assert np.abs(read_image(tmp_path / "a.png", None, True)[0] - luma).max() < 1


def test_sixteen_bits_of_grey(tmp_path):
    deep = np.random.default_rng(5).integers(0, 65536, (8, 8), dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png", None, True)[0], np.rint(deep / 257).astype(np.uint8))


@pytest.mark.parametrize("grey", [True, False])
def test_transparent_parts_are_white(tmp_path, grey):
    rgba = np.dstack([colours(2), np.random.default_rng(3).integers(0, 256, (8, 8), dtype=np.uint8)])
    rgba[0, 0] = (0, 0, 0, 0)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    alpha = rgba[..., 3:] / 255
    over = rgba[..., :3] * alpha + 255 * (1 - alpha)
    want = (over @ np.array([0.299, 0.587, 0.114]))[None] if grey else over.transpose(2, 0, 1)
    found = read_image(tmp_path / "a.png", None, grey)
    # Three roundings at most: of the colour over white, of each product in it, of the luma.
    assert np.abs(found - want).max() < 2 and (found[:, 0, 0] == 255).all()
    # Grey with alpha, and a palette with a transparent entry.
    Image.fromarray(np.ascontiguousarray(rgba[..., [0, 3]])).save(tmp_path / "la.png")
    first = rgba[..., 0] * alpha[..., 0] + 255 * (1 - alpha[..., 0])
    assert np.abs(read_image(tmp_path / "la.png", None, True)[0] - first).max() < 2
    flat = Image.new("P", (8, 8), 0)
    flat.putpalette([10, 20, 30, 40, 50, 60])
    flat.putpixel((3, 5), 1)
    flat.save(tmp_path / "p.png", transparency=0)
    found = read_image(tmp_path / "p.png", None, False)
    assert found[:, 5, 3].tolist() == [40, 50, 60] and (np.delete(found.reshape(3, 64), 43, 1) == 255).all()


def test_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (8, 8), c) for c in ("red", "blue")]
    for name in ("a.gif", "a.webp"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], lossless=True)
        assert (read_image(tmp_path / name, None, False) == np.array([255, 0, 0])[:, None, None]).all()


# The transformations of the EXIF standard: what has to be done to the stored array for each orientation.
TURNS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("orientation", TURNS)
def test_exif_orientation(tmp_path, orientation):
    stored = colours(4, 6, 9)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(tmp_path / "a.png", exif=exif)
    want = TURNS[orientation](stored).transpose(2, 0, 1)
    assert np.array_equal(read_image(tmp_path / "a.png", None, False), want)


def test_jpeg_with_orientation(tmp_path):
    # Bright above: after a quarter turn clockwise (6), bright on the right. A smooth image loses little in a JPEG.
    stored = np.repeat(np.linspace(250, 5, 32)[:, None], 32, 1).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(stored).save(tmp_path / "a.jpeg", exif=exif, quality=95)
    found = read_image(tmp_path / "a.jpeg", None, True)[0].astype(float)
    assert np.abs(found - np.rot90(stored, -1)).max() < 6
    Image.fromarray(colours(0)).convert("CMYK").save(tmp_path / "c.jpg")
    assert read_image(tmp_path / "c.jpg", None, False).shape == (3, 8, 8)


def test_resizing_is_antialiased_and_keeps_means(tmp_path):
    # A board of single pixels has no detail that 8 x 8 can hold: anything but its mean would be aliasing.
    board = (255 * (np.indices((64, 64)).sum(0) % 2)).astype(np.uint8)
    Image.fromarray(board).save(tmp_path / "a.png")
    assert np.abs(read_image(tmp_path / "a.png", 8, True).astype(float) - 127.5).max() <= 1.5
    # A ramp stays a ramp: the middle of output pixel i lies at 8 i + 3.5 (bicubic reproduces lines; not at the rims,
    # where half of the filter is cut off).
    ramp = np.repeat(np.arange(64)[None] * 4.0, 64, 0).astype(np.uint8)
    Image.fromarray(ramp).save(tmp_path / "b.png")
    found = read_image(tmp_path / "b.png", 8, True)[0].astype(float)
    assert np.abs(found[:, 2:6] - 4 * (8 * np.arange(2, 6) + 3.5)).max() <= 1
    assert (read_image(tmp_path / "b.png", 80, True).shape) == (1, 80, 80)
    Image.new("L", (3, 7), 77).save(tmp_path / "c.png")
    assert (read_image(tmp_path / "c.png", 5, True) == 77).all()


@pytest.mark.parametrize("wide", [True, False])
def test_the_square_in_the_middle(wide):
    stripes = np.zeros((30, 90, 3), np.uint8)
    for i in range(3):
        stripes[:, 30 * i : 30 * (i + 1), i] = 255
    image = Image.fromarray(stripes if wide else stripes.transpose(1, 0, 2))
    found = to_pixels(image, 10, False)
    assert found.shape == (3, 10, 10)
    inner = found[:, 1:-1, 1:-1]  # the filter may look across the cut at the rim
    assert (inner == np.array([0, 255, 0])[:, None, None]).all()


# -- folders ----------------------------------------------------------------------------------------------------------


def test_units_split_and_memory(zoo):
    data = ImageFolder(zoo, size=8)
    assert data.event_shape == data.image_shape == (3, 8, 8) and data.kind == "image" and data.name == zoo.name
    assert data.train_size == 22 and data.rest_size == 2 and data.classes == 0 and data.batch(0, 4, 0).context is None
    assert data.pixels.dtype == torch.uint8 and data.log_scale == pytest.approx(192 * np.log(127.5))
    x = data.batch(0, 22, 0).x
    assert x.dtype == torch.get_default_dtype() and float(x.min()) >= -1 and float(x.max()) <= 1
    # Every byte goes to [-1, 1] and back exactly, in both types, and the float32 is the rounded float64.
    data.pixels[:4].view(-1)[:256] = torch.arange(256)
    x = data.batch(0, 22, 0).x
    torch.set_default_dtype(F64)
    assert data.batch(0, 22, 0).x.dtype == F64 and torch.equal(data.batch(0, 22, 0).x.float(), x)
    for dtype in (torch.float32, F64):
        torch.set_default_dtype(dtype)
        user = data.to_user(data.rows("train", torch.arange(22)))
        assert torch.equal(user.round().to(torch.uint8), data.pixels[data._index["train"]])
        assert float((user - user.round()).abs().max()) < (2e-5 if dtype == torch.float32 else 1e-13)
    assert torch.equal(ImageFolder(zoo, size=8).held_out(9).x, ImageFolder(zoo, size=8).held_out(9).x)
    everything = torch.cat([data.batch(0, 22, 5).x, data.held_out(2).x]).flatten(1)
    assert len(everything.unique(dim=0)) == 24
    data.held_out(2).x.zero_()
    assert float(data.held_out(2).x.abs().max()) > 0


def test_classes_are_sorted_sub_folders(zoo):
    (zoo / "cat" / "young").mkdir()
    Image.fromarray(colours(99)).save(zoo / "cat" / "young" / "x.png")
    data = ImageFolder(zoo, size=8, labels=True)
    assert data.class_names == ("Ape", "bee", "cat") and data.classes == 3
    # The images carry their class: they were drawn from the seed of their place.
    files = [("cat", i) for i in range(8)] + [("Ape", i + 8) for i in range(8)] + [("bee", i + 16) for i in range(8)]
    kind = {colours(seed).transpose(2, 0, 1).tobytes(): name for name, seed in [*files, ("cat", 99)]}
    seen = 0
    for index in range(6):
        batch = data.batch(9 * index, 9, 1)
        x = data.to_user(batch.x).round().to(torch.uint8)
        names = [kind[image.numpy().tobytes()] for image in x]
        assert [data.class_names[k] for k in batch.context] == names
        seen += len(set(names))
    assert seen > 6
    rest = data.held_out(2, 3)
    x = data.to_user(rest.x).round().to(torch.uint8)
    assert [data.class_names[k] for k in rest.context] == [kind[i.numpy().tobytes()] for i in x]


def test_flat_folder_and_what_is_not_read(tmp_path):
    save(tmp_path, [f"{i}.png" for i in range(5)])
    (tmp_path / ".hidden.png").write_bytes(b"no image")
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "a.png").write_bytes(b"no image")
    (tmp_path / "link.png").symlink_to(tmp_path / "0.png")
    (tmp_path / "loop").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.warns(UserWarning, match="2 symbolic links in .* are not read, the first is 'link.png'"):
        data = ImageFolder(tmp_path, size=4, grey=True)
    assert data.train_size + data.rest_size == 5 and data.event_shape == (1, 4, 4) and data.class_names == ()
    for link in ("link.png", "loop"):
        (tmp_path / link).unlink()
    with pytest.raises(DataError, match=r"data.labels is true but '.*0.png' lies in no sub-folder"):
        ImageFolder(tmp_path, size=4, labels=True)


def test_labels_need_two_sub_folders(tmp_path):
    save(tmp_path, [f"one/{i}.png" for i in range(5)])
    with pytest.raises(DataError, match=r"data.labels is true but .* has one sub-folder of images \(one\)"):
        ImageFolder(tmp_path, size=4, labels=True)


def damaged(kind, file):
    if kind == "text":
        file.write_text("not an image")
    elif kind == "empty":
        file.write_bytes(b"")
    else:
        Image.fromarray(colours(0, 64, 64)).save(file)
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("text", "bad.png"),
        ("empty", "bad.gif"),
        ("half", "bad.png"),
        ("half", "bad.jpg"),
        ("half", "bad.webp"),
        ("half", "bad.bmp"),
        ("text", "notes.txt"),
        ("text", "noextension"),
    ],
)
def test_broken_files_are_named_or_skipped(zoo, kind, name):
    damaged(kind, zoo / "bee" / name)
    with pytest.raises(DataError, match=f"^data.path: '.*bee/{name}' .*data.skip_broken=true") as caught:
        ImageFolder(zoo, size=8)
    assert "\n" not in str(caught.value)
    with pytest.warns(UserWarning, match=f"1 of 25 files in .* left out, the first is 'bee/{name}'"):
        data = ImageFolder(zoo, size=8, labels=True, skip_broken=True)
    assert data.skipped == (f"bee/{name}",) and data.train_size + data.rest_size == 24
    assert torch.cat([data.train_labels, data.rest_labels]).bincount().tolist() == [8, 8, 8]
    whole = ImageFolder(zoo / "cat", size=8)
    assert whole.skipped == () and len(whole.pixels) == 8


def test_other_formats_are_not_tried(tmp_path):
    # A TIFF under the name of a PNG is not handed to Pillow's reader of TIFF.
    Image.fromarray(colours(0)).save(tmp_path / "a.tiff")
    (tmp_path / "a.tiff").rename(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a.png' cannot be read as an image \(cannot identify image file it\)"):
        read_image(tmp_path / "a.png", 8, False)


@pytest.mark.parametrize("limit", [20, 60])  # above twice the limit Pillow raises, above the limit it warns
def test_decompression_bombs_are_refused(zoo, monkeypatch, limit):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(DataError, match=rf"^data.path: '.*Ape/0.png' has more than the {limit} pixels that are read"):
        ImageFolder(zoo, size=8)


def test_folders_refused(tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    save(tmp_path, [f"few/{i}.png" for i in range(3)])
    cases = [
        ("missing", {}, "no folder '.*missing' .* give an existing folder"),
        ("file", {}, r"file' is not a folder; .*data=array"),
        ("empty", {}, r"empty' is empty .* at least 4 images \(.png"),
        ("few", {}, "holds 3 images; give at least 4"),
        ("few", {"size": 0}, "data.size must lie in 1..16384 pixels, got 0"),
        ("few", {"held_out_fraction": 1.0}, "data.held_out_fraction must lie between 0 and 1"),
    ]
    for name, options, message in cases:
        with pytest.raises(DataError, match=message) as caught:
            ImageFolder(tmp_path / name, **options)
        assert "\n" not in str(caught.value)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(DataError, match="holds 3 images"):
        ImageFolder("~/few")


def test_picture_of_a_folder(zoo):
    from se_framework.pictures.plots import picture

    data = ImageFolder(zoo, size=8)
    picture(data, data.to_user(data.batch(0, 9, 0).x), zoo.parent / "picture.png")
    with Image.open(zoo.parent / "picture.png") as image:
        assert image.width == 1020  # three panels: the nearest training images are drawn, too


# -- torchvision, by a stand-in ---------------------------------------------------------------------------------------
# torchvision is an extra that the tests do not need: a module of the same shape takes its place. It fixes what is
# asked of torchvision, the names train, split and download, and what is expected, pairs of an image and a number.


class Toy(torch.utils.data.Dataset):
    present = True

    def __init__(self, root, train=True, transform=None, target_transform=None, download=False):
        if not (self.present or download):
            raise RuntimeError("Dataset not found. You can use download=True to download it")
        self.offset, self.count = (0, 12) if train else (12, 6)

    def __len__(self):
        return self.count

    def __getitem__(self, i):
        seed = i + self.offset
        return Image.fromarray(colours(seed)[..., 0]), seed % 3


class ToySplit(Toy):
    def __init__(self, root, split="train", transform=None):
        assert split in ("train", "test")
        super().__init__(root, train=split == "train")

    def __getitem__(self, i):
        return Image.fromarray(colours(i + self.offset)), (i + self.offset) % 3


class Ragged(Toy):
    def __getitem__(self, i):
        return Image.new("RGB", (8, 8 + i % 2)), i % 2


class Absent(Toy):
    present = False


class Texts(Toy):
    def __getitem__(self, i):
        return "a text", 0


class Whole(torch.utils.data.Dataset):
    def __init__(self, root):
        pass


@pytest.fixture
def torchvision(monkeypatch):
    package, datasets = types.ModuleType("torchvision"), types.ModuleType("torchvision.datasets")
    for cls in (Toy, ToySplit, Ragged, Absent, Texts, Whole):
        setattr(datasets, cls.__name__, cls)
    package.datasets = datasets
    monkeypatch.setitem(sys.modules, "torchvision", package)
    monkeypatch.setitem(sys.modules, "torchvision.datasets", datasets)


@pytest.mark.parametrize(("name", "channels"), [("Toy", 1), ("ToySplit", 3)])
def test_torchvision_parts_and_labels(torchvision, tmp_path, name, channels):
    data = TorchvisionData(name, tmp_path, labels=True)
    assert data.name == name.lower() and data.event_shape == (channels, 8, 8) and data.kind == "image"
    assert data.classes == 3 and data.train_size == 12 and data.rest_size == 6
    # Its own test part is held out: the images were drawn from seeds 12 to 17.
    seed = {colours(i).transpose(2, 0, 1)[:channels].tobytes(): i for i in range(18)}
    for part, want in ((data.batch(12, 12, 0), range(12)), (data.held_out(99), range(12, 18))):
        found = [seed[image.numpy().tobytes()] for image in data.to_user(part.x).round().to(torch.uint8)]
        assert sorted(found) == list(want) and [i % 3 for i in found] == part.context.tolist()
    assert TorchvisionData(name, tmp_path).batch(0, 3, 0).context is None


def test_torchvision_options(torchvision, tmp_path):
    assert TorchvisionData("ToySplit", tmp_path).event_shape == (3, 8, 8)
    assert TorchvisionData("ToySplit", tmp_path, size=4, grey=True).event_shape == (1, 4, 4)
    assert TorchvisionData("Ragged", tmp_path, size=4).event_shape == (3, 4, 4)
    assert TorchvisionData("Absent", tmp_path, download=True).train_size == 12


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "Tox"}, "data.name: torchvision.datasets has no 'Tox'; did you mean 'Toy'"),
        ({"name": "Whole"}, "data.name: Whole has neither train=True/False nor split"),
        ({"name": "Absent"}, r"data.root: Absent cannot be read from .*Dataset not found.* or add data.download=true"),
        ({"name": "Ragged"}, r"image 1 of Ragged has shape \(3, 9, 8\) and image 0 \(3, 8, 8\).*data.size"),
        ({"name": "Texts"}, "Texts holds a str, not images"),
        ({"name": "ToySplit", "download": True}, "data.download: ToySplit cannot be downloaded"),
        ({"name": "Toy", "size": 0}, "data.size must be at least 1 pixel"),
    ],
)
def test_torchvision_refuses(torchvision, tmp_path, arguments, message):
    with pytest.raises(DataError, match=message):
        TorchvisionData(root=tmp_path, **arguments)


def test_torchvision_absent(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    with pytest.raises(DataError, match=r"data=torchvision needs torchvision .*: pip install 'se-framework\[images\]'"):
        TorchvisionData("MNIST", tmp_path)
