"""The update rule behind any torch optimizer, recovered from its behaviour.

Imports nothing, so that the child process that runs the optimizer stays light.
"""
