"""Hostile command lines: configs that are none, keys, flags and paths end in one line."""

import pytest
from forking import outcomes

GOOD = (
  "from asvit_jax.config import base\n\n\ndef get_config():\n  config = base()\n  return config\n"
)

# What a file of --config holds, and what is said of it.
FILES = {
  "exits": ("import sys\nsys.exit()\n", "exits.py line 2: SystemExit"),
  "exits_late": ("def get_config():\n  raise SystemExit(0)\n", "exits_late.py line 2: SystemExit"),
  "returns_none": ("def get_config():\n  pass\n", "returns NoneType"),
  "returns_dict": ("def get_config():\n  return {'seed': 1}\n", "the config has no key 'data'"),
  "returns_int": ("def get_config():\n  return 3\n", "returns int"),
  "yields": ("def get_config():\n  yield 3\n", "returns generator"),
  "is_other": (
    "from ml_collections import ConfigDict\nget_config = lambda: ConfigDict({'seed': 1})\n",
    "no key 'data'",
  ),
  "is_empty": ("", "no function get_config"),
  "raises": ("def get_config():\n  raise RuntimeError('a\\nb')\n", "line 2: RuntimeError: a b"),
  "divides": ("x = 1 / 0\n", "divides.py line 1: ZeroDivisionError"),
  "asserts": ("assert False, 'no'\n", "asserts.py line 1: AssertionError: no"),
  "recurses": ("def get_config():\n  return get_config()\n", "line 2: RecursionError"),
  "has_no_key": (GOOD.replace("return", "config.foo.bar = 1\n  return"), "no key 'foo'"),
  "has_none": (GOOD.replace("return", "None.foo\n  return"), "line 6: AttributeError"),
  "has_type": (GOOD.replace("return", "config.seed = 'x'\n  return"), "field 'seed'"),
  "imports": ("import nothing_there\n", "imports.py line 1: ModuleNotFoundError"),
  "wants": ("def get_config(a, b):\n  pass\n", "missing 2 required positional arguments"),
  "is_wrong": ("def get_config(:\n", "is_wrong.py line 1: invalid syntax"),
  "is_binary": (bytes(range(256)), "source code string cannot contain null bytes"),
  "is_utf16": (GOOD.encode("utf-16"), "source code string cannot contain null bytes"),
  "has_windows": (
    GOOD.replace("return", "config.data.dir = 'C:\\Users'\n  return"),
    "has_windows.py line 6: (unicode error)",
  ),
  # These are configs: it is the images that are not there.
  "has_crlf": (GOOD.replace("\n", "\r\n").encode(), "nowhere"),
  "has_bom": (b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode(), "nowhere"),
}

KEYS = {
  "seed=x": "flag --config.seed=x: expected a whole number",
  "seed=1.5": "flag --config.seed=1.5: expected a whole number",
  "seed=-1": "error: --config.seed -1 is not valid: expected at least 0",
  "budget=abc": "flag --config.budget=abc: expected a finite number that float32 can hold",
  "budget=65%": "in (0, 1], or None; did you mean 0.65?",
  "budget=65": "budget 65 is not in (0, 1]: it is the share of the dense model's GMACs to keep; d",
  "budget_range=40,90": "budget_range 40 is not in (0, 1]",
  "batch_size=0": "error: --config.batch_size 0 is not valid: expected at least 1 and at most",
  "batch_size=abc": "flag --config.batch_size=abc: expected a whole number, at least 1 and at most",
  "model.image_size=abc": "model.image_size 'abc' is not valid: expected the side of a square",
  "budget=nan": "budget nan is not valid: expected a finite number",
  "model.remat=maybe": "flag --config.model.remat=maybe: expected True or False",
  "data.check_images=-1": "data.check_images -1 is not valid",
  "data.workers=-1": "error: --config.data.workers -1 is not valid",
  "data.shift=-3": "data.shift -3 is not valid",
  "data.crop_scale=(1,'a')": "data.crop_scale (1, 'a') is not valid",
  "data.mean=a b": "--config.data.mean=a b",
  "epochs=1e400": "epochs inf is not valid",
  "total_steps=1" + "0" * 30: "expected at least 1 and at most 2,147,483,647, or None",
  "optimizer={}": "config.optimizer is a section: give its keys, such as --config.optimizer.",
  "seed.x=1": "--config.seed.x=1': config.seed is one value, which has no keys",
  "budget.x=1": "config.budget is one value",
  "data.crop_scale.x.y=1": "config.data.crop_scale is one value",
  "model.=1": "the name of a key is missing",
  "optimizer.arguments.b1.x=1": "the config has no key",
  "optimizer.freeze=a{99999999999}": "expected a regular expression",
  "model.stem=os:system": "model.stem 'os:system' cannot be used as a stem",
  "data.crop_scale[7]=1": "out of range",
  "=3": "the name of a key is missing",
  "seed": "Missing value",
}

