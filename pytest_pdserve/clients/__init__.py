"""The benchmark client ``precise``, which uses the kernel's receive times, and vLLM's client."""
