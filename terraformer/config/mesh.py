"""The arrangement of devices, and what is sharded over them."""

import dataclasses

from terraformer.config.base import Checked, expect


@dataclasses.dataclass(frozen=True)
class ShardingConfig(Checked):
  """The axis of the mesh (`data`, `fsdp`, `model`) over which each named dimension of a parameter is sharded, or None.

  The units of a sparse feed-forward block have no rule: a block is never split, so that its argmax is local.

  Attributes:
    embed: d_model.
    expert: experts of a mixture.
    ff: units of a dense feed-forward block.
    ff_block: blocks of a sparse feed-forward block.
    heads: attention heads, with all their widths.
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
  """The arrangement of devices. The number of devices divided by fsdp x model is the number of data-parallel replicas.

  Attributes:
    fsdp: number of devices over which parameters, and also the batch, are sharded.
    model: number of devices over which wide dimensions (feed-forward blocks, heads, vocabulary) are sharded.
    rules: which dimension is sharded over which axis.
  """

  fsdp: int = 1
  model: int = 1
  rules: ShardingConfig = ShardingConfig()

  def check(self):
    self._at_least(1, 'fsdp', 'model')