SAMPLE = "as_deit_t_sample"
RECIPES = {
  f"{SAMPLE}:abc": "argument 'abc': expected a share",
  f"{SAMPLE}:nan": "budget nan is not valid",
  f"{SAMPLE}:65%": "argument '65%': expected a share of the dense GMACs such as 0.65, or dense; d",
  f"{SAMPLE}:2": "budget 2 is not in (0, 1]",
  f"{SAMPLE}:0.5,foo": "argument '0.5,foo': expected BUDGET, or BUDGET,merge",
  f"{SAMPLE}:": "argument '': expected a share",
  "as_deit_b:-1": "budget -1 is not in (0, 1]",
  "as_lvvit_s:inf": "budget inf is not valid",
  "digits:3": "takes 0 positional arguments but 1 was given",
  "/dev/zero": "is a device",
  "": "Path to config file is an empty string",
  "x" * 300: "File name too long",
}

WEIGHTS = ("--config", "digits", "--weights", "nowhere/w.safetensors")
TRAIN = ("train", "--workdir", "nowhere/run", "--dry-run")
FLAGS = (
  (("train",), "--config must have a value"),
  (("train", "--config"), "Missing value for flag --config"),
  ((*TRAIN, "--config", "digits", "--config", "as_digits"), "--config is given 2 times"),
  (("train", "x", "--config", "digits", "--workdir", "w"), "1 positional arguments ['x']"),
  (("train", "--config", "digits", "--workdir", ""), "--workdir is empty"),
  (("evaluate", "--weights", ""), "--weights is empty"),
  (("evaluate", *WEIGHTS, "--bogus"), "Unknown command line flag 'bogus'"),
  (("train", "--configg", "digits"), "flag 'configg'; did you mean '--config'?"),
  (("train", "--batch_size=8"), "flag 'batch_size'; did you mean '--config.batch_size'?"),
  (("evaluate", "--weights", "x" * 5000), "File name too long"),
  (("evaluate", "--workdir", "x" * 300), "File name too long"),
  *((("evaluate", *WEIGHTS, "--budget", v), "is not in (0, 1]") for v in ("nan", "0", "-1", "2")),
  *((("evaluate", *WEIGHTS, "--calibrate", v), "is not in (0, 1]") for v in ("inf", "0.5,nan")),
  (("evaluate", *WEIGHTS, "--budget", "abc"), "--budget 'abc': expected shares"),
  (("evaluate", *WEIGHTS, "--calibrate", ""), "--calibrate '': expected shares"),
  (("evaluate", *WEIGHTS, "--budget", "65"), "--budget 65 is not in (0, 1]: it is the share of"),
  (("evaluate", *WEIGHTS, "--calibrate", "65%"), "such as 0.65 or 0.5,0.6,0.7; did you mean 0.65?"),
  (("benchmark", "--budget", "65%"), "flag --budget=65%: expected a number; did you mean 0.65?"),
  (("benchmark", "--rounds", "x"), "flag --rounds=x: expected a whole number"),
  (("benchmark", "--batch", "0"), "--batch=0"),
  (("benchmark", "--batch", "9" * 20), "--batch=9999"),
  (("visualize", *WEIGHTS, "--out", "a.png", "--count", "-1"), "-1 images: expected 1 to"),
  (("export", *WEIGHTS, "--format", "safetensors", "--out", "o", "--batch", "-1"), "--batch=-1"),
)


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
  """{name: (its `Outcome`, what it has to say)} of all command lines, which run together."""
  root = tmp_path_factory.mktemp("configs")
  good = (*TRAIN, "--config.data.name=folder", "--config.data.dir=nowhere")
  lines = {}
  for name, (content, said) in FILES.items():
    file = root / f"{name}.py"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    lines[name] = ((*good, "--config", str(file)), said)
  (root / "loop.py").symlink_to(root / "loop.py")
  for path, said in ((root, "Is a directory"), (root / "loop.py", "Too many levels of symbolic")):
    lines[path.name[:4]] = ((*good, "--config", str(path)), said)
  # A flag of a key has to follow --config.
  lines = {k: ((*TRAIN, *a[-2:], *a[len(TRAIN) : -2]), said) for k, (a, said) in lines.items()}
  for key, said in KEYS.items():
    lines[key] = ((*TRAIN, "--config", "digits", f"--config.{key}"), said)
  given = ("--config.init_from=nowhere/w.safetensors", *good[len(TRAIN) :])
  for recipe, said in RECIPES.items():
    lines[recipe] = ((*TRAIN, "--config", recipe, *given), said)
  lines |= {" ".join(arguments): (arguments, said) for arguments, said in FLAGS}
  found = outcomes([arguments for arguments, _ in lines.values()])
  return {k: (o, said) for o, (k, (_, said)) in zip(found, lines.items(), strict=True)}


@pytest.mark.slow
def test_every_command_line_ends_in_one_line(cases):
  assert len(cases) > 60
  wrong = {}
  for name, (outcome, said) in cases.items():
    errors = [line for line in outcome.stderr.splitlines() if line.startswith("error: ")]
    fine = len(errors) == 1 and said in errors[0] and "Traceback" not in outcome.stderr
    if not fine or (outcome.status, outcome.stdout) != (2, ""):
      wrong[name[:60]] = (outcome.status, said, outcome.stderr[-600:], outcome.stdout)
  assert wrong == {}
