"""Thin verbs over the public Python API."""
