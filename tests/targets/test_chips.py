import pytest

from asvit_jax.core.errors import InputError
from asvit_jax.targets import chips


@pytest.mark.parametrize(
  ("name", "platform", "devices", "hosts"),
  [
    ("tpu:v5e:1x1", "tpu", 1, 1),
    ("tpu:v5e:2x4", "tpu", 8, 1),
    ("tpu:v5e:4x4", "tpu", 16, 4),
    ("tpu:v6e:2x2", "tpu", 4, 1),
    ("tpu:v4:2x2x2", "tpu", 8, 2),
    ("tpu:v5p:2x2x1", "tpu", 4, 1),
    ("gpu:h100", "cuda", 1, 1),
    ("gpu:a100-40gb:8", "cuda", 8, 1),
  ],
)
def test_a_name_says_which_devices_of_how_many_hosts(name, platform, devices, hosts):
  target = chips.parse_target(name)
  assert (target.chip.platform, target.devices, target.hosts) == (platform, devices, hosts)


@pytest.mark.parametrize(
  ("name", "said"),
  [
    ("v5e", "expected tpu:v5e:2x4"),
    ("cpu:x", "expected tpu:v5e:2x4"),
    ("tpu:v9:2x2", "'v9' is not known, choose from v4, v5e"),
    ("tpu", "'no chip' is not known"),
    ("tpu:v5e", "the shape of a slice of v5e, 2 numbers, such as tpu:v5e:2x4"),
    ("tpu:v5e:2x2x2", "2 numbers"),
    ("tpu:v4:2x2", "3 numbers, such as tpu:v4:2x2x2"),
    ("tpu:v5e:0x4", "2 numbers"),
    ("tpu:v5e:3x4", "a host of v5e has 2x2 chips"),
    ("tpu:v5e:64x64", "4096 devices"),
    ("gpu:rtx", "'rtx' is not known, choose from a100"),
    ("gpu:h100:two", "a number of GPUs, such as gpu:h100:8"),
  ],
)
def test_any_other_name_is_refused_with_what_was_expected(name, said):
  with pytest.raises(InputError) as error:
    chips.parse_target(name)
  assert said in str(error.value)
  assert repr(name) in str(error.value)
