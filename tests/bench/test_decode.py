"""The bench of decoding on a model that is small enough to count."""

from pathlib import Path

import numpy as np
import pytest

from terraformer.bench import decode
from terraformer.bench.chart import draw_chart, require_writable
from terraformer.bench.decode import as_table, bench_decode, variants_of
from terraformer.bench.machine import bytes_of, random_pool
from terraformer.config import (
  BlockConfig,
  DenseFFConfig,
  SparseFFConfig,
  SparseOutputConfig,
  SparseProjectionConfig,
  TerraformerConfig,
  UserError,
)
from terraformer.models.make import abstract_model
from terraformer.models.parameters import count, split_module
from terraformer.native.library import why_missing

CONFIG = TerraformerConfig(
  vocab_size=64,
  max_length=64,
  n_encoder_layers=2,
  n_decoder_layers=2,
  n_decoder_attentions=1,
  encoder=BlockConfig(16, 2, SparseProjectionConfig(n_modules=4), SparseFFConfig(64, 4, 4)),
  decoder=BlockConfig(16, 2, SparseProjectionConfig(n_modules=4), SparseFFConfig(64, 4, 4)),
  output=SparseOutputConfig(4),
)


@pytest.fixture(scope='module')
def results():
  measured = bench_decode(CONFIG, ('dense', 'ff_qkv_output'), (1, 1), ('xla',), contexts=(8,), tokens=8)
  return list(measured)


def test_every_variant_is_measured_and_described(results, tmp_path):
  assert [result.variant for result in results] == ['dense', 'ff_qkv_output']
  for result in results:
    assert result.layers == (1, 2) and result.tokens >= 8
    assert 0 < result.min_ms <= result.ms_per_token
    assert result.bandwidth_share == pytest.approx(
      result.bytes_per_token / (result.ms_per_token / 1000) / result.bandwidth
    )
    assert result.resident_bytes > 0
  assert results[0].parts.keys() == {'attention', 'call', 'output', 'qkv', 'rows'}
  assert results[1].parts.keys() == {'attention', 'call', 'controller', 'output', 'qkv', 'rows'}
  assert 'a slice: 1 of 2 decoder layers' in as_table(results)
  draw_chart(results, tmp_path / 'chart.png')
  assert (tmp_path / 'chart.png').stat().st_size > 1000


@pytest.mark.parametrize('name', ['/proc/x.png', '/nonexistent/x.png', '/tmp'])
def test_a_chart_that_cannot_be_written_is_refused_before_measuring(name):
  with pytest.raises(UserError, match=f'cannot write {name}: '):
    require_writable(Path(name))


def test_a_chart_that_can_be_written_leaves_nothing_before(tmp_path):
  require_writable(tmp_path / 'x.png')
  assert not list(tmp_path.iterdir())


def test_a_slice_larger_than_the_model_is_refused():
  with pytest.raises(UserError, match='--layers: expected at most 2 decoder layers, .*, found 9'):
    next(bench_decode(CONFIG, layers=(9, 9)))


def test_bytes_are_those_of_the_parameters_read_and_of_the_keys_and_values(results):
  # All but the encoder, of the feed-forward rows one in four, of the embedding one row; and 8 positions, twice.
  n_encoder = count({name: part for name, part in split_module(_slice())[1].items() if name.startswith('encoder')})
  rows, table = 2 * 64 * 16, 64 * 16
  positions = 64 * 16
  n_read = count(split_module(_slice())[1]) - n_encoder - rows * 3 // 4 - table * 63 // 64 - positions * 63 // 64
  assert results[1].bytes_per_token == 4 * (n_read + 2 * 8 * 16)


@pytest.mark.skipif(why_missing() is not None, reason=f'no native engine: {why_missing()}')
def test_every_type_is_measured_by_the_native_engine(tmp_path):
  dtypes = ('float32', 'bfloat16', 'int8')
  results = list(bench_decode(CONFIG, ('ff_qkv_output',), None, ('native',), dtypes, contexts=(8,), tokens=8))
  assert [result.dtype for result in results] == [result.cache_dtype for result in results] == list(dtypes)
  assert all(result.about.startswith('native (') and not result.parts for result in results)
  touched = [result.bytes_per_token for result in results]
  assert touched[0] > touched[1] > touched[2]
  assert 'native' in as_table(results) and 'parts alone' not in as_table(results)
  draw_chart(results, tmp_path / 'chart.png')


def _slice():
  return abstract_model(CONFIG.with_layers(1, 1))


def test_variants_replace_one_mechanism_after_the_other():
  models = variants_of(CONFIG, decode.VARIANTS)
  assert models['ff_qkv_output'] == CONFIG
  assert isinstance(models['dense'].decoder.feed_forward, DenseFFConfig)
  assert models['ff'].decoder.projection == models['dense'].decoder.projection
  assert models['ff'].decoder.feed_forward.d_ff % 4 == 0
  assert models['ff_qkv'].decoder == CONFIG.decoder and models['ff_qkv'].output == models['dense'].output
  with pytest.raises(UserError, match="--variants: expected names from dense, .*, found 'moe'"):
    variants_of(CONFIG, ['moe'])


def test_a_pool_gives_small_numbers_of_both_types():
  shapes = {name: np.empty((3, 5), dtype) for name, dtype in (('a', np.float32), ('b', 'bfloat16'), ('c', np.float32))}
  with random_pool(bytes_of(shapes)) as pool:
    arrays = pool.cut(shapes)
    for name, array in arrays.items():
      assert array.shape == (3, 5) and array.dtype == shapes[name].dtype
      assert np.abs(array.astype(np.float32)).max() <= 0.051 and len(np.unique(array)) > 5
      assert array.ctypes.data % 64 == 0
