import jax.numpy as jnp
import numpy as np

from terraformer.layers.embedding import Embedding
from tests.weights import build


def test_a_token_becomes_its_row_without_scaling():
  layer = build(lambda key: Embedding(11, 24, key=key))
  tokens_BxT = jnp.asarray([[3, 0, 10], [1, 1, 2]])
  np.testing.assert_array_equal(layer(tokens_BxT), np.asarray(layer.table_VxD[...])[tokens_BxT])
