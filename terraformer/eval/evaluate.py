"""Evaluates a run on held-out examples."""

import contextlib
import dataclasses
import functools
import hashlib
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
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
# Default number of tokens per batch, which fits on a machine with a few gigabytes of memory.
_BATCH_TOKENS, _LARGEST_BATCH = 16_384, 32


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """Results for one checkpoint on one split.

  Scores of texts are empty or None if nothing was decoded, or for a language model, which continues prompts.

  Attributes:
    step: step of the checkpoint.
    split: split of the data.
    n_examples: number of examples.
    loss, accuracy, perplexity: teacher-forced, per token; the loss is in nats.
    unigram_perplexity: perplexity of the training targets' token frequencies, on the same tokens.
    rouge, rouge_intervals: mean F1 times 100 of `scores.ROUGE_TYPES` for the model's texts, and its 95% confidence
      interval. With the Unicode tokenizer, these and all other dicts of ROUGE also have `scores.STANDARD_TYPES`. Texts
      of tasks without ROUGE (`scoring.Scoring`) do not count.
    lead_rouge: ROUGE of the source's first ten words.
    lead3_rouge: ROUGE of the source's first three sentences; empty if references are mostly one sentence.
    exact_match: percentage of the model's texts that equal the reference, except for surrounding white space; the
      important score for the algorithmic tasks.
    by_task: for a mixture, each task's number of texts (`texts`), `exact_match`, and mean F1 if its source is scored by
      ROUGE; otherwise empty.
    scores: score of each example, see `rouge.Rouge.each`; for tasks without ROUGE 100 for an exact match, otherwise 0.
    texts: (source, reference, model's text) of each example; for a language model the two halves of a text, and the
      model's continuation of the first half.
    predictions: path of the JSONL file with the texts; empty if nothing was decoded.
    rouge_tokenizer: tokenizer for `scores.ROUGE_TYPES`, the same for all texts; None if nothing is scored by ROUGE.
    loss_with_shuffled_sources: like `loss`, for the same targets, each with the source of another example of its task
      (see `batches.Prepared.eval_batches_twice`). It equals `loss` if the model does not use its source. None for a
      model without sources, or for a single example.
    distinct_texts: share of distinct texts among the model's texts, from 0 to 1; a model that does not use its source
      repeats the same texts.
    distinct_references: share of distinct texts among the references.
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
  """Evaluates a checkpoint of a run, and writes the model's texts to `evaluation_SPLIT.jsonl` in the run's folder.

  Each text is stored as soon as it is decoded; an interrupted evaluation resumes after the last stored text.

  Args:
    workdir: the run's folder.
    split_name: `test` or `validation`.
    limit: maximum number of examples, which are always the same ones.
    run: replaces the checkpoint's configuration if the prepared data were moved.
    show_progress: whether to show progress bars.
    decode: how texts are generated; None computes only the perplexity.
    batch_size: number of examples to read, and decode, together; None for a number that is likely to fit into memory.
    best: whether to evaluate the best checkpoint instead of the newest.
    bundle: a bundle of the run's model to evaluate instead of a checkpoint, computed as in decoding and in its types.
    engine: the engine for decoding, see `Decoder.open`.
    cache_dtype: type of the KV cache for the losses of a bundle.

  Raises:
    UserError: if there is no complete checkpoint, data or model are not those of the run, the split is empty, or the
      texts cannot be stored.
  """
  folder, step = chosen(workdir, best)
  stored_run, stored = checkpoint.read_run(folder, step)
  run = run or stored_run
  data = open_prepared(run.data)
  same_run.require_to_evaluate(workdir, stored_run, run, stored, data)
  n_examples = min(limit, data.size(split_name))
  if not n_examples:
    raise UserError(f'task {run.data.task}: the split {split_name} has no examples; evaluate another split')
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
  # A prompt has many good continuations, so the similarity to the original one means little; perplexity is meaningful.
  scored = [] if continues else texts
  tasks, source = data.eval_tasks(split_name, len(scored)), make_source(run.data.source)
  scores = judge(scored, tasks, {task: source.scoring_of(task, data.manifest) for task in set(tasks)})
  return Evaluation(
    step=step, split=split_name, n_examples=n_examples, **figures, **scores, texts=texts, predictions=path
  )


def _by_checkpoint(folder: Path, step: int, run: RunConfig) -> Callable[[Batch], EvalMetrics]:
  """Returns a function that computes the losses of a batch with a checkpoint, all positions at once."""
  params = checkpoint.restore_params(folder, step, run)
  eval_step = jax.jit(make_eval_step(split_module(abstract_model(run.model))[0]))
  return lambda batch: jax.device_get(eval_step(params, {name: batch[name] for name in ('inputs', 'targets')}))


def _by_bundle(decoder: Decoder, cache_dtype: str, batch: Batch) -> EvalMetrics:
  """Returns the losses of a batch with a bundle, computed position by position."""
  logits_BxTxV = jnp.asarray(decoder.teacher_forced_logits(batch['inputs'], batch['targets'], cache_dtype))
  losses = token_losses(logits_BxTxV, jnp.asarray(batch['targets']))
  return jax.device_get(EvalMetrics.single_from_model_output(**losses))


def _open(path: Path, run: RunConfig, data: Prepared, engine: str) -> Decoder:
  """Returns the decoder of a bundle; raises UserError unless it has the run's model and vocabulary."""
  decoder = Decoder.open(path, engine=engine)
  if decoder.bundle.model != dataclasses.replace(run.model, bfloat16=False):
    raise UserError(f"{path} has another model than the run; give a bundle of the run's model")
  if decoder.bundle.tokenizer.fingerprint != data.tokenizer.fingerprint:
    raise UserError(f'{path} has another vocabulary than the data; give a bundle of this run')
  return decoder


def _perplexity(
  losses_of: Callable[[Batch], EvalMetrics],
  data: Prepared,
  split_name: str,
  n: int,
  batch_size: int,
  show_progress: bool,
) -> dict[str, float]:
  """Returns loss, accuracy and perplexity, the loss with shuffled sources, and the unigram model's perplexity."""
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
  """Returns the decoder for the bundle that `export` would write."""
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
  """Generates and stores the missing texts."""
  done = len(predictions.texts)
  with tqdm(total=len(pairs), initial=done, desc='decode', unit='text', disable=not show_progress) as bar:
    for first in range(done, len(pairs), batch_size):
      batch = pairs[first : first + batch_size]
      # A language model can continue an empty prompt; for an empty source, the text is empty.
      is_read = [bool(prompt.strip()) or decoder.bundle.continues for prompt, _ in batch]
      prompts = [prompt for (prompt, _), read in zip(batch, is_read, strict=True) if read]
      written = iter(decoder.generate_batch(prompts, config))
      predictions.add(batch, [next(written) if read else '' for read in is_read])
      bar.update(len(batch))
