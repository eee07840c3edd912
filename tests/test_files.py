"""Files are written whole or not at all."""

import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cxgrad_jax import files
from cxgrad_jax.errors import UserError


def test_write_json_is_all_or_nothing(tmp_path):
    path = tmp_path / "x.json"
    files.write_json(path, {"a": 1})
    with pytest.raises(ValueError):
        files.write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": 1}


def test_what_cannot_be_written_is_one_line_and_leaves_the_old_content(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    files.write_json(path, {"a": 1})

    def no_space(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", no_space)
    with pytest.raises(UserError, match=f"{path} cannot be written: No space left on device"):
        files.write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 1} and [each.name for each in tmp_path.iterdir()] == ["x.json"]


def test_csv_text():
    assert files.csv_text(["a", "b"], [[1, None], ["x,y", 2.5]]) == 'a,b\n1,\n"x,y",2.5\n'


def test_a_link_stays_a_link_and_a_pipe_a_pipe(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "file")
    files.write_whole(tmp_path / "link", "text")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "file").read_text() == "text"
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    files.write_whole(tmp_path / "pipe", "text")
    assert os.read(reader, 10) == b"text" and (tmp_path / "pipe").is_fifo()
    os.close(reader)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="Linux has /proc")
@pytest.mark.parametrize("how", ["/proc/self/fd/{}", "/dev/fd/{}", "link", "folder/{}"])
def test_a_file_that_the_process_has_open_is_added_to_where_it_stands(how, tmp_path):
    log = tmp_path / "log"
    log.write_text("before ")
    (tmp_path / "folder").symlink_to("/dev/fd")
    with log.open("r+") as file:
        file.seek(7)
        (tmp_path / "link").symlink_to(f"/proc/self/fd/{file.fileno()}")
        path = tmp_path / how.format(file.fileno())
        assert files.is_stream(path) and not files.is_stream(log) and not files.is_stream(tmp_path / "new")
        inode = log.stat().st_ino
        files.write_whole(path, "text ")
        file.write("after")
    assert log.read_text() == "before text after" and log.stat().st_ino == inode
    assert sorted(each.name for each in tmp_path.iterdir()) == ["folder", "link", "log"]


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="Linux has /proc")
def test_a_file_that_another_process_has_open_is_added_to(tmp_path):
    log = tmp_path / "log"
    log.write_text("before ")
    with log.open("a") as file, subprocess.Popen(["sleep", "60"], stdout=file) as other:
        files.write_whole(Path(f"/proc/{other.pid}/fd/1"), "text")
        other.kill()
    assert log.read_text() == "before text"


def test_a_device_stays_one_and_an_open_file_that_is_closed_is_told():
    files.write_whole(Path(os.devnull), "text")
    assert files.is_stream(Path(os.devnull)) and not os.path.isfile(os.devnull)
    with pytest.raises(UserError, match="/dev/fd/987 cannot be written: Bad file descriptor"):
        files.write_whole(Path("/dev/fd/987"), "text")


def test_a_link_that_leads_to_itself_is_no_stream(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert not files.is_stream(tmp_path / "loop") and not files.is_stream(tmp_path / ("x" * 300))


def test_the_room_that_a_file_needs_is_asked_for(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(files.os, "fsync", lambda number: written.append(os.fstat(number).st_size))
    files.check_writable(tmp_path)
    files.check_writable(tmp_path, 14_000_000)
    assert written == [64 << 10, 14_000_000] and not list(tmp_path.iterdir())


def test_two_writers_leave_one_whole_content(tmp_path):
    """Processes of several hosts may all save the same file."""
    path = tmp_path / "x.bin"
    contents = [bytes([i]) * 2_000_000 for i in range(4)]
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda i: files.write_whole(path, contents[i % 4]), range(40)))
    assert path.read_bytes() in contents and [each.name for each in tmp_path.iterdir()] == ["x.bin"]


def test_the_longest_name_that_a_file_can_have(tmp_path):
    files.write_whole(tmp_path / ("x" * 255), "a")
    assert (tmp_path / ("x" * 255)).read_text() == "a"
