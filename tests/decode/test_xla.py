"""The form of a model that decodes: each stack attends as it did in training, however long a text is."""

import dataclasses

import pytest

from terraformer.config import (
  BlockConfig,
  DenseProjectionConfig,
  EncoderDecoderConfig,
  LanguageModelConfig,
  LSHAttentionConfig,
  TerraformerConfig,
)
from terraformer.decode.xla import decoding_form

ALL = 2**31 - 1
MIXED = LSHAttentionConfig(chunk_length=4, full_below=8, plain_below=20)
BLOCK = BlockConfig(24, 3, DenseProjectionConfig(share_qk=True), attention=MIXED)
STACKS = {'encoder': BLOCK, 'decoder': BLOCK}


def _attention(config, inputs_length, targets_length):
  """(full_below, plain_below) of each stack."""
  blocks = decoding_form(config, inputs_length, targets_length).blocks
  return {name: (block.attention.full_below, block.attention.plain_below) for name, block in blocks.items()}


HASHED, PLAIN = (8, 0), (8, ALL)


@pytest.mark.parametrize(
  ('lengths', 'encoder', 'decoder'),
  [((12, 8), PLAIN, PLAIN), ((12, 9), PLAIN, HASHED), ((20, 1), PLAIN, HASHED), ((21, 1), HASHED, HASHED)],
)
def test_a_decoder_whose_sequence_begins_with_the_source_is_as_long_as_both(lengths, encoder, decoder):
  assert _attention(TerraformerConfig(20, 32, **STACKS), *lengths) == {'encoder': encoder, 'decoder': decoder}


@pytest.mark.parametrize(
  ('lengths', 'encoder', 'decoder'), [((21, 20), HASHED, PLAIN), ((20, 21), PLAIN, HASHED), ((12, 9), PLAIN, PLAIN)]
)
def test_a_decoder_that_attends_to_the_encoder_is_as_long_as_the_target(lengths, encoder, decoder):
  assert _attention(EncoderDecoderConfig(20, 32, **STACKS), *lengths) == {'encoder': encoder, 'decoder': decoder}


@pytest.mark.parametrize(('lengths', 'expected'), [((0, 20), PLAIN), ((12, 8), PLAIN), ((12, 9), HASHED)])
def test_a_language_model_is_as_long_as_source_and_target(lengths, expected):
  assert _attention(LanguageModelConfig(20, 32, decoder=BLOCK), *lengths) == {'decoder': expected}


@pytest.mark.parametrize(('longest', 'expected'), [(8, (ALL, 0)), (9, HASHED)])
def test_a_stack_that_saw_all_keys_sees_all_keys(longest, expected):
  block = dataclasses.replace(BLOCK, attention=dataclasses.replace(MIXED, plain_below=0))
  assert _attention(LanguageModelConfig(20, 32, decoder=block), 0, longest) == {'decoder': expected}
