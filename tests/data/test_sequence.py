"""One sequence of rows per seed: the same however it is cut, with labels of one draw, in the data's own type."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, TensorDataset

import se_framework as se
import se_framework.data as package
from divergences import GAN
from models import MLPCritic, MLPGenerator, Particles
from se_framework.data import (
    ArrayData,
    Checkerboard,
    CorrelatedGaussians,
    Data,
    DequantizedDigits,
    DequantizedMnist5k,
    Digits,
    GaussianMixture,
    GaussianMixture1d,
    Gaussians8,
    Grid25,
    ImageFolder,
    Mnist5k,
    Moons,
    Paired,
    PixelData,
    Ring8,
    RowData,
    Sampler,
    StackedMnist,
    StreamedArray,
    StreamedData,
    StreamedImages,
    SwissRoll,
    TensorData,
    TorchvisionData,
    TwoSamples,
    as_data,
    mnist,
)
from se_framework.data.rows import split
from se_framework.data.sampler import BLOCK
from se_framework.errors import DataError

ROWS = 23  # 21 training rows
BIG = 2**53 + 1  # the first whole number that float64 does not hold


class Noisy(Dataset):
    """Rows (row, noise of three generators) with the row's number modulo three as label; counts what it reads."""

    def __init__(self):
        self.read = 0

    def __len__(self):
        return ROWS

    def __getitem__(self, i):
        self.read += 1
        return torch.tensor([i, float(torch.rand(())), np.random.rand(), random.random()]), i % 3


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with 23 rows in rows.npy, their labels in labels.npy and as many images in images/{a,b,c}."""
    home = tmp_path_factory.mktemp("files")
    np.save(home / "rows.npy", np.random.default_rng(0).normal(3, 2, (ROWS, 2)))
    np.save(home / "labels.npy", np.arange(ROWS) % 3)
    np.save(home / "whole.npy", BIG + 2 * np.arange(ROWS, dtype=np.int64))
    for i in range(ROWS):
        (home / "images" / "abc"[i % 3]).mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(home / "images" / "abc"[i % 3] / f"{i}.png")
    return home


def pixels(files):
    draw = torch.Generator().manual_seed(0)
    stored = torch.randint(0, 256, (ROWS, 1, 3, 3), generator=draw, dtype=torch.uint8)
    return PixelData(stored, *split(ROWS, 0.1), "pixels", torch.arange(ROWS) % 3, 3)


def labels(files):
    return files / "labels.npy"


@pytest.fixture(scope="module", autouse=True)
def few_digits():
    """Stand-ins for the images of the extra mnist."""
    draw = torch.Generator().manual_seed(1)
    found = torch.randint(0, 256, (ROWS, 1, 28, 28), generator=draw, dtype=torch.uint8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mnist, "load_digits", lambda: mnist.Digits5k(found, torch.arange(ROWS) % 10, *split(ROWS, 0.1)))
        yield


KINDS = {
    "tensor": lambda f: TensorData(torch.randn(ROWS, 2), labels=torch.arange(ROWS) % 3, standardize=True),
    "integers": lambda f: TensorData(torch.arange(ROWS), labels=torch.arange(ROWS) % 3),
    "array": lambda f: ArrayData(f / "rows.npy", labels=labels(f)),
    "digits": lambda f: Digits(labels=True),
    "dequantized": lambda f: DequantizedDigits(labels=True),
    "gaussianised": lambda f: DequantizedDigits(transform="gaussianise"),
    "mnist5k": lambda f: Mnist5k(labels=True),
    "mnist5k dequantised": lambda f: DequantizedMnist5k(labels=True, transform="logit"),
    "stacked": lambda f: StackedMnist(),
    "pixels": pixels,
    "folder": lambda f: ImageFolder(f / "images", size=4, labels=True),
    "streamed array": lambda f: StreamedArray(f / "rows.npy", labels=labels(f)),
    "streamed integers": lambda f: StreamedArray(f / "whole.npy", standardize=False),
    "streamed images": lambda f: StreamedImages(f / "images", size=4, labels=True),
    "dataset": lambda f: StreamedData(Noisy(), classes=3),
    "ring8": lambda f: Ring8(labels=True),
    "gaussians8": lambda f: Gaussians8(labels=True),
    "grid25": lambda f: Grid25(labels=True),
    "mixture": lambda f: GaussianMixture(torch.zeros(2, 3, 2), [1.0, 2.0], labels=True),
    "mixture 1d": lambda f: GaussianMixture1d(),
    "moons": lambda f: Moons(),
    "checkerboard": lambda f: Checkerboard(),
    "swissroll": lambda f: SwissRoll(),
    "two samples": lambda f: TwoSamples(f / "rows.npy", f / "rows.npy"),
    "paired": lambda f: Paired(f / "rows.npy", first=1, held_out_fraction=0.4),
    "correlated": lambda f: CorrelatedGaussians(3),
}


def test_every_kind_of_data_is_looked_at(files):
    shipped = {c for name in package.__all__ if isinstance(c := getattr(package, name), type) and issubclass(c, Data)}
    seen = {type(make(files)) for make in KINDS.values()}
    # TorchvisionData is a PixelData that fills its bytes by torchvision; the others are abstract.
    assert shipped - seen == {Data, Sampler, RowData, TorchvisionData}


def joined(batches):
    """Return batches one behind the other: points and labels."""
    contexts = [b.context for b in batches if b.context is not None]
    return torch.cat([b.x for b in batches]), torch.cat(contexts) if contexts else None


def alike(one, two):
    """Whether points and labels are the same to the bit, and of the same type."""
    return all(
        a is b is None or (a is not None and b is not None and a.dtype == b.dtype and torch.equal(a, b))
        for a, b in zip(one, two, strict=True)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_the_same_however_the_sequence_is_cut(kind, files):
    """Row by row, by one object in order, against random cuts by others that begin anywhere and go in any order."""
    torch.manual_seed(1)
    state = torch.random.get_rng_state()

    def fresh():
        torch.random.set_rng_state(state)  # some kinds are made of random rows
        return KINDS[kind](files)

    data, dice = fresh(), random.Random(kind)
    # Two ends of an epoch, or of a block, and neither at the end of what is drawn.
    period = data.train_size or BLOCK
    first, count = period - 9, period + 25 if period > ROWS else 3 * period
    one_by_one = [data.batch(first + r, 1, 7) for r in range(count)]
    want = joined(one_by_one)
    assert want[0].dtype == data.dtype and (want[1] is None) == (data.classes == 0)
    for largest in (3, 8, period):
        edges = [0]
        while edges[-1] < count:
            edges.append(min(count, edges[-1] + dice.randint(1, largest)))
        cuts = list(zip(edges, edges[1:], strict=False))
        dice.shuffle(cuts)
        other = fresh()
        found = {a: other.batch(first + a, b - a, 7) for a, b in cuts}
        assert alike(joined([found[a] for a in sorted(found)]), want), largest
        several = fresh().batches(first, 5, [3, 7])
        assert torch.equal(several.x[1], want[0][:5]) and several.x.shape == (2, 5, *data.event_shape)
        assert several.context is None if want[1] is None else torch.equal(several.context[1], want[1][:5])
    assert not torch.equal(data.batch(first, 5, 8).x, want[0][:5])
    assert not torch.equal(want[0][:5], data.batch(first + period, 5, 7).x)


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_read_the_same_rows_from_any_start_in_any_size(workers, files):
    made = {
        "streamed array": lambda: StreamedArray(files / "rows.npy", workers, labels=labels(files)),
        "streamed integers": lambda: StreamedArray(files / "whole.npy", workers, standardize=False),
        "streamed images": lambda: StreamedImages(files / "images", workers, size=4, labels=True),
        "dataset": lambda: StreamedData(Noisy(), workers, classes=3),
    }
    for kind, make in made.items():
        alone, data, place = KINDS[kind](files), make(), 17
        for n in (5, 4, 21):  # a run that is resumed with another size of batch
            with data.prefetch(place, n, 7):
                for _ in range(4):
                    # Fewer rows and another seed than those read ahead, then what is read ahead.
                    for size, seed in ((n - 1, 7), (n, 8), (n, 7)):
                        want, got = alone.batch(place, size, seed), data.batch(place, size, seed)
                        assert alike(joined([want]), joined([got])), (kind, place, size, seed)
                    place += n


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_a_copy(kind, files):
    """In float64 no change of type hides that what was kept is given away."""
    torch.set_default_dtype(torch.float64)
    data = KINDS[kind](files)

    def given():
        return [data.batch(4, 5, 0), data.batches(4, 5, [0, 1]), data.held_out(3)]

    want = [(p.x.clone(), None if p.context is None else p.context.clone()) for p in given()]
    for batch in given():
        batch.x.fill_(1)
        batch.context is None or batch.context.fill_(1)
    assert all(alike((batch.x, batch.context), old) for batch, old in zip(given(), want, strict=True))


def test_every_row_once_an_epoch_whatever_the_cuts():
    data, dice = TensorData(torch.arange(50)), random.Random(0)  # 45 training rows
    rows, place = [], 0
    while place < 10 * 45:
        n = min(dice.randint(1, 45), 10 * 45 - place)
        rows += data.batch(place, n, 3).x.flatten().tolist()
        place += n
    epochs = [rows[i : i + 45] for i in range(0, 450, 45)]
    assert all(sorted(epoch) == sorted(data.train.flatten().tolist()) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 10


# -- one draw ---------------------------------------------------------------------------------------------------------


class Counted(Ring8):
    """Counts its draws."""

    drawn = 0

    def draw(self, n, generator):
        self.drawn += 1
        return super().draw(n, generator)


def test_a_labelled_batch_of_a_sampler_is_drawn_once():
    data = Counted(labels=True)
    for start in range(0, 3 * BLOCK, 256):
        data.batch(start, 256, 0)
    assert data.drawn == 3  # one draw a block, for points and labels
    for _ in range(4):
        data.batch(3 * BLOCK - 100, 200, 0)  # over the end of a block, again and again: both are kept
    assert data.drawn == 4
    data.held_out(100)
    assert data.drawn == 5
    for start in range(0, BLOCK, 64):
        data.batches(BLOCK - 32 + start, 64, range(10))
    assert data.drawn == 5 + 2 * 10  # of seed 0, too, whose first blocks were let go


def test_blocks_are_let_go():
    data = Ring8()
    for start in range(0, 50 * BLOCK, BLOCK):
        data.batch(start, 1, 0)
    assert len(data._rows._blocks) == 2


def test_a_labelled_batch_of_a_dataset_is_read_once():
    data = StreamedData(Noisy(), classes=3)
    source = data.source.dataset
    source.read = 0
    batch = data.batch(0, 8, 0)
    assert source.read == 8 and torch.equal(batch.context, batch.x[:, 0].long() % 3)
    rest = data.held_out(2, 0)
    assert source.read == 10 and torch.equal(rest.context, rest.x[:, 0].long() % 3)


def test_a_sampler_may_give_any_context():
    class Pairs(Sampler):
        event_shape = (2,)

        def draw(self, n, generator):
            x = torch.rand((n, 5), generator=generator, dtype=torch.float64)
            return Particles(x[:, :2], context=x[:, 1:].clone())

    data = Pairs()
    batch = data.batch(BLOCK - 3, 9, 0)
    assert batch.context.shape == (9, 4) and torch.equal(batch.context[:, 0].float(), batch.x[:, 1])
    assert data.batches(BLOCK - 3, 9, [0, 1]).context.shape == (2, 9, 4) and data.held_out(3).context.shape == (3, 4)


# -- whole numbers ----------------------------------------------------------------------------------------------------


class Items(Dataset):
    """The items of a list."""

    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        return self.items[i]


def test_whole_numbers_keep_their_digits(files):
    numbers = torch.as_tensor(np.load(files / "whole.npy"))
    known = set(numbers.tolist())
    assert len({float(k) for k in known}) < len(known)  # floats could not tell them apart
    made = [
        TensorData(numbers), ArrayData(files / "whole.npy", standardize=False), as_data(TensorDataset(numbers)),
        StreamedArray(files / "whole.npy", standardize=False), as_data(Items(list(numbers[:, None]))),
        as_data(numbers.numpy()),
    ]  # fmt: skip
    for data in made:
        train, rest = data.batch(0, data.train_size, 0).x, data.held_out(99).x
        assert train.dtype == rest.dtype == data.dtype == data.batches(0, 2, [0, 1]).x.dtype == torch.int64, data
        assert set(torch.cat([train, rest]).flatten().tolist()) == known, data
        assert torch.equal(data.to_user(train), train) and torch.equal(data.to_model(train), train)


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32, np.uint64])
def test_narrow_and_unsigned_numbers_come_as_int64(tmp_path, dtype):
    numbers = np.arange(9).astype(dtype)
    if dtype != np.bool_:
        numbers[3] = min(np.iinfo(dtype).max, 2**63 - 1)
    np.save(tmp_path / "a.npy", numbers)
    items = Items(list(torch.as_tensor(numbers)[:, None]))
    streamed = StreamedArray(tmp_path / "a.npy", standardize=False)
    for data in (TensorData(numbers), streamed, StreamedData(items)):
        x = torch.cat([data.batch(0, data.train_size, 0).x, data.held_out(9).x])
        assert x.dtype == data.dtype == torch.int64 and sorted(x.flatten().tolist()) == sorted(numbers.tolist())


def test_numbers_beyond_int64_are_refused(tmp_path):
    numbers = np.arange(9, dtype=np.uint64) + np.uint64(2**63)
    np.save(tmp_path / "a.npy", numbers)
    for make in (lambda: TensorData(numbers), lambda: StreamedArray(tmp_path / "a.npy", standardize=False)):
        with pytest.raises(DataError, match="holds whole numbers of 2\\^63 and more; give them as floats") as caught:
            make()
        assert "\n" not in str(caught.value)
    assert ArrayData(tmp_path / "a.npy").batch(0, 2, 0).x.dtype == torch.float32  # standardised, they are floats


def test_standardised_numbers_and_images_are_floats(files):
    numbers, small = torch.arange(ROWS), files / "small.npy"
    np.save(small, np.arange(ROWS))
    for make in (ArrayData, StreamedArray):  # beyond 2^53 float64 does not tell neighbours apart
        with pytest.raises(DataError, match="which float64 does not resolve"):
            make(files / "whole.npy")
    made = [
        TensorData(numbers, standardize=True), ArrayData(small), StreamedArray(small),
        StreamedData(Items(list(numbers[:, None])), standardize=True), Digits(), pixels(files),
        StreamedImages(files / "images", size=4), TensorData(numbers.to(torch.float16)),
    ]  # fmt: skip
    for dtype in (torch.float32, torch.float64):
        torch.set_default_dtype(dtype)
        for data in made:
            assert data.dtype == data.batch(0, 2, 0).x.dtype == data.held_out(2).x.dtype == dtype, data
    for data in (made[0], made[3]):
        assert torch.equal(data.to_user(data.batch(0, 21, 0).x).round().sort(0).values.long(), made[0].to_user(
            made[0].train.double()).round().sort(0).values.long())  # fmt: skip


def test_a_sampler_may_draw_whole_numbers():
    class Dice(Sampler):
        event_shape = (2,)

        def draw(self, n, generator):
            return torch.randint(1, 7, (n, 2), generator=generator)

    data = Dice()
    assert data.batch(0, 5, 0).x.dtype == data.held_out(5).x.dtype == data.dtype == torch.int64
    assert Moons().dtype == torch.float32


def test_training_reads_whole_numbers_as_its_own_type():
    parts = {"divergence": GAN(), "auxiliary": se.Dual(), "metric": se.Metric(MLPCritic((2,), width=4))}
    equation = se.StandardEquation(model=MLPGenerator((2,), width=4), **parts)
    numbers = torch.arange(40).view(20, 2)
    state = se.train(se.TrainState(equation), numbers, rounds=3, batch_size=8, log_every=1, progress=False)
    assert state.round == 3 and all(p.dtype == torch.float32 for p in equation.parameters())
