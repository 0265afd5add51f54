"""Faults on purpose: `make chaos` kills, starves and cuts the power of searches, and resumes them."""
