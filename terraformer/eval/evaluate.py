"""How good a run is on examples that it was not trained on."""

import contextlib
import dataclasses
import functools
import hashlib
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

from terraformer.config import DecodeConfig, RunConfig, UserError, to_dict
from terraformer.data.batches import Batch, Prepared, open_prepared
from terraformer.data.scores import RougeTokenizer
from terraformer.data.source import make_source
from terraformer.decode.bundle import Bundle
from terraformer.decode.decoder import Decoder
from terraformer.decode.shapes import layerwise_facts
from terraformer.eval.predictions import Predictions
from terraformer.eval.texts import judge
from terraformer.models.make import abstract_model
from terraformer.models.parameters import split_module, stacked_name, unflatten
from terraformer.training import checkpoint, same_run
from terraformer.training.best import chosen
from terraformer.training.loss import token_losses
from terraformer.training.manifest import NAME
from terraformer.training.metrics import EvalMetrics
from terraformer.training.source_use import summarize_twice
from terraformer.training.step import make_eval_step

_GREEDY = DecodeConfig()
# Tokens of a batch, unless its size is given: what a machine with a few gigabytes does at once.
_BATCH_TOKENS, _LARGEST_BATCH = 16_384, 32


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """Figures of one checkpoint on one split.

  Attributes:
    step: of the checkpoint.
    split: of the data.
    n_examples: that were read.
    loss, accuracy, perplexity: a token, teacher-forced.
    unigram_perplexity: of the training targets' token frequencies, on the same tokens.
    rouge, rouge_intervals: of the model's texts: mean F1 times 100 of `scores.ROUGE_TYPES`, and its 95% confidence
      interval. With the Unicode tokenizer they have `scores.STANDARD_TYPES` too, as all dicts of ROUGE here do. Texts
      of a task without ROUGE (`scoring.Scoring`) do not count in any of them. Both empty where none counts, where
      nothing was decoded, or by a language model that goes on from a prompt: all scores of texts are empty then.
    lead_rouge: of the source's first ten words.
    lead3_rouge: of the source's first three sentences; empty where a reference is mostly one sentence.
    exact_match: per cent of the model's texts that are the reference but for white space around it; None where nothing
      was decoded. It is what counts of the algorithmic tasks.
    by_task: of a mixture, of each of its tasks the number of texts (`texts`), `exact_match`, and mean F1 if its source
      has that among its scores; else empty.
    scores: of every example, as `rouge.Rouge.each`; of a task without ROUGE 100 for a text that is the reference, or 0.
    texts: (source, reference, what the model wrote) of every example; of a language model the two halves of a text, and
      how the model goes on from the first.
    predictions: the JSONL that has the texts; empty where nothing was decoded.
    rouge_tokenizer: what `scores.ROUGE_TYPES` count, for all texts alike; None where nothing is scored by ROUGE.
    loss_with_shuffled_sources: in nats a token, as `loss`, of the same targets, each with the source of another example
      of its task, as `batches.Prepared.eval_batches_twice` has them. A model that does not use its source has the loss
      itself. None of a model without sources, and where one example was read.
    distinct_texts: the share of different ones among the model's texts, from 0 to 1; a model that does not use its
      source writes the same ones again and again. None where nothing was decoded, or by a language model that goes on
      from a prompt.
    distinct_references: the same share of the references.
  """

  step: int
  split: str
  n_examples: int
  loss: float
  accuracy: float
  perplexity: float
  unigram_perplexity: float
  rouge: dict[str, float]
  rouge_intervals: dict[str, tuple[float, float]]
  lead_rouge: dict[str, float]
  lead3_rouge: dict[str, float]
  exact_match: float | None
  by_task: dict[str, dict[str, float]]
  scores: list[float] = dataclasses.field(repr=False)
  texts: list[tuple[str, str, str]] = dataclasses.field(repr=False)
  predictions: str
  rouge_tokenizer: RougeTokenizer | None = RougeTokenizer.STANDARD
  loss_with_shuffled_sources: float | None = None
  distinct_texts: float | None = None
  distinct_references: float | None = None


