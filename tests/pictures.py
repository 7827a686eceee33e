"""What goes into pictures, and what they show."""

import numpy as np
from PIL import Image


def shown(axes):
  """The pixels of an axes' image."""
  return np.asarray(axes.images[0].get_array())


def write_images(directory, count, size):
  """Files of square noise; returns their paths."""
  rng = np.random.default_rng(3)
  paths = [str(directory / f"{i}.png") for i in range(count)]
  for path in paths:
    Image.fromarray(rng.integers(0, 256, (size, size, 3), dtype=np.uint8)).save(path)
  return paths


def write_various_images(directory):
  """Files of five images, wide and high, coloured and grey; returns their paths."""
  rng = np.random.default_rng(3)
  paths = []
  for i, shape in enumerate([(20, 26, 3), (31, 20, 3), (16, 16), (40, 40, 3), (23, 19, 3)]):
    paths.append(directory / f"{i}.png")
    Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(paths[-1])
  return paths


def metrics_lines(pruned):
  """Metrics of a run of a hundred steps, with two evaluations."""
  lines = []
  for step in range(10, 110, 10):
    line = {"step": step, "kind": "train", "loss": 3 / step, "classification": 2 / step, "lr": 0.1}
    line |= {"kept": []}
    if pruned:
      line |= {"budget": 0.1 / step, "distillation": 1 / step, "gmacs": 1 - step / 200}
      line |= {"kept": [16.0, 100 / step], "thresholds": [0.001 * step, 0.002 * step]}
    lines.append(line)
  for step in (50, 100):
    kept = [{"mean": 15.0}, {"mean": 200 / step}] if pruned else []
    line = {"step": step, "kind": "eval", "top1": 0.5 * step, "gmacs": 0.7, "kept": kept}
    lines.append(line)
  return lines
