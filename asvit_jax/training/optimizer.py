"""AdamW with the paper's schedule and decay mask."""

import re

import jax
import optax


def decay_mask(params):
  """True for what weight decay shrinks: the kernels of linear layers and convolutions.

  Biases, norms, the class token, the position embedding and the thresholds are left alone.
  """
  return jax.tree_util.tree_map_with_path(
    lambda path, _: jax.tree_util.keystr(path[-1:], simple=True) == "kernel", params
  )


def warmup_steps(config, steps):
  """How many of a run's steps the learning rate rises for."""
  return int(config.optimizer.warmup * steps)


def learning_rate(config, steps):
  """Linear warm-up, then half a cosine from the peak to `end_lr`.

  Args:
    config: `optimizer` of a config; `lr` and `end_lr` are given for a batch of 512 and scale with
      the batch (arXiv:1706.02677).
    steps: number of steps of the whole run.

  Returns:
    Function of the step.
  """
  scale = config.batch_size / 512
  peak, end = config.optimizer.lr * scale, config.optimizer.end_lr * scale
  warmup = warmup_steps(config, steps)
  return optax.warmup_cosine_decay_schedule(
    init_value=peak if warmup == 0 else 0.0,
    peak_value=peak,
    warmup_steps=warmup,
    decay_steps=max(steps, 1),
    end_value=end,
  )


def adamw(learning_rate, weight_decay, **moments):
  """AdamW that decays by `decay_mask` and leaves key biases where they are."""
  return optax.chain(
    optax.stateless(lambda updates, _: _without_key_biases(updates)),
    optax.adamw(learning_rate, weight_decay=weight_decay, mask=decay_mask, **moments),
  )


def create(config, steps):
  """The optimizer of a config and its learning-rate schedule."""
  schedule, options = learning_rate(config, steps), config.optimizer
  stages = [adamw(schedule, options.weight_decay)]
  if options.clip_norm:
    stages.insert(0, optax.clip_by_global_norm(options.clip_norm))
  if options.thresholds_lr != 1 or options.freeze:
    scale = _scales(options.thresholds_lr, options.freeze)
    stages.append(optax.stateless(lambda updates, _: scale(updates)))
  return optax.chain(*stages), schedule


def frozen(params, pattern):
  """Names of the parameters in which the regular expression `pattern` is found, sorted."""
  paths = jax.tree_util.tree_leaves_with_path(params)
  names = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in paths]
  return sorted(name for name in names if pattern and re.search(pattern, name))


def _scales(thresholds, freeze):
  """Scales updates after AdamW: the thresholds' by a factor, those of frozen parameters by 0."""

  def scale(path, update):
    name = jax.tree_util.keystr(path, simple=True, separator=".")
    if freeze and re.search(freeze, name):
      return update * 0
    return update * thresholds if name == "thresholds" else update

  return lambda updates: jax.tree_util.tree_map_with_path(scale, updates)


def _without_key_biases(grads):
  """Takes out the gradients of key biases.

  A key bias moves all logits of a query alike, which softmax ignores. What is left of its gradient
  is rounding, which Adam would scale up to full steps that differ between numbers of devices.
  """

  def still(path, grad):
    if jax.tree_util.keystr(path, simple=True, separator=".").endswith("qkv.bias"):
      third = grad.shape[0] // 3  # query, key and value biases
      return grad.at[third : 2 * third].set(0)
    return grad

  return jax.tree_util.tree_map_with_path(still, grads)
