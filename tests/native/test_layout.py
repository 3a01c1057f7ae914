"""The packed layout: what goes in comes out, and lies as its description says."""

import numpy as np
import pytest

from terraformer.native import layout
from tests.native.plans import random

SHAPES = [(1, 1), (7, 5), (16, 16), (33, 40), (512, 24), (600, 17)]


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize(('kind', 'error'), [('float32', 0), ('bfloat16', 2**-8), ('int8', 0.5 / 127)])
def test_a_matrix_comes_out_as_it_went_in(shape, kind, error):
  weights_KxN = random(*shape)
  matrix = layout.Matrix(kind, *shape, layout.stretch_of(shape[0]))
  packed = layout.pack(weights_KxN, matrix)
  assert packed.nbytes == matrix.n_bytes
  found = layout.unpack(packed, matrix)
  assert found.shape == shape
  largest_N = np.abs(weights_KxN).max(0)
  assert (np.abs(found - weights_KxN) <= error * largest_N * (1 + 1e-6)).all()


def test_a_panel_lies_in_pairs_of_inputs_behind_its_scales():
  weights_KxN = np.arange(4 * 16, dtype=np.float32).reshape(4, 16)
  packed = layout.pack(weights_KxN, layout.Matrix('int8', 4, 16, 4))
  np.testing.assert_allclose(packed[:64].view(np.float32), weights_KxN[3] / 127)
  np.testing.assert_array_equal(packed[64 + 32 : 64 + 64].view(np.int8)[1::2], [127] * 16)
  packed = layout.pack(weights_KxN, layout.Matrix('float32', 4, 16, 4))
  np.testing.assert_array_equal(packed.view(np.float32).reshape(2, 2, 16), weights_KxN.reshape(2, 2, 16))


def test_rows_in_8_bits_have_a_scale_each():
  rows_NxK = random(9, 40) * np.arange(9, dtype=np.float32)[:, None]
  packed_NxK, scale_N = layout.pack_rows(rows_NxK, 'int8')
  assert packed_NxK.dtype == np.int8 and scale_N[0] == 0
  found = layout.unpack_rows(packed_NxK, scale_N)
  assert (np.abs(found - rows_NxK) <= 0.5 * scale_N[:, None] * (1 + 1e-6)).all()


def test_a_matrix_of_another_shape_is_refused():
  with pytest.raises(ValueError, match='expected'):
    layout.pack(random(4, 5), layout.Matrix('float32', 5, 4, 5))
