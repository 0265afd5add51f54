"""Hostile input by the million: `make fuzz` feeds readers what nobody would write."""
