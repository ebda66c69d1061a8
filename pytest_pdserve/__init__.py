"""pytest plugin that stands up prefill/decode serving topologies, measures them and judges them."""
