import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax import nnx

from asvit_jax import vit
from asvit_jax.core import leaves
from asvit_jax.core.errors import InputError
from asvit_jax.sparsity import complexity
from asvit_jax.vit import batch_norm
from asvit_jax.vit.stems import STEMS


@pytest.mark.parametrize(
  ("variant", "published"), [("deit_t", 1.25), ("deit_s", 4.6), ("deit_b", 17.6)]
)
def test_dense_gmacs_of_deit_are_the_published_ones(variant, published):
  # The published ones count the class token as well, 1/197 more.
  gmacs = complexity.dense_gmacs(vit.VARIANTS[variant])
  assert abs(gmacs / published - 1) < 0.01


def test_dense_gmacs_of_deit_t_by_hand():
  block = 4 * 192**2 * 196 + 2 * 192 * 196**2 + 2 * 192 * 768 * 196
  expected = (12 * block + 196 * 16 * 16 * 3 * 192) / 1e9
  np.testing.assert_allclose(complexity.dense_gmacs(vit.VARIANTS["deit_t"]), expected, rtol=1e-9)
  assert round(expected, 3) == 1.246


@pytest.mark.parametrize(
  ("variant", "parameters"),
  [("deit_t", 5_717_416), ("deit_s", 22_050_664), ("deit_b", 86_567_656)],
)
def test_parameter_counts_of_deit_are_the_published_ones(variant, parameters):
  assert leaves.count(vit.specs(vit.VARIANTS[variant].dense)) == parameters
  assert leaves.count(vit.specs(vit.VARIANTS[variant])) == parameters + 3


@pytest.mark.parametrize(("variant", "published"), [("lvvit_s", 6.6), ("lvvit_m", 12.7)])
def test_dense_gmacs_of_lvvit_are_the_published_ones(variant, published):
  # The published ones count the class token and both heads, but nothing element-wise. With these,
  # the last published digit is met.
  arch = vit.VARIANTS[variant]
  gmacs = complexity.dense_gmacs(arch)
  assert abs(gmacs / published - 1) < 0.015
  d, n = arch.width, arch.patches
  elementwise = arch.depth * ((14 + 9 * 3) * d * n + 6 * arch.heads * n**2)
  class_token = arch.depth * (10 * d**2 + 2 * d * (2 * n + 1))
  heads = 1000 * d * (n + 1)
  assert round(gmacs + 1e-9 * (class_token + heads - elementwise), 1) == published


def test_parameter_counts_of_lvvit_are_the_published_ones():
  # arXiv:2104.10858, table 1; running statistics are no parameters, and too few to matter.
  for variant, published in (("lvvit_s", 26.2), ("lvvit_m", 55.8)):
    dense = vit.specs(vit.VARIANTS[variant].dense)
    trained = [leaf for name, leaf in leaves.named(dense) if not batch_norm.is_statistic(name)]
    assert leaves.count(dense) - leaves.count(trained) == 6 * 64
    for counted in (dense, trained):
      assert round(leaves.count(counted) / 1e6, 1) == published


def test_pruned_gmacs_sum_what_every_block_sees():
  arch = tiny.arch(depth=6, mlp_ratio=3)
  kept = np.array([[12.0, 9.0, 2.0], [16.0, 16.0, 16.0], [3.0, 0.0, 0.0]])
  for ours, (a, b, c) in zip(complexity.gmacs(arch, jnp.asarray(kept)), kept, strict=True):
    tokens = np.array([16, 16, a, b, c, c]) + 1  # blocks 0 to 5; pruned before 2, 3 and 4
    linear = 24 * 24 * (3 + 1 + 2 * 3) * tokens
    attention = 2 * 24 * tokens**2
    stem = 16 * 8 * 8 * 3 * 24
    np.testing.assert_allclose(ours, (linear.sum() + attention.sum() + stem) / 1e9, rtol=1e-6)


def test_gmacs_are_differentiable_in_the_kept_counts():
  arch = tiny.arch(depth=6)
  kept = np.array([10.0, 7.0, 4.0])
  grad = jax.grad(lambda k: complexity.gmacs(arch, k))(jnp.asarray(kept))
  # d/dn of a block, times the blocks that run at this count.
  expected = [
    blocks * (12 * 24 * 24 + 4 * 24 * (n + 1)) / 1e9
    for blocks, n in zip((1, 1, 2), kept, strict=True)
  ]
  np.testing.assert_allclose(grad, expected, rtol=1e-5)


def test_stem_gmacs_equal_the_work_of_its_convolutions():
  # Counted from the kernels and the shapes that really flow, not from the formula.
  convs_before = {"patch": (), "conv": ("conv1", "conv2"), "lv": ("conv1", "conv2", "conv3")}
  for arch in (vit.VARIANTS["digits"], tiny.arch(), tiny.arch(**tiny.LV)):
    work = []

    class Counted(nnx.Conv):
      def __call__(self, x):
        y = super().__call__(x)
        work.append(np.prod(self.kernel[...].shape) * np.prod(y.shape[1:3]))  # noqa: B023
        return y

    stem = STEMS[arch.stem](arch, dtype=jnp.float32, rngs=nnx.Rngs(0))
    for name in ("proj", *convs_before[arch.stem]):
      getattr(stem, name).__class__ = Counted
    tokens = stem(jnp.zeros((1, arch.image_size, arch.image_size, 3)))
    assert tokens.shape == (1, arch.patches, arch.width)
    depth_free = complexity.dense_gmacs(arch) - arch.depth * block_gmacs(arch)
    np.testing.assert_allclose(depth_free, sum(work) / 1e9, rtol=1e-6)
    assert len(work) == 1 + len(convs_before[arch.stem])


