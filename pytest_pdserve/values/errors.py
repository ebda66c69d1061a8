"""The errors that a user may meet: bad input is a ConfigError, trouble with machines the rest."""

from __future__ import annotations


class PdserveError(Exception):
    """Raised when pdserve cannot do what it was asked; the base of all below."""


class ConfigError(PdserveError):
    """Raised when what the user wrote cannot be used: option, system file, baseline or claim."""


class PlacementError(ConfigError):
    """Raised when a topology does not fit on the nodes, GPUs, ports or memory of its system."""


class AllocationError(PdserveError):
    """Raised when nodes cannot be had, or are lost while they are held."""


class LaunchError(PdserveError):
    """Raised when a process cannot be started, or ends while it is needed."""


class PortTakenError(LaunchError):
    """Raised when a port that was planned for belongs to somebody else; another plan may do."""


class NotReadyError(PdserveError):
    """Raised when a server does not answer within its time."""


class PathError(PdserveError):
    """Raised when requests do not take the path that the topology stands for."""


class TransferError(PdserveError):
    """Raised when a transfer between two nodes fails, brings wrong bytes, or is far too slow."""


class ClientError(PdserveError):
    """Raised when the benchmark client fails, hangs or leaves no result that can be read."""


class ClientUnusableError(ConfigError):
    """Raised when no run of the benchmark client can succeed, such as with another vLLM inside."""


class StuckError(ClientError):
    """Raised when a run hangs because a server with requests makes no token, or does not answer."""


class InstallError(PdserveError):
    """Raised when libraries that pdserve installs cannot be downloaded, built or used."""


class StoreError(PdserveError):
    """Raised when a record, a log or a baseline cannot be written."""


class InvalidRunError(PdserveError):
    """Raised when a run was measured and recorded, but is invalid."""


class BaselineRegression(AssertionError):
    """Raised when a valid run is worse than its envelope or breaks a claim."""
