"""Scores a model's texts for a split, with the scores and baselines of each text's task."""

from collections.abc import Mapping, Sequence
from typing import Any

from terraformer.data.scores import exact_match, exact_match_of_each, rouge, rouge_tokenizer_for
from terraformer.data.scoring import Scoring
from terraformer.eval.rouge import baselines, score


def judge(
  texts: Sequence[tuple[str, str, str]], tasks: Sequence[str], scoring: Mapping[str, Scoring]
) -> dict[str, Any]:
  """Returns the fields of `evaluate.Evaluation` that score texts.

  Args:
    texts: (source, reference, model's text); empty if there is nothing to score.
    tasks: the task of each text.
    scoring: how each of these tasks is scored.
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
  """Returns each task's number of texts and its scores, all with the same tokenizer."""
  found = {}
  for name in sorted(set(tasks)):
    triples = [triple for triple, task in zip(texts, tasks, strict=True) if task == name]
    _, references, written = zip(*triples, strict=True)
    found[name] = {'texts': len(triples)} | exact_match(references, written)
    if scoring[name].rouge:
      found[name] |= rouge(references, written, tokenizer)
  return found


def _distinct(texts: Sequence[str]) -> float | None:
  """Returns the share of distinct texts, ignoring surrounding white space; None without texts."""
  return len({text.strip() for text in texts}) / len(texts) if texts else None
