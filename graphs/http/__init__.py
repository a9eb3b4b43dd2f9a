"""The HTTP gateway: routes, errors, keys and limits."""
