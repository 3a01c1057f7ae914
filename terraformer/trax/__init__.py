"""Checkpoints of trax, the library of the paper's authors: read safely, and mapped onto this library's parameters."""
