"""annorun: learning from several annotators who err, disagree, or both."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from annorun.frame import Fitted, fit

__version__ = "0.1.0"
__all__ = ["Fitted", "fit"]


def __getattr__(name: str) -> Any:
    """Import what `import annorun` leaves out, numpy with it, when it is first asked for."""
    if name not in __all__:
        raise AttributeError(f"module 'annorun' has no attribute {name!r}")
    from annorun import frame

    return getattr(frame, name)
