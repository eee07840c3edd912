"""What must hold of the metric learners whatever the numbers: direct formulas, symmetries, finite differences."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.flatten_util import ravel_pytree
from jax.sharding import PartitionSpec as P
from small import FEATURES, WAY, first_params, jitted, make_episode, meta_gradient, model, relative

import cxgrad_jax as cx
from cxgrad_jax import batching, parallel

pytestmark = pytest.mark.usefixtures("double_precision")

PROTO, MATCHING, RELATION = cx.learners.proto_net, cx.learners.matching_net, cx.learners.relation_net
R2D2 = cx.learners.r2d2
FULL_CONTEXT = partial(MATCHING, full_context=True)
VARIANTS = {
    "proto_net": PROTO,
    "proto_net, joint": partial(PROTO, joint_normalisation=True),
    "matching_net": MATCHING,
    "matching_net, full context": FULL_CONTEXT,
    "matching_net, full context, joint": partial(FULL_CONTEXT, joint_normalisation=True),
    "r2d2": R2D2,
    "r2d2, learned, joint": partial(R2D2, learned_regularisation=True, logarithmic=True, joint_normalisation=True),
    "classifier_baseline": cx.learners.classifier_baseline,
    "meta_baseline": cx.learners.meta_baseline,
    "metaoptnet": partial(cx.learners.metaoptnet, label_smoothing=0.1),
    "metaoptnet, svm": partial(cx.learners.metaoptnet, head="svm"),
    "rfs": cx.learners.rfs,
    "relation_net": RELATION,
    "relation_net, mean": partial(RELATION, shot_reduction="mean"),
}
every_variant = pytest.mark.parametrize("factory", VARIANTS.values(), ids=VARIANTS.keys())


def make(factory, network=None, **hyper_parameters):
    learner = factory(network or model(), **hyper_parameters)
    return jitted(learner), first_params(learner, make_episode().support_images)


def logits_of(learner, params, episode):
    task = learner.adapt(params, episode.support_images, episode.support_labels)
    return np.asarray(learner.predict(params, task, episode.query_images))


def features_of(params, images, method="embed", network=None):
    apply = jax.jit(partial((network or model()).apply, method=method))
    return np.asarray(apply({"params": params["model"]}, images))


def test_proto_net_is_the_direct_formula():
    learner, params = make(PROTO)
    episode = make_episode()
    support, query = (features_of(params, x) for x in (episode.support_images, episode.query_images))
    logits = np.empty((len(query), WAY))
    for i, x in enumerate(query):
        for c in range(WAY):
            prototype = np.mean([f for f, y in zip(support, episode.support_labels, strict=True) if y == c], axis=0)
            logits[i, c] = -np.sum((x - prototype) ** 2)
    np.testing.assert_allclose(logits_of(learner, params, episode), logits, rtol=1e-12)
    log_probabilities = logits - np.log(np.sum(np.exp(logits), axis=1, keepdims=True))
    loss, metrics = learner.loss(params, episode)
    right = log_probabilities[np.arange(len(query)), episode.query_labels]
    assert float(loss) == pytest.approx(-np.mean(right), rel=1e-12)
    assert float(metrics["accuracy"]) == pytest.approx(np.mean(logits.argmax(axis=1) == episode.query_labels))


def test_matching_net_is_the_direct_formula():
    learner, params = make(MATCHING, scale=7.0)
    episode = make_episode()
    support, query = (features_of(params, x) for x in (episode.support_images, episode.query_images))
    loss = 0.0
    for i, x in enumerate(query):
        cosines = [max(0, x @ s / (np.linalg.norm(x) + 1e-5) / (np.linalg.norm(s) + 1e-5)) for s in support]
        attention = np.exp(7 * np.array(cosines)) / np.sum(np.exp(7 * np.array(cosines)))
        share = [attention[episode.support_labels == c].sum() + 1e-6 for c in range(WAY)]
        np.testing.assert_allclose(logits_of(learner, params, episode)[i], np.log(share), rtol=1e-11)
        loss -= np.log(share[episode.query_labels[i]]) / len(query)
    assert float(learner.loss(params, episode)[0]) == pytest.approx(loss, rel=1e-12)


def test_relation_net_is_the_direct_formula():
    learner, params = make(RELATION)
    episode = make_episode()
    support, query = (
        features_of(params, x, "feature_maps") for x in (episode.support_images, episode.query_images)
    )  # fmt: skip
    pairs = [
        np.concatenate([support[episode.support_labels == c].sum(axis=0), x], axis=-1)
        for x in query
        for c in range(WAY)
    ]
    relations = cx.models.RelationHead().apply({"params": params["relation"]}, np.stack(pairs))
    logits = np.asarray(relations).reshape(len(query), WAY)
    np.testing.assert_allclose(logits_of(learner, params, episode), logits, rtol=1e-12)
    scores = 1 / (1 + np.exp(-logits))
    loss = np.mean((scores - (episode.query_labels[:, None] == np.arange(WAY))) ** 2)
    assert float(learner.loss(params, episode)[0]) == pytest.approx(loss, rel=1e-12)


def test_full_context_whose_lstms_are_silent_is_none():
    silent, params = make(FULL_CONTEXT)
    plain, _ = make(MATCHING)
    params["context"] = jax.tree.map(jnp.zeros_like, params["context"])
    expected = logits_of(plain, {"model": params["model"]}, make_episode())
    # Logits are logarithms of shares: those near 0 have the rounding of 1.
    np.testing.assert_allclose(logits_of(silent, params, make_episode()), expected, rtol=1e-13, atol=4.5e-16)


@pytest.mark.slow_except("proto_net")
@pytest.mark.parametrize("factory", [PROTO, MATCHING, FULL_CONTEXT])
def test_encoding_jointly_changes_nothing_but_batch_statistics(factory):
    episode = make_episode()
    for norm, same in (("layer", True), ("batch", False)):
        separate, params = make(factory, model(norm=norm))
        joint, _ = make(factory, model(norm=norm), joint_normalisation=True)
        assert (relative(logits_of(joint, params, episode), logits_of(separate, params, episode)) < 1e-11) == same


def test_one_shot_needs_no_reduction():
    episode = make_episode(shot=1)
    total, params = make(RELATION)
    mean, _ = make(RELATION, shot_reduction="mean")
    np.testing.assert_array_equal(logits_of(total, params, episode), logits_of(mean, params, episode))
    assert relative(logits_of(total, params, make_episode()), logits_of(mean, params, make_episode())) > 1e-6


@pytest.mark.slow_except("proto_net", "matching_net")
@every_variant
def test_renaming_the_classes_renames_the_logits(factory):
    learner, params = make(factory)
    episode, order = make_episode(), np.array([2, 0, 1])
    renamed = episode._replace(support_labels=order[episode.support_labels])
    assert relative(logits_of(learner, params, renamed)[:, order], logits_of(learner, params, episode)) < 1e-11


@pytest.mark.parametrize("factory", [PROTO, MATCHING, RELATION])
def test_the_order_of_the_support_images_does_not_matter(factory):
    learner, params = make(factory)
    episode, order = make_episode(), np.random.default_rng(0).permutation(2 * WAY)
    shuffled = episode._replace(
        support_images=episode.support_images[order], support_labels=episode.support_labels[order]
    )
    assert relative(logits_of(learner, params, shuffled), logits_of(learner, params, episode)) < 1e-11


@pytest.mark.slow
@every_variant
def test_gradient_against_finite_differences(factory):
    learner, params = make(factory)
    episode = make_episode()
    flat, restore = ravel_pytree(params)
    loss = jax.jit(lambda x: learner.loss(restore(x), episode, iteration=jnp.int32(3))[0])
    gradient, h = jax.jit(jax.grad(loss))(flat), 1e-6
    for seed in range(2):
        direction = jax.random.normal(jax.random.key(seed), flat.shape)
        numeric = (loss(flat + h * direction) - loss(flat - h * direction)) / (2 * h)
        assert float(jnp.vdot(gradient, direction)) == pytest.approx(float(numeric), rel=2e-5)


@pytest.mark.slow_except("factory0")
@pytest.mark.parametrize("factory", [partial(PROTO, joint_normalisation=True), FULL_CONTEXT, RELATION])
def test_every_way_of_batching_gives_the_same(factory):
    learner, params = factory(model()), make(factory)[1]
    episodes = jax.tree.map(lambda *x: jnp.stack(x), *(make_episode(seed) for seed in range(4)))
    one = jax.jit(jax.value_and_grad(learner.loss, has_aux=True))
    expected = jax.tree.map(lambda *x: np.mean(x, axis=0), *(one(params, make_episode(seed)) for seed in range(4)))
    mesh, spec = parallel.task_mesh(2), P(parallel.TASK_AXIS)

    def on_two_devices(params, episodes):
        found = batching.mean_loss_and_gradients(learner.loss, parallel.vary(params), episodes, 1)
        return parallel.mean_over_devices(found)

    spread = jax.jit(jax.shard_map(on_two_devices, mesh=mesh, in_specs=(P(), spec), out_specs=P()))
    vectorised = jax.jit(lambda params, episodes: batching.mean_loss_and_gradients(learner.loss, params, episodes, 4))
    for way in (spread, vectorised):
        assert relative(ravel_pytree(way(params, episodes))[0], ravel_pytree(expected)[0]) < 1e-11


@pytest.mark.slow
@every_variant
def test_everything_follows_the_dtype_of_the_images(factory):
    episode, (learner, _) = make_episode(), make(factory)
    for dtype in (np.float32, np.float64):
        typed = episode._replace(**{f"{kind}_images": getattr(episode, f"{kind}_images").astype(dtype)
                                    for kind in ("support", "query")})  # fmt: skip
        params = learner.init(jax.random.key(0), typed.support_images)
        loss, _ = learner.loss(params, typed)
        assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype(dtype)} == {loss.dtype}
    bytes_ = jax.tree.map(lambda x: (255 * x).astype(np.uint8) if x.ndim == 4 else x, episode)
    params = learner.init(jax.random.key(0), bytes_.support_images)
    floats = jax.tree.map(lambda x: x.astype(np.float32) / 255 if x.ndim == 4 else x, bytes_)
    assert relative(logits_of(learner, params, bytes_), logits_of(learner, params, floats)) < 1e-3
    assert jax.tree.leaves(params)[0].dtype == np.float32


@pytest.mark.slow_except("proto_net")
@every_variant
def test_a_head_has_no_parameters_and_every_parameter_a_gradient(factory):
    learner, params = make(factory)
    assert "head" not in params["model"]
    gradient = meta_gradient(learner, params, make_episode())
    gradient.pop("shift", None)  # of R2-D2, equal for all classes: the cross-entropy does not see it
    assert all(np.any(leaf) for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize("factory", [PROTO, MATCHING, RELATION])
@pytest.mark.parametrize("size", [16, 84])
@pytest.mark.parametrize(
    "network",
    [
        model(),
        cx.models.ResNet12(num_classes=WAY, channels=(2, 2, 4, FEATURES)),
        cx.models.RelationConv4(num_classes=WAY, features=FEATURES),
    ],
    ids=lambda network: type(network).__name__,
)
def test_every_backbone_and_size(factory, size, network):
    learner = factory(network)
    images = jax.ShapeDtypeStruct((WAY, size, size, 3), np.float32)
    labels = jax.ShapeDtypeStruct((WAY,), np.int32)
    params = jax.eval_shape(learner.init, jax.random.key(0), images)
    assert "head" not in params["model"]
    task = jax.eval_shape(learner.adapt, params, images, labels)
    logits = jax.eval_shape(learner.predict, params, task, images)
    assert logits.shape == (WAY, WAY) and logits.dtype == np.float32


def test_the_official_relation_net_has_its_sizes():
    # 84 -> 41 -> 19 -> 19 -> 19 in the encoder; 19 -> 8 -> 3 in the relation module.
    network = cx.models.RelationConv4(num_classes=5, features=64, use_bias=True, negative_slope=0.0)
    images = jax.ShapeDtypeStruct((2, 84, 84, 3), np.float32)
    params = jax.eval_shape(RELATION(network).init, jax.random.key(0), images)
    maps = jax.eval_shape(partial(network.apply, method="feature_maps"), {"params": params["model"]}, images)
    assert maps.shape == (2, 19, 19, 64)
    assert params["relation"]["hidden"]["kernel"].shape == (576, 8)


class Plain(nn.Module):
    """A classifier without access to its features."""

    num_classes: int = WAY

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.num_classes)(x.reshape(len(x), -1))


class Nameless(nn.Module):
    """An encoder that does not know the way."""

    def embed(self, x):
        return x.reshape(len(x), -1)


@pytest.mark.parametrize(
    ("factory", "network", "hyper_parameters", "words"),
    [
        (PROTO, Plain(), {}, r"Plain has no method embed\(images\)"),
        (RELATION, Plain(), {}, r"Plain has no method feature_maps\(images\)"),
        (PROTO, Nameless(), {}, "Nameless has no num_classes"),
        (MATCHING, None, {"scale": 0.0}, "scale is 0.0; expected a positive number"),
        (RELATION, None, {"shot_reduction": "max"}, "shot_reduction is 'max'; expected 'sum' or 'mean'"),
        (RELATION, None, {"hidden": 0}, "hidden is 0; expected at least 1"),
    ],
)
def test_mistakes_get_one_line(factory, network, hyper_parameters, words):
    with pytest.raises(cx.UserError, match=words) as error:
        factory(network or model(), **hyper_parameters)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["proto_net", "classifier_baseline", "meta_baseline"])
def test_a_model_of_more_classes_serves_an_episode_of_fewer(name):
    factory, episode = getattr(cx.learners, name), make_episode()
    learner, wider = (jitted(factory(cx.models.Conv4(num_classes=n, features=FEATURES))) for n in (WAY, WAY + 2))
    params = learner.init(jax.random.key(0), episode.support_images)
    narrow, wide = logits_of(learner, params, episode), logits_of(wider, params, episode)
    np.testing.assert_allclose(wide[:, :WAY], narrow, rtol=1e-12)
    assert np.all(wide[:, WAY:] == -np.inf)
    ours, theirs = (meta_gradient(each, params, episode) for each in (wider, learner))
    np.testing.assert_allclose(ravel_pytree(ours)[0], ravel_pytree(theirs)[0], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("shot_reduction", ["sum", "mean"])
def test_relation_net_compares_with_zeros_where_a_class_has_no_images(shot_reduction):
    episode = make_episode()
    learner, params = make(
        RELATION, cx.models.Conv4(num_classes=WAY + 1, features=FEATURES), shot_reduction=shot_reduction
    )
    adapted = learner.adapt(params, episode.support_images, episode.support_labels)
    np.testing.assert_array_equal(adapted.episode[WAY], 0)
    assert np.isfinite(ravel_pytree(meta_gradient(learner, params, episode))[0]).all()


@pytest.mark.parametrize("factory", [PROTO, partial(RELATION, shot_reduction="mean")])
def test_a_wrong_label_is_no_class_without_images(factory):
    learner, params = make(factory)
    episode = make_episode()
    adapted = jax.jit(learner.adapt)(params, episode.support_images, jnp.full_like(episode.support_labels, WAY))
    assert np.isnan(learner.predict(params, adapted, episode.query_images)).all()
