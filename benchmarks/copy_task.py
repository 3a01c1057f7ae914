"""Does LSH attention learn what full attention learns? A copy task, after Reformer (Kitaev et al., 2020).

  python benchmarks/copy_task.py [--steps 240] [--length 1024] [--n_rounds 1,2,4,8] [--plot FILE]

A sequence is 512 random tokens and the same 512 again; the second half is to be predicted. Models with the same initial
values see the same batches: some with LSH attention of several rounds, one that sees all keys (queries and keys are
shared in all). Prints accuracy on fresh sequences, in the second half, as a Markdown table.
"""

import argparse
import dataclasses
import os
import time

os.environ.setdefault('JAX_PLATFORMS', 'cpu')

import jax
import jax.numpy as jnp
import optax

from terraformer.config import (
  AxialPositionsConfig,
  BlockConfig,
  DenseFFConfig,
  DenseOutputConfig,
  DenseProjectionConfig,
  LanguageModelConfig,
  LSHAttentionConfig,
)
from terraformer.models.make import abstract_model, make_model
from terraformer.models.parameters import merge_module, split_module
from terraformer.models.twin import n_parameters
from terraformer.training.loss import model_losses

VOCABULARY = 128


def configs(length: int, n_rounds: list[int]) -> dict[str, LanguageModelConfig]:
  """The models: they differ in the length up to which all keys are seen, or in the rounds, and in nothing else."""
  lsh = LSHAttentionConfig(chunk_length=64, full_below=0)
  attention = {'full': dataclasses.replace(lsh, full_below=length)}
  attention |= {f'LSH {rounds}': dataclasses.replace(lsh, n_rounds=rounds) for rounds in n_rounds}

  def model(attention):
    block = BlockConfig(
      d_model=128,
      n_heads=2,
      projection=DenseProjectionConfig(share_qk=True),
      feed_forward=DenseFFConfig(256),
      recurrence=None,
      dropout=0.0,
      attention=attention,
    )
    # A row of the grid is as long as the way from a token to the one that the next is to be copied from.
    positions = AxialPositionsConfig((3, length // 2 - 1), (16, 112))
    return LanguageModelConfig(
      VOCABULARY, length, positions=positions, output=DenseOutputConfig(), n_layers=1, decoder=block
    )

  return {name: model(one) for name, one in attention.items()}


def batch(key: jax.Array, size: int, length: int) -> jax.Array:
  """Tokens BxT from 1 on: a random half, twice."""
  half = jax.random.randint(key, (size, length // 2), 1, VOCABULARY)
  return jnp.concatenate([half, half], axis=1)


def train(config: LanguageModelConfig, n_steps: int, size: int, length: int, every: int) -> dict[int, float]:
  """Accuracy in the second half by steps done."""
  structure, _ = split_module(abstract_model(config))
  params = jax.jit(lambda key: split_module(make_model(config, key=key))[1])(jax.random.key(0))
  # Token embeddings as large as axial positions are, or the model sees little but positions for a long time.
  table_VxD = params['embedding']['table_VxD']
  params['embedding']['table_VxD'] = table_VxD / jnp.std(table_VxD)
  schedule = optax.warmup_cosine_decay_schedule(0.0, 5e-3, n_steps // 20, n_steps)
  optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))
  no_inputs = jnp.zeros((size, 0), jnp.int32)

  def second_half(params, targets, key):
    losses = model_losses(merge_module(structure, params), no_inputs, targets, key=key)
    return losses['loss_BxT'][:, length // 2 :].mean(), losses['correct_BxT'][:, length // 2 :].mean()

  @jax.jit
  def step(params, state, key):
    data_key, noise_key = jax.random.split(key)
    targets = batch(data_key, size, length)
    (loss, _), gradients = jax.value_and_grad(second_half, has_aux=True)(params, targets, noise_key)
    updates, state = optimizer.update(gradients, state)
    return optax.apply_updates(params, updates), state, loss

  evaluate = jax.jit(lambda params, key: second_half(params, batch(key, size, length), None)[1])
  state, accuracy = optimizer.init(params), {}
  begun = time.perf_counter()
  for index in range(n_steps):
    params, state, loss = step(params, state, jax.random.fold_in(jax.random.key(1), index))
    if (index + 1) % every == 0:
      keys = jax.random.split(jax.random.key(2), 8)
      accuracy[index + 1] = float(jnp.mean(jnp.asarray([evaluate(params, key) for key in keys])))
      seconds = (time.perf_counter() - begun) / (index + 1)
      print(f'  step {index + 1}: loss {float(loss):.4f}, accuracy {accuracy[index + 1]:.4f}, {seconds:.2f} s a step')
  return accuracy


def plot(results: dict[str, dict[int, float]], path: str) -> None:
  """Accuracy by steps."""
  import matplotlib

  matplotlib.use('Agg')
  import matplotlib.pyplot as plt

  figure, axes = plt.subplots(figsize=(6, 4), layout='constrained')
  for name, accuracy in results.items():
    axes.plot(accuracy.keys(), accuracy.values(), marker='.', label=name)
  axes.set(xlabel='steps', ylabel='accuracy in the second half', ylim=(0, 1.02))
  axes.grid(alpha=0.3)
  axes.legend()
  figure.savefig(path, dpi=120)


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--steps', type=int, default=240)
  parser.add_argument('--batch', type=int, default=4)
  parser.add_argument('--length', type=int, default=1024)
  parser.add_argument('--n_rounds', default='1,2,4,8')
  parser.add_argument('--plot', metavar='FILE')
  flags = parser.parse_args()
  results = {}
  every = max(1, flags.steps // 8)
  models = configs(flags.length, [int(rounds) for rounds in flags.n_rounds.split(',')])
  print(f'{n_parameters(models["full"]):,} parameters')
  for name, config in models.items():
    print(name, flush=True)
    results[name] = train(config, flags.steps, flags.batch, flags.length, every)
  print('\n| steps | ' + ' | '.join(results) + ' |\n|' + '---|' * (1 + len(results)))
  for steps in results['full']:
    print(f'| {steps} | ' + ' | '.join(f'{accuracy[steps]:.4f}' for accuracy in results.values()) + ' |')
  last = max(results['full'])
  print('| of full | ' + ' | '.join(f'{one[last] / results["full"][last]:.2%}' for one in results.values()) + ' |')
  if flags.plot:
    plot(results, flags.plot)


if __name__ == '__main__':
  main()
