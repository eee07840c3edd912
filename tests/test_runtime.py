"""How the process is set up: what the user chose stays, and an unknown compiler option is left out."""

import os
import socket
import subprocess
import sys

import jax
import pytest
from runs import command

import cxgrad_jax as cx
from cxgrad_jax import machine, runtime


def test_the_allocator_is_chosen_once_and_never_against_the_user(monkeypatch):
    monkeypatch.setattr("platform.libc_ver", lambda: ("glibc", "2.39"))
    assert runtime.allocator({}) == {"GLIBC_TUNABLES": runtime.ALLOCATOR}
    assert runtime.allocator({"GLIBC_TUNABLES": ""}) == {} == runtime.allocator({"MALLOC_ARENA_MAX": "2"})
    monkeypatch.setattr("platform.libc_ver", lambda: ("", ""))
    assert runtime.allocator({}) == {}


def test_the_command_line_starts_again_with_the_allocator_and_its_own_arguments():
    environment = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    say = "import os, sys; print(os.getpid(), os.environ.get('GLIBC_TUNABLES'), sys.argv[1:])"
    process = subprocess.Popen(
        command("--workdir=a b", "--nonsense", before=say),
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    stdout, stderr = process.communicate(timeout=600)
    expected = [f"{process.pid} {setting} ['--workdir=a b', '--nonsense']" for setting in (None, runtime.ALLOCATOR)]
    assert stdout.splitlines() == (expected if runtime.allocator(environment) else expected[:1])
    assert process.returncode == 2 and "--nonsense is unknown" in stderr


def test_compiler_options_are_taken_by_this_compiler():
    options = runtime.compiler_options(1)
    always = ["xla_cpu_multi_thread_eigen", "xla_cpu_prefer_vector_width"]
    convolutions = "xla_cpu_experimental_ynn_fusion_type"
    expected = [*always, convolutions] if jax.__version_info__ >= (0, 10) else always  # 0.7.2 has Eigen alone
    assert list(options) == (expected if jax.default_backend() == "cpu" else [])
    assert convolutions not in runtime.compiler_options(2)  # it would compute wrongly: see test_parallel
    assert jax.jit(lambda x: x + 1, compiler_options=options)(1) == 2
    assert runtime.compiler_options(machine.cores()).get("xla_cpu_multi_thread_eigen") in (False, None)


def test_an_option_that_the_compiler_does_not_know_is_left_out():
    assert not runtime._is_known("xla_cpu_no_such_option", True)


@pytest.mark.skipif("CXGRAD_KILLS" not in os.environ, reason="waits for a minute; $CXGRAD_KILLS asks for it")
def test_a_device_may_be_late_on_an_overloaded_machine():
    late = """
import time
from cxgrad_jax import runtime
runtime.let_devices_be_late()
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, PartitionSpec as P

def wait(i):
    time.sleep(50 * int(i))
    return np.int32(i)

def total(x):
    i = jax.pure_callback(wait, jax.ShapeDtypeStruct((), jnp.int32), jax.lax.axis_index("tasks"))
    return jax.lax.psum(x + i, "tasks")

mesh = Mesh(np.array(jax.devices()[:2]), ("tasks",))
print(jax.jit(jax.shard_map(total, mesh=mesh, in_specs=P("tasks"), out_specs=P()))(jnp.zeros(2, jnp.int32)))
"""
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    done = subprocess.run([sys.executable, "-c", late], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and done.stdout.strip() == "[1]", done.stderr[-2000:]


LAUNCHER = {"JAX_COORDINATOR_ADDRESS": "node1:1234", "JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "3"}


@pytest.fixture
def joined(monkeypatch):
    """What ``jax.distributed.initialize`` was given, without the launcher's variables."""
    calls = []
    for name in LAUNCHER:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(jax.distributed, "initialize", lambda *args, **options: calls.append((*args, options)))
    monkeypatch.setattr(runtime, "_look_for_coordinator", lambda host, port, process_id: None)
    return calls


def test_a_whole_triple_switches_detection_off_and_flags_come_before_the_launcher(joined, monkeypatch):
    off = {"cluster_detection_method": "deactivate"}
    runtime.join_processes("node0:99", 2, 0)
    for name, value in LAUNCHER.items():
        monkeypatch.setenv(name, value)
    runtime.join_processes()
    runtime.join_processes(process_id=0)
    assert joined == [("node0:99", 2, 0, off), ("node1:1234", 4, 3, off), ("node1:1234", 4, 0, off)]


def test_without_a_triple_the_cluster_is_detected(joined):
    runtime.join_processes()
    assert joined == [({},)]


def test_no_cluster_gets_one_line(monkeypatch):
    def refuse():
        raise ValueError("coordinator_address should be defined.")

    for name in LAUNCHER:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(jax.distributed, "initialize", refuse)
    with pytest.raises(cx.UserError, match="detects no cluster here .* give --coordinator=HOST:PORT"):
        runtime.join_processes()


@pytest.mark.parametrize(
    ("given", "launcher", "message"),
    [
        (("node0:99", None, None), {}, "--coordinator given without --num_processes and --process_id;"),
        ((None, 2, None), {}, "--num_processes given without --coordinator and --process_id;"),
        ((None, None, 0), {"JAX_NUM_PROCESSES": "2"}, "--num_processes and --process_id given without --coordinator;"),
        ((None, None, None), {"JAX_PROCESS_ID": "first"}, "JAX_PROCESS_ID is 'first'; expected a whole number"),
        (("node0", 2, 0), {}, "--coordinator is 'node0'; expected HOST:PORT"),
        ((":99", 2, 0), {}, "--coordinator is ':99'; expected HOST:PORT"),
        (
            ("node0:99999", 2, 0),
            {},
            "--coordinator is 'node0:99999'; expected HOST:PORT, such as node1:1234, port 1 to",
        ),
        (("node0:0", 2, 0), {}, "--coordinator is 'node0:0'; expected HOST:PORT"),
        (("node0:99", 0, 0), {}, "--num_processes is 0; expected at least 1"),
        (("node0:99", 2, 2), {}, "--process_id is 2, and --num_processes is 2; expected 0 to 1"),
    ],
)
def test_half_a_triple_and_wrong_values_get_one_line(joined, monkeypatch, given, launcher, message):
    for name, value in launcher.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(cx.UserError, match=message):
        runtime.join_processes(*given)
    assert not joined


def test_a_host_that_is_not_found_and_a_port_where_nothing_listens_are_told(monkeypatch, capsys):
    monkeypatch.setattr(runtime, "SECONDS_FOR_HOST", 0.0)
    for host in ("no-such-host.invalid", "a" * 70 + ".b"):
        with pytest.raises(cx.UserError, match=f"--coordinator names the host '{host}', which is not found"):
            runtime.join_processes(f"{host}:1234", 2, 1)
    monkeypatch.setattr(jax.distributed, "initialize", lambda *args, **options: None)
    with socket.create_server(("localhost", 0)) as server:
        port = server.getsockname()[1]
        runtime.join_processes(f"localhost:{port}", 2, 1)
        assert capsys.readouterr().err == ""
    runtime.join_processes(f"localhost:{port}", 2, 1)
    assert capsys.readouterr().err == (
        f"cxgrad_jax: process 1 waits up to 5 minutes for process 0 at localhost, port {port}, where nothing listens "
        "yet\n"
    )
    runtime.join_processes(f"localhost:{port}", 2, 0)  # which will listen there
    assert capsys.readouterr().err == ""
