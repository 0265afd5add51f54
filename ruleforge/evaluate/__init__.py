"""Lanes, training, fitness, baselines and statistics: what a rule is worth, and how sure that is."""
