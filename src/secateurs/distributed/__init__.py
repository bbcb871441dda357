"""Models over several processes: what part of a tensor lies here, and how ranks speak.

Nothing of ``torch.distributed`` is imported before a model needs it.
"""
