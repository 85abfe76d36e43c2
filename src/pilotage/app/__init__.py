"""Composition: the only place where agents and services are joined."""
