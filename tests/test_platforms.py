"""A program takes the form of the platform that it is traced for, whatever the process runs on."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cxgrad_jax as cx
from cxgrad_jax import batching, platforms, runtime
from cxgrad_jax.learners._inner_loop import scan_steps
from cxgrad_jax.models import _fused
from cxgrad_jax.models._convolution import convolution

pytestmark = pytest.mark.skipif(jax.default_backend() != "cpu", reason="tells what a process with only a CPU does")


class FakeDevice:
    """What ``current_platform`` asks of a device."""

    def __init__(self, platform):
        self.platform = platform


def test_the_default_is_the_processs_own_platform():
    assert platforms.current_platform() == "cpu"
    with jax.default_device(jax.devices("cpu")[1]):
        assert platforms.current_platform() == "cpu"


def test_nothing_changes_without_a_platform_or_with_the_same():
    device = jax.devices("cpu")[1]
    with jax.default_device(device):
        for platform in (None, "cpu"):
            with platforms.traced_for(platform):
                assert jnp.zeros(1).devices() == {device}


def test_contexts_nest_and_end():
    with platforms.traced_for("tpu"):
        assert platforms.current_platform() == "tpu"
        with platforms.traced_for("gpu"):
            assert platforms.current_platform() == "gpu"
        with platforms.traced_for(None):
            assert platforms.current_platform() == "tpu"
    assert platforms.current_platform() == "cpu"


def test_one_jitted_function_has_a_form_for_each_platform():
    x, kernel = np.ones((4, 8, 8, 3), np.float32), np.ones((3, 3, 3, 4), np.float32)

    @jax.jit
    def gradient(x, kernel):
        return jax.grad(lambda kernel: jnp.sum(jnp.sin(convolution(x, kernel))))(kernel)

    before = gradient(x, kernel)
    with platforms.traced_for("tpu"):
        accelerator = gradient.trace(x, kernel)
    # The custom form transposes images and channels by itself and concatenates the neighbours of a pixel.
    assert "concatenate" in str(gradient.trace(x, kernel).jaxpr)
    assert "concatenate" not in str(accelerator.jaxpr)
    np.testing.assert_array_equal(gradient(x, kernel), before)
    assert accelerator.lower(lowering_platforms=("tpu",)).as_text().count("stablehlo.convolution") == 2


def test_the_inner_loop_is_a_loop_on_a_tpu_only():
    def program(x):
        return scan_steps(lambda x, _: (jnp.sin(x), None), x, 3, remat=False)[0]

    x = np.ones(2, np.float32)
    assert "unroll=3" in str(jax.make_jaxpr(program)(x))
    for platform, unroll in (("gpu", 3), ("tpu", 1)):
        with platforms.traced_for(platform):
            assert f"unroll={unroll}" in str(jax.make_jaxpr(program)(x))


def test_the_first_block_has_parts_on_a_cpu_only(monkeypatch):
    monkeypatch.setattr(_fused, "PART_BYTES", 16 * 16 * 4 * 4)
    model, images = cx.models.Conv4(3, features=4), np.ones((2, 16, 16, 3), np.float32)
    params = model.init(jax.random.key(0), images)
    program = lambda images: model.apply(params, images)  # noqa: E731
    assert "scan[" in str(jax.make_jaxpr(program)(images))
    with platforms.traced_for("tpu"):
        assert "scan[" not in str(jax.make_jaxpr(program)(images))


@pytest.mark.slow
def test_the_gradient_of_a_learner_can_be_made_for_absent_devices():
    images, labels = np.zeros((2, 16, 16, 3), np.float32), np.arange(2)
    learner = cx.learners.cxgrad(cx.models.Conv4(2, features=2), num_steps=2, context_dim=3)
    params = jax.jit(learner.init)(jax.random.key(0), images)
    step = jax.jit(jax.grad(lambda params, episode: learner.loss(params, episode)[0]))
    assert "custom_vmap" not in str(jax.make_jaxpr(learner.loss)(params, cx.Episode(images, labels, images, labels)))
    for platform, name in (("gpu", "cuda"), ("tpu", "tpu")):
        with platforms.traced_for(platform):
            traced = step.trace(params, cx.Episode(images, labels, images, labels))
            forward = jax.make_jaxpr(learner.loss)(params, cx.Episode(images, labels, images, labels))
        assert ("custom_vmap" in str(forward)) == (platform == "tpu")  # of the kernel gradient's form for a TPU
        text = traced.lower(lowering_platforms=(name,)).as_text()
        assert ("stablehlo.convolution" in text) == (platform == "tpu")  # a GPU has products of matrices


def test_tasks_are_vectorised_on_accelerators_only():
    assert batching.vectorised_tasks(4) == 1
    with platforms.traced_for("gpu"):
        assert batching.vectorised_tasks(4) == 4


def test_compiler_options_are_those_of_the_platform():
    options = runtime.compiler_options(1)
    assert options and runtime.compiler_options(1, "cpu") == options
    assert runtime.compiler_options(1, "tpu") == {}
    with platforms.traced_for("gpu"):
        assert runtime.compiler_options(1) == {} and runtime.compiler_options(1, "cpu") == options


@pytest.mark.parametrize(("told", "platform"), [("cuda", "gpu"), ("rocm", "gpu"), ("gpu", "gpu"), ("tpu", "tpu")])
def test_a_gpu_is_a_gpu_whoever_made_it(told, platform, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: told)
    assert platforms.current_platform() == platform
    monkeypatch.setattr(platforms.jax, "config", type("Config", (), {"jax_default_device": FakeDevice(told)}))
    assert platforms.current_platform() == platform


def test_the_makers_names_of_a_gpu_are_known_and_other_platforms_refused():
    with platforms.traced_for("cuda"):
        assert platforms.current_platform() == "gpu"
    with pytest.raises(cx.UserError, match="platform is 'metal'; expected one of cpu, gpu, tpu"):
        platforms.traced_for("metal")


def test_a_process_without_a_cpu_draws_on_its_first_device(monkeypatch):
    first, known = jax.local_devices()[0], jax.local_devices

    def without_cpu(backend=None):
        if backend == "cpu":
            raise RuntimeError("Unknown backend cpu")  # as JAX does where JAX_PLATFORMS is cuda
        return known()

    monkeypatch.setattr(jax, "local_devices", without_cpu)
    assert platforms.host_device() == first


def test_only_platforms_asks_jax():
    package = Path(cx.__file__).parent
    asking = [path.relative_to(package) for path in package.rglob("*.py") if "default_backend" in path.read_text()]
    assert asking == [Path("platforms.py")]
