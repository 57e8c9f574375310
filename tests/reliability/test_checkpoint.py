"""A checkpoint reads back to the same bits, and a spoilt one is never taken for whole."""

import json
import random
import struct

import pytest
import torch

from se_framework.runs.checkpoint import DamagedError, decode, encode
from tests.support.comparing import same

STATE = {
    "format": 1,
    "none": None,
    "flag": True,
    "text": 'a "sha256":"' + "0" * 64 + '" b\nc',  # what the checksum must not be mistaken for
    "tiny": 5e-324,
    "third": 1 / 3,
    "huge": 2**80,
    "odd": [float("inf"), -0.0],
    "state": {0: {"step": torch.tensor(3.0), "betas": (0.9, 0.999)}, "0": []},
    "empty": {},
    "tensors": {
        "double": torch.tensor([1 / 3, float("nan"), -float("inf")], dtype=torch.float64),
        "brain": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
        "flags": torch.tensor([[True], [False]]),
        "none": torch.empty(0, 3),
        "turned": torch.arange(6, dtype=torch.int64).reshape(2, 3).T,
    },
}
SHARED = torch.ones(3)


def test_every_value_reads_back_to_the_same_bits():
    assert same(decode(encode(STATE)), STATE)
    assert same(decode(encode({"a": SHARED, "b": SHARED})), {"a": SHARED, "b": SHARED})  # two names of one storage


def test_one_flipped_bit_anywhere_is_noticed():
    whole = encode({"x": torch.arange(5), "n": 7, "s": "text"})
    for position in range(len(whole)):
        for bit in (0, 6):
            spoilt = bytearray(whole)
            spoilt[position] ^= 1 << bit
            with pytest.raises(DamagedError):
                decode(spoilt)


def test_a_file_cut_anywhere_is_noticed():
    whole = encode({"x": torch.arange(5), "n": 7})
    for length in range(len(whole)):
        with pytest.raises(DamagedError):
            decode(whole[:length])
    with pytest.raises(DamagedError):
        decode(whole + b"\0")


def forged(header, data=b""):
    """Return bytes with a right checksum around a wrong content."""
    import hashlib

    text = json.dumps(header).encode()
    content = bytearray(struct.pack("<Q", len(text)) + text + data)
    start = content.index(b"0" * 64)
    content[start : start + 64] = hashlib.sha256(content).hexdigest().encode()
    return content


@pytest.mark.parametrize(
    "state",
    [
        "[]",
        "3",
        "{",
        '{"tensor": "absent"}',
        '{"items": 3}',
        '{"a": 1, "b": 2}',
        "[" * 100_000,
        '{"call": "os.system"}',
    ],
)
def test_a_forged_header_is_refused_in_words(state):
    content = forged({"__metadata__": {"state": state, "sha256": "0" * 64}})
    with pytest.raises(DamagedError, match="no checkpoint of ours"):
        decode(content)


def test_a_header_that_claims_more_than_there_is_is_refused():
    claims = {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}
    content = forged({"__metadata__": {"state": "{}", "sha256": "0" * 64}, "x": claims}, b"\0" * 8)
    with pytest.raises(DamagedError):
        decode(content)
    with pytest.raises(DamagedError, match="cut short"):
        decode(struct.pack("<Q", 2**60) + b"{}")


def test_other_bytes_are_refused():
    random.seed(0)
    for length in (0, 1, 7, 8, 9, 100, 10_000):
        with pytest.raises(DamagedError):
            decode(random.randbytes(length))


@pytest.mark.parametrize(
    "state, message",
    [
        ({"players": {"phi": {"x": object()}}}, "players/phi/x is a object"),
        ({"a": {1.5: 0}}, "a has keys that are neither text nor whole number"),
        ({0: torch.ones(1), "0": torch.ones(1)}, "0 is there twice"),
    ],
)
def test_what_is_no_tensor_number_or_text_is_refused_by_its_place(state, message):
    with pytest.raises(TypeError, match=message):
        encode(state)
