"""Records as examples of fixed lengths: where an end of sequence stands."""

import numpy as np
import pytest

from terraformer.config import DataConfig, SpanCorruptionConfig, UserError
from terraformer.config.data import PackingConfig
from terraformer.data.objectives import make_arrange

RECORD = {'inputs': np.arange(5, 15), 'targets': np.arange(20, 30)}


def _arranged(is_text=False, **fields):
  config = DataConfig(**{'inputs_length': 6, 'targets_length': 4} | fields)
  return [ids.tolist() for ids in make_arrange(config, is_text, range(99, 0, -1))(RECORD, np.random.default_rng(0))]


def test_both_features_of_a_pair_are_cut_and_end():
  assert _arranged() == [[5, 6, 7, 8, 9, 1], [20, 21, 22, 1]]


def test_inputs_without_an_end_are_cut_to_the_same_tokens():
  assert _arranged(inputs_eos=False) == [[5, 6, 7, 8, 9, 0], [20, 21, 22, 1]]


def test_short_inputs_without_an_end_are_padded():
  assert _arranged(inputs_eos=False, inputs_length=13)[0] == [*range(5, 15), 0, 0, 0]


@pytest.mark.parametrize('objective', [None, SpanCorruptionConfig()])
def test_inputs_of_running_text_have_no_end_either(objective):
  inputs, _ = _arranged(is_text=True, inputs_eos=False, inputs_length=12, targets_length=12, objective=objective)
  with_end, _ = _arranged(is_text=True, inputs_length=12, targets_length=12, objective=objective)
  assert with_end.count(1) == 1 and [0 if id_ == 1 else id_ for id_ in with_end] == inputs


def test_packed_examples_have_ends():
  with pytest.raises(UserError, match='DataConfig.packing: packed examples end in an end of sequence'):
    DataConfig(packing=PackingConfig(), inputs_eos=False)
