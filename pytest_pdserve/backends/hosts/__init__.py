"""What is done on one machine: process groups, ports, facts, versions."""
