"""What every kernel asks of its arguments."""

import numpy as np

from ..backend import device_of
from ..errors import DeviceError, DtypeError

Array = np.ndarray

FLOATS = {np.dtype(np.float32), np.dtype(np.float64)}


def check_arrays(operation: str, *arrays: Array) -> None:
    """Raise unless all arrays are float32, or all float64, and on one device.

    Args:
        operation: its name, for the message.
        arrays: its arguments.

    Raises:
        DtypeError: they have other element types, or several.
        DeviceError: they are on several devices.
    """
    check_dtypes(operation, *arrays)
    check_devices(operation, *arrays)


def check_dtypes(operation: str, *arrays: Array) -> None:
    """Raise DtypeError unless all arrays are float32, or all float64."""
    dtypes = {array.dtype for array in arrays}
    if len(dtypes) > 1 or not dtypes <= FLOATS:
        names = ", ".join(sorted(map(str, dtypes)))
        raise DtypeError(
            f"{operation}: arguments must all be float32 or all float64, not {names}; "
            "convert with astype"
        )


def check_devices(operation: str, *arrays: Array) -> None:
    """Raise DeviceError unless all arrays are on one device."""
    if all([type(array) is np.ndarray for array in arrays]):  # on the CPU, as mostly
        return
    devices = sorted({device_of(array) for array in arrays})
    if len(devices) > 1:
        raise DeviceError(
            f"{operation}: arguments must all be on one device, not on {' and '.join(devices)}; "
            "move them with to_device, or a network with its method to"
        )
