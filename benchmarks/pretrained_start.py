"""Why CxGrad falls from a pre-trained body: the factors that it starts with.

    python -m benchmarks.pretrained_start --iterations 500

CxGrad sets the norm of every kernel to a factor γ of about 0.7 at the start of meta-training. The kernels of a
pre-trained body have norms of 3.7 to 9.5, so that the first inner steps turn them 25 to 180 times as far as MAML's.
Here MAML and CxGrad start from the body of the weights ``classifier_baseline_glyphs``, CxGrad once as it is, and once
with biases of its generator that make every γ the norm of its kernel. The inner steps of the latter are MAML's, except
that γ can be learned. Prints the norms, the factors, and the test accuracy on the glyphs, 5-way 1-shot.
"""

import argparse
import sys
from typing import Any

import jax
import jax.numpy as jnp
import optax

import cxgrad_jax as cx
from cxgrad_jax.learners import by_path
from cxgrad_jax.learners._cxgrad import no_context, scaling_factors
from cxgrad_jax.pretraining import with_body_of

WEIGHTS = "classifier_baseline_glyphs"
RATE = 1e-3  # of Adam


def main(flags: list[str]) -> None:
    """Trains, tests and prints."""
    parser = argparse.ArgumentParser(prog="pretrained_start", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--iterations", type=int, default=500, help="outer iterations of training (default 500)")
    parser.add_argument("--episodes", type=int, default=600, help="of the test (default 600)")
    given = parser.parse_args(flags)
    train, test = (cx.sampler(cx.data.load("glyphs", split)) for split in ("train", "test"))
    trained = cx.load(WEIGHTS)[1]
    images = train.batch([0]).support_images[0]
    model = cx.models.Conv4(5, 32)
    for name, learner, as_norms in (
        ("MAML", cx.learners.maml(model), False),
        ("CxGrad", cx.learners.cxgrad(model), False),
        ("CxGrad, γ as the norms", cx.learners.cxgrad(model), True),
    ):
        params = with_body_of(learner.init(jax.random.key(0), images), trained, model, images, WEIGHTS)
        if as_norms:
            params = factors_as_norms(params)
        told = f", γ {factors(params)}" if "generator" in params else f", norms {norms(params)}"
        params = cx.fit(learner, train, optax.adam(RATE), iterations=given.iterations, params=params, progress=False)
        found = cx.evaluate(learner, params, test, episodes=given.episodes)
        after = f" -> {factors(params)}" if "generator" in params else f" -> {norms(params)}"
        print(f"{name}: {100 * found.accuracy:.2f} ± {100 * found.ci95:.2f} %{told}{after}", flush=True)


def norms(params: Any) -> list[float]:
    """Norms of the convolutions' kernels."""
    kernels = [leaf for path, leaf in sorted(by_path(params["model"]).items()) if path.endswith("conv/kernel")]
    return [round(float(jnp.linalg.norm(kernel)), 2) for kernel in kernels]


def factors(params: Any) -> list[float]:
    """The factors γ before any update of the context."""
    return [round(float(x), 2) for x in scaling_factors(params["generator"], no_context(params["generator"]))]


def factors_as_norms(params: Any) -> Any:
    """The meta-parameters with biases of the generator's output that make every γ the norm of its kernel."""
    generator = params["generator"]
    before = jnp.log(jnp.expm1(jnp.asarray(factors(params))))  # softplus, undone
    wanted = jnp.log(jnp.expm1(jnp.asarray(norms(params))))
    output = {**generator["output"], "bias": generator["output"]["bias"] + wanted - before}
    return {**params, "generator": {**generator, "output": output}}


if __name__ == "__main__":
    main(sys.argv[1:])
