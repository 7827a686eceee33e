"""A baseline: the same number of tokens in every image, those with the highest scores."""

import functools

import jax
import jax.numpy as jnp

from asvit_jax.core.promotion import usual
from asvit_jax.sparsity.attending import Attending, Stage
from asvit_jax.sparsity.executions.in_place import last_block, run_up_to
from asvit_jax.sparsity.executions.outputs import Outputs


@usual
def fixed_count(model, images, counts, attending=None):
  """Keeps a static number of tokens at each stage; the others are dropped, or merged.

  Args:
    model: a `VisionTransformer` that prunes; its thresholds are not read.
    images: (b, height, width, 3) normalised images.
    counts: patch tokens that each stage keeps, a static number each.
    attending: the parts to decide by, an `Attending`; by default those of the architecture.

  Returns:
    `Outputs` with logits only.

  Raises:
    ValueError: fewer or more counts than stages.
  """
  x = model.embed(images)
  attending = attending or Attending.of(model.arch)
  sizes = attending.first_sizes(*x.shape[:2])
  attend = attending.dense
  x, evidence = run_up_to(model, 0, x, attend)
  for index, count in zip(range(model.arch.stages), counts, strict=True):
    stage = Stage(x, sizes, jnp.ones(x.shape[:2], jnp.float32), evidence)
    # The scores of the tokens before the patches are infinite.
    _, top = jax.lax.top_k(attending.scores(stage), model.arch.prefix_tokens + count)
    keep = jnp.zeros(x.shape[:2], jnp.float32).at[jnp.arange(len(x))[:, None], top].set(1)
    x, sizes = attending.reduce(stage, keep)
    x = jnp.take_along_axis(x, top[..., None], axis=1)
    sizes = None if sizes is None else jnp.take_along_axis(sizes, top, axis=1)
    attend = functools.partial(attending.dense, sizes=sizes)
    x, evidence = run_up_to(model, index + 1, x, attend)
  return predicted(model, x, attend)


@usual
def predicted(model, x, attend):
  """The prediction from the tokens before the last block, all of which are there.

  Args:
    model: a `VisionTransformer`.
    x: (b, n, d), the class token first.
    attend: for `Block`.

  Returns:
    `Outputs` with logits only.
  """
  read, x = last_block(model, x, attend)
  patches = x[:, model.arch.prefix_tokens :]
  logits = model.predict(model.classify(read), lambda: model.classify_patches(patches).max(axis=1))
  return Outputs(logits)
