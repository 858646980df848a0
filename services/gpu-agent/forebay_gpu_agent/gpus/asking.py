"""One question to NVML, and what its errors mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pynvml

Field = int | tuple[int, int]
"""A field of NVML, or a field and its scope (a link)."""

_WORDS: dict[int, str] = {
    value: name.removeprefix("NVML_ERROR_")
    for name, value in vars(pynvml).items()
    if name.startswith("NVML_ERROR_") and isinstance(value, int)
}

_GONE = frozenset(
    {
        pynvml.NVML_ERROR_GPU_IS_LOST,
        pynvml.NVML_ERROR_RESET_REQUIRED,
        pynvml.NVML_ERROR_GPU_NOT_FOUND,
        pynvml.NVML_ERROR_UNINITIALIZED,
        pynvml.NVML_ERROR_DRIVER_NOT_LOADED,
        pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH,
        pynvml.NVML_ERROR_TIMEOUT,
        pynvml.NVML_ERROR_IRQ_ISSUE,
    }
)
"""After these, what else the driver says of this GPU means nothing. Any other error concerns the one value only."""

_VALUES: Mapping[int, str] = {
    pynvml.NVML_VALUE_TYPE_UNSIGNED_INT: "uiVal",
    pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG: "ulVal",
    pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG: "ullVal",
    pynvml.NVML_VALUE_TYPE_SIGNED_LONG_LONG: "sllVal",
    pynvml.NVML_VALUE_TYPE_SIGNED_INT: "siVal",
    pynvml.NVML_VALUE_TYPE_UNSIGNED_SHORT: "usVal",
}
"""Where in the union a whole number of each type lies."""


def word(code: int) -> str:
    """NVML's own name of an error, such as GPU_IS_LOST."""
    return _WORDS.get(code, f"ERROR_{code}")


def ask(question: Callable[..., Any], *about: Any) -> Any:
    """The driver's answer; None when it has none (a value that this GPU does not know, a function that an older driver does
    not have). Raises NVMLError when the GPU is gone."""
    try:
        return question(*about)
    except pynvml.NVMLError as error:
        if error.value in _GONE:
            raise
        return None
    except ValueError:  # a name that is no text
        return None


def ask_text(question: Callable[..., Any], *about: Any) -> str:
    """Empty when there is no answer."""
    told = ask(question, *about)
    return told if isinstance(told, str) else ""


def ask_fields(handle: Any, fields: Sequence[Field]) -> tuple[int | None, ...]:
    """The value of each field, None for those that this GPU or this driver does not have."""
    told = ask(pynvml.nvmlDeviceGetFieldValues, handle, list(fields))
    if told is None:
        return (None,) * len(fields)
    return tuple(_field(one) for one in told)


def _field(told: Any) -> int | None:
    if told.nvmlReturn in _GONE:
        raise pynvml.NVMLError(told.nvmlReturn)
    if told.nvmlReturn != pynvml.NVML_SUCCESS or told.valueType not in _VALUES:
        return None
    return int(getattr(told.value, _VALUES[told.valueType]))
