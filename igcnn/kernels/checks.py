"""What every kernel asks of its arguments."""

import numpy as np

from ..errors import DtypeError

Array = np.ndarray


def check_dtypes(name: str, *arrays: Array) -> None:
    """Raise DtypeError unless all arrays are float32, or all float64.

    Args:
        name: the operation, for the message.
        arrays: its arguments.
    """
    dtypes = sorted({str(array.dtype) for array in arrays})
    if dtypes not in (["float32"], ["float64"]):
        raise DtypeError(
            f"{name}: arguments must all be float32 or all float64, not {', '.join(dtypes)}; "
            "convert with astype"
        )
