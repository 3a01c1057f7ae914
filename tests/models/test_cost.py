"""D 24, H 3, 30 units in blocks of N 6; the expected counts are computed by hand."""

import dataclasses

import pytest

from terraformer.config import (
  BlockConfig,
  DenseFFConfig,
  DenseOutputConfig,
  DenseProjectionConfig,
  EncoderDecoderConfig,
  LanguageModelConfig,
  LSHAttentionConfig,
  SparseFFConfig,
  SparseOutputConfig,
  SparseProjectionConfig,
  SRUConfig,
)
from terraformer.models.cost import cost
from terraformer.models.twin import dense_twin, n_parameters

D = 24
BLOCK = BlockConfig(D, 3, SparseProjectionConfig(4), SparseFFConfig(30, 6, 7), SRUConfig(5))
MODEL = LanguageModelConfig(20, 50, n_layers=2, decoder=BLOCK, output=SparseOutputConfig(4))


def test_the_parts_add_up_to_the_model():
  assert cost(MODEL, 8).parameters == n_parameters(MODEL)


def test_no_part_is_without_a_name():
  assert not [name for name in cost(MODEL, 8).parts if 'other' in name]


@pytest.mark.parametrize(
  ('name', 'parameters', 'read'),
  [
    ('embedding', 20 * D, D),
    ('positions', 50 * D, D),
    # Two layers with 30 rows each in w1 and w2, of which a token reads one in six, and the bias.
    ('decoder feed-forward', 2 * (2 * 30 * D + D), 2 * (2 * 5 * D + D)),
    ('decoder controller', 2 * (D * 7 + 7 * 30 + 30), 2 * (D * 7 + 7 * 30 + 30)),
    ('output layer', 4 * D + D * 5 + 20, 4 * D + D * 5 + 20),
  ],
)
def test_a_part_has_its_parameters_and_those_that_a_token_reads(name, parameters, read):
  group = cost(MODEL, 8).parts[name]
  assert (group.parameters, group.read) == (parameters, read)


def test_operations_are_close_to_those_counted_by_hand_for_a_dense_model():
  block = BlockConfig(D, 3, DenseProjectionConfig(bias=False), DenseFFConfig(96), None)
  model = LanguageModelConfig(200, 50, n_layers=1, decoder=block, output=DenseOutputConfig())
  products = 2 * (4 * D * D + 2 * D * 96 + D * 200)
  # Normalization, softmax and similar operations come in addition.
  assert products < cost(model, 1).flops < 1.2 * products


def test_a_decoded_token_reads_no_encoder_parameters():
  model = EncoderDecoderConfig(20, 50, encoder=BLOCK, decoder=BLOCK)
  assert not sum(group.read for name, group in cost(model, 8).parts.items() if name.startswith('encoder'))


def test_a_token_reads_keys_and_values_in_every_layer():
  assert cost(MODEL, 8).cache_numbers == 2 * 2 * 8 * D


def test_lsh_attention_reads_at_most_its_windows():
  projection = dataclasses.replace(BLOCK.projection, share_qk=True)
  lsh = LSHAttentionConfig(chunk_length=8, n_rounds=2, full_below=16, window=4)
  model = dataclasses.replace(MODEL, decoder=dataclasses.replace(BLOCK, projection=projection, attention=lsh))
  assert cost(model, 48).cache_numbers == 2 * 2 * 8 * D


def test_the_twin_is_dense():
  twin = dense_twin(MODEL).decoder
  assert (type(twin.projection), type(twin.feed_forward)) == (DenseProjectionConfig, DenseFFConfig)


def test_the_twin_has_as_many_parameters_up_to_half_a_unit():
  twin = dense_twin(MODEL)
  one_unit = MODEL.n_layers * (2 * D + 1)
  assert abs(n_parameters(twin) - n_parameters(MODEL)) <= one_unit / 2


def test_the_twin_of_a_dense_model_is_itself():
  twin = dense_twin(MODEL)
  assert dense_twin(twin) == twin
