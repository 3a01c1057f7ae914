import json

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from terraformer.training.metrics import EvalMetrics, MetricsLog, read_metrics, summarize


def collection(loss, correct, mask):
  arrays = {'loss_BxT': loss, 'correct_BxT': correct, 'mask': mask}
  return EvalMetrics.single_from_model_output(**{name: np.array(value, np.float32) for name, value in arrays.items()})


def test_batches_are_weighted_by_their_real_tokens():
  one = collection([[1.0, 9.0]], [[1.0, 1.0]], [[1.0, 0.0]])
  other = collection([[2.0, 3.0]], [[0.0, 0.0]], [[1.0, 1.0]])
  values = summarize([one, other])
  assert values['loss'] == pytest.approx(2.0)
  assert values['accuracy'] == pytest.approx(1 / 3)
  assert values['perplexity'] == pytest.approx(np.exp(2.0))


def test_rows_after_the_checkpoint_are_written_again(tmp_path):
  log = MetricsLog(tmp_path, 0)
  for step in (2, 4, 6):
    log.write(step, 'train', {'loss': float(step)})
  log.close()
  with (tmp_path / 'metrics.jsonl').open('a') as lines:
    lines.write('{"step": 8, "split": "tr')  # as a kill leaves it
  log = MetricsLog(tmp_path, 4)
  log.write(6, 'train', {'loss': 60.0})
  log.write_text(6, 'samples', 'a text')
  log.close()
  assert [(row['step'], row['loss']) for row in read_metrics(tmp_path)] == [(2, 2.0), (4, 4.0), (6, 60.0)]


def test_tensorboard_reads_the_scalars(tmp_path):
  log = MetricsLog(tmp_path, 0)
  log.write(3, 'train', {'loss': 1.5, 'tokens_per_second': 7.0})
  log.close()
  events = EventAccumulator(str(tmp_path / 'tensorboard')).Reload()
  assert [(event.step, event.value) for event in events.Scalars('train/loss')] == [(3, 1.5)]
  assert json.loads((tmp_path / 'metrics.jsonl').read_text())['tokens_per_second'] == 7.0
