"""Where the optimiser's moments lie."""

import json

CODE = """
import os
os.environ['XLA_FLAGS'] = os.environ.get('XLA_FLAGS', '') + ' --xla_force_host_platform_device_count=8'
import json, jax, numpy as np, optax
from terraformer import config as c
from terraformer.layers.parameter import facts_of
from terraformer.models.make import abstract_model
from terraformer.models.parameters import split_module
from terraformer.training.optimizer import make_optimizer
from terraformer.training.sharding import make_mesh
from terraformer.training.state import abstract_state

block = c.BlockConfig(16, 2, c.DenseProjectionConfig(), c.SparseFFConfig(64, 8, 4), recurrence=None)
model = c.LanguageModelConfig(40, 12, n_layers=3, decoder=block)
abstract = abstract_model(model)
optimizer = make_optimizer(c.AdafactorConfig(factor_from=8), facts_of(abstract))
mesh = make_mesh(c.MeshConfig(fsdp=4, model=2))
state = abstract_state(split_module(abstract)[1], facts_of(abstract), optimizer, mesh)
moments = {
  jax.tree_util.keystr(path, simple=True, separator='.'): (x.shape, [*x.sharding.spec])
  for path, x in jax.tree_util.tree_flatten_with_path(state['optimizer'])[0]
}
params = {
  jax.tree_util.keystr(path, simple=True, separator='.'): (x.shape, [*x.sharding.spec])
  for path, x in jax.tree_util.tree_flatten_with_path(state['params'])[0]
}

# What optax makes of a square matrix whose rows differ: of means over columns, and over rows.
square = {'w': np.arange(8.0)[:, None] * np.ones((8, 8))}
factored = optax.adafactor(1e-3, min_dim_size_to_factor=8)
_, after = factored.update(square, factored.init(square), square)
print(json.dumps([params, moments, np.ptp(after[0].v_row['w']) > 0, np.ptp(after[0].v_col['w']) > 0], default=bool))
"""


def test_factored_moments_are_divided_as_what_is_left_of_their_parameter(python):
  params, moments, rows_differ, columns_differ = json.loads(python(CODE).stdout)
  w1 = 'feed_forward.feed_forward.w1_MxNxD'
  assert params[f'decoder.blocks.{w1}'] == [[3, 8, 8, 16], [None, 'model', None, 'fsdp']]
  assert moments[f'stacks.decoder.blocks.0.v_row.{w1}'] == [[3, 8, 8], [None, 'model', None]]
  assert moments[f'stacks.decoder.blocks.0.v_col.{w1}'] == [[3, 8, 16], [None, None, 'fsdp']]
  # A square matrix, divided over different axes: the rows' moment has the rows' axis, as optax takes its means.
  query = 'attentions.0.attention.projection.query.kernel_DxF'
  assert params[f'decoder.blocks.{query}'] == [[3, 16, 16], [None, 'fsdp', 'model']]
  assert rows_differ and not columns_differ
  assert moments[f'stacks.decoder.blocks.0.v_row.{query}'] == [[3, 16], [None, 'fsdp']]
  assert moments[f'stacks.decoder.blocks.0.v_col.{query}'] == [[3, 16], [None, 'model']]
