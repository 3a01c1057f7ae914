"""A config checks its fields whether its annotations are types or text."""

import dataclasses
import json
from typing import Optional

import pytest

from terraformer.config import SparseFFConfig, UserError
from terraformer.config.base import Checked, from_dict, to_dict
from tests.config import postponed
from tests.config.postponed import Base, Everything, Hidden


@dataclasses.dataclass(frozen=True)
class Quoted(Checked):
  layer: 'SparseFFConfig | None' = None
  counts: 'tuple[int, ...]' = ()
  sibling: Optional['Later'] = None  # noqa: UP045
  inside: tuple['Later', ...] = ()


@dataclasses.dataclass(frozen=True)
class Later(Checked):
  size: int = 1


@dataclasses.dataclass(frozen=True)
class Wide(Checked):
  maybe: 'tuple[int, ...] | None' = None
  later: 'Later' = Later()


@dataclasses.dataclass(frozen=True)
class Inherits(Base):
  second: 'str' = 'here'  # of another type than the base's
  third: 'float' = 0.0


GOOD = [
  (Everything, {'count': 3, 'share': 1}),
  (Everything, {'count': 3, 'name': 'x', 'seed': 4}),
  (Everything, {'count': 3, 'widths': (1, 2), 'maybe': (3,), 'pair': (2, 'b')}),
  (Everything, {'count': 3, 'widths': [1, 2], 'maybe': [3], 'pair': [2, 'b']}),
  (Everything, {'count': 3, 'layer': SparseFFConfig(8, 4, 2), 'kind': 'b', 'value': object()}),
  (Everything, {'count': 3, 'table': {'a': 1}, 'other': None, 'bytes': b'x'}),
  (Quoted, {'layer': SparseFFConfig(8, 4, 2), 'counts': [1], 'sibling': Later(2), 'inside': (Later(3),)}),
  (Inherits, {'first': postponed.NotOfTheTest(), 'second': 'x', 'third': 2}),
]


@pytest.mark.parametrize(('kind', 'values'), GOOD)
def test_values_of_the_annotated_types_are_taken(kind, values):
  config = kind(**values)
  for name, value in values.items():
    assert getattr(config, name) == (tuple(value) if isinstance(value, list) else value)


BAD = [
  (Everything, {'count': 'x'}, "Everything.count: expected a whole number, found 'x'"),
  (Everything, {'count': True}, 'Everything.count: expected a whole number, found True'),
  (Everything, {'count': 1, 'share': '1'}, "Everything.share: expected a number, found '1'"),
  (Everything, {'count': 1, 'name': 3}, 'Everything.name: expected a quoted text or None, found 3'),
  (Everything, {'count': 1, 'seed': 0.5}, 'Everything.seed: expected a whole number or None, found 0.5'),
  (
    Everything,
    {'count': 1, 'widths': [1, 'x']},
    "Everything.widths: expected a list of whole numbers, such as [1, 2], found (1, 'x')",
  ),
  (Everything, {'count': 1, 'pair': (1,)}, 'Everything.pair: expected tuple[int, str], found (1,)'),
  (Everything, {'count': 1, 'pair': ('b', 1)}, "Everything.pair: expected tuple[int, str], found ('b', 1)"),
  (
    Everything,
    {'count': 1, 'layer': 3},
    'Everything.layer: expected DenseFFConfig (in gin, @config.DenseFFConfig()) or SparseFFConfig (in gin',
  ),
  (Everything, {'count': 1, 'kind': 'c'}, "Everything.kind: expected 'a' or 'b', found 'c'"),
  (Everything, {'count': 1, 'table': []}, 'Everything.table: expected dict[str, int], found []'),
  (Quoted, {'layer': 3}, 'Quoted.layer: expected SparseFFConfig (in gin, @config.SparseFFConfig()) or None, found 3'),
  (Quoted, {'sibling': 3}, 'Quoted.sibling: expected Later or None, found 3'),
  (Quoted, {'inside': [3]}, 'Quoted.inside: expected tuple['),
  (Inherits, {'first': 3}, 'Inherits.first: expected NotOfTheTest or None, found 3'),
  (Inherits, {'second': 3}, 'Inherits.second: expected a quoted text, found 3'),
]


@pytest.mark.parametrize(('kind', 'values', 'message'), BAD)
def test_others_are_refused(kind, values, message):
  with pytest.raises(UserError) as refused:
    kind(**values)
  assert str(refused.value).startswith(message)


def test_a_name_that_only_a_type_checker_knows_is_named_with_class_and_field():
  with pytest.raises(UserError, match=r"^Hidden\.price: the annotation 'Decimal \| None' cannot be .*'Decimal'"):
    Hidden()


def test_a_config_may_hold_another_of_its_kind():
  assert Everything(1, other=Everything(2)).other.count == 2
  with pytest.raises(UserError, match=r'^Everything\.other: expected .*Everything or None, found 3'):
    Everything(1, other=3)


SPARSE = SparseFFConfig(8, 4, 2)


@pytest.mark.parametrize(('kind', 'values'), [(Quoted, (SPARSE, (1, 2), Later(3))), (Wide, ((1, 2), Later(3)))])
def test_configs_with_text_annotations_become_json_and_come_back(kind, values):
  config = kind(*values)
  assert from_dict(json.loads(json.dumps(to_dict(config)))) == config
