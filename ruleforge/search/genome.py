"""Genomes: what the search mutates. One door to their data and to their ways in and out.

`to_rule` and `from_rule` are inverse up to the canonical form, `to_text` and `from_text` exactly.
"""

from ruleforge.search.genome_text import from_text, to_text
from ruleforge.search.lines import Genome, Line, is_live, reads, without_dead
from ruleforge.search.reading import from_rule
from ruleforge.search.spelling import promote, to_rule

__all__ = [
    "Genome",
    "Line",
    "from_rule",
    "from_text",
    "is_live",
    "promote",
    "reads",
    "to_rule",
    "to_text",
    "without_dead",
]
