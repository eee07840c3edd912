import errno

from cxgrad_jax import locks
from cxgrad_jax.data import _lock


def test_without_fcntl_everybody_is_let_in(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "fcntl", None)
    with _lock.locked(tmp_path / "lock"), _lock.locked(tmp_path / "lock"):
        pass


def test_a_file_system_without_locks_is_warned_of(tmp_path, monkeypatch, caplog):
    def refuse(file, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks.fcntl, "flock", refuse)
    with _lock.locked(tmp_path / "lock"):
        pass
    assert "cannot be locked" in caplog.text
