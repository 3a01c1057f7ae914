"""Settings of the whole suite, made before JAX starts."""

import os
import tempfile
from pathlib import Path

import pytest

# The stated tolerances are those of float32 on a CPU.
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
# Compiled programs of the tests are not for the user's own cache; all test processes have one.
if 'PYTEST_XDIST_WORKER' not in os.environ:
  os.environ['TERRAFORMER_CACHE'] = tempfile.mkdtemp(prefix='terraformer-tests-')
# Tests compile far more than they compute: without these two the suite takes several times as long.
_QUICK_COMPILATION = '--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false'
os.environ['XLA_FLAGS'] = f'{_QUICK_COMPILATION} {os.environ.get("XLA_FLAGS", "")}'

import jax  # noqa: E402

from tests import shapes  # noqa: E402

shapes.install()  # before the package is imported

from tests.prepared import (  # noqa: E402, F401
  bundle,
  fake_prepared,
  finished_run,
  gin_file,
  made_once,
  python,
  terraformer,
  tokenizer,
)

# Of a minute and more: begun last, one of these would keep a process busy while the others have nothing left to do.
_LONGEST = {'test_hosts.py', 'test_sharding.py', 'test_compile.py'}
# Linux allows a process 65,530 memory mappings. A compiled program has several; LLVM crashes when it gets no more.
_MANY_MAPPINGS = 20_000
_MAPPINGS = Path('/proc/self/maps')


@pytest.fixture(autouse=True, scope='module')
def drop_compiled_programs():
  """Drops the compiled programs after a module of tests if the process has many."""
  yield
  if _MAPPINGS.exists() and _MAPPINGS.read_bytes().count(b'\n') > _MANY_MAPPINGS:
    jax.clear_caches()


def pytest_collection_modifyitems(items):
  items.sort(key=lambda item: item.path.name not in _LONGEST)
