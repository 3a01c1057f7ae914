"""Imports checkpoints that trax wrote, and says how far their logits and tokens are from those that trax computed.

  python tests/reference/check_trax.py DIR

DIR holds folders as tests/trax/checkpoints does: a checkpoint with config.gin and `expected.npz`, and folders of the
same weights in older formats, named FOLDER_old. Each is imported as a bundle and as a run. One line a quantity: folder,
quantity, largest absolute error, tolerance, ok or FAIL. Exits 1 if any fails; 2 without folders.
"""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
# Compilation is most of the time.
os.environ.setdefault('XLA_FLAGS', '--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false')
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from terraformer.config import DecodeConfig, RunConfig  # noqa: E402
from terraformer.decode.bundle import Bundle, open_bundle  # noqa: E402
from terraformer.decode.engine import open_engine  # noqa: E402
from terraformer.decode.prompts import make_prompts  # noqa: E402
from terraformer.decode.shapes import abstract_layerwise, layerwise_facts  # noqa: E402
from terraformer.decode.stored import plain  # noqa: E402
from terraformer.decode.xla import decoding_form  # noqa: E402
from terraformer.importing import import_bundle, import_run  # noqa: E402
from terraformer.models.make import abstract_model  # noqa: E402
from terraformer.models.parameters import Params, flatten, merge_module, split_module, stacked_name, unflatten  # noqa: E402
from terraformer.training import checkpoint as checkpoints  # noqa: E402
from tests.reference.vectors import TOLERANCE, Comparison  # noqa: E402

Expected = dict[str, np.ndarray]
_OLD = '_old'


def check(folder: Path, run_decodes: bool = True) -> Iterator[Comparison]:
  """All quantities of one folder; what went wrong is one that failed.

  Args:
    folder: the folder.
    run_decodes: whether the run computes logits and tokens as well; its parameters are compared with the bundle's.
  """
  base = folder.with_name(folder.name.removesuffix(_OLD))
  with np.load(base / 'expected.npz') as arrays:
    expected = dict(arrays)
  for main in sorted(folder.glob('*.pkl.gz')):
    prefix = f'{main.name.removesuffix(".pkl.gz")}: ' if folder != base else ''
    with tempfile.TemporaryDirectory() as scratch:
      for check_one in (_bundle, _parameters, *([_run] if run_decodes else [])):
        try:
          for one in check_one(main, base / 'config.gin', Path(scratch), expected):
            yield Comparison(prefix + one.quantity, one.error, one.tolerance, one.note)
        except Exception as error:
          first = (str(error).splitlines() or [''])[0]
          yield Comparison(f'{prefix}{check_one.__name__[1:]}', float('nan'), 0.0, f'{type(error).__name__}: {first}')


def _bundle(main: Path, config: Path, scratch: Path, expected: Expected) -> Iterator[Comparison]:
  done = import_bundle(main, scratch / 'bundle', config=config)
  if (config.parent / 'weights.tsv').is_file():
    yield _entries(config.parent / 'weights.tsv', done.entries)
  bundle = open_bundle(scratch / 'bundle')
  weights = unflatten({name: plain(value) for name, value in flatten(bundle.weights).items()})
  model = merge_module(split_module(abstract_layerwise(bundle.model))[0], weights)
  yield _logits('bundle: logits', model, expected)
  yield _greedy('bundle: greedy tokens', _decoded(bundle, expected), expected)


def _parameters(main: Path, config: Path, scratch: Path, expected: Expected) -> Iterator[Comparison]:
  """Whether each layer of the run has the parameters of the bundle."""
  import_run(main, scratch / 'run', config=config)
  step = checkpoints.require_step(scratch / 'run')
  bundle = open_bundle(scratch / 'bundle')
  facts, differing = layerwise_facts(bundle.model), 0
  for name, value in flatten(bundle.weights).items():
    stored = checkpoints.read_layer(scratch / 'run', step, *stacked_name(name, facts[name]))
    differing += not np.array_equal(stored, plain(value))
  yield Comparison('run: parameters that differ', float(differing), 0.0, f'{len(facts)} parameters')


def _run(main: Path, config: Path, scratch: Path, expected: Expected) -> Iterator[Comparison]:
  step = checkpoints.require_step(scratch / 'run')
  run, _ = checkpoints.read_run(scratch / 'run', step)
  params = checkpoints.restore_params(scratch / 'run', step, run)
  model = merge_module(split_module(abstract_model(run.model))[0], params)
  yield _logits('run: logits', model, expected)
  n_tokens = expected['greedy'].shape[1]
  yield _greedy('run: greedy tokens', _generated(run, params, expected['tok_e'], n_tokens), expected)


