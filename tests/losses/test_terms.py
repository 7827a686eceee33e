"""Properties that every term of the objective has."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from asvit_jax import vit
from asvit_jax.core.devices import AXIS
from asvit_jax.losses import WEIGHTS
from asvit_jax.losses.criteria import smooth_labels
from asvit_jax.losses.objective import Batch, Objective
from asvit_jax.losses.terms import LOSSES
from asvit_jax.sparsity.complexity import dense_gmacs, gmacs
from asvit_jax.sparsity.executions import in_place
from asvit_jax.sparsity.gates import soft_gate

PLAIN = tiny.arch(depth=3, prune_before=(1, 2))
LV = tiny.arch(depth=3, prune_before=(1, 2), **tiny.LV)
IMAGES = 6
# A network of either kind, dense or pruned; by what there is to learn from.
CASES = {
  "dense": (PLAIN, False),
  "pruned": (PLAIN, True),
  "dense, auxiliary head": (LV, False),
  "pruned, auxiliary head": (LV, True),
}
APPLY = {
  "dense": {"classification"},
  "pruned": {"classification", "budget", "distillation"},
  "dense, auxiliary head": {"classification"},
  "pruned, auxiliary head": {"classification", "budget", "distillation", "token_distillation"},
}
TERMS = [(case, name) for case in CASES for name in LOSSES if name in APPLY[case]]


@functools.cache
def params_of(arch, prunes):
  """Thresholds prune differently in each image."""
  params = tiny.params(arch)
  if not prunes:
    return vit.without_thresholds(params)
  return tiny.with_thresholds(arch, params, tiny.images(arch, IMAGES), (0.7, 0.4))


def target(arch):
  return 0.5 * dense_gmacs(arch)


def make_batch(arch, prunes, outputs, teacher, labels, mean=jnp.mean):
  """A `Batch` as `Objective` makes it."""
  targets = smooth_labels(labels, arch.classes, 0.1)
  if not prunes:
    return Batch(targets, None, mean)
  costs = gmacs(arch, outputs.kept)
  return Batch(targets, teacher, mean, mean(costs), mean(outputs.kept[:, -1]), target(arch))


@functools.cache
def data(case):
  """(images, labels, `Outputs` of a dense network of other weights or None)."""
  arch, prunes = CASES[case]
  images, labels = tiny.images(arch, IMAGES), np.arange(IMAGES, dtype=np.int32) % arch.classes
  teacher = tiny.run_dense(arch, vit.without_thresholds(tiny.params(arch, 1)), images)
  return images, labels, teacher if prunes else None


def evaluate(arch, prunes, params, images, labels, teacher, mean=jnp.mean):
  """{name: value} of the terms that apply, on their own and not from `Objective`."""
  model = vit.model(arch, params)
  outputs = in_place.masked(model, images) if prunes else in_place.dense(model, images)
  batch = make_batch(arch, prunes, outputs, teacher, labels, mean)
  return {
    name: LOSSES[name](outputs, batch) for name in LOSSES if LOSSES[name].applies(arch, prunes)
  }


@functools.cache
def values(case):
  """Of all terms on one device, and of two devices which see half of the images each."""
  arch, prunes = CASES[case]
  params = params_of(arch, prunes)
  whole = jax.jit(functools.partial(evaluate, arch, prunes))(params, *data(case))

  def mean(x):
    return jax.lax.pmean(x.mean(), AXIS)

  def device(*part):
    return jax.lax.pmean(evaluate(arch, prunes, params, *part, mean), AXIS)

  halves = jax.tree.map(lambda x: x.reshape(2, IMAGES // 2, *x.shape[1:]), data(case))
  split = jax.jit(jax.vmap(device, axis_name=AXIS))(*halves)
  return whole, split


def test_every_term_has_a_weight_and_a_property_below():
  assert set(WEIGHTS) == set(LOSSES)
  assert {name for _, name in TERMS} == set(LOSSES)


@pytest.mark.parametrize("case", CASES)
def test_terms_apply_where_there_is_something_to_learn_from(case):
  whole, _ = values(case)
  assert set(whole) == APPLY[case]


@pytest.mark.parametrize(("case", "name"), TERMS)
def test_a_term_is_one_finite_number_above_zero(case, name):
  value = values(case)[0][name]
  assert value.shape == ()
  assert value.dtype == jnp.float32
  assert 0 < value < np.inf


@pytest.mark.parametrize(("case", "name"), TERMS)
def test_a_term_is_the_same_however_the_batch_is_split(case, name):
  whole, split = values(case)
  assert split[name].shape == (2,)
  np.testing.assert_allclose(split[name], float(whole[name]), rtol=2e-5)


@pytest.mark.parametrize(("case", "name"), TERMS)
def test_a_term_is_least_where_nothing_is_left_to_learn(case, name):
  """Classification at the targets themselves, the others at the teacher or the target: zero."""
  arch, prunes = CASES[case]
  images, labels, _ = data(case)
  run = tiny.run_masked if prunes else tiny.run_dense
  outputs = run(arch, params_of(arch, prunes), images)
  batch = make_batch(arch, prunes, outputs, outputs, labels)
  if name == "classification":
    perfect = jnp.log(batch.targets)
    aux = None
    if outputs.aux_logits is not None:
      aux = jnp.broadcast_to(perfect[:, None], outputs.aux_logits.shape)
    outputs = type(outputs)(perfect, class_logits=perfect, aux_logits=aux)
    entropy = -(batch.targets * perfect).sum(axis=-1).mean()
    expected = entropy * (1.5 if aux is not None and not prunes else 1.0)
  else:
    expected = 0.0
    batch = Batch(**vars(batch) | {"target_gmacs": batch.mean_gmacs})
  np.testing.assert_allclose(LOSSES[name](outputs, batch), expected, rtol=1e-5, atol=1e-6)
  # And it is larger where something is changed.
  assert values(case)[0][name] > expected + 1e-6


@pytest.mark.parametrize("case", CASES)
def test_the_objective_is_the_weighted_sum_of_the_terms_that_apply(case):
  arch, prunes = CASES[case]
  images, labels, teacher = data(case)
  expected, _ = values(case)
  weights = {name: 0.1 + i for i, name in enumerate(LOSSES)}
  params = params_of(arch, prunes)

  @functools.partial(jax.jit, static_argnums=1)
  def run(params, weighted):
    objective = Objective(weights if weighted else {}, target(arch) if prunes else None)
    targets = smooth_labels(labels, arch.classes, 0.1)
    total, (terms, _) = objective(vit.model(arch, params), images, targets, teacher)
    return total, terms

  for chosen in (weights, WEIGHTS):
    total, terms = run(params, chosen is weights)
    mean_gmacs = terms.pop("gmacs", None)
    assert (mean_gmacs is not None) == prunes
    assert set(terms) == APPLY[case]
    for name, value in terms.items():
      np.testing.assert_allclose(value, expected[name], rtol=1e-5)
    np.testing.assert_allclose(total, sum(chosen[k] * v for k, v in terms.items()), rtol=1e-5)


@functools.cache
def gradients(case):
  """{name of a term: its gradient by the parameters}."""
  arch, prunes = CASES[case]
  images, labels, teacher = data(case)

  def terms(params):
    # The published gate is so steep that a score may be too far from its threshold to move it.
    gate = functools.partial(soft_gate, temperature=1e-2)
    outputs = in_place.masked(vit.model(arch, params), images, gate)
    batch = make_batch(arch, prunes, outputs, teacher, labels)
    return {name: LOSSES[name](outputs, batch) for name in APPLY[case]}

  return jax.jit(jax.jacrev(terms))(params_of(arch, prunes))


@pytest.mark.parametrize("name", sorted(APPLY["pruned, auxiliary head"]))
def test_the_gradient_of_every_term_is_finite_and_reaches_the_network(name):
  grads = gradients("pruned, auxiliary head")[name]
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
  assert np.abs(grads["thresholds"]).max() > 0
  assert np.abs(grads["blocks"][0]["attn"]["qkv"]["kernel"]).max() > 0
