"""What a rule is: its nearest known relatives, its properties, its answers to signals, its parts."""

from ruleforge.explain.explain import Explained, explain
from ruleforge.explain.nearest import Match, nearest
from ruleforge.explain.parts import Part, parts
from ruleforge.explain.properties import Property, properties

__all__ = ["Explained", "Match", "Part", "Property", "explain", "nearest", "parts", "properties"]
