"""Names: the field's terms name what there is, and the private words that they replaced occur nowhere."""

import importlib
import io
import tokenize
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / 'terraformer'
# Term -> the class or function that it names.
TERMS = {
  'KV cache': 'ops.kv_cache:KVCache',
  'cache slot': 'ops.cache_slots:FilledSlots',
  'tokenizer': 'data.tokenizer:Tokenizer',
  'attention mask': 'ops.attention:attention_mask',
  'router': 'ops.routing:select_units',
  'mixture of experts': 'layers.mixture_of_experts:MixtureOfExpertsFF',
  'sampling parameters': 'decode.sampling:SamplingParams',
  'decode state': 'models.base:DecodeState',
  'logits processor': 'decode.logits_processors:LogitsProcessor',
  'sublayer': 'models.sublayers:AttentionSublayer',
  'microbatch': 'ops.constrain:split_microbatches',
}
BANNED = {
  'AttentionHalf', 'CrossAttentionHalf', 'FeedForwardHalf', 'Draw', 'Feed', 'Filled', 'HIDDEN', 'Padding', 'Progress',
  'Rules', 'Segmented', 'UnrolledStack', 'Vocabulary', 'VocabularyConfig', 'Written', 'choose_units', 'draw_of',
  'grown', 'join_parts', 'limited', 'merge_prefill', 'merge_step', 'put_stacks', 'rules_of', 'split_in_parts',
  'take_stacks', 'visible', 'visible_keys', 'watch_every', 'writable',
}  # fmt: skip


@pytest.mark.parametrize('term', TERMS)
def test_a_term_names_something(term):
  module, _, name = TERMS[term].partition(':')
  assert hasattr(importlib.import_module(f'terraformer.{module}'), name)


def test_words_that_were_replaced_name_nothing():
  found = []
  for path in sorted(PACKAGE.rglob('*.py')):
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text(encoding='utf-8')).readline)
    names = {token.string for token in tokens if token.type == tokenize.NAME}
    found += [f'{path.relative_to(PACKAGE)}: {name}' for name in sorted(names & BANNED)]
  assert not found
