"""A sparse feed-forward layer learns to copy: which units does its controller pick, and what does a token read?

Sixteen symbols go through one SparseFF, with no way around it, and must come out as they went in. The controller picks
one unit of each block of eight, so a token has 8 units to say which symbol it is, not 64. Takes seconds on a CPU.
"""

# %%
import jax
import jax.numpy as jnp
import optax
from flax import nnx

import terraformer as tf
from terraformer.layers.sparse_ff import SparseFF

SYMBOLS, D_MODEL = 'abcdefghijklmnop', 32
config = tf.SparseFFConfig(d_ff=64, block_size=8, rank=16)  # 8 blocks of 8 units
layer = SparseFF(config, D_MODEL, rate=0.0, key=jax.random.key(0))  # no dropout
embedding_VxD = jax.random.normal(jax.random.key(1), (len(SYMBOLS), D_MODEL))
structure, parameters = nnx.split(layer)  # what does not change, and a pytree of arrays


# %%
def loss_of(parameters, tokens_BxT, key):
  """The cross-entropy of each token's own symbol; the key draws the controller's noise."""
  y_BxTxD, _ = nnx.merge(structure, parameters)(embedding_VxD[tokens_BxT], key=key)
  logits_BxTxV = y_BxTxD @ embedding_VxD.T
  return optax.softmax_cross_entropy_with_integer_labels(logits_BxTxV, tokens_BxT).mean()


optimizer = optax.adam(1e-3)


@jax.jit
def train_step(parameters, moments, key):
  tokens_key, noise_key = jax.random.split(key)
  tokens_BxT = jax.random.randint(tokens_key, (16, 16), 0, len(SYMBOLS))
  loss, gradients = jax.value_and_grad(loss_of)(parameters, tokens_BxT, noise_key)
  updates, moments = optimizer.update(gradients, moments)
  return optax.apply_updates(parameters, updates), moments, loss


# %%
moments = optimizer.init(parameters)
for step in range(1, 201):
  parameters, moments, loss = train_step(parameters, moments, jax.random.fold_in(jax.random.key(2), step))
  if step == 1 or step % 40 == 0:
    print(f'step {step}: loss {loss:.3f}')

# %%
layer = nnx.merge(structure, parameters)
units_VxM, _ = layer.choose(embedding_VxD)
print('symbol: the unit that it picks in each block')
for symbol, units_M in zip(SYMBOLS, units_VxM.tolist(), strict=True):
  print(f'     {symbol}: {" ".join(map(str, units_M))}')

# %%
# Decoding reads the rows of the picked units alone: `step` is `__call__` for one token.
text, copied = 'abadfacefeedbackhope', ''
for symbol in text:
  y_1xD = layer.step(embedding_VxD[SYMBOLS.index(symbol)][None])
  copied += SYMBOLS[int(jnp.argmax(y_1xD @ embedding_VxD.T))]
print(f'{text} -> {copied}')
print(f'of {2 * config.d_ff} rows of weights a token read {2 * config.n_blocks}')
