"""Stored configurations last: what was written before a field was there is read, and what is not known is refused."""

import dataclasses
import json

import pytest

from terraformer import config as config_lib
from terraformer.config import InitFromConfig, RunConfig, UserError, from_dict, to_dict
from terraformer.config.base import Checked, Family

KINDS = [
  kind
  for kind in (getattr(config_lib, name) for name in config_lib.__all__)
  if dataclasses.is_dataclass(kind) and kind is not InitFromConfig and Family not in kind.__bases__
]


@pytest.mark.parametrize('kind', KINDS, ids=lambda kind: kind.__name__)
def test_a_field_that_is_missing_has_its_default(kind):
  config = kind()
  stored = json.loads(json.dumps(to_dict(config)))
  for field in dataclasses.fields(kind):
    assert from_dict({name: value for name, value in stored.items() if name != field.name}) == config
  assert from_dict({'kind': kind.__name__}) == config


@pytest.mark.parametrize('kind', KINDS, ids=lambda kind: kind.__name__)
def test_a_field_that_is_not_known_is_refused_by_name(kind):
  with pytest.raises(UserError, match=f"{kind.__name__} has no field 'of_tomorrow'"):
    from_dict({'kind': kind.__name__, 'of_tomorrow': 1})


def test_a_field_without_a_default_is_asked_for():
  @dataclasses.dataclass(frozen=True)
  class Needy(Checked):
    width: int

  stored = to_dict(Needy(3))
  assert from_dict(stored).width == 3
  del stored['width']
  with pytest.raises(UserError, match="Needy: the field 'width' is missing"):
    from_dict(stored)


def test_what_is_missing_deep_inside_has_its_default_as_well():
  stored = to_dict(RunConfig())
  del stored['model']['decoder']['feed_forward']['rank']
  del stored['train']['optimizer']['schedule']
  assert from_dict(stored) == RunConfig()
