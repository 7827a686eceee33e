"""Small networks, images and data sets for tests; NumPy's random streams, not JAX's."""

import functools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from asvit_jax import config as config_lib
from asvit_jax import vit
from asvit_jax.config import model
from asvit_jax.config.plan import Plan, unchecked
from asvit_jax.core import leaves
from asvit_jax.data import loader
from asvit_jax.data.preprocessing import Preprocessing
from asvit_jax.network import Network
from asvit_jax.sparsity import gates
from asvit_jax.sparsity.executions import in_place

# For the training loop: registered as a variant by the fixture `tiny_variant`.
TRAINED = vit.Architecture(
  width=12,
  heads=3,
  depth=4,
  mlp_ratio=2,
  image_size=16,
  patch_size=4,
  classes=3,
  prune_before=(1, 2, 3),
)

# What makes an `arch` one of LV-ViT's family.
LV = dict(
  stem="lv",
  qkv_bias=False,
  residual_divisor=2.0,
  aux_head=True,
  norm_epsilon=1e-5,
  count_elementwise=True,
)

# What makes an `arch` one of DINOv3's family, and of EVA-02's, which merges here.
DINOV3 = dict(rope="dinov3", pos_embed=False, layer_scale=True)
EVA02 = dict(
  rope="eva02",
  swiglu=True,
  mlp_norm=True,
  qk_norm=True,
  reduction="merge",
  score="attention_novelty",
)

normalize = Preprocessing().normalize


def few(values, *here):
  """The values to parametrize with; those that are not among `here` for `make test-all` alone.

  A tuple is the values of several arguments.
  """

  def rare(value):
    values = value if isinstance(value, tuple) else (value,)
    return pytest.param(*values, marks=pytest.mark.slow)

  return [value if value in here else rare(value) for value in values]


def arch(**changes):
  """An `Architecture` of 16 patches, 5 blocks and three stages."""
  dimensions = dict(
    width=24, heads=3, depth=5, image_size=32, patch_size=8, classes=5, prune_before=(2, 3, 4)
  )
  return vit.Architecture(**dimensions | changes)


@functools.cache
def params(arch, seed=0):
  """Random parameters, none of them zero; attention is far from uniform, so scores differ.

  Running variances are positive.
  """
  rng = np.random.default_rng(seed)

  def draw(name, spec):
    noise = rng.standard_normal(spec.shape)
    if name.endswith("kernel"):
      noise /= np.sqrt(np.prod(spec.shape[:-1]))
      if "qkv" in name:
        noise[:, : 2 * spec.shape[0]] *= 1.5  # queries and keys
    elif name.endswith(("scale", "gamma")):
      noise = 1 + 0.1 * noise
    elif name.endswith("var"):
      noise = np.exp(0.3 * noise)
    else:
      noise *= 0.5 if name in ("cls_token", "pos_embed") else 0.1
    return jnp.asarray(noise, jnp.float32)

  return leaves.map_named(draw, vit.specs(arch))


def network(arch, seed=0, **fields):
  """A `Network` with `params`."""
  return Network(arch, params(arch, seed), **fields)


def images(arch, count, seed=1):
  """(count, height, width, 3) float32, as if normalised."""
  noise = np.random.default_rng(seed).standard_normal((count, *arch.image_shape))
  return noise.astype(np.float32)


@functools.partial(jax.jit, static_argnums=(0, 3))
def run_masked(arch, params, images, gate=gates.straight_through_gate):
  """`in_place.masked` of a network in parts."""
  return in_place.masked(vit.model(arch, params), images, gate)


@functools.partial(jax.jit, static_argnums=0)
def run_dense(arch, params, images):
  """`in_place.dense` of a network in parts."""
  return in_place.dense(vit.model(arch, params), images)


def with_thresholds(arch, params, images, shares):
  """Thresholds so that about these shares of all tokens stay, none near a score."""
  thresholds = np.zeros(len(shares), np.float32)
  for stage, share in enumerate(shares):
    outputs = run_masked(arch, params | {"thresholds": jnp.asarray(thresholds)}, images)
    before = outputs.keep[:, stage - 1] if stage else np.ones_like(outputs.scores[:, 0])
    scores = np.sort(outputs.scores[:, stage][before > 0.5])
    pruned = scores.size - round(share * before.size)
    nearby = np.arange(pruned - 3, pruned + 3)
    low = nearby[np.argmax(scores[nearby + 1] - scores[nearby])]  # the widest gap
    thresholds[stage] = (scores[low] + scores[low + 1]) / 2
  return params | {"thresholds": jnp.asarray(thresholds)}


def write_folder(root, classes=("ant", "bee", "cat"), train=8, val=(4, 3, 3), size=(20, 24)):
  """JPEG noise, one colour cast a class, as `<split>/<class>/<image>`."""
  rng = np.random.default_rng(5)
  for label, name in enumerate(classes):
    for split, count in (("train", train), ("val", val[label % len(val)])):
      directory = root / split / name
      directory.mkdir(parents=True)
      for i in range(count):
        pixels = rng.integers(0, 200, (*size, 3))
        pixels[..., label % 3] += 55
        Image.fromarray(pixels.astype(np.uint8)).save(directory / f"{i}.jpg")
  return root


def config(data_dir, **changes):
  """A config of variant "tiny" on a `write_folder`; changes by dotted key."""
  config = config_lib.base()
  config.update_from_flattened_dict(
    {
      "model.variant": "tiny",
      "model.num_classes": 3,
      "model.image_size": 16,
      "model.patch_size": 4,
      "data.dir": str(data_dir),
      "batch_size": 8,
      "total_steps": 6,
      "optimizer.lr": 0.064,  # 0.001 at this batch
      "ema_decay": 0.5,
      "eval.batch_size": 4,
      "eval.every": 3,
      "log_every": 1,
      "checkpoint_every": 2,
    }
    | changes
  )
  return config


def write_recipe(path, data_dir, **changes):
  """Writes a file for `--config` that returns `config(data_dir, **changes)`; returns its path."""
  path.write_text(
    '"""A recipe for the tiny network."""\n\nimport tiny\n\n\ndef get_config():\n'
    f'  """The config."""\n  return tiny.config({str(data_dir)!r}, **{changes!r})\n'
  )
  return path


def plan(config, images=None):
  """The `Plan` of a config, which is not checked; for so many training images, if given.

  Its variant may be "tiny", with `TRAINED` for its network, without the fixture of that name.
  """
  if isinstance(config, Plan):
    return config
  with mock.patch.dict(vit.VARIANTS, {"tiny": TRAINED} | vit.VARIANTS):
    resolved = unchecked(config)
  return resolved if images is None else resolved.of_images(images)


def plan_of(data_dir, **changes):
  """The `Plan` of `config`."""
  return plan(config(data_dir, **changes))


def architecture(config, described=None):
  """The `Architecture` that a config describes; see `config.model.architecture`."""
  return model.architecture(model.Model.of(config.model), described)


def preprocessing(config, described=None):
  """The `Preprocessing` that a config asks for; see `config.model.preprocessing`."""
  return model.preprocessing(config.data, described)


def all_of(config, source, network):
  """Images and labels, all of them."""
  batches = list(loader.eval_batches(plan(config), source, network.preprocessing))
  return [np.concatenate([b[k][b["valid"]] for b in batches]) for k in ("image", "label")]
