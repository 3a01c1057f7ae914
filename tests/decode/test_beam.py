"""How hypotheses are ranked."""

import pytest

from terraformer.decode.beam import Beams

END = 1


def _ended(penalty):
  """The better of a short hypothesis that is likelier and a long one."""
  beams = Beams(2, penalty, END)
  beams.advance([-1.0, -2.0, -9.0, -9.0], [0, 0, 0, 0], [2, 3, 4, 5])
  beams.advance([-1.5, -2.0, -9.0, -9.0], [0, 0, 1, 1], [END, 2, 4, 5])
  beams.advance([-3.0, -9.0, -9.0, -9.0], [0, 1, 1, 1], [2, 3, 4, 5])
  beams.advance([-4.0, -9.0, -9.0, -9.0], [0, 1, 1, 1], [END, 3, 4, 5])
  return beams.best()


@pytest.mark.parametrize('penalty', [1000.0, 3.4e38])
def test_a_large_penalty_takes_the_longer_one(penalty):
  assert _ended(penalty) == (2, 2, 2)


@pytest.mark.parametrize('penalty', [0.0, -2000.0, -3.4e38])
def test_a_small_penalty_takes_the_likelier_one(penalty):
  assert _ended(penalty) == (2,)
