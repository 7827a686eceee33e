"""What every format promises, and that another one needs nothing but itself and a name."""

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from typing import ClassVar

import jax
import numpy as np
import pytest
import tiny

from asvit_jax.core.errors import InputError
from asvit_jax.export import verification, writing
from asvit_jax.export.artifacts import load_artifact
from asvit_jax.export.formats import FORMATS
from asvit_jax.export.formats.base import ProgramFormat
from asvit_jax.export.programs import flat_params, program_for_any_number
from asvit_jax.export.serving import Programs

NETWORK = tiny.network(tiny.TRAINED.dense)


class Fifth(ProgramFormat):
  """A format as somebody might add it: one program, the weights inside."""

  name = "fifth"
  needs: ClassVar = {"ml_dtypes": "ml-dtypes"}

  def write(self, network, path, batch_sizes):
    from jax import export

    _, program = program_for_any_number(network)
    flat, size = flat_params(network), network.arch.image_size
    batch = export.symbolic_shape("b")[0]
    images = jax.ShapeDtypeStruct((batch, size, size, 3), "uint8")
    exported = export.export(jax.jit(lambda images: program(flat, images)))(images)
    path.write_bytes(exported.serialize())

  def read(self, path):
    from jax import export

    program = export.deserialize(bytearray(path.read_bytes()))

    def run(images):
      outputs = program.call(images)
      return outputs["logits"], outputs["kept"]

    return {None: run}


fifth = Fifth()
FIFTH = f"{__name__}:fifth"
EVERY = pytest.mark.parametrize("form", [*FORMATS, FIFTH])


@pytest.fixture(scope="module")
def written(tmp_path_factory):
  """Function of a format that writes `NETWORK` once: where to."""
  done = {}

  def of(form):
    for library in FORMATS[form].needs:
      pytest.importorskip(library)
    if form not in done:
      done[form] = tmp_path_factory.mktemp("written") / "net"
      FORMATS[form].write(NETWORK, done[form], ())
    return done[form]

  return of


@EVERY
def test_a_format_says_what_it_is(form, repository):
  found = FORMATS[form]
  assert found.name == form.rpartition(":")[-1]
  if form in FORMATS:  # the hint of `require` must install what it says
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    extra = project["optional-dependencies"]["export"]
    packages = {re.match(r"[\w.-]*", requirement)[0] for requirement in extra}
    assert set(found.needs.values()) <= packages


@EVERY
def test_what_a_format_writes_it_verifies(written, form):
  path = written(form)
  assert path.is_dir() == bool(FORMATS[form].directory)
  assert [p.name for p in path.parent.iterdir()] == ["net"]  # and nothing beside it
  assert 0 <= FORMATS[form].verify(NETWORK, path) < 1e-4
  head = jax.tree.map(lambda x: x + 0.01, NETWORK.params["head"])
  other = NETWORK.with_params(NETWORK.params | {"head": head})
  with pytest.raises(InputError, match="nothing was exported"):
    FORMATS[form].verify(other, path)


@EVERY
def test_what_a_format_loads_runs_any_number_of_images(written, form):
  path = written(form)
  try:
    programs = FORMATS[form].load(path)
  except InputError as error:
    assert str(error) == f"artifact {path}: {form} holds weights only; give it as --weights"
    return
  assert isinstance(programs, Programs)
  images = verification.sample_images(16)
  expected = tiny.run_dense(NETWORK.arch, NETWORK.params, tiny.normalize(images)).logits
  for count in (1, 3, 8):
    logits, kept = programs(images[:count])
    np.testing.assert_allclose(logits, expected[:count], atol=1e-4)
    assert (logits.dtype, kept.dtype, kept.shape) == (np.float32, np.float32, (count, 0))


@EVERY
def test_what_is_no_artifact_is_an_input_error(tmp_path, form):
  for library in FORMATS[form].needs:
    pytest.importorskip(library)
  path = tmp_path / "net"
  if FORMATS[form].directory:
    path.mkdir()
    path.joinpath("anything").write_bytes(b"anything")
  else:
    path.write_bytes(b"anything")
  for call in (lambda: FORMATS[form].load(path), lambda: FORMATS[form].verify(NETWORK, path)):
    with pytest.raises(InputError, match=str(path)):
      call()


@EVERY
def test_a_missing_library_is_named_with_what_installs_it(monkeypatch, form):
  for library, package in FORMATS[form].needs.items():
    with monkeypatch.context() as patched:
      for other in FORMATS[form].needs:
        patched.setitem(sys.modules, other, sys)  # as if it was installed
      patched.setitem(sys.modules, library, None)
      said = rf"{library} is needed.*pip install '.\[export\]'.*\(or {package} alone\)"
      with pytest.raises(InputError, match=said):
        writing.check_libraries(form)
  if not FORMATS[form].needs:
    writing.check_libraries(form)


@EVERY
def test_a_path_of_the_other_kind_is_refused_before_any_work(tmp_path, form):
  file, directory = tmp_path / "file", tmp_path / "directory"
  file.write_text("")
  directory.mkdir()
  if FORMATS[form].directory:
    right, wrong, said = directory, file, f"is a file: {FORMATS[form].directory} is a directory"
  else:
    right, wrong, said = file, directory, "is a directory: give the name of a file"
  writing.check_path(form, right)
  writing.check_path(form, tmp_path / "new")
  for call in (lambda: writing.check_path(form, wrong), lambda: NETWORK.export(wrong, form)):
    with pytest.raises(InputError, match=f"--out {wrong} {said}"):
      call()
  assert not list(directory.iterdir())


