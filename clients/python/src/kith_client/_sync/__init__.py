# Made from _async by tools/make_sync.py: change that, and run it again.
"""The synchronous client. It is made from it by tools/make_sync.py."""
