"""Runs our layers and models with the weights of reference vectors, and says how far apart the results are.

  python tests/reference/check.py DIR

DIR holds `.npz` files as tests/reference/vectors does, of any sizes. One line a quantity: file, quantity, largest
absolute error, tolerance, ok or FAIL. Exits 1 if any fails, or a file or an array is not covered; 2 without files.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
# Compilation is most of the time.
os.environ.setdefault('XLA_FLAGS', '--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false')
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np  # noqa: E402

from tests.reference import cases_attention, cases_feed_forward, cases_lsh, cases_models, cases_positions  # noqa: E402
from tests.reference.vectors import Comparison, Vectors  # noqa: E402

CASES: dict[str, Callable[[Vectors], None]] = {
  'concat_with_padding': cases_positions.concat_with_padding,
  'decoder_block': cases_models.decoder_block,
  'factored_dense': cases_feed_forward.factored_dense,
  'layernorm_positional': cases_positions.layernorm_positional,
  'locally_conv_dense': cases_feed_forward.locally_conv_dense,
  'lsh_attention': cases_lsh.lsh_attention_layer,
  'lsh_hash': cases_lsh.lsh_hash,
  'mult_conv_attention': cases_attention.mult_conv_attention,
  'mult_conv_attention_variants': cases_attention.mult_conv_attention_variants,
  'mult_modular_attention': cases_attention.mult_modular_attention,
  'mult_modular_sparse_dense': cases_feed_forward.mult_modular_sparse_dense,
  'pure_lsh_attention': cases_lsh.pure_lsh_attention,
  'self_attention': cases_attention.self_attention,
  'sparse_ff_eval': cases_feed_forward.sparse_ff_eval,
  'sparse_ff_train_quant_gumbel': cases_feed_forward.sparse_ff_train,
  'sparse_ff_train_quant_mulctrl': cases_feed_forward.sparse_ff_train,
  'sparse_ff_train_quant_t0': cases_feed_forward.sparse_ff_train,
  'sparse_ff_train_soft': cases_feed_forward.sparse_ff_train,
  'sru': cases_feed_forward.sru,
  'terraformer_eval': cases_models.terraformer_eval,
  'terraformer_eval_nonrev_1att': cases_models.terraformer_eval,
  'terraformer_eval_stdattn': cases_models.terraformer_eval,
  'terraformer_train_quant': cases_models.terraformer_train,
  'terraformer_train_soft': cases_models.terraformer_train,
}


def check(path: Path) -> list[Comparison]:
  """All quantities of one file; what nothing looked at, or what went wrong, is one that failed."""
  with np.load(path) as arrays:
    vectors = Vectors(path.stem, dict(arrays))
  if path.stem not in CASES:
    return [Comparison('the file', float('nan'), 0.0, 'not covered: no case of this name')]
  try:
    CASES[path.stem](vectors)
  except Exception as error:
    first = (str(error).splitlines() or [''])[0]
    return [*vectors.comparisons, Comparison('the case', float('nan'), 0.0, f'{type(error).__name__}: {first}')]
  uncovered = [Comparison(name, float('nan'), 0.0, 'not covered') for name in vectors.uncovered()]
  return vectors.comparisons + uncovered


def main(arguments: list[str]) -> int:
  """Checks a folder and returns the exit status."""
  paths = sorted(Path(arguments[0]).glob('*.npz')) if len(arguments) == 1 else []
  if not paths:
    print('check: expected one folder with .npz files, found none', file=sys.stderr)
    return 2
  n_quantities = n_failed = 0
  for path in paths:
    for one in check(path):
      n_quantities += 1
      n_failed += not one.ok
      verdict = 'ok' if one.ok else 'FAIL'
      note = f'  ({one.note})' if one.note else ''
      print(f'{path.stem:30} {one.quantity:60} {one.error:9.2e} {one.tolerance:9.1e}  {verdict}{note}', flush=True)
  print(f'{len(paths)} files, {n_quantities} quantities, {n_failed} failed')
  return 1 if n_failed else 0


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
