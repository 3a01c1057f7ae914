"""Normalisation, positions and sequences behind one another, beside the reference."""

import jax
import jax.numpy as jnp
import numpy as np

from terraformer.config import FixedBasePositionsConfig, LayerNormConfig, RMSNormConfig, TablePositionsConfig
from terraformer.layers.norm import LayerNorm, RMSNorm
from terraformer.layers.positions import FixedBasePositions, PositionTable
from terraformer.ops.positions import read_after, write_after
from tests.reference.vectors import Vectors, assign
from tests.weights import build

BASES = (11, 13, 14, 15)


def _position_steps(layer, x_BxTxD) -> jax.Array:
  batch, time, _ = x_BxTxD.shape
  return jnp.stack([layer.step(x_BxTxD[:, t], jnp.full(batch, t)) for t in range(time)], 1)


def layernorm_positional(r: Vectors) -> None:
  """LayerNorm, RMS norm, the initial table of positions, and positions by digits."""
  x_BxTxD = r['x']
  d_model = x_BxTxD.shape[-1]
  norm, rms = LayerNorm(LayerNormConfig(), d_model), RMSNorm(RMSNormConfig(), d_model)
  assign(norm, scale_D=r['ln_scale'], bias_D=r['ln_bias'])
  assign(rms, scale_D=r['rms_scale'])
  assert r['rms_bias_unused'].shape == (d_model,)
  r.compare('ln_y', norm(x_BxTxD))
  r.compare('rms_y', rms(x_BxTxD))

  table = PositionTable(TablePositionsConfig(), len(r['pos_initial_table']), d_model, key=jax.random.key(0))
  r.compare('pos_initial_table', table.table_PxD[...])
  r.compare('pos_y_initial', table(x_BxTxD))
  r.compare('pos_y_initial', _position_steps(table, x_BxTxD), label='pos_y_initial, step by step')

  weights_NxIx1xW = r['fixedbase_weights']
  n_bases, n_digits = weights_NxIx1xW.shape[:2]
  config = FixedBasePositionsConfig(BASES[:n_bases], n_digits)
  digits = build(lambda key: FixedBasePositions(config, x_BxTxD.shape[1], d_model, key=key))
  assign(digits, weights_NxIxW=weights_NxIx1xW[:, :, 0], start_D=r['fixedbase_start_vec'].reshape(-1))
  r.compare('fixedbase_y', digits(x_BxTxD))
  r.compare('fixedbase_y', _position_steps(digits, x_BxTxD), label='fixedbase_y, step by step')


def concat_with_padding(r: Vectors) -> None:
  """The decoder's vectors right behind the encoder's real ones, and back; we zero what the reference leaves beyond."""
  n_first_B = (r['tok_e'] != 0).sum(1)
  time = r['vec_d'].shape[1]
  written = np.arange(r['vec_ed1'].shape[1]) < (n_first_B + time)[:, None]
  beyond = int((~written).sum())
  note = f'{beyond} vectors of padding beyond the end left out: zero here' if beyond else ''
  for stream in '12':
    both_BxPxD = write_after(r[f'vec_e{stream}'], n_first_B, r['vec_d'])
    r.compare(f'vec_ed{stream}', both_BxPxD, where=written, note=note)
    r.compare('stripped', read_after(both_BxPxD, n_first_B, time), label=f'stripped, stream {stream}')
    real_BxSx1 = (r['tok_e'] != 0)[..., None]
    r.compare(f'reverse_vec_e{stream}', both_BxPxD[:, : r['tok_e'].shape[1]] * real_BxSx1)
  r.compare('reverse_vec_d', read_after(both_BxPxD, n_first_B, time))
  assert r['tok_d'].shape == (len(n_first_B), time)
