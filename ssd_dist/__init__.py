"""Single Shot MultiBox Detectors: data-parallel training on Ray, a search over alpha, lambda and
the learning rate, and a report that counts and clocks."""

__version__ = "0.1.0"
