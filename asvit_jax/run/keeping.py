"""The steps of a run that are kept: the latest two and the best evaluated ones."""

import functools
import math

from orbax.checkpoint.checkpoint_managers import preservation_policy as policies

from asvit_jax.run import ranking


def policy():
  """Orbax's preservation policy: the latest two steps, the best averaged and the best raw ones."""
  return policies.AnyPreservationPolicy(
    [
      policies.LatestN(2),
      *(
        policies.BestN(
          get_metric_fn=functools.partial(_rank, kind),
          n=1,
          keep_checkpoints_without_metrics=False,
        )
        for kind in ranking.NAMES
      ),
    ]
  )


def _rank(kind, metrics):
  """The rank of a kind of weights in the metrics saved with a step; older versions saved top-1."""
  found = metrics.get("ranks", metrics)
  rank = found.get(kind, found.get("top1")) if isinstance(found, dict) else None
  return rank if isinstance(rank, (int, float)) else -math.inf  # a damaged file may hold anything
