"""Libraries for KV transfer with LIBFABRIC on CPUs, which pdserve installs into its own folder.

A system file requests them by ``[kv_transfer] libraries``; ``pdserve fabric install`` creates the
folder. They come first in the library paths of that system's instances only.
"""
