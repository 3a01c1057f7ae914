"""What the native library is told of a model, and what it keeps between tokens."""
