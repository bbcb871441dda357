"""Text, files and JSON from outside, read and shown within bounds; the standard library alone."""
