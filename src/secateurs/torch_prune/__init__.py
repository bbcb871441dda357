"""From and to ``torch.nn.utils.prune``: models and state dicts."""

from secateurs.torch_prune.pruned_modules import from_torch_prune as from_torch_prune
from secateurs.torch_prune.pruned_modules import to_torch_prune as to_torch_prune
from secateurs.torch_prune.pruned_state_dict import join_state_dict as join_state_dict
from secateurs.torch_prune.pruned_state_dict import split_state_dict as split_state_dict
