"""How fast the general loop is beside hand-written ones and other libraries: ``python -m benchmarks.speed``."""
