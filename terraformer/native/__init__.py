"""Native kernels for decoding steps on a CPU.

The library (`csrc/`, built by CMakeLists.txt) runs plans: tables of operations on buffers, packed weights and a cache.
It knows no models; `terraformer.decode` describes a model to it.
"""
