"""Models of llama.cpp beside ours: their sizes, their files, and a turn where the extra is installed."""

import importlib.util

import pytest

from terraformer.bench import peers
from terraformer.bench.decode import bench_decode
from terraformer.commands import bench as command
from terraformer.config import (
  BlockConfig,
  DenseFFConfig,
  SparseFFConfig,
  SparseOutputConfig,
  TerraformerConfig,
  UserError,
)

WIDE = TerraformerConfig(
  vocab_size=512,
  max_length=64,
  n_encoder_layers=1,
  n_decoder_layers=2,
  n_decoder_attentions=1,
  encoder=BlockConfig(256, 4, feed_forward=DenseFFConfig(256)),
  decoder=BlockConfig(256, 4, feed_forward=SparseFFConfig(2048, 32, 16)),
  output=SparseOutputConfig(4),
)


def test_sizes_have_as_many_parameters_as_asked_for():
  sizes = peers.sizes_like(WIDE, 2_400_000)
  assert (sizes.n_layers, sizes.d_model, sizes.n_heads, sizes.vocab_size) == (2, 256, 4, 512)
  assert abs(sizes.params - 2_400_000) <= 2 * 3 * 256 * 256 / 2
  with pytest.raises(UserError, match='llama.cpp has no dense model of 1,000 parameters at this width'):
    peers.sizes_like(WIDE, 1000)


def test_the_command_knows_the_types():
  assert command._PEERS == peers.TYPES


def test_without_the_extra_it_says_what_to_install(monkeypatch):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(UserError, match=r"run pip install 'terraformer-jax\[peers\]'"):
    peers.require_peers()


@pytest.mark.parametrize('kind', peers.TYPES)
def test_llama_cpp_is_measured_in_the_same_run(kind):
  pytest.importorskip('llama_cpp')
  pytest.importorskip('gguf')
  measured = bench_decode(
    WIDE, ('ff_qkv_output',), None, ('xla',), contexts=(8,), batches=(2,), tokens=8, peers=(kind,)
  )
  ours, theirs = measured
  assert (theirs.engine, theirs.dtype, theirs.variant, theirs.batch) == ('llama.cpp', kind, 'dense', 2)
  assert theirs.ms_per_token > 0 and theirs.bytes_per_token > 0
  assert abs(theirs.params - ours.params) < 0.15 * ours.params
