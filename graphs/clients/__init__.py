"""Typed adapters over deployment handles: what flows ask for, and the remote call behind it."""
