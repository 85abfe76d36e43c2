"""Hostile bytes for everything that reads any: targets, a kept corpus, and what runs them."""
