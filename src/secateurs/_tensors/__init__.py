"""Operations on tensors that know nothing of pruning: integer keys, memory order, random bits."""
