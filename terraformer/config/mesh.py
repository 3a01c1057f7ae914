"""How devices are arranged, and what is split over them."""

import dataclasses

from terraformer.config.base import Checked, expect


@dataclasses.dataclass(frozen=True)
class ShardingConfig(Checked):
  """Over which axis of the mesh (`data`, `fsdp`, `model`) each named dimension of a parameter is split; None for none.

  The units of a sparse feed-forward block have no rule: a block is never split, so that its argmax is local.

  Attributes:
    embed: d_model.
    expert: experts of a mixture.
    ff: units of a dense feed-forward block.
    ff_block: blocks of a sparse one.
    heads: attention heads, all of their widths together.
    modules: modules of a multiplicative layer.
    rank: the inner width of a sparse feed-forward block's controller.
    vocab: tokens of the vocabulary.
  """

  embed: str | None = 'fsdp'
  expert: str | None = 'model'
  ff: str | None = 'model'
  ff_block: str | None = 'model'
  heads: str | None = 'model'
  modules: str | None = None
  rank: str | None = 'fsdp'
  vocab: str | None = 'model'

  def check(self):
    for field in dataclasses.fields(self):
      axis = getattr(self, field.name)
      expect(
        axis in (None, 'data', 'fsdp', 'model'),
        f"ShardingConfig.{field.name}: expected 'data', 'fsdp', 'model' or None, found {axis!r}",
      )


@dataclasses.dataclass(frozen=True)
class MeshConfig(Checked):
  """How devices are arranged; those that are left are copies that split the batch.

  Attributes:
    fsdp: devices that parameters, and the batch again, are split over.
    model: devices that wide dimensions (feed-forward blocks, heads, vocabulary) are split over.
    rules: which dimension is split over which of them.
  """

  fsdp: int = 1
  model: int = 1
  rules: ShardingConfig = ShardingConfig()

  def check(self):
    self._at_least(1, 'fsdp', 'model')
