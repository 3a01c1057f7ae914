"""Describes models to the native library, and holds its state between tokens."""