def evaluate(
  workdir: Path,
  split_name: str = 'test',
  limit: int = 256,
  run: RunConfig | None = None,
  show_progress: bool = True,
  *,
  decode: DecodeConfig | None = _GREEDY,
  batch_size: int | None = None,
  best: bool = False,
  bundle: Path | None = None,
  engine: str = 'auto',
  cache_dtype: str = 'float32',
) -> Evaluation:
  """Evaluates a checkpoint of a run; its texts are in `evaluation_SPLIT.jsonl` beside it, as soon as each is written.

  An evaluation that was killed goes on behind the last text that is there.

  Args:
    workdir: the run.
    split_name: `test` or `validation`.
    limit: examples that are read at most; always the same ones.
    run: in the place of the checkpoint's configuration, where the prepared data are in another place.
    progress: whether to show progress bars.
    decode: how texts are written; None for perplexity alone.
    batch_size: examples that are read, and decoded, side by side; None for what is likely to fit.
    best: whether the best checkpoint is taken in the place of the newest.
    bundle: a bundle of the run's model, scored instead of a checkpoint, as decoding computes it, in its number types.
    engine: that decodes, as in `Decoder.open`.
    cache_dtype: of the KV cache with which the losses of a bundle are computed.

  Raises:
    UserError: if there is no complete checkpoint, data or model are not those of the run, the split is empty, or the
      texts cannot be kept.
  """
  folder, step = chosen(workdir, best)
  stored_run, stored = checkpoint.read_run(folder, step)
  run = run or stored_run
  data = open_prepared(run.data)
  same_run.require_to_evaluate(workdir, stored_run, run, stored, data)
  n_examples = min(limit, data.size(split_name))
  if not n_examples:
    raise UserError(f'task {run.data.task}: expected examples in the split {split_name}, found none')
  tokens = run.data.inputs_length + run.data.targets_length
  batch_size = min(batch_size or max(1, min(_LARGEST_BATCH, _BATCH_TOKENS // tokens)), n_examples)

  decoder = None if bundle is None else _open(bundle, run, data, engine)
  if decoder is None:
    losses_of = _by_checkpoint(folder, step, run)
  else:
    step = decoder.bundle.origin.get('step', 0)
    losses_of = functools.partial(_by_bundle, decoder, cache_dtype)
  figures = _perplexity(losses_of, data, split_name, n_examples, batch_size, show_progress)
  texts, path = [], ''
  continues = not run.data.inputs_length
  if decode is not None:
    origin = {
      'step': step,
      'checkpoint': hashlib.sha256(
        (checkpoint.folder(folder) / str(step) / NAME if bundle is None else bundle / 'config.json').read_bytes()
      ).hexdigest(),
      'data': data.fingerprint,
      'lengths': [run.data.inputs_length, run.data.targets_length],
      'decode': to_dict(decode),
    }
    if not run.data.inputs_eos:  # as in a bundle
      origin['inputs_eos'] = False
    pairs = (data.eval_halves if continues else data.eval_texts)(split_name, n_examples)
    with contextlib.closing(Predictions(workdir, split_name, origin)) as predictions:
      predictions.require(pairs)
      if len(predictions.texts) < n_examples:
        decoder = decoder or _decoder(folder, step, run, data, engine)
        _decode(decoder, predictions, pairs, decode, batch_size, show_progress)
      texts = [(*pair, text) for pair, text in zip(pairs, predictions.texts, strict=False)]
      path = str(predictions.path)
  # A text has many good continuations: how near one comes to the text's own says nothing, and its perplexity does.
  scored = [] if continues else texts
  tasks, source = data.eval_tasks(split_name, len(scored)), make_source(run.data.source)
  scores = judge(scored, tasks, {task: source.scoring_of(task, data.manifest) for task in set(tasks)})
  return Evaluation(
    step=step, split=split_name, n_examples=n_examples, **figures, **scores, texts=texts, predictions=path
  )


def _by_checkpoint(folder: Path, step: int, run: RunConfig) -> Callable[[Batch], EvalMetrics]:
  """Computes the losses of a batch with a checkpoint, all positions at once."""
  params = checkpoint.restore_params(folder, step, run)
  eval_step = jax.jit(make_eval_step(split_module(abstract_model(run.model))[0]))
  return lambda batch: jax.device_get(eval_step(params, {name: batch[name] for name in ('inputs', 'targets')}))


def _by_bundle(decoder: Decoder, cache_dtype: str, batch: Batch) -> EvalMetrics:
  """Computes the losses of a batch with a bundle, position by position."""
  logits_BxTxV = decoder.teacher_forced_logits(batch['inputs'], batch['targets'], cache_dtype)
  return jax.device_get(EvalMetrics.single_from_model_output(**token_losses(logits_BxTxV, batch['targets'])))


def _open(path: Path, run: RunConfig, data: Prepared, engine: str) -> Decoder:
  """Opens a bundle of the run's model and vocabulary."""
  decoder = Decoder.open(path, engine=engine)
  if decoder.bundle.model != dataclasses.replace(run.model, bfloat16=False):
    raise UserError(f'{path}: expected a bundle of the model of the run, found another model')
  if decoder.bundle.tokenizer.fingerprint != data.tokenizer.fingerprint:
    raise UserError(f'{path}: expected a bundle with the vocabulary of the data, found another')
  return decoder


def _perplexity(
  losses_of: Callable[[Batch], EvalMetrics],
  data: Prepared,
  split_name: str,
  n: int,
  batch_size: int,
  show_progress: bool,
) -> dict[str, float]:
  """Loss, accuracy and perplexity, the loss with shuffled sources, and the perplexity of the unigram model."""
  metrics, with_shuffled, unigram_losses = [], [], []
  bar = {'total': -(-n // batch_size), 'desc': 'perplexity', 'unit': 'batch', 'disable': not show_progress}
  for batch, shuffled in tqdm(data.eval_batches_twice(split_name, batch_size, n), **bar):
    metrics.append(losses_of(batch))
    if shuffled is not None:
      with_shuffled.append(losses_of(shuffled))
    unigram_losses.append(data.unigram_losses(batch['targets']))
  unigram_perplexity = float(np.exp(np.concatenate(unigram_losses).mean()))
  return summarize_twice(metrics, with_shuffled) | {'unigram_perplexity': unigram_perplexity}


def _decoder(folder: Path, step: int, run: RunConfig, data: Prepared, engine: str) -> Decoder:
  """The decoder of the bundle that `export` would write."""
  model = dataclasses.replace(run.model, bfloat16=False)
  facts = layerwise_facts(model)
  weights = {name: checkpoint.read_layer(folder, step, *stacked_name(name, each)) for name, each in facts.items()}
  lengths = run.data.inputs_length, run.data.targets_length
  bundle = Bundle(model, unflatten(weights), data.tokenizer, *lengths, {}, inputs_eos=run.data.inputs_eos)
  return Decoder(bundle, engine)


def _decode(
  decoder: Decoder,
  predictions: Predictions,
  pairs: list[tuple[str, str]],
  config: DecodeConfig,
  batch_size: int,
  show_progress: bool,
) -> None:
  """Writes the texts that are missing."""
  done = len(predictions.texts)
  with tqdm(total=len(pairs), initial=done, desc='decode', unit='text', disable=not show_progress) as bar:
    for first in range(done, len(pairs), batch_size):
      batch = pairs[first : first + batch_size]
      # A language model goes on from nothing as well; of an empty source, nothing is written.
      is_read = [bool(prompt.strip()) or decoder.bundle.continues for prompt, _ in batch]
      prompts = [prompt for (prompt, _), read in zip(batch, is_read, strict=True) if read]
      written = iter(decoder.generate_batch(prompts, config))
      predictions.add(batch, [next(written) if read else '' for read in is_read])
      bar.update(len(batch))
