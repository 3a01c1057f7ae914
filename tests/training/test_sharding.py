"""On eight fake devices, in a process of its own, every mesh trains as one device does, with every mechanism on."""

import json

import numpy as np
import pytest

from terraformer.config import MeshConfig, UserError
from terraformer.training.sharding import make_mesh

CODE = """
import json, os, sys
os.environ['XLA_FLAGS'] = os.environ.get('XLA_FLAGS', '') + ' --xla_force_host_platform_device_count=8'
import jax, numpy as np, optax
from terraformer import config as c
from terraformer.layers.parameter import facts_of
from terraformer.models.parameters import flatten, split_module
from terraformer.training.by_layer import ByLayer
from terraformer.training.sharding import batch_sharding, make_mesh
from terraformer.models.make import abstract_model
from terraformer.training.state import abstract_state, init_state
from terraformer.training.step import make_train_step

lsh = c.LSHAttentionConfig(chunk_length=4, n_rounds=2, n_buckets=(4,), full_below=0)
sparse = (c.SparseProjectionConfig(8, share_qk=True), c.SparseFFConfig(64, 8, 4), c.SRUConfig(4))
block = c.BlockConfig(16, 8, *sparse, attention=lsh, ff_chunk=5)
encoder = c.BlockConfig(16, 8, c.DenseProjectionConfig(share_qk=True), *sparse[1:], attention=lsh)
model = c.TerraformerConfig(
  40, 12, n_encoder_layers=2, n_decoder_layers=2, encoder=encoder, decoder=block, loss_chunk=3,
  output=c.SparseOutputConfig(8))
stacks = ('decoder.blocks', 'encoder.blocks')
optimizer = ByLayer(optax.sgd(1.0), stacks)  # parameters then differ by as much as their gradients
abstract = abstract_model(model)
structure, abstract_params = split_module(abstract)
step = make_train_step(structure, optimizer, optax.constant_schedule(1.0), jax.random.key(1))
rng = np.random.default_rng(0)
batch = {'inputs': rng.integers(1, 40, (8, 9)), 'targets': rng.integers(1, 40, (8, 7))}
batch['inputs'][::2, 5:] = 0
found = []
alone = jax.make_mesh(
  (1, 1, 1), ('data', 'fsdp', 'model'), axis_types=(jax.sharding.AxisType.Auto,) * 3, devices=jax.devices()[:1])
shapes = [(1, 1), (2, 2), (4, 2), (1, 8)]
for mesh in [alone, *(make_mesh(c.MeshConfig(*shape)) for shape in shapes)]:
  jax.set_mesh(mesh)
  state = init_state(
    model, optimizer, abstract_state(abstract_params, facts_of(abstract), optimizer, mesh), jax.random.key(0))
  shards = state['params']['embedding']['table_VxD'].sharding.shard_shape((40, 16))
  state, metrics, _ = jax.jit(step, donate_argnums=0)(state, jax.device_put(batch, batch_sharding(mesh)))
  values = {name: float(value) for name, value in metrics.compute().items()}
  params = {name: np.asarray(x) for name, x in flatten(state['params']).items()}
  first = params if not found else first
  worst = max(float(np.abs(params[name] - first[name]).max()) for name in first)
  found.append({'shards': shards, 'worst': worst, **values})
print(json.dumps(found))
"""


def test_every_mesh_agrees_with_one_device(python):
  alone, *meshes = json.loads(python(CODE).stdout.splitlines()[-1])
  assert [mesh['shards'] for mesh in meshes] == [[40, 16], [20, 8], [20, 4], [5, 16]]
  for mesh in meshes:
    np.testing.assert_allclose(
      [mesh['loss'], mesh['gradient_norm']], [alone['loss'], alone['gradient_norm']], rtol=1e-5
    )
    assert mesh['worst'] < 1e-5


def test_a_mesh_that_the_devices_do_not_fill_is_refused():
  with pytest.raises(UserError, match=r'expected fsdp x model \(3\) to divide the number of devices, found 1'):
    make_mesh(MeshConfig(fsdp=3))
