"""Signed meter data: formats, keys, verification, transparency files."""
