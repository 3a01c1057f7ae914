"""What the library refuses: every number of a plan, and every argument of a call, before it is used."""

import numpy as np
import pytest

from terraformer.native import layout
from terraformer.native.plan import INPUT, OUTPUT, Model, NativeError, Plan
from tests.native.plans import add_matrix, dense_plan, opened, random, run

_HEAD = 11  # numbers before the tables


def _tensors(plan):
  return [tensor.make() for tensor in plan.tensors.values()]


def test_a_plan_with_one_number_changed_is_refused_or_runs():
  plan = dense_plan(random(40, 24))
  numbers, tensors = plan.numbers(), _tensors(plan)
  refused = 0
  for place in range(len(numbers)):
    for value in (-(2**63), -2, 2**31, 2**40, 2**63 - 1, 7):
      changed = numbers.copy()
      changed[place] = value
      try:
        model = Model(changed, tensors, 1)
      except NativeError as error:
        refused += 1
        assert str(error)
        continue
      # Only where the caller's arrays still fit, as the library cannot see their sizes.
      if (changed[_HEAD : _HEAD + 6] == numbers[_HEAD : _HEAD + 6]).all() and changed[7:11].sum() == 0:
        try:
          run(model, random(1, 40), 24, state=np.zeros(1, np.float32))
        except NativeError:
          refused += 1
      model.close()
  assert refused > 4 * len(numbers)


def test_a_plan_that_is_cut_off_is_refused():
  plan = dense_plan(random(40, 24))
  numbers, tensors = plan.numbers(), _tensors(plan)
  for length in range(len(numbers)):
    with pytest.raises(NativeError):
      Model(numbers[:length], tensors, 1)


def test_a_tensor_that_is_too_short_is_refused():
  plan = dense_plan(random(40, 24))
  with pytest.raises(NativeError, match='matrix 0: expected 5120 bytes, found 5119'):
    Model(plan, [_tensors(plan)[0][:-1]], 1)


@pytest.mark.parametrize(
  ('arrays', 'sentence'),
  [({'lengths': np.array([-1], np.int32)}, 'lengths: expected none below 0')],
)
def test_an_argument_that_does_not_fit_is_refused(arrays, sentence):
  with pytest.raises(NativeError, match=sentence):
    run(opened(dense_plan(random(8, 8))), random(1, 8), 8, **arrays)


def test_code_for_another_processor_is_refused():
  with pytest.raises(NativeError, match='does not run the code for abacus'):
    opened(dense_plan(random(8, 8)), 'abacus')


def test_an_odd_input_is_not_read_in_pairs():
  plan = Plan(7, 4)
  matrix = add_matrix(plan, 'w', layout.Matrix('float32', 7, 4, 7), random(7, 4))
  plan.add('dense', source=INPUT, target=OUTPUT, matrix=matrix)
  with pytest.raises(NativeError, match='expected an even number of inputs'):
    opened(plan)
