"""Reads and shows text, files and JSON from outside safely, with the standard library alone."""
