"""On eight fake devices, in a process of its own, every mesh trains as one device does."""

import json

import numpy as np
import pytest

from terraformer.config import MeshConfig, UserError
from terraformer.train.sharding import make_mesh

CODE = """
import json, os, sys
os.environ['XLA_FLAGS'] = os.environ.get('XLA_FLAGS', '') + ' --xla_force_host_platform_device_count=8'
import jax, numpy as np
from terraformer import config as c
from terraformer.models.parameters import flatten, split
from terraformer.train.optimizer import make_optimizer, make_schedule
from terraformer.train.sharding import batch_sharding, make_mesh
from terraformer.models.make import abstract_model
from terraformer.train.state import init_state
from terraformer.train.step import make_train_step

block = c.BlockConfig(16, 2, c.SparseProjectionConfig(4), c.SparseFFConfig(32, 4, 4), c.SRUConfig(4))
model = c.TerraformerConfig(40, 12, 2, 2, encoder=block, decoder=block)
config = c.AdamWConfig()
optimizer = make_optimizer(config)
structure, _ = split(abstract_model(model))
step = make_train_step(structure, optimizer, make_schedule(config.schedule), jax.random.key(1))
rng = np.random.default_rng(0)
batch = {'inputs': rng.integers(1, 40, (8, 9)), 'targets': rng.integers(1, 40, (8, 7))}
batch['inputs'][::2, 5:] = 0
found = []
alone = jax.make_mesh(
  (1, 1, 1), ('data', 'fsdp', 'model'), axis_types=(jax.sharding.AxisType.Auto,) * 3, devices=jax.devices()[:1])
shapes = [(1, 1), (2, 2)]
for mesh in [alone, *(make_mesh(c.MeshConfig(*shape)) for shape in shapes)]:
  jax.set_mesh(mesh)
  state = init_state(model, optimizer, mesh, jax.random.key(0))
  shards = state['params']['embedding']['table_VxD'].sharding.shard_shape((40, 16))
  state, metrics = jax.jit(step, donate_argnums=0)(state, jax.device_put(batch, batch_sharding(mesh)))
  values = {name: float(value) for name, value in metrics.compute().items()}
  total = float(sum(np.abs(np.asarray(x)).sum() for x in flatten(state['params']).values()))
  found.append({'shards': shards, 'total': total, **values})
print(json.dumps(found))
"""


def test_every_mesh_agrees_with_one_device(python):
  alone, *meshes = json.loads(python(CODE).stdout.splitlines()[-1])
  assert [mesh['shards'] for mesh in meshes] == [[40, 16], [20, 8]]
  for mesh in meshes:
    for name in ('loss', 'gradient_norm', 'total'):
      np.testing.assert_allclose(mesh[name], alone[name], rtol=1e-5)


def test_a_mesh_that_the_devices_do_not_fill_is_refused():
  with pytest.raises(UserError, match=r'expected fsdp x model \(3\) to divide the number of devices, found 1'):
    make_mesh(MeshConfig(fsdp=3))
