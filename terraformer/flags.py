"""The flags of each command, and their help."""

import argparse
from collections.abc import Callable

_EPILOG = """\
Any value of terraformer/config is set by gin, in files or on the command line, later ones first:
  --gin_file=gin_configs/runs/demo.gin --gin_bindings='config.TrainConfig.steps = 100'
Bad input ends in one sentence and exit status 2, an interruption in 130.
"""
# Flags that are paths.
PATH_FLAGS = ('gin_file', 'workdir', 'output', 'bundle', 'input_file', 'scratch', 'chart')
# Flags that are fields of DecodeConfig by the same name.
DECODE_FLAGS = (
  'max_tokens',
  'temperature',
  'top_k',
  'top_p',
  'seed',
  'beams',
  'length_penalty',
  'no_repeat_ngram',
  'bfloat16_cache',
)
# Of `bench.decode`, which needs jax.
_VARIANTS = ('dense', 'ff', 'ff_qkv', 'ff_qkv_output')


def make_parser(commands: dict[str, Callable[[argparse.Namespace], int | None]]) -> argparse.ArgumentParser:
  """The parser; `flags.run` of what it parses is the function of the command.

  Args:
    commands: name -> function.
  """
  parser = argparse.ArgumentParser(
    prog='terraformer',
    description='Sparse Transformers: prepare data, train, evaluate, export, and decode on a CPU.',
    epilog=_EPILOG,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  subparsers = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')

  def add(name, summary, description, group=subparsers):
    command = group.add_parser(
      name.split()[-1],
      help=summary,
      description=f'{summary}\n\n{description}',
      epilog=_EPILOG if group is subparsers else None,
      formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if group is subparsers:
      command.add_argument('--gin_file', action='append', default=[], metavar='FILE', help='gin file; repeatable')
      command.add_argument(
        '--gin_bindings',
        action='append',
        default=[],
        metavar='BINDING',
        help="'config.Class.field = value'; repeatable",
      )
      if name != 'prepare':  # which imports a module of tasks where TensorFlow is, and not here
        command.add_argument(
          '--module', action='append', default=[], help='Python module that defines configs of your own; repeatable'
        )
    command.set_defaults(run=commands[name])
    return command

  prepare = add(
    'prepare',
    'Turn a task into shards of tokens that training reads.',
    'Reads the texts, trains the vocabulary if none is given, and writes ArrayRecord shards to\n'
    'DataConfig.directory/DataConfig.task. What is prepared already is reused. Needs the extra `data`.\n'
    'Parts that are whole are kept, whatever stops it; the same command goes on.\n\n'
    'Exit status: 0 done, 2 bad input, 75 start me again (SIGTERM, SIGHUP), 130 Ctrl-C.',
  )
  prepare.add_argument(
    '--module', action='append', default=[], help='Python module that registers your own seqio tasks; repeatable'
  )
  prepare.add_argument(
    '--shard',
    type=_shard,
    default=(0, 1),
    metavar='K/N',
    help='do the K-th of N shares of DataConfig.parts, K from 0, and leave the others to other processes',
  )

  vocab = add(
    'vocab',
    "Train a sentencepiece vocabulary on a task's training text.",
    'VocabularyConfig.size says how many ids it has at most, .sentinels how many of them are added when it is read.\n'
    'Name the file in VocabularyConfig.path to prepare several tasks with it. Needs the extra `data`.',
  )
  vocab.add_argument('--output', required=True, metavar='FILE', help='sentencepiece model to write')

  train = add(
    'train',
    'Train a model, or go on where it stopped.',
    'A folder that holds a run is resumed from its newest checkpoint, as if it had never stopped.\n'
    'Data that are missing are prepared first. Ctrl-C or SIGTERM saves and stops; the same command goes on.\n'
    'Writes checkpoints/, tensorboard/, metrics.jsonl and summary.md with plots.\n\n'
    'Exit status: 0 done, 2 bad input, 3 diverged, 75 start me again (SIGTERM, a lost host, a hung step), 130 Ctrl-C.',
  )
  train.add_argument('--workdir', required=True, metavar='DIR', help='folder of the run')
  train.add_argument('--quiet', action='store_true', help='no progress bar and no samples on the terminal')
  train.add_argument(
    '--profile', type=_span, metavar='FIRST:LAST', help='profile these steps, for TensorBoard (at most a few dozen)'
  )
  group = train.add_argument_group('many hosts', 'On a Cloud TPU slice hosts find each other and none is needed.')
  group.add_argument('--coordinator_address', metavar='HOST:PORT', help='where process 0 listens')
  group.add_argument('--num_processes', type=_positive, metavar='N', help='processes in all')
  group.add_argument('--process_id', type=_process, metavar='I', help='which one this is, from 0')
  group.add_argument(
    '--heartbeat_timeout',
    type=_positive,
    default=100,
    metavar='SECONDS',
    help='a process that is silent for so long counts as lost, and the others end (default: %(default)s)',
  )

  evaluate = add(
    'evaluate',
    'Score the newest checkpoint of a run, or its best, on held-out examples.',
    "Prints examples, perplexity beside that of a unigram model, and ROUGE beside the source's first ten words and,\n"
    'where summaries are longer than a sentence, its first three sentences. All texts go to\n'
    'DIR/evaluation_SPLIT.jsonl as they are written, the worst, median and best to DIR/evaluation_SPLIT.html. What\n'
    'was killed goes on: texts that are there are not decoded again. Texts of another step, of other data or of\n'
    'another way of decoding are not taken, but kept under another name.',
  )
  evaluate.add_argument('--workdir', required=True, metavar='DIR', help='folder of the run')
  evaluate.add_argument('--split', default='test', choices=('test', 'validation'), help='default: %(default)s')
  evaluate.add_argument('--limit', type=_at_most, default=256, help='examples to read at most (default: %(default)s)')
  evaluate.add_argument('--examples', type=_count, default=5, help='examples to print (default: %(default)s)')
  evaluate.add_argument('--best', action='store_true', help='take the best checkpoint (CheckpointConfig.best)')
  evaluate.add_argument('--perplexity', action='store_true', help='perplexity alone, which takes no decoding')
  evaluate.add_argument(
    '--batch_size', type=_at_most, metavar='N', help='examples side by side (default: 16,384 tokens, at most 32)'
  )
  evaluate.add_argument('--json', action='store_true', help='print one JSON object with all figures and texts')
  _add_decoding(evaluate)

  export = add(
    'export',
    'Write the newest checkpoint, or the best, as a bundle that decoding reads.',
    'A bundle is a folder with config.json, model.safetensors and vocabulary.model; nothing else is needed to decode.',
  )
  export.add_argument('--workdir', required=True, metavar='DIR', help='folder of the run')
  export.add_argument('--output', required=True, metavar='BUNDLE', help='folder to write; a bundle there is replaced')
  export.add_argument('--best', action='store_true', help='take the best checkpoint (CheckpointConfig.best)')
  export.add_argument(
    '--dtype',
    default='float32',
    choices=('float32', 'bfloat16'),
    help='of the tensors that a token reads row by row, which are most of a sparse model (default: %(default)s)',
  )

  decode = add(
    'decode',
    "Write text with a bundle, token by token, on this machine's CPU.",
    'The prompt is a text (--input), a file (--input_file; of a .jsonl file every line is a prompt) or, for `-`, the\n'
    'standard input. A model that was trained on pairs reads it as its source. A language model goes on from it, and\n'
    'writes the continuation alone; its prompt may be empty. TensorFlow is not needed.\n'
    'The first call compiles; later ones find the program in ~/.cache/terraformer (TERRAFORMER_CACHE).',
  )
  decode.add_argument(
    '--bundle', required=True, metavar='BUNDLE', help='folder that `export` wrote, or `technical_english`'
  )
  decode.add_argument('--input', metavar='TEXT', help='the prompt')
  decode.add_argument('--input_file', metavar='FILE', help='a UTF-8 text file, or .jsonl with one object a line')
  decode.add_argument('stdin', nargs='?', choices=('-',), metavar='-', help='read the standard input')
  decode.add_argument('--field', default='inputs', help='field of the prompt in a .jsonl file (default: %(default)s)')
  _add_decoding(decode)
  decode.add_argument(
    '--batch_size', type=_at_most, default=1, metavar='N', help='lines of a .jsonl file to decode side by side'
  )
  decode.add_argument('--verify', action='store_true', help='compare all weights with their checksums first')
  decode.add_argument('--json', action='store_true', help='one JSON object a line: input, output, stats')
  decode.add_argument('--stats', action='store_true', help='print the time to the first token and a token after it')

  describe = add(
    'describe',
    'Show what a model consists of and what one decoded token of it costs.',
    'Parameters by part, those that a decoded token reads, bytes and operations, beside its dense twin: the same\n'
    'model with dense projections, feed-forward blocks and output, of as many parameters. Allocates nothing.',
  )
  describe.add_argument(
    '--context', type=_positive, default=64, help='tokens that the decoded token sees (default: %(default)s)'
  )
  describe.add_argument('--json', action='store_true', help='print one JSON object with `model` and `twin`')

  compile_ = add(
    'compile',
    'Compile the training step for a slice of TPUs that need not be there.',
    "Prints a device's memory, operations, bytes moved and collectives, and the roofline of step time and model FLOPs\n"
    'utilisation, with the arithmetic. Needs libtpu (the extra `tpu`); takes minutes for a model of the paper.',
  )
  compile_.add_argument('--topology', required=True, metavar='CHIP:SLICE', help='v5e:4x4, v5p:4x4x4, v4:2x2x2, v6e:4x4')
  compile_.add_argument('--json', action='store_true', help='print one JSON object')

  bench = subparsers.add_parser('bench', help='Measure a mechanism on this machine.')
  benches = bench.add_subparsers(dest='what', required=True, metavar='WHAT')
  attention = add(
    'bench attention',
    'Measure LSH attention beside full attention.',
    'Milliseconds of one causal layer forwards and in training, and temporary bytes, at several lengths.',
    group=benches,
  )
  attention.add_argument(
    '--lengths', type=_lengths, default=(4096, 16384, 65536), metavar='N,N', help='tokens (default: 4096,16384,65536)'
  )
  attention.add_argument('--d_model', type=_positive, default=128, help='width (default: %(default)s)')
  attention.add_argument('--n_heads', type=_positive, default=2, help='heads (default: %(default)s)')
  attention.add_argument('--n_rounds', type=_positive, default=2, help='LSH rounds (default: %(default)s)')
  attention.add_argument('--chunk_length', type=_positive, default=128, help='LSH chunk (default: %(default)s)')
  attention.add_argument('--repeats', type=_repetitions, default=3, help='measurements of each (default: %(default)s)')
  attention.add_argument(
    '--max_bytes', type=_bytes, default=1e10, help='leave out what takes more (default: %(default).0e)'
  )
  attention.add_argument('--json', action='store_true', help='print one JSON object a kind and length')
  decode_time = add(
    'bench decode',
    'Measure decoding on this CPU, sparse beside dense.',
    'Milliseconds a token of a model and of its dense twin, with random weights and uniform routing, in turns; the\n'
    "bytes that a token touches beside the machine's read bandwidth, resident memory, and the time of each part.\n"
    'Weights are a temporary file of the size of the largest variant (--scratch says where).',
    group=benches,
  )
  decode_time.add_argument(
    '--gin_file', action='append', default=[], metavar='FILE', help='the sparse model; repeatable'
  )
  decode_time.add_argument(
    '--gin_bindings', action='append', default=[], metavar='BINDING', help="'config.Class.field = value'; repeatable"
  )
  decode_time.add_argument(
    '--variants',
    type=_variants,
    default=_VARIANTS,
    metavar='NAME,NAME',
    help='of dense, ff, ff_qkv and ff_qkv_output: what is sparse (default: all)',
  )
  decode_time.add_argument('--layers', type=_layers, metavar='E,D', help='a slice: so many encoder and decoder layers')
  decode_time.add_argument(
    '--dtype', default='float32', choices=('float32', 'bfloat16'), help='of what is read by row (default: %(default)s)'
  )
  decode_time.add_argument(
    '--context', type=_lengths, default=(64,), metavar='N,N', help='tokens before the measured ones (default: 64)'
  )
  decode_time.add_argument(
    '--batch', type=_lengths, default=(1,), metavar='N,N', help='texts side by side (default: 1)'
  )
  decode_time.add_argument(
    '--tokens', type=_repetitions, default=36, help='steps to measure of each at least (default: %(default)s)'
  )
  decode_time.add_argument('--scratch', metavar='DIR', help="folder of the temporary file (default: the system's)")
  decode_time.add_argument('--chart', metavar='FILE', help='draw the decoding times to this PNG file')
  decode_time.add_argument('--json', action='store_true', help='print one JSON object a variant, context and batch')

  input_ = add(
    'bench input',
    'Measure how fast training reads and corrupts prepared text.',
    'Writes windows of random tokens to a temporary folder and reads them as training does, by one thread.',
    group=benches,
  )
  input_.add_argument('--inputs_length', type=_positive, default=512, help='tokens (default: %(default)s)')
  input_.add_argument('--targets_length', type=_positive, default=114, help='tokens (default: %(default)s)')
  input_.add_argument('--batch_size', type=_positive, default=128, help='examples (default: %(default)s)')
  input_.add_argument('--examples', type=_positive, default=20_000, help='to write and read (default: %(default)s)')
  input_.add_argument('--json', action='store_true', help='print one JSON object')
  return parser


def _add_decoding(command: argparse.ArgumentParser) -> None:
  """The flags of `DECODE_FLAGS`, and `stop`."""
  command.add_argument('--max_tokens', type=_whole, help='tokens to write at most (DecodeConfig.max_tokens)')
  command.add_argument('--temperature', type=_number, help='0 takes the likeliest token (DecodeConfig.temperature)')
  command.add_argument('--top_k', type=_whole, help='draw from so many likeliest tokens (DecodeConfig.top_k)')
  command.add_argument('--top_p', type=_number, help='draw from the likeliest that have this probability together')
  command.add_argument('--seed', type=_whole, help='of the draws, which each text begins anew (DecodeConfig.seed)')
  command.add_argument('--beams', type=_whole, help='hypotheses of beam search; the text comes in one piece')
  command.add_argument('--length_penalty', type=_number, help='of beam search: higher for longer texts')
  command.add_argument('--no_repeat_ngram', type=_whole, metavar='N', help='write no sequence of N tokens twice')
  command.add_argument('--stop', action='append', metavar='TEXT', help='end before this text; repeatable')
  command.add_argument(
    '--bfloat16_cache', action='store_const', const=True, help='keep keys and values in half the memory; slower'
  )


# --- What a flag's text means ----------------------------------------------------------------------------------------
# argparse names the function of a flag where it raises anything but ArgumentTypeError.

# JAX and its services take their numbers as int32.
_MOST_INT = 2**31 - 1


def _refused(expected: str, text: str) -> argparse.ArgumentTypeError:
  return argparse.ArgumentTypeError(f'expected {expected}, found {text if len(text) <= 40 else text[:40] + "..."!r}')


def _whole(text: str) -> int:
  try:
    return int(text)
  except ValueError:  # of thousands of digits, too
    raise _refused('a whole number', text) from None


def _number(text: str) -> float:
  try:
    return float(text)
  except ValueError:
    raise _refused('a number', text) from None


def _bytes(text: str) -> float:
  value = _number(text)
  if not value > 0:  # nor nan
    raise _refused('a number of bytes above 0', text)
  return value


def _whole_from(least: int, most: int | None = None) -> Callable[[str], int]:
  """Takes whole numbers from `least` on, at most `most`."""

  def parse(text: str) -> int:
    value = _whole(text)
    if value < least:
      raise _refused(f'at least {least}', text)
    if most is not None and value > most:
      raise _refused(f'at most {most}', text)
    return value

  return parse


# Of what there may be less than is asked for, any number is sensible.
_count, _at_most = _whole_from(0), _whole_from(1)
_positive, _process = _whole_from(1, _MOST_INT), _whole_from(0, _MOST_INT)
# A measurement that takes days is a slip of the finger.
_repetitions = _whole_from(1, 100_000)


def _shard(text: str) -> tuple[int, int]:
  index, count = _several(text, '/', 'K/N')
  if not 0 <= index < count:
    raise _refused('K/N with K from 0 to N - 1', text)
  return index, count


def _lengths(text: str) -> tuple[int, ...]:
  return tuple(_positive(part) for part in text.split(','))


def _layers(text: str) -> tuple[int, int]:
  encoder, decoder = _several(text, ',', 'E,D')
  if min(encoder, decoder) < 1:
    raise _refused('E,D from 1', text)
  return encoder, decoder


def _span(text: str) -> tuple[int, int]:
  first, last = _several(text, ':', 'FIRST:LAST')
  if not 1 <= first <= last:
    raise _refused('FIRST:LAST from 1', text)
  return first, last


def _several(text: str, separator: str, form: str) -> tuple[int, int]:
  """Two whole numbers."""
  try:
    first, second = map(int, text.split(separator))
  except ValueError:
    raise _refused(f'{form}, two whole numbers', text) from None
  return first, second


def _variants(text: str) -> tuple[str, ...]:
  names = tuple(text.split(','))
  for name in names:
    if name not in _VARIANTS:
      raise _refused(f'some of {", ".join(_VARIANTS)}', name)
  return names
