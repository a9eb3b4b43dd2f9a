"""Serve deployments: life cycle, batching, health. One plain class each; imports engines only."""
