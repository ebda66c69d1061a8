"""Checks what sessions need on this machine, for ``pdserve doctor``: read-only, takes seconds."""