def _entries(names: Path, lines: Sequence[str]) -> Comparison:
  """Whether the entries are those of a list of numbers, names and shapes."""
  expected = [line.split('\t')[:3] for line in names.read_text().splitlines()]
  ours = [line.split(' -> ')[0].split(maxsplit=2) for line in lines]
  return Comparison('entries: number, name, shape', float(ours != expected), 0.0, f'{len(lines)} entries')


def _logits(quantity: str, model, expected: Expected) -> Comparison:
  tok_e, tok_d = expected['tok_e'], expected['tok_d']
  ours = np.asarray(jax.jit(type(model).__call__)(model, jnp.asarray(tok_e), jnp.asarray(tok_d)))
  if ours.shape != expected['logits'].shape:
    return Comparison(quantity, float('nan'), TOLERANCE, f'{ours.shape} here, {expected["logits"].shape} in trax')
  error = np.abs(ours - expected['logits'])[tok_d != 0].max()  # at padding, trax's LSH attention sees padding
  return Comparison(quantity, float(error), TOLERANCE)


def _greedy(quantity: str, tokens_BxT: np.ndarray, expected: Expected) -> Comparison:
  return Comparison(quantity, float((tokens_BxT != expected['greedy']).sum()), 0.0)


def _decoded(bundle: Bundle, expected: Expected) -> np.ndarray:
  """The likeliest tokens of each example, as the bundle's decoder computes them, without an end."""
  n_tokens = expected['greedy'].shape[1]
  config = decoding_form(bundle.model, bundle.inputs_length, bundle.targets_length)
  engine = open_engine('auto', config, bundle.weights, dtype=bundle.dtype)
  prompts = make_prompts(bundle, [_text(bundle, source) for source in expected['tok_e']], DecodeConfig())
  state, arguments = engine.prefill(prompts, n_tokens, 'float32'), engine.arguments
  forward = jax.jit(engine.forward)
  token_B, tokens = jnp.zeros(len(expected['tok_e']), jnp.int32), []
  for _ in range(n_tokens):
    logits_BxV, state = forward(arguments, token_B, state)
    token_B = logits_BxV.argmax(-1).astype(jnp.int32)
    tokens.append(np.asarray(token_B))
  return np.stack(tokens, axis=1)


def _text(bundle: Bundle, source: np.ndarray) -> str:
  """A source as a text of ids, without the end of sequence, which the decoder appends if the model has one."""
  ids = source[source != 0].tolist()
  if bundle.inputs_eos:
    assert ids.pop() == bundle.tokenizer.eos_id
  return ' '.join(map(str, ids))


def _generated(run: RunConfig, params: Params, tok_e: np.ndarray, n_tokens: int) -> np.ndarray:
  """The same of the whole batch by the model with stacked layers."""
  config = decoding_form(run.model, run.data.inputs_length, run.data.targets_length)
  model = merge_module(split_module(abstract_model(config))[0], params)

  @jax.jit
  def generated(model, inputs_BxS):
    def advance(carry, _):
      token_B, state = carry
      logits_BxV, state = model.step(token_B, state)
      token_B = logits_BxV.argmax(-1).astype(jnp.int32)
      return (token_B, state), token_B

    start = jnp.zeros(len(inputs_BxS), jnp.int32), model.prefill(inputs_BxS, n_tokens)
    return jax.lax.scan(advance, start, length=n_tokens)[1].T

  return np.asarray(generated(model, jnp.asarray(tok_e)))


def main(arguments: list[str]) -> int:
  """Checks the folders of a folder and returns the exit status."""
  folders = []
  if len(arguments) == 1:
    for folder in sorted(Path(arguments[0]).iterdir()) if Path(arguments[0]).is_dir() else []:
      base = folder.with_name(folder.name.removesuffix(_OLD))
      folders += [folder] if (base / 'expected.npz').is_file() and (base / 'config.gin').is_file() else []
  if not folders:
    print('check_trax: give one folder with folders of checkpoints and expected.npz', file=sys.stderr)
    return 2
  n_quantities = n_failed = 0
  for folder in folders:
    for one in check(folder):
      n_quantities += 1
      n_failed += not one.ok
      note = f'  ({one.note})' if one.note else ''
      verdict = 'ok' if one.ok else 'FAIL'
      print(f'{folder.name:20} {one.quantity:40} {one.error:9.2e} {one.tolerance:9.1e}  {verdict}{note}', flush=True)
  print(f'{len(folders)} folders, {n_quantities} quantities, {n_failed} failed')
  return 1 if n_failed else 0


if __name__ == '__main__':
  with contextlib.suppress(KeyboardInterrupt):
    sys.exit(main(sys.argv[1:]))
