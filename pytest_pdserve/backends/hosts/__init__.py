"""Manages and examines one machine: process groups, ports, facts, versions."""
