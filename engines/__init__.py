"""Pure model code: arrays in, dataclasses out."""
