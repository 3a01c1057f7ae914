"""What is said of the texts that a model wrote for a split, each of a task that has scores and baselines of its own."""

from collections.abc import Mapping, Sequence
from typing import Any

from terraformer.data.scores import exact_match, exact_match_of_each, rouge, rouge_tokenizer_for
from terraformer.data.scoring import Scoring
from terraformer.eval.rouge import baselines, score


def judge(
  texts: Sequence[tuple[str, str, str]], tasks: Sequence[str], scoring: Mapping[str, Scoring]
) -> dict[str, Any]:
  """The fields of `evaluate.Evaluation` that are about texts.

  Args:
    texts: (source, reference, what the model wrote); none where there is nothing to score.
    tasks: of which task each is.
    scoring: of each of these tasks.
  """
  by_rouge = [triple for triple, task in zip(texts, tasks, strict=True) if scoring[task].rouge]
  sources, references, written = zip(*by_rouge, strict=True) if by_rouge else ((), (), ())
  of_model, tokenizer = score(references, written), rouge_tokenizer_for(references) if by_rouge else None
  has_lead = all(scoring[task].lead for task in set(tasks) if scoring[task].rouge)
  of_words, of_sentences = baselines(sources, references) if has_lead else ({}, {})
  _, all_references, all_written = zip(*texts, strict=True) if texts else ((), (), ())
  ranks = iter(of_model.each)
  is_exact = exact_match_of_each(all_references, all_written)
  return {
    'rouge': of_model.mean,
    'rouge_intervals': of_model.interval,
    'lead_rouge': of_words,
    'lead3_rouge': of_sentences,
    'exact_match': exact_match(all_references, all_written)['exact_match'] if texts else None,
    'by_task': _by_task(texts, tasks, scoring, tokenizer) if len(set(tasks)) > 1 else {},
    'scores': [
      next(ranks) if scoring[task].rouge else 100.0 * right for task, right in zip(tasks, is_exact, strict=True)
    ],
    'rouge_tokenizer': tokenizer,
    'distinct_texts': _distinct(all_written),
    'distinct_references': _distinct(all_references),
  }


def _by_task(texts, tasks, scoring, tokenizer) -> dict[str, dict[str, float]]:
  """Of each task the number of its texts and its own scores; one tokenizer counts for all."""
  found = {}
  for name in sorted(set(tasks)):
    triples = [triple for triple, task in zip(texts, tasks, strict=True) if task == name]
    _, references, written = zip(*triples, strict=True)
    found[name] = {'texts': len(triples)} | exact_match(references, written)
    if scoring[name].rouge:
      found[name] |= rouge(references, written, tokenizer)
  return found


def _distinct(texts: Sequence[str]) -> float | None:
  """The share of different ones among them, but for white space around; None of no texts."""
  return len({text.strip() for text in texts}) / len(texts) if texts else None
