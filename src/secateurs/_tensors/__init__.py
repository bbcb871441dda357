"""Numbers in memory: floats as integers, memory order, blocks, random bits; nothing of pruning."""