def block_gmacs(arch):
  d, n, m = arch.width, arch.patches, arch.mlp_ratio * arch.width
  macs = 4 * d * d * n + 2 * d * n * n + 2 * d * m * n
  if (
    arch.count_elementwise
  ):  # element-wise: two norms, residuals and biases; GELU; softmax and scale
    macs += (2 * 7 * d + 9 * m) * n + 6 * arch.heads * n * n
  return macs / 1e9


@pytest.mark.parametrize("budget", [1.3, 0.0, -0.5, float("nan")])
def test_a_budget_outside_0_to_1_is_refused_with_its_value(budget):
  with pytest.raises(InputError, match=rf"budget {budget:g} is not in \(0, 1\]"):
    complexity.check_budget(tiny.arch(), budget)


def test_a_budget_below_what_remains_with_everything_pruned_is_refused():
  arch = tiny.arch()
  least = float(complexity.gmacs(arch, jnp.zeros(3))) / complexity.dense_gmacs(arch)
  complexity.check_budget(arch, least + 0.01)
  with pytest.raises(InputError, match=f"cannot be met.*{least:.3f} of the dense GMACs remain"):
    complexity.check_budget(arch, least - 0.01)


@pytest.mark.parametrize(
  ("multiple", "fewest"),
  [(5, 4), pytest.param(9, 8, marks=pytest.mark.slow), (16, 15), (17, 16)],
)
def test_a_budget_below_what_a_multiple_leaves_is_refused(multiple, fewest):
  arch = tiny.arch(count_multiple=multiple)
  least = float(complexity.gmacs(arch, jnp.full(3, float(fewest)))) / complexity.dense_gmacs(arch)
  said = rf"all but {fewest} of 16 patches .*{least:.3f} of.*model\.count_multiple below {multiple}"
  with pytest.raises(InputError, match=said):
    complexity.check_budget(arch, min(least - 0.01, 1.0))
  if least < 0.99:  # and the least one can be met
    complexity.check_budget(arch, least + 0.01)
    network = tiny.network(arch).dense.calibrate(tiny.images(arch, 6), least + 0.01)
    kept = np.asarray(network(tiny.images(arch, 6), "masked").kept)
    assert kept.min() == fewest


def test_a_budget_for_a_network_without_stages_is_refused():
  with pytest.raises(InputError, match="prunes nowhere"):
    complexity.check_budget(tiny.arch(prune_before=()), 0.5)


@pytest.mark.parametrize("changes", [{"reduction": "merge"}, {"score": "attention_novelty"}])
def test_the_similarities_of_a_stage_count(changes):
  arch = tiny.arch()
  kept = jnp.asarray([[12.0, 9.0, 2.0], [16.0, 16.0, 16.0]])
  more = complexity.gmacs(tiny.arch(**changes), kept) - complexity.gmacs(arch, kept)
  for ours, (a, b, _) in zip(more, np.asarray(kept), strict=True):
    pairs = sum((n + 1) ** 2 for n in (16, a, b))  # of the tokens before each stage
    np.testing.assert_allclose(ours, pairs * 8 / 1e9, rtol=1e-3)  # a head's 8 channels
  assert complexity.dense_gmacs(tiny.arch(**changes)) == complexity.dense_gmacs(arch)


def test_a_stage_inside_a_block_spares_the_mlp_of_what_goes():
  kept = np.array([12.0, 9.0, 2.0])
  for mlp_ratio in (3, 4):
    before = tiny.arch(mlp_ratio=mlp_ratio)
    inside = tiny.arch(mlp_ratio=mlp_ratio, prune_inside=True)
    spared = (16 - 12) + (12 - 9) + (9 - 2)  # tokens that blocks 1, 2 and 3 have before their MLPs
    expected = 2 * mlp_ratio * 24 * 24 * spared / 1e9
    for count in (complexity.gmacs, complexity.real_gmacs):
      ours, theirs = (float(count(arch, kept)) for arch in (before, inside))
      np.testing.assert_allclose(ours - theirs, expected, rtol=1e-4)


@pytest.mark.parametrize("changes", [{"reduction": "merge_tokens"}, {"score": "merge_cost"}])
def test_comparing_tokens_costs_their_whole_width(changes):
  kept = jnp.asarray([12.0, 9.0, 2.0])
  more = complexity.gmacs(tiny.arch(**changes), kept) - complexity.gmacs(tiny.arch(), kept)
  pairs = sum((n + 1) ** 2 for n in (16, 12, 9))
  np.testing.assert_allclose(more, pairs * 24 / 1e9, rtol=1e-3)


def test_weights_of_stages_say_how_hard_each_cuts():
  arch = tiny.arch(stage_weights=(0.5, 1.0, 2.0))
  assert arch.stage_exponents == (0.5, 1.5, 3.5)
  ratio = complexity.uniform_ratio(arch, 0.7 * complexity.dense_gmacs(arch))
  kept = arch.patches * ratio ** np.array([0.5, 1.5, 3.5])
  gmacs = float(complexity.gmacs(arch, jnp.asarray(kept, jnp.float32)))
  assert abs(gmacs / complexity.dense_gmacs(arch) - 0.7) < 1e-4
  assert tiny.arch().stage_exponents == (1, 2, 3)
  for weights in ((1.0,), (1.0, 0.0, 1.0)):
    with pytest.raises(InputError, match="expected a number above 0 for each of the 3 stages"):
      tiny.arch(stage_weights=weights)
