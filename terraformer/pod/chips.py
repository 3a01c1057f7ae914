"""The performance of TPU chips, according to the vendor."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Chip:
  """One TPU device, as JAX counts devices.

  Attributes:
    name: the name in topologies.
    flops: peak bfloat16 operations per second.
    hbm_bytes: size of memory.
    hbm_bandwidth: bytes per second of memory.
    link_bandwidth: bytes per second that a device sends to other devices over all its links together.
    source: web page with these numbers.
  """

  name: str
  flops: float
  hbm_bytes: float
  hbm_bandwidth: float
  link_bandwidth: float
  source: str


GIB = 2.0**30

# The vendor gives the bandwidth of all links of a chip together, in bits per second.
CHIPS = {
  chip.name: chip
  for chip in (
    Chip('v4', 275e12, 32 * GIB, 1228e9, 2400e9 / 8, 'cloud.google.com/tpu/docs/v4'),
    Chip('v5e', 197e12, 16 * GIB, 819e9, 1600e9 / 8, 'cloud.google.com/tpu/docs/v5e'),
    Chip('v5p', 459e12, 95 * GIB, 2765e9, 4800e9 / 8, 'cloud.google.com/tpu/docs/v5p'),
    Chip('v6e', 918e12, 32 * GIB, 1640e9, 3584e9 / 8, 'cloud.google.com/tpu/docs/v6e'),
  )
}
