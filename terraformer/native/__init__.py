"""Kernels of our own for a decoding step on a CPU.

The library (`csrc/`, built by CMakeLists.txt) runs plans: tables of operations over buffers, packed weights and a
cache. It knows no model; `terraformer.decode` describes one to it.
"""
