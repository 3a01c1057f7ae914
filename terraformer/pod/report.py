"""Formats a compiled step as text and JSON."""

import json

from terraformer.pod.program import CompiledStep


def as_json(step: CompiledStep) -> str:
  """Returns one JSON object; bytes are those of one device, and `flops` those of all devices together."""
  return json.dumps(
    {
      'topology': step.topology,
      'mesh': step.mesh,
      'parameters': step.parameters,
      'tokens': step.tokens,
      'fits': step.fits,
      'argument_bytes': step.argument_bytes,
      'temp_bytes': step.temp_bytes,
      'peak_bytes': step.peak_bytes,
      'hbm_bytes': step.chip.hbm_bytes,
      'flops': step.flops,
      'dense_flops': step.dense_flops,
      'bytes': step.moved.memory_bytes,
      'collective_bytes': step.moved.collective_bytes,
      'collectives': step.moved.collectives,
      'seconds': step.seconds,
      'roofline_step_s': step.step_seconds,
      'roofline_mfu': step.mfu,
      'whole_gathers': step.whole_gathers,
      'float32_activations': step.float32_activations,
      'compile_s': step.compile_seconds,
    }
  )


def as_text(step: CompiledStep) -> str:
  """Returns the same as text, with the arithmetic."""
  chip, n, gb = step.chip, step.n_devices, 1e9
  seconds = step.seconds
  limit = max(seconds, key=seconds.get)
  kinds = step.moved.collective_bytes
  lines = [
    f'{step.topology}, {n} devices, mesh {" x ".join(f"{name} {size}" for name, size in step.mesh.items())}; '
    f'compiled in {step.compile_seconds:.0f} s',
    f'{step.parameters:,} parameters, {step.tokens:,} tokens per step',
    '',
    'memory per device, GB',
    f'  arguments {step.argument_bytes / gb:.2f}, temporaries {step.temp_bytes / gb:.2f}, code '
    f'{step.code_bytes / gb:.2f}; peak {step.peak_bytes / gb:.2f} of {chip.hbm_bytes / gb:.2f}: '
    f'{"fits" if step.fits else "does NOT fit"}',
    '',
    'one step',
    f'  compute  {step.flops / 1e12:.1f} TFLOP, including recomputation, / {n} devices '
    f'/ {chip.flops / 1e12:.0f} TFLOP/s = {seconds["compute"]:.3f} s',
    f'  memory   {step.moved.memory_bytes / gb:.1f} GB per device / {chip.hbm_bandwidth / gb:.0f} GB/s = '
    f'{seconds["memory"]:.3f} s',
    f'  links    {sum(kinds.values()) / gb:.2f} GB per device / {chip.link_bandwidth / gb:.0f} GB/s = '
    f'{seconds["links"]:.3f} s',
    *(f'           {kind}: {step.moved.collectives[kind]:,}, {size / gb:.2f} GB' for kind, size in kinds.items()),
    f'  roofline {step.step_seconds:.3f} s, limited by {limit}',
    f'  MFU      6 x {step.parameters:,} x {step.tokens:,} = {step.dense_flops / 1e12:.1f} TFLOP (a dense model '
    f'of this size) / {step.step_seconds:.3f} s / {n} / {chip.flops / 1e12:.0f} TFLOP/s = {step.mfu:.1%}',
    '',
    f'whole stacks gathered outside the loops over layers: {", ".join(step.whole_gathers) or "none"}',
    f'float32 activations of batch x length x d_ff or vocabulary: {", ".join(step.float32_activations) or "none"}',
    '',
    f"The chip's numbers are from {chip.source}. These are upper bounds on speed: nothing was run.",
  ]
  return '\n'.join(lines)
