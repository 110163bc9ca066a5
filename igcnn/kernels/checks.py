"""What every kernel asks of its arguments."""

import numpy as np

from ..backend import device_of
from ..errors import DeviceError, DtypeError

Array = np.ndarray


def check_arrays(operation: str, *arrays: Array) -> None:
    """Raise unless all arrays are float32, or all float64, and on one device.

    Args:
        operation: its name, for the message.
        arrays: its arguments.

    Raises:
        DtypeError: they have other element types, or several.
        DeviceError: they are on several devices.
    """
    dtypes = sorted({str(array.dtype) for array in arrays})
    if dtypes not in (["float32"], ["float64"]):
        raise DtypeError(
            f"{operation}: arguments must all be float32 or all float64, not {', '.join(dtypes)}; "
            "convert with astype"
        )
    devices = sorted({device_of(array) for array in arrays})
    if len(devices) > 1:
        raise DeviceError(
            f"{operation}: arguments must all be on one device, not on {' and '.join(devices)}; "
            "move them with to_device, or a network with its method to"
        )
