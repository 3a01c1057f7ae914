"""Programs as XLA prints them, short enough to count by hand."""

import pytest

from terraformer.pod.hlo import Program, hbm_bytes

LOOP = """
HloModule step

%fused (p0: f32[24,8], p1: s32[]) -> f32[8] {
  %p0 = f32[24,8]{1,0} parameter(0)
  %p1 = s32[] parameter(1)
  %zero = s32[] constant(0)
  %slice = f32[1,8]{1,0} dynamic-slice(%p0, %p1, %zero), dynamic_slice_sizes={1,8}
  ROOT %flat = f32[8]{0} bitcast(%slice)
}

%condition (state: (s32[], f32[24,8])) -> pred[] {
  %state = (s32[], f32[24,8]{1,0}) parameter(0)
  %turns = s32[] constant(24)
  %at = s32[] get-tuple-element(%state), index=0
  ROOT %less = pred[] compare(%at, %turns), direction=LT
}

%body (state.1: (s32[], f32[24,8])) -> (s32[], f32[24,8]) {
  %state.1 = (s32[], f32[24,8]{1,0}) parameter(0)
  %at.1 = s32[] get-tuple-element(%state.1), index=0
  %stack = f32[24,8]{1,0} get-tuple-element(%state.1), index=1
  %row = f32[8]{0} fusion(%stack, %at.1), kind=kLoop, calls=%fused
  %sum = f32[8]{0:T(256)S(1)} all-reduce(%row), replica_groups={}, to_apply=%add
  ROOT %next = (s32[], f32[24,8]{1,0}) tuple(%at.1, %stack)
}

ENTRY %main (x: (s32[], f32[24,8])) -> (s32[], f32[24,8]) {
  %x = (s32[], f32[24,8]{1,0}) parameter(0)
  ROOT %loop = (s32[], f32[24,8]{1,0}) while(%x), condition=%condition, body=%body
}
"""


def test_a_collective_in_a_loop_counts_as_often_as_the_loop_turns():
  moved = Program(LOOP).moved()
  assert moved.collectives == {'all-reduce': 24}
  # Eight float32 numbers, which an all-reduce sends twice.
  assert moved.collective_bytes == {'all-reduce': 24 * 2 * 8 * 4}


def test_of_a_stack_that_a_fusion_slices_the_slice_is_read():
  # A turn: the row read and written (32 + 32), the loop's counter (4), and the row again for the all-reduce, whose
  # result lies in another memory.
  assert Program(LOOP).moved().memory_bytes == 24 * (32 + 32 + 4 + 32)


@pytest.mark.parametrize(
  ('text', 'expected'),
  [
    ('f32[2,3]{1,0}', 24),
    ('bf16[4]{0:T(128)}', 8),
    ('f32[2,3]{1,0:T(8,128)S(1)}', 0),
    ('(s32[], pred[5]{0})', 9),
    ('token[]', 0),
  ],
)
def test_bytes_of_a_type_in_main_memory(text, expected):
  assert hbm_bytes(text) == expected
