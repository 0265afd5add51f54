"""ruleforge: searches for update rules of neural networks, and hands over formulas and tested optimizers."""

__version__ = "0.1.0"