def test_a_savedmodel_by_its_name(tmp_path):
  (tmp_path / "net").write_text("")
  with pytest.raises(InputError, match=r"--out .*net is a file: a SavedModel is a directory$"):
    writing.check_path("savedmodel", tmp_path / "net")


def test_names_cost_no_import_and_formats_no_library():
  script = (
    "import sys\n"
    "from asvit_jax.export.formats import FORMATS\n"
    "FOUR = ('safetensors', 'stablehlo', 'savedmodel', 'onnx')\n"
    "assert FORMATS.names == (*FOUR, 'tflite')\n"
    "assert not {'jax', 'numpy', 'asvit_jax.export.formats.onnx'} & set(sys.modules)\n"
    "needed = {library for name in FORMATS for library in FORMATS[name].needs}\n"
    "assert len(needed) == 4 and not needed & set(sys.modules), needed & set(sys.modules)\n"
  )
  subprocess.run([sys.executable, "-c", script], check=True)


def test_an_unknown_format_is_an_error_with_the_known_ones():
  said = "--format 'papyrus' is not known: choose from safetensors, stablehlo, savedmodel, onnx, tf"
  for call in (
    lambda: NETWORK.export("net", "papyrus"),
    lambda: writing.check_path("papyrus", "net"),
    lambda: writing.check_libraries("papyrus"),
  ):
    with pytest.raises(InputError, match=said):
      call()


def test_another_format_is_one_object_and_one_line_of_the_table(tmp_path, monkeypatch):
  monkeypatch.setattr(FORMATS, "_places", {**FORMATS._places, "fifth": FIFTH})
  assert FORMATS.names[-1] == "fifth"  # what command lines offer
  path = tmp_path / "net.fifth"
  note = NETWORK.export(path, "fifth")
  assert note["format"] == "fifth"
  assert note["versions"]["ml-dtypes"] == importlib.metadata.version("ml-dtypes")
  assert load_artifact(path)(np.zeros((2, 16, 16, 3), np.uint8))[0].shape == (2, 3)
  monkeypatch.setattr(fifth, "write", lambda network, path, batch_sizes: path.write_text("half"))
  with pytest.raises(InputError, match="cannot be loaded as fifth"):
    NETWORK.export(path, "fifth")


def test_an_own_format_needs_no_line_of_the_table(tmp_path):
  path = tmp_path / "net"
  assert NETWORK.export(path, FIFTH)["format"] == FIFTH
  with pytest.raises(
    InputError, match=r"'test_export_formats:fifth' is not an export format of this"
  ):
    load_artifact(path)  # a file names it, and nobody else
  assert load_artifact(path, parts=[FIFTH])(np.zeros((2, 16, 16, 3), np.uint8))[0].shape == (2, 3)


@pytest.mark.parametrize(
  ("form", "option", "said"),
  [
    ("safetensors", {"tokens": True}, "the format safetensors has no option --tokens: leave"),
    (
      "stablehlo",
      {"opset": 17},
      "the format stablehlo has no option --opset: it takes --tok",
    ),
    (FIFTH, {"tokens": True}, "the format fifth has no option --tokens"),
  ],
)
def test_an_option_that_a_format_does_not_have_is_refused(tmp_path, form, option, said):
  with pytest.raises(InputError, match=said):
    NETWORK.export(tmp_path / "net", form, **option)
  assert not list(tmp_path.iterdir())


@pytest.mark.external
def test_an_opset_is_the_one_asked_for_and_old_runtimes_take_old_ones(tmp_path):
  onnx = pytest.importorskip("onnx")
  pytest.importorskip("jax2onnx")
  note = NETWORK.export(tmp_path / "net", "onnx", opset=17)
  assert note["least_versions"] == {"onnxruntime": "1.15.1"}
  model = onnx.load(str(tmp_path / "net"))
  assert ([o.version for o in model.opset_import], model.ir_version) == ([17], 8)
  for opset in (12, 99):
    with pytest.raises(InputError, match=rf"--opset {opset}: expected 13 to \d+, the newest"):
      NETWORK.export(tmp_path / "other", "onnx", opset=opset)


@pytest.mark.external
def test_tflite_has_built_in_operators_alone_and_images_run_one_by_one(written):
  tf = pytest.importorskip("tensorflow")
  path = written("tflite")
  interpreter = tf.lite.Interpreter(str(path))
  interpreter.allocate_tensors()
  names = {operator["op_name"] for operator in interpreter._get_ops_details()}
  assert "FULLY_CONNECTED" in names
  assert not {name for name in names if name.startswith("Flex") or name == "CUSTOM"}
  (images,) = interpreter.get_input_details()
  assert (images["shape"].tolist(), images["dtype"]) == ([1, 16, 16, 3], np.uint8)
  programs = FORMATS["tflite"].load(path)
  assert (programs.sizes, programs.packed_sizes) == ((1,), ())


def test_an_artifact_that_needs_a_newer_library_says_so(tmp_path, monkeypatch):
  monkeypatch.setattr(fifth, "least_versions", lambda path: {"numpy": "99.1", "nothing": "1"})
  NETWORK.export(tmp_path / "net", FIFTH)
  with pytest.raises(
    InputError, match=r"net needs numpy 99\.1 or newer, and 2\.\d+.* is installed"
  ):
    load_artifact(tmp_path / "net")
