"""Where writing fails: the result is printed, one line names the file and the cause, and nothing is lost."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from runs import command, environment, flags, outcome, results, run, told

from cxgrad_jax import accounts, data, files
from cxgrad_jax.errors import AlreadyTold, UserError
from cxgrad_jax.report import tables
from cxgrad_jax.training import evaluate
from cxgrad_jax.training import workdir as workdir_of
from cxgrad_jax.training.config import ConfigDict

FILL_AFTER_5 = """
from cxgrad_jax.training.metrics_file import MetricsFile
write = MetricsFile.write
def filling(self, **record):
    write(self, **record)
    if record["iteration"] == 5:
        try: open("FOLDER/others", "wb", buffering=0).write(bytes(40 << 20))
        except OSError: pass
        while True:
            try: open("FOLDER/rest", "ab", buffering=0).write(bytes(4096))
            except OSError: break
MetricsFile.write = filling
"""
ROOT = Path(__file__).parents[1]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root makes a small disk or another user's process")


@contextlib.contextmanager
def disk(folder: Path, size: str):
    """A file system of its own in ``folder``."""
    folder.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)], capture_output=True
    ).returncode:
        pytest.skip("this machine lets nobody mount")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def lines(done: subprocess.CompletedProcess[str]) -> list[str]:
    return told(done.stderr)


@pytest.mark.slow
@needs_root
def test_a_disk_that_fills_up_loses_nothing(finished, tiny_data, tmp_path):
    """The disk has room for the first checkpoints as far as it says itself; another file then takes the rest."""
    with disk(tmp_path / "disk", "40m") as folder:
        arguments = flags(tiny_data, folder / "run")
        fill = FILL_AFTER_5.replace("FOLDER", str(folder))
        stopped = run(*arguments, before=fill)
        assert stopped.returncode == 2, stopped.stderr
        (line,) = lines(stopped)
        assert line.startswith(
            f"cxgrad_jax: {folder}/run/metrics.jsonl cannot be written: No space left on device"
        ) or (
            line.startswith(f"cxgrad_jax: checkpoint {folder}/run/checkpoints/6 cannot be written (")
            and "again" in line
        )
        (folder / "others").unlink()
        (folder / "rest").unlink(missing_ok=True)
        assert run(*arguments).returncode == 0
        assert outcome(folder / "run") == outcome(finished)


@needs_root
def test_data_are_prepared_on_a_disk_that_fills_up(tiny_data, tmp_path, monkeypatch):
    with disk(tmp_path / "disk", "30k") as folder:
        monkeypatch.setattr("cxgrad_jax.data.datasets.builder.FewShotBuilder._check_space", lambda self: None)
        with pytest.raises(UserError, match=r"cannot prepare own in .*No space left on device.*\$CXGRAD_DATA_DIR"):
            data.prepare("image_folder", source=tiny_data / "images", as_name="own", image_size=16, data_dir=folder)
        remount(folder, "size=10m")
        data.prepare("image_folder", source=tiny_data / "images", as_name="own", image_size=16, data_dir=folder)
        remount(folder, "ro")
        data.prepare("image_folder", source=tiny_data / "images", as_name="own", image_size=16, data_dir=folder)
        with pytest.raises(UserError, match="cannot prepare other in .*Read-only file system"):
            data.prepare("image_folder", source=tiny_data / "images", as_name="other", image_size=16, data_dir=folder)


def test_records_that_cannot_be_written_are_told(tiny_data, tmp_path, monkeypatch):
    from tensorflow_datasets.core import file_adapters

    def full(*_, **__):
        raise RuntimeError("write() failed: No space left on device; writing a/b; at byte 5")

    monkeypatch.setattr(file_adapters.ArrayRecordFileAdapter, "write_examples", full)
    with pytest.raises(
        UserError, match="cannot prepare own in .*: write.. failed: No space left on device; writing a/b; "
    ):
        data.prepare("image_folder", source=tiny_data / "images", as_name="own", image_size=16, data_dir=tmp_path)


@pytest.mark.slow
@needs_root
def test_a_disk_too_small_for_the_checkpoints_is_refused_before_the_work(tiny_data, tmp_path):
    with disk(tmp_path / "disk", "300k") as folder:
        done = run(*flags(tiny_data, folder / "run"))
        assert done.returncode == 2 and not done.stdout
        (line,) = lines(done)
        assert "MB for checkpoints, and 0." in line and "MB are free; make room" in line


@pytest.mark.slow
@needs_root
def test_a_run_on_a_disk_that_cannot_be_written_is_tested(finished, tiny_data, tmp_path):
    with disk(tmp_path / "disk", "40m") as folder:
        shutil.copytree(finished, folder / "run")
        (folder / "run" / "results.json").unlink()
        remount(folder, "ro")
        done = run(f"--workdir={folder / 'run'}", "--mode=evaluate")
        assert done.returncode == 2
        assert f"test accuracy {100 * results(finished)['test_accuracy']:.2f} %" in done.stdout
        (line,) = lines(done)
        assert f"{folder}/run/results.json cannot be written (" in line and "Read-only file system" in line

        again = run(*flags(tiny_data, folder / "run"))
        assert again.returncode == 2 and "Read-only file system" in lines(again)[0] and len(lines(again)) == 1


@pytest.mark.slow
def test_what_a_test_cannot_write_is_told_before_the_work(finished, tmp_path, monkeypatch, capsys):
    shutil.copytree(finished, tmp_path / "run")
    before = (tmp_path / "run" / "results.json").read_bytes()
    order = []

    def no_place(folder):
        order.append("tried")
        raise UserError(f"{folder} cannot be written: Read-only file system")

    compute = evaluate.test_run
    monkeypatch.setattr(evaluate, "check_writable", no_place)
    monkeypatch.setattr(evaluate, "test_run", lambda *given: order.append("computed") or compute(*given))
    with pytest.raises(AlreadyTold, match="results.json cannot be written"):
        evaluate.evaluate_run(workdir_of.read_config(tmp_path / "run"), tmp_path / "run")
    output = capsys.readouterr()
    assert order == ["tried", "computed", "computed"] and "test accuracy" in output.out
    assert len(told(output.err)) == 1 and "the result is printed only" in output.err
    assert (tmp_path / "run" / "results.json").read_bytes() == before


def test_a_table_that_cannot_be_written_is_printed(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="x.md cannot be written: Not a directory"):
        tables.write_tables(tmp_path / "file", "x", md="| a |\n", csv="", tex="")
    assert capsys.readouterr().out == "| a |\n"


def test_a_folder_is_tried_before_the_work(tmp_path, monkeypatch):
    files.check_writable(tmp_path / "new" / "folder")
    assert not list((tmp_path / "new" / "folder").iterdir())
    (tmp_path / "file").write_text("")
    for folder, cause in ((tmp_path / "file", "File exists"), (tmp_path / "file" / "x", "Not a directory")):
        with pytest.raises(UserError, match=f"^{folder} cannot be written: {cause}$"):
            files.check_writable(folder)
    with pytest.raises(UserError, match="cannot be written: .*embedded null (byte|character)"):
        files.check_writable(Path("a\0b"))

    def no_space(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", no_space)
    with pytest.raises(UserError, match="No space left on device"):
        files.check_writable(tmp_path)


def test_a_folder_without_room_is_refused(tmp_path, monkeypatch):
    workdir_of.check_space(tmp_path, 1000)
    monkeypatch.setattr(workdir_of.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(5000000, 0, 900000))
    with pytest.raises(UserError, match="needs 1.0 MB for checkpoints, and 0.9 MB are free; make room"):
        workdir_of.check_space(tmp_path, 1000000)
    monkeypatch.setattr(workdir_of.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, 0))
    workdir_of.check_space(tmp_path, 1000)  # a file system that does not tell


def test_advice_on_another_configuration_suits_the_mode(finished, tmp_path):
    config = workdir_of.read_config(finished)
    changed = ConfigDict(config.to_dict())
    changed.train.meta_batch = 9
    with pytest.raises(UserError, match=r"not 2\); a test may change evaluation .*, data\.dir$"):
        evaluate.evaluate_run(changed, finished)
    with pytest.raises(UserError, match=r"not 2\); choose another folder: --workdir=.*-2$"):
        workdir_of.check_extends(changed, finished)


@pytest.mark.slow
@needs_root
def test_a_user_without_an_account_and_a_home_trains_and_tests(finished, tiny_data, tmp_path):
    """The files of the run and the data belong to somebody without an account as well."""
    place = Path("/tmp") / f"cxgrad_test_{os.getpid()}"  # other users cannot enter pytest's folders
    shutil.rmtree(place, ignore_errors=True)
    try:
        place.mkdir()
        shutil.copytree(tiny_data, place / "data")
        for path in (place, *place.rglob("*")):
            os.chown(path, 54321, 54321)
        variables = {name: value for name, value in environment().items() if name not in ("HOME", "XDG_CACHE_HOME")}
        variables["JAX_COMPILATION_CACHE_DIR"] = str(place / "cache")

        def as_nobody(*arguments: str) -> subprocess.CompletedProcess[str]:
            # The Python of root may be closed to others: a first test, as root, imports what is needed.
            code = f"""
