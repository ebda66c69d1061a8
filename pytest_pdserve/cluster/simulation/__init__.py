"""A discrete-event model of serving: engines, caches, front ends, links; no process, no network."""
