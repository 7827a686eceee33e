"""Files of weights that a stranger wrote: a network or an error, in bounded time and memory."""

import dataclasses
import io
import json
import math
import struct
import zipfile

import jax
import namings
import numpy as np
import pytest
import safetensors.numpy
import tiny
from flax import nnx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from raw_weights import BYTES, bounded, write_safetensors

from asvit_jax import vit, weights
from asvit_jax.core.errors import InputError
from asvit_jax.network import Network, load
from asvit_jax.weights import formats

ARCH = tiny.arch(width=12, depth=2, prune_before=(1,), image_size=16, classes=3)
TENSORS = weights.to_timm(tiny.params(ARCH.dense))
NAMINGS = {
  "timm": TENSORS,
  "thresholds": weights.to_timm(tiny.params(ARCH)),
  "google": namings.google(TENSORS, 3),
  "transformers": namings.transformers(TENSORS),
  "torchvision": namings.torchvision(TENSORS),
}
LISTS = {k: {n: ("F32", v.shape) for n, v in t.items()} for k, t in NAMINGS.items()}

NAMES = st.sampled_from(
  (
    *("blocks.99999999999.norm1.weight", f"blocks.{'9' * 5000}.norm1.weight", "blocks.-1.x"),
    *("blocks.٣.norm1.weight", "blocks.{}.norm1.weight", "blocks.{0}.attn.qkv", "blocks.², x"),
    *("blocks.5000.norm1.weight", "blocks.007.norm1.weight", "blocks..norm1.weight", "", "."),
    *("blocks.0.attn.q.weight", "blocks.0.attn.k.weight", "blocks.0.attn.v.weight"),
    *("encoder.layer.{}.output.dense.bias", "Transformer/encoderblock_{}/LayerNorm_0/scale"),
    *("a\nb", "a\x1b[2Jb", "a\x00b", "\u202eabc", "x" * 10_000, "score_predictor.0.keep_threshold"),
    *("score_predictor.7.keep_threshold", "head.weight", "head_dist.weight", "dist_token", "cls"),
    *("module.pos_embed", "module.patch_embed.proj.weight", "ema.patch_embed.proj.weight"),
    *("conv_proj.weight", "embedding/kernel", "pre_logits.fc.bias", "patch_embed.conv1.weight"),
    *("embeddings.patch_embeddings.projection.weight", "blocks.0.attn.qkv.weight_scale"),
  )
)
SIDES = st.sampled_from((0, 1, 2, 3, 4, 12, 36, 17, 2**31, 2**40, 2**62))
SHAPES = st.lists(SIDES, max_size=6) | st.just([1] * 70)
KINDS = st.sampled_from(sorted(BYTES))


@st.composite
def listings(draw):
  """A list of tensors that is nearly that of a network."""
  listed = dict(LISTS[draw(st.sampled_from(sorted(LISTS)))])
  for _ in range(draw(st.integers(1, 4))):
    name = draw(st.sampled_from(sorted(listed)) if listed else NAMES)
    kind, shape = listed.get(name, ("F32", (3,)))
    change = draw(st.sampled_from(("drop", "rename", "shape", "kind", "axis", "add")))
    if change in ("drop", "rename"):
      listed.pop(name, None)
    if change in ("rename", "add"):
      name = draw(NAMES)
    if change == "shape":
      shape = tuple(draw(SHAPES))
    if change == "axis":
      shape = draw(st.sampled_from((shape[1:], shape[:-1], (1, *shape), shape[::-1])))
    if change == "kind":
      kind = draw(KINDS)
    if change != "drop":
      listed[name] = (kind, shape)
  return listed


def tensors_of(network):
  return weights.to_timm(network.params)


def reads_or_refuses(path, **options):
  with bounded() as said:
    network = load(path, **options)
  if not said:
    assert isinstance(network, Network)
    assert all(np.isfinite(x).all() for x in tensors_of(network).values())


def fuzz_lists(place, listed, wanted, byte):
  path = write_safetensors(place / "w.safetensors", listed, byte=byte)
  options = {"arch": ARCH} if wanted else {"new_head": True, "classes": 3}
  reads_or_refuses(path, **options)


BYTE = st.sampled_from((0, 1, 0x3C, 0x7F, 0xFF))
QUICK = settings(
  max_examples=25,
  deadline=None,
  derandomize=True,
  database=None,
  suppress_health_check=list(HealthCheck),
)


@QUICK
@given(listings(), st.booleans(), BYTE)
def test_any_list_of_tensors_ends_in_a_network_or_an_error(tmp_path_factory, listed, wanted, byte):
  fuzz_lists(tmp_path_factory.getbasetemp(), listed, wanted, byte)


@pytest.mark.slow
@settings(QUICK, max_examples=600, derandomize=False)
@given(listings(), st.booleans(), BYTE)
def test_many_lists_of_tensors_do_so(tmp_path_factory, listed, wanted, byte):
  fuzz_lists(tmp_path_factory.getbasetemp(), listed, wanted, byte)


