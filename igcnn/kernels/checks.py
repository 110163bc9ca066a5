"""What every kernel asks of its arguments."""

import numpy as np

from ..errors import DtypeError

Array = np.ndarray

FLOATS = {np.dtype(np.float32), np.dtype(np.float64)}


def check_dtypes(name: str, *arrays: Array) -> None:
    """Raise DtypeError unless all arrays are float32, or all float64.

    Args:
        name: the operation, for the message.
        arrays: its arguments.
    """
    dtypes = {array.dtype for array in arrays}
    if len(dtypes) > 1 or not dtypes <= FLOATS:
        names = ", ".join(sorted(map(str, dtypes)))
        raise DtypeError(
            f"{name}: arguments must all be float32 or all float64, not {names}; "
            "convert with astype"
        )
