"""Search: grammars, genomes, variation and strategies, by ask and tell. Nothing here evaluates a rule.

Ways in: `grammar.load_grammar`, `genome.from_rule`, `strategies.make_strategy`.
"""
