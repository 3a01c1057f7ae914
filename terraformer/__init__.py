"""Terraformer-JAX: sparse Transformers that train on pods and decode on a laptop."""

__version__ = '0.1.0'
