"""Files replaced as a whole and locked; text and JSON from outside, read safely.

The standard library alone does it.
"""