import os, sys
from cxgrad_jax.main import run
assert run(["--workdir={tmp_path / "copy"}", "--mode=evaluate"]) == 0
print("now as nobody", flush=True)
os.setgroups([]), os.setgid(54321), os.setuid(54321)
sys.exit(run(sys.argv[1:]))
"""
            return subprocess.run(
                [sys.executable, "-c", code, *arguments], env=variables, cwd=place, capture_output=True, text=True,
                timeout=600,
            )  # fmt: skip

        shutil.copytree(finished, tmp_path / "copy")
        done = as_nobody(*flags(place / "data", place / "run"))
        assert done.returncode == 0, done.stderr
        assert outcome(place / "run")[0] == outcome(finished)[0]
        again = as_nobody(f"--workdir={place / 'run'}", "--mode=evaluate")
        assert again.returncode == 0 and not lines(again), again.stderr
        assert run(f"--workdir={place / 'run'}", "--mode=evaluate").returncode == 0  # somebody else's files
    finally:
        shutil.rmtree(place, ignore_errors=True)


def test_a_change_that_threads_share_is_made_once_and_taken_back_last():
    log = []

    @accounts.shared
    @contextlib.contextmanager
    def change():
        log.append("made")
        yield
        log.append("taken back")

    first, second = threading.Event(), threading.Event()

    def other():
        with change():
            first.set()
            second.wait(10)

    thread = threading.Thread(target=other)
    with change():
        thread.start()
        first.wait(10)
    assert log == ["made"]
    second.set()
    thread.join()
    assert log == ["made", "taken back"]
    with change():
        pass
    assert log == ["made", "taken back"] * 2


# Command lines that only print.
PROGRAMS = (
    ["-m", "data_prep", "--list"], ["-m", "cxgrad_jax", "--help"], ["-m", "cxgrad_jax.main", "--help"],
    ["-m", "cxgrad_jax.compare", "--help"], ["-m", "cxgrad_jax.tables", "--help"],
    ["-m", "cxgrad_jax", "prepare", "--list"],
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("words", PROGRAMS, ids=" ".join)
def test_a_program_whose_reader_goes_away_ends_quietly(words, tmp_path):
    """Python's own output is not buffered, so that each line meets the pipe that is closed."""
    reader, writer = os.pipe()
    os.close(reader)
    environ = {**environment(), "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    for output in (writer, subprocess.DEVNULL):
        done = subprocess.run(
            [sys.executable, *words],
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
            env=environ,
            cwd=tmp_path,
            timeout=600,
        )
        assert (done.returncode, done.stderr) == (0, "")
    os.close(writer)


@pytest.mark.slow
def test_a_training_whose_reader_goes_away_is_done_all_the_same(finished, tiny_data, tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        command(*flags(tiny_data, tmp_path / "run")), stdout=writer, stderr=writer, env=environment(), timeout=600
    )
    os.close(writer)
    assert done.returncode == 0
    assert outcome(tmp_path / "run") == outcome(finished)


@pytest.mark.slow
def test_output_that_cannot_be_written_is_told_at_the_end(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / "results.json").unlink()
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            command(f"--workdir={tmp_path / 'run'}", "--mode=evaluate"), stdout=full, stderr=subprocess.PIPE, text=True,
            env=environment(), timeout=600,
        )  # fmt: skip
    assert (done.returncode, told(done.stderr)) == (2, ["standard output cannot be written: No space left on device"])
    assert outcome(tmp_path / "run") == outcome(finished)


