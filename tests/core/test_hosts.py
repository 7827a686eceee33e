"""Whether a process is one of several hosts, as JAX and the environment say."""

import metadata_server
import pytest
from jax._src.clusters import cloud_tpu_cluster

from asvit_jax.core import exchange, hosts
from asvit_jax.core.errors import InputError

SLURM = {
  "SLURM_JOB_ID": "7",
  "SLURM_STEP_NODELIST": "localhost",
  "SLURM_PROCID": "0",
  "SLURM_LOCALID": "0",
}


@pytest.fixture
def joined(monkeypatch):
  """The arguments of every call of `jax.distributed.initialize`, which are only noted."""
  calls = []
  monkeypatch.setattr(hosts.jax.distributed, "initialize", lambda *args: calls.append(args))
  for name in ("KUBERNETES_SERVICE_HOST", "SLURM_JOB_ID", "OMPI_COMM_WORLD_SIZE", *hosts._OURS):
    monkeypatch.delenv(name, raising=False)
  return calls


@pytest.fixture
def tpu_vm(monkeypatch):
  """Makes this machine a TPU VM in the eyes of JAX; returns a function of its metadata server."""
  monkeypatch.setattr(cloud_tpu_cluster, "running_in_cloud_tpu_vm", True)
  monkeypatch.delenv("TPU_SKIP_MDS_QUERY", raising=False)
  return lambda address: monkeypatch.setenv("GCE_METADATA_IP", address)


def test_a_machine_by_itself_joins_nobody(joined):
  hosts.initialize()
  assert joined == []


@pytest.mark.parametrize("addresses", [("10.0.0.1",), ("10.0.0.1", "10.0.0.2")])
def test_a_tpu_vm_joins_where_the_metadata_server_knows_of_others(joined, tpu_vm, addresses):
  with metadata_server.serving(0, addresses) as (address, asked):
    tpu_vm(address)
    hosts.initialize()
  assert "worker-network-endpoints" in asked
  assert joined == ([()] if len(addresses) > 1 else [])


def test_a_tpu_vm_whose_metadata_server_is_gone_starts_by_itself(joined, tpu_vm, capsys):
  tpu_vm("127.0.0.1:9")  # nobody listens
  hosts.initialize()
  assert joined == []
  assert "WARNING: JAX cannot determine whether there are other hosts" in capsys.readouterr().err


@pytest.mark.parametrize("tasks", [1, 2])
def test_slurm_is_asked_for_the_number_of_tasks(joined, monkeypatch, tasks):
  for name, value in (SLURM | {"SLURM_NTASKS": str(tasks)}).items():
    monkeypatch.setenv(name, value)
  hosts.initialize()
  assert joined == ([()] if tasks > 1 else [])


def test_a_batch_script_of_slurm_that_runs_without_srun_is_by_itself(joined, monkeypatch):
  monkeypatch.setenv("SLURM_JOB_ID", "7")
  monkeypatch.setenv("SLURM_NTASKS", "4")
  monkeypatch.delenv("SLURM_STEP_NODELIST", raising=False)
  hosts.initialize()
  assert joined == []


def test_processes_of_mpirun_that_jax_does_not_find_are_refused(joined, monkeypatch):
  monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
  with pytest.raises(InputError, match="set JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES"):
    hosts.initialize()


def test_the_three_variables_come_before_anything_that_jax_finds(joined, monkeypatch, tpu_vm):
  tpu_vm("127.0.0.1:9")
  for name, value in zip(hosts._OURS, ("127.0.0.1:1", "2", "1"), strict=True):
    monkeypatch.setenv(name, value)
  hosts.initialize()
  assert joined == [("127.0.0.1:1", 2, 1)]


def test_an_error_names_the_host_that_differs(monkeypatch):
  everyone = [{"images": 24}, {"images": 24}, {"images": 23}]
  monkeypatch.setattr(exchange, "gather", lambda value: everyone)
  with pytest.raises(InputError, match="images is 23 on host 2 and 24 on host 0: mend it"):
    exchange.check_same(everyone[0], "mend it")


@pytest.mark.parametrize(
  ("count", "index"),
  [("x", "0"), ("2", "x"), ("2", "2"), ("0", "0"), ("2", "-1"), ("1e3", "0"), ("9" * 30, "0")],
)
def test_hosts_that_cannot_be_counted_are_refused(joined, monkeypatch, count, index):
  for name, value in zip(hosts._OURS, ("localhost:1", count, index), strict=True):
    monkeypatch.setenv(name, value)
  with pytest.raises(InputError, match=r"expected the number of hosts, and of this one"):
    hosts.initialize()
  assert joined == []


def test_tasks_of_mpi_that_cannot_be_counted_are_refused(joined, monkeypatch):
  monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "many")
  with pytest.raises(InputError, match="mpirun started several processes"):
    hosts.initialize()


@pytest.mark.parametrize("tasks", ["x", "", "-1"])
def test_variables_of_slurm_that_make_no_sense_end_in_no_traceback(joined, monkeypatch, tasks):
  for name, value in (SLURM | {"SLURM_NTASKS": tasks}).items():
    monkeypatch.setenv(name, value)
  hosts.initialize()  # by itself, with a warning where JAX cannot tell
  assert joined == []