@QUICK
@given(st.data())
def test_any_bytes_ends_in_an_error(tmp_path_factory, data):
  """Of both formats that need no other library: a good file with some bytes of another value."""
  suffix = data.draw(st.sampled_from((".safetensors", ".npz")))
  content = bytearray(GOOD[suffix])
  for _ in range(data.draw(st.integers(1, 6))):
    content[data.draw(st.integers(0, min(len(content) - 1, 4000)))] = data.draw(st.integers(0, 255))
  path = tmp_path_factory.getbasetemp() / f"bytes{suffix}"
  path.write_bytes(content)
  reads_or_refuses(path, arch=ARCH)


def npz(tensors):
  file = io.BytesIO()
  np.savez_compressed(file, **tensors)
  return file.getvalue()


GOOD = {".safetensors": safetensors.numpy.save(TENSORS), ".npz": npz(TENSORS)}


def member(shape, kind="<f4", content=b"", version=(1, 0)):
  """A file of NumPy that claims a shape, whatever follows."""
  header = f"{{'descr': {kind!r}, 'fortran_order': False, 'shape': {shape}}}\n".encode()
  return b"\x93NUMPY" + bytes(version) + struct.pack("<H", len(header)) + header + content


ARCHIVES = {
  "zeros": ({"a.npy": member("(300000000,)", content=b"\0" * (300 << 20))}, "would take"),
  "claims": ({"a.npy": member("(1000000000, 1000)")}, "does not match its shape"),
  "overflows": ({"a.npy": member(f"({2**62}, 4)")}, "does not match its shape"),
  "negative": ({"a.npy": member("(-1, 4)", content=b"1234")}, "not a readable"),
  "objects": ({"a.npy": member("(1,)", "|O", b"12345678")}, "is of type object"),
  "nested": ({"a.npy": member("(" * 3000 + ")" * 3000)}, "not a readable"),
  "no header": ({"a.npy": b"text"}, "not a readable"),
  "names": ({"a\x1b[2J.npy": member("(1,)", content=b"1234")}, "cannot be printed"),
  "one name twice": (
    {"a": member("(1,)", content=b"1234"), "a.npy": member("(1,)", content=b"1234")},
    "two arrays have one name",
  ),
}


@pytest.mark.parametrize("kind", ARCHIVES)
def test_an_archive_is_refused_before_memory_is_taken_for_it(tmp_path, kind):
  members, expected = ARCHIVES[kind]
  with zipfile.ZipFile(tmp_path / "w.npz", "w", zipfile.ZIP_DEFLATED) as archive:
    for name, content in members.items():
      archive.writestr(name, content)
  assert (tmp_path / "w.npz").stat().st_size < 1 << 20
  with bounded(megabytes=16) as said:
    load(tmp_path / "w.npz", ARCH)
  assert len(said) == 1
  assert expected in said[0]
  assert "\n" not in said[0]


def test_an_archive_of_many_members_is_refused_by_the_length_of_its_list(tmp_path):
  path = tmp_path / "w.npz"
  with zipfile.ZipFile(path, "w") as archive:
    archive.writestr("a.npy", member("(1,)", content=b"1234"))
  content = bytearray(path.read_bytes())
  struct.pack_into("<L", content, content.rfind(b"PK\x05\x06") + 12, 1 << 30)
  path.write_bytes(content)
  with pytest.raises(InputError, match=r"lists its members in 1,073,741,824 bytes, expected at"):
    load(path, ARCH)


def test_compressed_weights_of_google_are_read_as_before(tmp_path):
  params = tiny.params(ARCH.dense) | {"pos_embed": np.zeros((1, 5, 12), np.float32)}
  theirs = namings.google(weights.to_timm(params), 3)
  state = {"opt/state/0/m": np.zeros(3), "opt/0/count": np.int32(3)}
  np.savez_compressed(tmp_path / "w.npz", **theirs, **state)
  loaded = load(tmp_path / "w.npz").params
  np.testing.assert_array_equal(loaded["head"]["kernel"], params["head"]["kernel"])


HEADERS = {
  "of gigabytes": (struct.pack("<Q", 1 << 40) + b"{}", r"its header would have 1,099,511,627,776"),
  "of zeros": (b"\0" * 100, "not a readable safetensors file"),
  "nested": (
    struct.pack("<Q", 200_000) + b"[" * 100_000 + b"]" * 100_000,
    "not a readable safetensors file",
  ),
}


@pytest.mark.parametrize("kind", HEADERS)
def test_a_header_is_bounded(tmp_path, kind):
  content, expected = HEADERS[kind]
  (tmp_path / "w.safetensors").write_bytes(content)
  with bounded(megabytes=16) as said:
    load(tmp_path / "w.safetensors", ARCH)
  assert expected in said[0]


def test_more_tensors_than_any_network_has_are_refused(tmp_path):
  listed = {f"blocks.{i}.norm1.weight": ("F32", (1,)) for i in range(70_000)}
  write_safetensors(tmp_path / "w.safetensors", listed)
  with bounded(megabytes=128) as said:
    load(tmp_path / "w.safetensors", ARCH)
  assert "lists 70,000 tensors, expected at most 65,536" in said[0]


