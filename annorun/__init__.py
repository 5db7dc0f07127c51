"""annorun: learning from several annotators who err, disagree, or both."""

__version__ = "0.1.0"
