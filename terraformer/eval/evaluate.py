"""How good a run is on examples that it was not trained on."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

from terraformer.config import RunConfig, UserError, differences
from terraformer.data.batches import open_prepared
from terraformer.eval.rouge import lead, rouge
from terraformer.models.make import abstract_model
from terraformer.models.parameters import split
from terraformer.train import checkpoint
from terraformer.train.files import write_whole
from terraformer.train.metrics import summarise
from terraformer.train.step import make_eval_step, make_sample_step


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """Figures of one checkpoint on one split.

  Attributes:
    step: of the checkpoint.
    split: of the data.
    n_examples: that were read.
    loss, accuracy, perplexity: a token, teacher-forced.
    unigram_perplexity: of the training targets' token frequencies, on the same tokens.
    rouge, lead_rouge: of the model's greedy texts, and of the source's first ten words.
    texts: (source, reference, what the model wrote) of every example.
  """

  step: int
  split: str
  n_examples: int
  loss: float
  accuracy: float
  perplexity: float
  unigram_perplexity: float
  rouge: dict[str, float]
  lead_rouge: dict[str, float]
  texts: list[tuple[str, str, str]]


def evaluate(
  workdir: Path, split_name: str = 'test', limit: int = 256, run: RunConfig | None = None, progress: bool = True
) -> Evaluation:
  """Evaluates the newest checkpoint of a run and keeps the texts in `evaluation_SPLIT.jsonl` beside it.

  Args:
    workdir: the run.
    split_name: `test` or `validation`.
    limit: examples that are read at most; always the same ones.
    run: in the place of the checkpoint's configuration, where the prepared data are in another place.
    progress: whether to show a progress bar.

  Raises:
    UserError: if there is no complete checkpoint, data or model are not those of the run, or the split is empty.
  """
  step = checkpoint.require_step(workdir)
  stored_run, stored = checkpoint.read_run(workdir, step)
  run = run or stored_run
  data = open_prepared(run.data)
  changed = differences(stored_run.model, run.model)
  if changed:
    raise UserError(f'{workdir}: expected the model of the run, found {changed[0]}')
  if data.fingerprint != stored['data_fingerprint']:
    raise UserError(f'{run.data.directory}: expected the data that the run was trained on, found others')
  params = checkpoint.restore_params(workdir, step, run)
  structure, _ = split(abstract_model(run.model))
  eval_step = jax.jit(make_eval_step(structure))
  sample_step = jax.jit(make_sample_step(structure, run.data.targets_length, data.vocabulary.size))

  n_examples = min(limit, data.size(split_name))
  if not n_examples:
    raise UserError(f'task {run.data.task}: expected examples in the split {split_name}, found none')
  batch_size = min(32, n_examples)
  n_batches = -(-n_examples // batch_size)
  metrics, unigram_losses, written = [], [], []
  batches = data.eval_batches(split_name, batch_size, n_examples)
  for batch in tqdm(batches, total=n_batches, desc='evaluate', unit='batch', disable=not progress):
    metrics.append(eval_step(params, {name: batch[name] for name in ('inputs', 'targets')}))
    tokens_BxT = np.asarray(sample_step(params, batch['inputs']))
    written += [data.vocabulary.decode(tokens) for tokens in tokens_BxT.tolist()]
    unigram_losses.append(data.unigram_losses(batch['targets']))

  pairs = data.eval_texts(split_name, n_examples)
  texts = [(*pair, text) for pair, text in zip(pairs, written, strict=False)]
  sources, references, predictions = zip(*texts, strict=True)
  summary = summarise(metrics)
  result = Evaluation(
    step=step,
    split=split_name,
    n_examples=n_examples,
    **summary,
    unigram_perplexity=float(np.exp(np.concatenate(unigram_losses).mean())),
    rouge=rouge(references, predictions),
    lead_rouge=rouge(references, [lead(source) for source in sources]),
    texts=texts,
  )
  _keep_texts(Path(workdir) / f'evaluation_{split_name}.jsonl', texts)
  return result


def _keep_texts(path: Path, texts: list[tuple[str, str, str]]) -> None:
  rows = [dict(zip(('source', 'reference', 'prediction'), row, strict=True)) for row in texts]
  write_whole(path, ''.join(json.dumps(row, ensure_ascii=False) + '\n' for row in rows).encode())
