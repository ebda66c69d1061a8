"""Errors for users: a ConfigError for bad input, others for trouble with machines."""

from __future__ import annotations


class PdserveError(Exception):
    """Base class of errors of pdserve."""


class ConfigError(PdserveError):
    """Raised when an option, a system file, a baseline or a claim is invalid."""


class PlacementError(ConfigError):
    """Raised when a topology does not fit on the nodes, GPUs, ports or memory of a system."""


class AllocationError(PdserveError):
    """Raised when nodes cannot be acquired, or are lost."""


class LaunchError(PdserveError):
    """Raised when a process cannot be started, or ends too early."""


class PortTakenError(LaunchError):
    """Raised when a planned port is in use by another program; another plan may succeed."""


class NotReadyError(PdserveError):
    """Raised when a server is not ready in time."""


class PathError(PdserveError):
    """Raised when requests fail, or do not take the topology's path."""


class TransferError(PdserveError):
    """Raised when a transfer between two nodes fails, has wrong bytes, or is far too slow."""


class ClientError(PdserveError):
    """Raised when the benchmark client fails, hangs, or writes no readable result."""


class ClientUnusableError(ConfigError):
    """Raised when no run of the benchmark client can succeed, e.g. if vLLM cannot be imported."""


class StuckError(ClientError):
    """Raised when a run hangs because a server with requests is stalled or does not answer."""


class InstallError(PdserveError):
    """Raised when software that pdserve installs cannot be downloaded, built or used."""


class StoreError(PdserveError):
    """Raised when a record, a log or a baseline cannot be written."""


class InvalidRunError(PdserveError):
    """Raised when a run was measured and recorded, but is invalid."""


class BaselineRegression(AssertionError):
    """Raised when a valid run is worse than its baseline allows, or violates a claim."""