@pytest.mark.parametrize("count", [17, 2000])
def test_a_file_of_very_many_networks_is_refused_in_a_line(tmp_path, count):
  listed = {f"n{i}.patch_embed.proj.weight": ("F32", (1,)) for i in range(count)}
  write_safetensors(tmp_path / "w.safetensors", listed)
  for key in ("", "n3"):
    with bounded(megabytes=128) as said:
      load(tmp_path / "w.safetensors", ARCH, key=key)
    assert f"holds {count:,} networks, expected at most 16" in said[0]


def test_a_network_that_a_header_claims_is_held_to_its_tensors_before_it_is_made(tmp_path):
  path = tmp_path / "w.safetensors"
  network = tiny.network(ARCH)
  for changes in ({"depth": 3000}, {"width": 30_000}, {"classes": 10**9}, {"image_size": 10**6}):
    claimed = network.describe()
    claimed["architecture"] |= changes
    metadata = {"asvit_jax": json.dumps(claimed)}
    tensors = tensors_of(network)
    for headless in (False, True):
      if headless:
        tensors = {k: v for k, v in tensors.items() if not k.startswith("head.")}
      safetensors.numpy.save_file(tensors, path, metadata)
      for options in ({}, {"new_head": True}, {"resize": True}):
        with bounded() as said:
          load(path, **options)
        assert len(said) == 1, (changes, headless, options)


def test_the_depth_that_is_asked_for_is_held_to_the_blocks_at_once(tmp_path):
  path = tmp_path / "w.safetensors"
  safetensors.numpy.save_file(TENSORS, path)
  with bounded() as said:
    load(path, dataclasses.replace(ARCH, depth=500))
  assert "does not fit this model: it has 2 blocks, not 500" in said[0]


def test_shapes_of_parameters_are_those_that_the_network_makes():
  arch = tiny.arch(depth=3, prune_before=(1, 2), layer_scale=True)
  state = nnx.split(nnx.eval_shape(lambda: vit.VisionTransformer(arch, rngs=nnx.Rngs(0))))[1]
  made, specs = nnx.to_pure_dict(state), vit.specs(arch)
  assert jax.tree.structure(made) == jax.tree.structure(specs)
  for value, spec in zip(jax.tree.leaves(made), jax.tree.leaves(specs), strict=True):
    assert (value.shape, value.dtype) == (spec.shape, spec.dtype)


def test_missing_tensors_are_named_without_any_made_in_their_place(tmp_path):
  path = write_safetensors(tmp_path / "w.safetensors", {"cls_token": ("F32", (1, 1, 12))})
  huge = dataclasses.replace(ARCH, width=15_000, depth=100)  # some 700 GB
  with bounded(megabytes=8) as said:
    load(path, huge)
  assert "missing norm.weight" in said[0] or "more such lines" in said[0]
  assert math.prod(vit.specs(huge.dense)["blocks"][0]["mlp"]["fc1"]["kernel"].shape) > 4e8


def test_one_tensor_by_two_names_is_named_and_not_chosen_between(tmp_path):
  wrapped = {f"module.{name}": value for name, value in TENSORS.items()}
  other = {"norm.weight": TENSORS["norm.weight"] + 1}
  for order in (wrapped | other, other | wrapped):
    safetensors.numpy.save_file(order, tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=r"unexpected (module\.)?norm\.weight beside "):
      load(tmp_path / "w.safetensors", ARCH)
  apart = dict(TENSORS)
  parts = np.split(TENSORS["blocks.0.attn.qkv.weight"] + 1, 3)
  apart |= {
    f"blocks.0.attn.{n}.weight": np.ascontiguousarray(p) for n, p in zip("qkv", parts, strict=True)
  }
  safetensors.numpy.save_file(apart, tmp_path / "w.safetensors")
  with pytest.raises(InputError, match=r"unexpected blocks\.0\.attn\.q\.weight"):
    load(tmp_path / "w.safetensors", ARCH)


INDICES = {
  "out": {"weight_map": {"a": "../secret.safetensors"}},
  "absolute": {"weight_map": {"a": "/etc/passwd"}},
  "backslash": {"weight_map": {"a": "..\\secret.safetensors"}},
  "NUL": {"weight_map": {"a": "a\0.safetensors"}},
  "dots": {"weight_map": {"a": ".."}},
  "suffix": {"weight_map": {"a": "run.sh"}},
  "newline": {"weight_map": {"a": "a.safetensors\n"}},
  "number": {"weight_map": {"a": 3}},
  "list": {"weight_map": ["a.safetensors"]},
  "nothing": {"weight_map": {}},
  "no map": {},
  "no object": [],
}


@pytest.mark.parametrize("kind", INDICES)
def test_an_index_leads_to_plain_names_beside_it_alone(tmp_path, kind):
  safetensors.numpy.save_file({"a": np.zeros(3, np.float32)}, tmp_path / "secret.safetensors")
  (tmp_path / "w").mkdir()
  index = tmp_path / "w" / "model.safetensors.index.json"
  index.write_text(json.dumps(INDICES[kind]))
  with bounded() as said:
    formats.read(tmp_path / "w")
  assert "model.safetensors.index.json is not an index of shards" in said[0]
  assert "\n" not in said[0]
