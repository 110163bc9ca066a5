"""What igcnn raises: each error says the rule, both values and the way out, in one line.

`exit_code` is what the command line ends with (docs/runs.md, "How a run ends").
"""


class IgcnnError(Exception):
    """Base of everything that igcnn raises on purpose."""

    exit_code = 1


class ShapeError(IgcnnError, ValueError):
    """Array shapes that do not fit each other or the operation."""

    exit_code = 2


class DtypeError(IgcnnError, TypeError):
    """An element type that the operation does not take."""

    exit_code = 2


class ConfigError(IgcnnError, ValueError):
    """A setting (network, depth, L, M, flag, output folder) that cannot be carried out."""

    exit_code = 2


class DataError(IgcnnError):
    """A data file that is missing, damaged or not what its name says."""

    exit_code = 3


class MissingDataError(DataError):
    """Data files that are not there; `igcnn data fetch` may bring them."""


class DeviceError(IgcnnError):
    """No such device, or not enough memory on it."""

    exit_code = 4


class KernelError(IgcnnError, RuntimeError):
    """A kernel was launched with what its signature does not take, or did what CUDA forbids."""


class DivergedError(IgcnnError):
    """The loss became NaN or infinite."""

    exit_code = 5


class PreemptedError(IgcnnError):
    """The machine is wanted back (SIGTERM, SIGUSR1, SIGHUP): saved, may be queued again."""

    exit_code = 75


class CheckpointError(IgcnnError):
    """A checkpoint that cannot be read or does not match the network."""

    exit_code = 6


class AutogradError(IgcnnError, RuntimeError):
    """Backward called where no gradient can be computed."""


class PlanError(IgcnnError):
    """A network or a setting for which there is no plan; the plain tape computes it."""


class RankError(IgcnnError):
    """Another rank of a data-parallel run ended or does not answer."""


class RankMismatchError(IgcnnError):
    """The ranks of a data-parallel run have different weights: a bug or a broken machine."""


class ConformanceError(IgcnnError):
    """A library gives other results than the definition of the operation."""
