"""Damaged and hostile inputs end in success or one line: a small ``python -m benchmarks.fuzz``."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cxgrad_jax.errors import UserError

ROOT = Path(__file__).parents[1]
# A checkpoint that is refused leaves reads of Orbax under way, which fail in silence a moment later.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def fuzz():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT))
        from benchmarks import fuzz

        yield fuzz


def test_no_door_takes_a_damaged_input_amiss(fuzz, finished, tiny_data, tmp_path, monkeypatch):
    (tmp_path / "here" / "here").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here" / "here")
    Path("file").write_text("")
    monkeypatch.setenv("CXGRAD_DATA_DIR", str(Path("file").absolute()))  # not even the glyphs can be prepared there
    place = fuzz.doors.place_of(tmp_path, tiny_data, finished)
    faults, counts = [], {}
    for name, outcomes, found, _ in fuzz.fuzz(place, 150, seed=1):
        counts[name] = sum(outcomes.values())
        faults += found
    assert not faults, "\n".join(f"{fault.door}, input {fault.number}: {fault.what}" for fault in faults)
    assert set(counts) == set(fuzz.DOORS) and sum(counts.values()) >= 145


def test_a_fault_is_found(fuzz, finished, tiny_data, tmp_path, monkeypatch):
    def door_of(kind):
        def door(rng, place):
            def call():
                if kind == "lines":
                    raise UserError("two\nlines")
                if kind == "defect":
                    raise KeyError("x")
                if kind == "mistake":
                    raise UserError("x is 1; expected 2")
                return {"status": 1, "silent": 2}.get(kind)

            return call

        return door

    kinds = ("success", "mistake", "lines", "defect", "status", "silent")
    monkeypatch.setattr(fuzz, "DOORS", {kind: (door_of(kind), 1.0) for kind in kinds})
    place = fuzz.doors.place_of(tmp_path, tiny_data, finished)
    found = {name: dict(outcomes) for name, outcomes, *_ in fuzz.fuzz(place, 1, seed=0)}
    assert found == {"success": {"success": 1}, "mistake": {"refusal": 1}} | {kind: {"fault": 1} for kind in kinds[2:]}


def test_a_hang_is_found(fuzz, finished, tiny_data, tmp_path, monkeypatch):
    def endless():
        while True:
            pass

    monkeypatch.setattr(fuzz, "SECONDS", 0.3)
    monkeypatch.setattr(fuzz, "DOORS", {"endless": (lambda rng, place: endless, 1.0)})
    place = fuzz.doors.place_of(tmp_path, tiny_data, finished)
    ((_, outcomes, (fault,), _),) = fuzz.fuzz(place, 1, seed=0)
    assert outcomes == {"fault": 1} and "a hang" in fault.what


def test_what_a_call_was_given_is_sound_again(fuzz, finished, tiny_data, tmp_path):
    place = fuzz.doors.place_of(tmp_path, tiny_data, finished)
    (place.copy / "config.json").unlink()
    (place.copy / "metrics.jsonl").write_text("other")
    (place.copy / "new").write_text("")
    (place.folder / "left").mkdir()
    fuzz.put_back(place)
    for path in (path.relative_to(finished) for path in finished.rglob("*") if path.is_file()):
        assert (place.copy / path).read_bytes() == (finished / path).read_bytes()
    assert not (place.copy / "new").exists() and not list(place.folder.iterdir())


def test_mutations_follow_from_their_generator_and_change_what_they_get(fuzz):
    from benchmarks import mutations

    content = {"a": [1, 2.5, {"b": "c"}], "d": None}
    text = json.dumps(content).encode()
    kinds: list[tuple[Any, Any]] = [
        (mutations.changed_bytes, bytes(range(256))),
        (mutations.changed_json, content),
        (mutations.changed_json_file, text),
        (mutations.changed_flags, ["--a=1", "--b=c"]),
    ]
    for mutate, sound in kinds:
        twice = [[mutate(np.random.default_rng(i), sound) for i in range(20)] for _ in range(2)]
        assert repr(twice[0]) == repr(twice[1])  # nan is in it
        assert sum(repr(each) != repr(sound) for each in twice[0]) >= 15
    assert content == {"a": [1, 2.5, {"b": "c"}], "d": None}
