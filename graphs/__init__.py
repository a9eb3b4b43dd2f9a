"""How models are wired and talked to: flows, HTTP, the command."""
