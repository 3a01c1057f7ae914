"""Whole models of the reference vectors, written as checkpoints: mechanisms that the other fixtures do not have."""

import gzip
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from terraformer.decode.bundle import open_bundle
from terraformer.decode.shapes import abstract_layerwise
from terraformer.decode.stored import plain
from terraformer.importing import import_bundle
from terraformer.models.parameters import flatten, merge_module, split_module, unflatten
from tests.reference.vectors import TOLERANCE, load

_GIN = """
Reformer2.d_model = {d_model}
Reformer2.d_ff = {d_ff}
Reformer2.n_heads = {n_heads}
Reformer2.n_encoder_layers = {enc}
Reformer2.n_decoder_layers = {dec}
Reformer2.ff_sparsity = ({ff}, {rank})
Reformer2.ff_use_sru = (1, {sru})
Reformer2.loss_sparsity = {loss}
Reformer2.max_len = 24
Reformer2.encoder_decoder_attention_type = @MultiplicativeConvCausalAttention
MultiplicativeConvCausalAttention.sparsity = {sp}
"""
# Lines beside these, of each file.
VARIANTS = {
  'terraformer_eval': [
    'Reformer2.encoder_attention_type = @SelfAttention',
    "Reformer2.pos_type = 'fixed-base'",
    'Reformer2.reversible_encoder = True',
  ],
  'terraformer_eval_nonrev_1att': [
    'Reformer2.encoder_attention_type = @Attention',
    'Reformer2.pos_type = None',
    'Reformer2.reversible_encoder = False',
    'Reformer2.n_decoder_attention_layers = 1',
  ],
  'terraformer_eval_stdattn': [
    'Reformer2.encoder_attention_type = @Attention',
    'Reformer2.pos_type = None',
    'Reformer2.reversible_encoder = True',
  ],
}


@pytest.mark.parametrize('name', VARIANTS)
def test_logits_are_those_of_the_reference(tmp_path, name):
  arrays = load(name)
  sizes = {key.removeprefix('cfg_'): int(value) for key, value in arrays.items() if key.startswith('cfg_')}
  sizes['rank'] = arrays['w/encoder/block0/ff/sparse_ff/m1'].shape[1]
  (tmp_path / 'config.gin').write_text('\n'.join([_GIN.format(**sizes), *VARIANTS[name]]))
  weights = [value for key, value in arrays.items() if key.startswith('w/')]
  (tmp_path / 'model.pkl.gz').write_bytes(gzip.compress(pickle.dumps({'flat_weights': weights})))
  done = import_bundle(tmp_path, tmp_path / 'bundle')
  assert [line.split()[1] for line in done.entries] == [key.removeprefix('w/') for key in arrays if key[:2] == 'w/']
  bundle = open_bundle(tmp_path / 'bundle')
  params = unflatten({key: plain(value) for key, value in flatten(bundle.weights).items()})
  model = merge_module(split_module(abstract_layerwise(bundle.model))[0], params)
  logits = jax.jit(type(model).__call__)(model, jnp.asarray(arrays['tok_e']), jnp.asarray(arrays['tok_d']))
  np.testing.assert_allclose(logits, arrays['logits'], atol=TOLERANCE)