def test_output_that_is_closed_from_the_start(tmp_path):
    words = f"{sys.executable} -m data_prep --list >&- 2>&-"
    done = subprocess.run(
        ["bash", "-c", words], cwd=tmp_path, env={**environment(), "PYTHONPATH": str(ROOT)}, timeout=600
    )
    assert done.returncode == 0


@pytest.mark.slow
def test_a_character_that_the_terminal_lacks_is_an_escape(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    done = subprocess.run(
        command(f"--workdir={tmp_path / 'run'}", "--mode=evaluate"), capture_output=True, text=True,
        env={**environment(), "PYTHONIOENCODING": "ascii"}, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0 and r"% \xb1 " in done.stdout


def test_a_checkpoint_that_cannot_be_written_says_how_to_go_on(tmp_path, monkeypatch):
    import jax.numpy as jnp

    from cxgrad_jax.training.checkpoints import Checkpoints

    checkpoints = Checkpoints(tmp_path, 2)
    checkpoints.save(1, {"a": jnp.ones(3)}, 0.5)

    def no_space(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints._manager, "save", no_space)
    with pytest.raises(
        UserError, match="checkpoints/2 cannot be written .*the last good one is of iteration 1: make room"
    ):
        checkpoints.save(2, {"a": jnp.ones(3)}, 0.5)
    assert json.loads((tmp_path / "checkpoints" / "1" / "metrics" / "metrics").read_text())["val_accuracy"] == 0.5
