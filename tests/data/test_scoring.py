"""A task's scores are what its source says, alone and in a mixture."""

import dataclasses
import json
from typing import ClassVar

import pytest

from terraformer.config import (
  DataSource,
  DecimalCopyConfig,
  DocstringSummariesConfig,
  LocalFilesConfig,
  LocalFolderConfig,
  LongAdditionConfig,
  TfdsConfig,
)
from terraformer.data import batches, scores, store
from terraformer.data.scoring import Scoring
from terraformer.data.source import Source, make_source

EXACT = Scoring(rouge=False, lead=False)


class Answers(Source):
  scoring = EXACT


@dataclasses.dataclass(frozen=True)
class AnswersConfig(DataSource):
  made_by: ClassVar = Answers
  task: ClassVar[str] = 'answers'


@pytest.mark.parametrize(
  ('config', 'expected'),
  [
    (DecimalCopyConfig(), EXACT),
    (LongAdditionConfig(), EXACT),
    (AnswersConfig(), EXACT),
    (DocstringSummariesConfig(), Scoring()),
    (LocalFilesConfig(), Scoring()),
    (LocalFolderConfig(), Scoring()),
    (TfdsConfig('cnn_dailymail:3.4.0'), Scoring()),
  ],
  ids=lambda value: type(value).__name__,
)
def test_a_source_says_what_scores_its_texts(config, expected):
  source = make_source(config)
  assert source.scoring_of(config.task, None) == expected
  assert source.metric is (scores.rouge if expected.rouge else scores.exact_match)


@pytest.mark.parametrize('scoring', [EXACT, Scoring(lead=False), Scoring()])
def test_a_registered_task_has_its_scoring_in_the_manifest(fake_prepared, scoring):
  config = fake_prepared('pairs', counts=(9, 3, 3), scoring=scoring)
  manifest = batches.open_prepared(config).manifest
  assert make_source(config.source).scoring_of('pairs', manifest) == scoring
  assert make_source(config.source).scoring_of('another', manifest) == Scoring()


def test_of_the_usual_scoring_a_manifest_says_nothing(fake_prepared):
  config = fake_prepared('pairs', counts=(9, 3, 3))
  assert 'scoring' not in json.loads((store.folder_of(config) / store.MANIFEST).read_text())


def test_scoring_does_not_change_what_the_data_are(fake_prepared):
  usual, other = (fake_prepared('pairs', counts=(9, 3, 3), scoring=scoring) for scoring in (Scoring(), EXACT))
  assert batches.open_prepared(usual).fingerprint == batches.open_prepared(other).fingerprint
