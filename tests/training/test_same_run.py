"""What counts as the same run, by what is to be done with it."""

import dataclasses
import re
import types

import pytest

from terraformer.config import LanguageModelConfig, MeshConfig, RunConfig, UserError
from terraformer.training import same_run

RUN = RunConfig()
STORED = {'data_fingerprint': 'a' * 64}


def changed(part, **fields):
  return dataclasses.replace(RUN, **{part: dataclasses.replace(getattr(RUN, part), **fields)})


LONGER = changed('train', steps=RUN.train.steps + 1)
SPREAD = changed('train', mesh=MeshConfig(fsdp=2))
MOVED = changed('data', directory='elsewhere')
SEEDED = changed('train', seed=7)
SHORTER = changed('data', inputs_length=RUN.data.inputs_length - 1)
WIDER = changed('model', vocab_size=RUN.model.vocab_size + 64)
OTHER = dataclasses.replace(RUN, model=LanguageModelConfig())
ALL = {
  'longer': LONGER,
  'spread': SPREAD,
  'moved': MOVED,
  'seeded': SEEDED,
  'shorter': SHORTER,
  'wider': WIDER,
  'other': OTHER,
}


def refused(require, *arguments):
  """Names of the configurations that are not taken for those of the run."""
  names = set()
  for name, run in ALL.items():
    try:
      require('place', RUN, run, *arguments)
    except UserError as error:
      assert re.match('place was (started|trained) with .+ = .+, not .+; leave out the change', str(error))
      names.add(name)
  return names


def test_what_makes_another_run_depends_on_what_is_done_with_it():
  data = types.SimpleNamespace(fingerprint='a' * 64)
  assert refused(same_run.require_to_resume, STORED, data) == {'seeded', 'shorter', 'wider', 'other'}
  assert refused(same_run.require_to_evaluate, STORED, data) == {'wider', 'other'}
  assert refused(same_run.require_to_export) == set(ALL)


@pytest.mark.parametrize('require', [same_run.require_to_resume, same_run.require_to_evaluate])
def test_other_data_are_those_of_another_run(require):
  with pytest.raises(UserError, match=r'expected the data of the run \(a{12}\), found b{12}'):
    require('place', RUN, RUN, STORED, types.SimpleNamespace(fingerprint='b' * 64))
