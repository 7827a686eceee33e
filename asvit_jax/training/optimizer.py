"""AdamW with the paper's schedule and decay mask."""

import jax
import optax


def decay_mask(params):
  """True for what weight decay shrinks: the kernels of linear layers and convolutions.

  Biases, norms, the class token, the position embedding and the thresholds are left alone.
  """
  return jax.tree_util.tree_map_with_path(
    lambda path, _: jax.tree_util.keystr(path[-1:], simple=True) == "kernel", params
  )


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
  warmup = int(config.optimizer.warmup * steps)
  return optax.warmup_cosine_decay_schedule(
    init_value=peak if warmup == 0 else 0.0,
    peak_value=peak,
    warmup_steps=warmup,
    decay_steps=max(steps, 1),
    end_value=end,
  )


def create(config, steps):
  """The optimizer of a config and its learning-rate schedule."""
  schedule = learning_rate(config, steps)
  return optax.adamw(
    schedule, weight_decay=config.optimizer.weight_decay, mask=decay_mask
  ), schedule
