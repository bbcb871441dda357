"""Selection in a model that is divided over ranks, each of which has a shard."""
