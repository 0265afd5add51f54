"""How a rule is spelled: Python for torch and numpy, LaTeX, Unicode for terminals, sympy.

Each target is one file with one table of words, checked complete against the op table. What a
target shares with the others is the walk (`base`), the order of statements (`script`) and the
names of states (`names`).
"""
