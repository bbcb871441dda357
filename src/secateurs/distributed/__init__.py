"""Models over several processes: the shards of a tensor, and communication between the ranks.

``torch.distributed.tensor`` and FSDP are not imported: a model that needs them has done so.
"""
