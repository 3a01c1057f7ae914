"""What a chip can do, by the vendor's own figures."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Chip:
  """One TPU device, as JAX counts them.

  Attributes:
    name: as topologies name it.
    flops: bfloat16 operations a second, peak.
    hbm_bytes: memory.
    hbm_bandwidth: bytes a second.
    link_bandwidth: bytes a second that a device sends over all its links to other devices together.
    source: where the figures are from.
  """

  name: str
  flops: float
  hbm_bytes: float
  hbm_bandwidth: float
  link_bandwidth: float
  source: str


GIB = 2.0**30

# The vendor gives the links' bandwidth in bits a second, all links of a chip together.
CHIPS = {
  chip.name: chip
  for chip in (
    Chip('v4', 275e12, 32 * GIB, 1228e9, 2400e9 / 8, 'cloud.google.com/tpu/docs/v4'),
    Chip('v5e', 197e12, 16 * GIB, 819e9, 1600e9 / 8, 'cloud.google.com/tpu/docs/v5e'),
    Chip('v5p', 459e12, 95 * GIB, 2765e9, 4800e9 / 8, 'cloud.google.com/tpu/docs/v5p'),
    Chip('v6e', 918e12, 32 * GIB, 1640e9, 3584e9 / 8, 'cloud.google.com/tpu/docs/v6e'),
  )
}
