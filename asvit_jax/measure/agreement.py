"""Whether an execution decides and predicts as masked execution does, up to rounding.

Rounding flips decisions about tokens whose score is close to the threshold, and such a token
changes all that comes after it. So each image counts as one of three kinds:

  same: all stages keep the same tokens. Its logits are compared.
  undecided: at the first stage that differs, the scores of all tokens that differ are within the
    tolerance of the threshold. Its later stages are not compared.
  wrong: another token differs.
"""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Tolerance:
  """How far rounding may reach in a compute type.

  Attributes:
    scores: distance of a score from the threshold, in standard deviations of the stage's scores.
    logits: difference of logits, in standard deviations of an image's logits.
    correlation: least correlation of the logits of an image, also of an undecided one.
  """

  scores: float
  logits: float
  correlation: float


TOLERANCES = {
  "float32": Tolerance(1e-3, 1e-3, 0.9),
  "bfloat16": Tolerance(0.25, 0.25, 0.7),
}


@dataclasses.dataclass(frozen=True)
class Expected:
  """What masked execution decides and predicts.

  Attributes:
    keep: (b, stages, n) bool.
    scores: (b, stages, n), meaningless where an earlier stage removed the token.
    thresholds: (b, stages) or (stages,).
    logits: (b, classes).
  """

  keep: np.ndarray
  scores: np.ndarray
  thresholds: np.ndarray
  logits: np.ndarray

  @classmethod
  def of(cls, outputs, thresholds):
    """Of the `Outputs` of masked execution."""
    arrays = (outputs.keep, outputs.scores, thresholds, outputs.logits)
    keep, scores, thresholds, logits = (np.asarray(a, np.float64) for a in arrays)
    return cls(keep > 0.5, scores, thresholds, logits)

  def compare(self, keep, logits, tolerance):
    """Compares another execution of the same images.

    Args:
      keep: (b, stages, n).
      logits: (b, classes).
      tolerance: a `Tolerance`.

    Returns:
      Dictionary for JSON: `agrees`; numbers of images that are `same`, `undecided` and `wrong`;
      `furthest`, the largest distance from the threshold of the score of a token that differs
      first, and `logits_error`, the largest difference of logits of images that are the same, both
      in standard deviations; and `correlation` of the logits, the least of all images.
    """
    keep, logits = np.asarray(keep) > 0.5, np.asarray(logits, np.float64)
    differs = keep != self.keep  # (b, stages, n)
    stage_differs = differs.any(axis=2)
    same = ~stage_differs.any(axis=1)
    images, first = np.arange(len(keep)), stage_differs.argmax(axis=1)
    thresholds = np.broadcast_to(self.thresholds, stage_differs.shape)[images, first]
    distance = (
      np.abs(self.scores[images, first] - thresholds[:, None]) / self._spread()[first, None]
    )
    furthest = np.where(differs[images, first], distance, 0.0).max(axis=1, initial=0.0)
    wrong = ~same & ~(furthest <= tolerance.scores)
    deviation = self.logits.std(axis=1, keepdims=True) + 1e-30
    errors = (np.abs(logits - self.logits) / deviation)[same]
    correlation = _correlation(logits, self.logits).min(initial=1.0)
    error = float(errors.max(initial=0.0)) if np.isfinite(logits).all() else np.inf
    agrees = not wrong.any() and error <= tolerance.logits
    return {
      "agrees": bool(agrees and correlation >= tolerance.correlation),
      "same": int(same.sum()),
      "undecided": int((~same & ~wrong).sum()),
      "wrong": int(wrong.sum()),
      "furthest": float(furthest.max(initial=0.0)),
      "logits_error": error if np.isfinite(error) else None,
      "correlation": float(correlation),
    }

  def _spread(self):
    """(stages,) standard deviations of the scores of the tokens that are there."""
    before = np.concatenate([np.ones_like(self.keep[:, :1]), self.keep[:, :-1]], axis=1)
    found = [self.scores[:, s][before[:, s]].std() for s in range(before.shape[1])]
    return np.maximum(np.asarray(found), 1e-30)


def _correlation(a, b):
  """(b,) correlations of the rows of two arrays; values that are not finite count as 0."""
  a, b = (x - x.mean(axis=1, keepdims=True) for x in (np.nan_to_num(a, posinf=0, neginf=0), b))
  norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
  return (a * b).sum(axis=1) / np.maximum(norms, 1e-30)
