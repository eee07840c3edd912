import pickle

import numpy as np
import pytest

from cxgrad_jax.data.datasets.archives import Member
from cxgrad_jax.data.datasets.pickles import read_dict, read_pickle
from cxgrad_jax.errors import UserError

CONTENT = {"a": np.arange(6, dtype=np.int64).reshape(2, 3), "b": [1, "x", b"y", np.int32(3)], "c": {"d": (1, None)}}


def member(tmp_path, data):
    path = tmp_path / "a.pkl"
    path.write_bytes(data)
    return Member("a.pkl", len(data), lambda: path.open("rb"))


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_and_containers(protocol, tmp_path):
    found = read_pickle(member(tmp_path, pickle.dumps(CONTENT, protocol)), "expected it")
    assert found.keys() == CONTENT.keys() and found["c"] == CONTENT["c"]
    np.testing.assert_array_equal(found["a"], CONTENT["a"])
    assert found["b"][0] == 1 and found["b"][3] == 3


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"cos\nsystem\n(S'false'\ntR.", "os.system"),
        (pickle.dumps(eval), "builtins.eval"),
        (pickle.dumps(np.load), "numpy.load"),
        (pickle.dumps(np.random.default_rng(0)), "numpy.random"),
    ],
)
def test_everything_else_is_refused(data, name, tmp_path):
    with pytest.raises(UserError, match=f"a.pkl is not a readable pickle .it asks for {name}.*; expected it") as error:
        read_pickle(member(tmp_path, data), "expected it")
    assert "\n" not in str(error.value)


def test_a_claim_of_many_objects_takes_no_memory(tmp_path):
    data = pickle.dumps(CONTENT, 2)
    position = data.index(b"q\x00") + 2  # a memo slot is chosen freely by LONG_BINPUT
    data = data[:position] + b"r\xff\xff\xff\x7f" + data[position:]
    assert read_pickle(member(tmp_path, data), "expected it")["c"] == CONTENT["c"]


def test_a_dict_is_asked_for(tmp_path):
    with pytest.raises(UserError, match="a.pkl holds a list, not a dict; expected it"):
        read_dict(member(tmp_path, pickle.dumps([1])), "expected it")


def test_mutated_pickles_are_read_or_one_line(tmp_path):
    rng = np.random.default_rng(0)
    refused = 0
    for trial in range(300):
        data = bytearray(pickle.dumps(CONTENT, trial % 6))
        for position in rng.integers(0, len(data), rng.integers(1, 6)):
            data[position] = rng.integers(256)
        try:
            read_dict(member(tmp_path, bytes(data)), "expected it")
        except UserError as error:
            refused += 1
            assert "\n" not in str(error)
    assert 0 < refused < 300
