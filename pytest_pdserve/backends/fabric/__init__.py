"""Libraries of the KV transfer that pdserve installs into a folder of its own: LIBFABRIC on CPUs.

A system file asks for them by ``[kv_transfer] libraries``; ``pdserve fabric install`` makes the
folder. They are in front of the paths of that system's instances only.
"""
