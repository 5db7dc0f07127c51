"""The one exception that means "what you asked for is wrong", as opposed to "we are broken"."""


class ConfigError(ValueError):
    """Faults in a command, a config or an input file, all of them at once.

    Attributes:
        faults: one line each, saying where, what was found and what is allowed.
    """

    def __init__(self, *faults: str):
        super().__init__("\n".join(faults))
        self.faults = list(faults)
